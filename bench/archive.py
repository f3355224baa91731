"""job.cgz of a small job: our packer against what everybody would type."""

from __future__ import annotations

import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from appliance.boot.script import cgz
from bench.table import Row

RUNS: Final = 40
# About what a real job weighs: docs/wire.md#jobcgz.
_FILES: Final = {
    "lkp/scheduled/job.sh": b"".join(
        b"\texport field_%d='value %d'\n" % (n, n) for n in range(120)
    ),
    "lkp/scheduled/job.yaml": b"".join(b"field_%d: value %d\n" % (n, n) for n in range(120)),
    "lkp/scheduled/script": b"#!/bin/sh\necho hello\n" * 20,
}
_SHELL: Final = "find . | cpio -o -H newc --quiet | gzip"
AIM: Final = 20.0


def rows() -> list[Row]:
    """The one row."""
    entries = [cgz.Entry(path, data, 0o100664) for path, data in _FILES.items()]
    with tempfile.TemporaryDirectory() as folder:
        for path, data in _FILES.items():
            target = Path(folder, path)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)

        def shell() -> None:
            subprocess.run(["sh", "-c", _SHELL], cwd=folder, stdout=subprocess.DEVNULL, check=True)

        ours, theirs = [], []
        for _ in range(RUNS):  # alternating: a busy moment hits both
            ours.append(_seconds(lambda: cgz.pack(entries)))
            theirs.append(_seconds(shell))
    mine, peer = statistics.median(ours), statistics.median(theirs)
    return [
        Row(
            "job.cgz of a small job",
            f"{mine * 1000:.2f} ms",
            f"`find \\| cpio \\| gzip`: {peer * 1000:.1f} ms",
            f"{peer / mine:.0f} times faster",
            f"{AIM:.0f} times",
            peer / mine >= AIM,
        )
    ]


def _seconds(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began
