"""Matching under load: a queue that nobody can serve, boxes that have nothing to do, and one submit
that fits.  In one process, on a real disk, from the submit to the script in the seat."""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

import attrs
import structlog
import trio

from appliance.config import Config, Limits, Network
from appliance.jobs import box as boxes
from appliance.jobs.box import Identity
from appliance.jobs.changes import Change, Pinned, Submitted
from appliance.jobs.documents.document import Document
from appliance.keep.archive import Archive
from appliance.keep.state import journal as journals
from appliance.keep.state.disk import StateFolder
from appliance.scheduler import archiver, dispatch, intake, reaper
from appliance.scheduler.clock import Clock
from appliance.scheduler.intake import Paper
from appliance.scheduler.scheduler import Scheduler
from bench.table import Row, median_and_p99, percentile

QUEUED: Final = 100_000
PARKED: Final = 5_000
SUBMITS: Final = 300
AIM_S: Final = 0.005
SETTLE_S: Final = 1.0
_IMAGE: Final = Pinned("/os/k", ("/os/i",), "/os/x", "6.1")


class _Images:
    async def pin(self, document: Document) -> Pinned:
        return _IMAGE

    async def missing(self, pinned: Pinned) -> list[str]:
        return []


def rows() -> list[Row]:
    """The one row."""
    quiet = structlog.make_filtering_bound_logger(logging.ERROR)
    structlog.configure(wrapper_class=quiet)  # a line for each script is not the measurement
    with tempfile.TemporaryDirectory() as folder:
        empty = trio.run(_measure, Path(folder, "empty"), 0, SUBMITS)
        full = trio.run(_measure, Path(folder, "full"), QUEUED, PARKED)
    return [
        Row(
            f"submit to hand-over, {QUEUED:,} queued, {PARKED:,} parked",
            median_and_p99(full),
            f"none queued, {SUBMITS} parked: {median_and_p99(empty)}",
            f"{statistics.median(full) / statistics.median(empty):.2f}",
            f"{AIM_S * 1000:.0f} ms",
            percentile(full, 50) < AIM_S,
        )
    ]


async def _measure(folder: Path, queued: int, parked: int) -> list[float]:
    disk, archive = StateFolder(folder), Archive.of_folder(folder)
    store, journal = await journals.restore(disk)
    config = Config(
        network=Network(address="10.0.0.1", check_neighbour=False),
        limits=Limits(boots_in_flight=10**6),
    )
    tokens = iter(map(str, range(10**9)))
    scheduler = Scheduler(
        config, store, journal, archive, _Images(),
        clock=Clock.of_this_run(), token=lambda: next(tokens),
    )  # fmt: skip
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.serve)
        await nursery.start(dispatch.hand_over, scheduler)
        await nursery.start(reaper.reap, scheduler)
        await nursery.start(archiver.file, scheduler)
        await _fill(scheduler, queued, parked)
        while store.unfiled(1):  # noqa: ASYNC110 # the archive tells nobody; this is a benchmark
            await trio.sleep(SETTLE_S)
        await trio.sleep(SETTLE_S)
        taken = [await _one(scheduler, n) for n in range(SUBMITS)]
        nursery.cancel_scope.cancel()
    archive.close()
    disk.close()
    return taken


async def _fill(scheduler: Scheduler, queued: int, parked: int) -> None:
    if queued:
        paper = Paper("job.yaml", "script: x\ntags: [none-has-it]\n")
        (first,) = await intake.submit(scheduler, [paper], "ann", "thefirst")
        changes: list[Change] = []
        for n in range(2, queued + 1):
            job = attrs.evolve(
                first, id=f"lab.{n}", number=n, submitter=f"person-{n % 50}", key=f"key{n:06}"
            )
            changes.append(Submitted(job))
        await scheduler.durable(scheduler.change(changes))
    for n in range(parked):
        mac = f"52:54:00:{n // 65536:02x}:{n // 256 % 256:02x}:{n % 256:02x}"
        facts = boxes.facts(f"box-{n}", {"mac": [mac], "arch": "x86_64"}, "default")
        scheduler.change(scheduler.known(facts))
        scheduler.sit(Identity(mac, f"10.0.{n // 256}.{n % 256}"), "10.0.0.1")


async def _one(scheduler: Scheduler, n: int) -> float:
    began = time.perf_counter()
    paper = Paper("job.yaml", "script: x\n")
    (job,) = await intake.submit(scheduler, [paper], "bob", f"bobskey{n:05}")
    while True:
        attempt = scheduler.store.jobs[job.id].attempt
        assert attempt is not None
        if scheduler.lobby.seat(attempt.box) is None:  # it has its script
            return time.perf_counter() - began
        await trio.lowlevel.checkpoint()
