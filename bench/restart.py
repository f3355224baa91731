"""A start with a full house: 100,000 jobs wait, and a million are over and in the archive.

Against the same start with an empty archive, on the same file system, taking turns: what is over
must cost neither time nor memory.
"""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import attrs
import trio

from appliance.config import Defaults
from appliance.jobs import decisions
from appliance.jobs.changes import Job, Moment, Pinned
from appliance.jobs.documents import document
from appliance.jobs.job import Finished
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file
from appliance.keep.state import records, replay
from appliance.keep.state.disk import StateFolder
from bench import process
from bench.process import IMAGE, KERNEL
from bench.submits import FOLDER
from bench.table import Row

QUEUED: Final = 100_000
OVER: Final = 1_000_000
RUNS: Final = 3
AIM_S: Final = 5.0
AIM_BYTES: Final = 2048  # of a job that waits (issue: its matching record)
MOST: Final = 1.1  # times as long, or as large, with the archive as without it
_BATCH: Final = 5000
_TEXT: Final = "suite: bench\nscript: |\n" + "  make -j8 something\n" * 30
_DOCUMENT: Final = document.parse(_TEXT, "bench.yaml", Defaults())
_BARE: Final = attrs.evolve(_DOCUMENT, body=None)
_PINNED: Final = Pinned(
    f"/{IMAGE}/boot/vmlinuz-{KERNEL}",
    (f"/{IMAGE}/boot/initramfs.lkp-{KERNEL}.img", f"/{IMAGE}/boot/modules-{KERNEL}.cgz"),
    f"/{IMAGE}",
    KERNEL,
)


def rows() -> list[Row]:
    """Time from exec to open doors, and memory, with and without what is over."""
    with contextlib.ExitStack() as stack:
        folders = [
            Path(stack.enter_context(tempfile.TemporaryDirectory(dir=FOLDER, prefix=".bench-")))
            for _ in range(3)
        ]
        for folder, queued, over in zip(folders, (0, QUEUED, QUEUED), (0, 0, OVER), strict=True):
            (folder / "state").mkdir()
            trio.run(_fill, folder / "state", queued, over)
        starts: list[list[process.Appliance]] = [[], [], []]
        sizes: list[list[int]] = [[], [], []]
        for _ in range(RUNS):
            for folder, started, size in zip(folders, starts, sizes, strict=True):
                with process.appliance(folder) as server:
                    started.append(server)
                    time.sleep(1.0)
                    size.append(server.resident_bytes())
    _, without, with_ = (statistics.median(one.start_s for one in several) for several in starts)
    empty, small, large = (statistics.median(several) for several in sizes)
    each = (small - empty) / QUEUED
    return [
        Row(
            f"start, {QUEUED:,} jobs wait, {OVER:,} are over",
            f"{with_:.1f} s",
            f"none are over: {without:.1f} s",
            f"{with_ / without:.2f}",
            f"under {AIM_S:.0f} s, at most {MOST}",
            with_ < AIM_S and with_ / without <= MOST,
        ),
        Row(
            "memory then",
            f"{large / 2**20:.0f} MB",
            f"none are over: {small / 2**20:.0f} MB",
            f"{large / small:.2f}",
            f"at most {MOST}",
            large / small <= MOST,
        ),
        Row(
            "memory for each job that waits",
            f"{each:,.0f} bytes",
            "",
            "",
            f"under {AIM_BYTES:,}",
            each < AIM_BYTES,
        ),
    ]


async def _fill(state: Path, queued: int, over: int) -> None:
    waiting = range(over + 1, over + queued + 1)
    with contextlib.closing(archive_file.connect(state / archive_file.NAME)) as connection:
        for numbers in _batches(range(1, over + 1)):
            jobs = (_job(n) for n in numbers)
            ended = Finished("success", "", None)
            archive.take(connection, [attrs.evolve(job, state=ended, finished=job.submitted)
                                      for job in jobs])  # fmt: skip
        for numbers in _batches(waiting):
            assert _DOCUMENT.body is not None
            archive.file_bodies(connection, [(n, _DOCUMENT.body) for n in numbers])
    store = Store({job.id: job for job in map(_job, waiting)}, {}, over + queued, "", over)
    with contextlib.closing(StateFolder(state)) as disk:
        image = records.image_of(store, 0)
        await disk.replace(replay.snapshot_name(1), records.snapshot(image))


def _batches(numbers: range) -> Iterable[range]:
    return (numbers[n : n + _BATCH] for n in range(0, len(numbers), _BATCH))


def _job(number: int) -> Job:
    at, name, who = 1.8e9 + number, f"bench.{number}", f"user{number % 50}"
    root = decisions.result_root(_DOCUMENT, name, at)
    history = (Moment(at, "submit", f"submitted by {who}"),)
    key = f"{number:032x}"
    return Job(name, number, "bench.yaml", _BARE, who, key, at, _PINNED, root, history=history)
