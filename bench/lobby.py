"""A lab full of idle boxes: how soon one of them gets a job, and what each costs in memory."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import process
from bench.parked import Boxes
from bench.table import Row, median_and_p99, percentile

BOXES: Final = 3000
SUBMITS: Final = 500
MEDIAN_S: Final = 0.005
P99_S: Final = 0.025
BOX_BYTES: Final = 25_000
SETTLE_S: Final = 2.0  # after thousands of connections, before memory and times are taken


def rows() -> list[Row]:
    """Hand-over with one box and with many, and memory."""
    with (
        tempfile.TemporaryDirectory() as folder,
        process.appliance(Path(folder)) as server,
        contextlib.closing(Boxes(server, SUBMITS)) as few,
    ):
        few.register()
        few.park()
        # A store, a journal and Python's memory that have seen work before are the baseline.
        alone = [few.hand_over() for _ in range(SUBMITS)]
    with (
        tempfile.TemporaryDirectory() as folder,
        process.appliance(Path(folder)) as server,
        contextlib.closing(Boxes(server, BOXES)) as boxes,
    ):
        before = server.resident_bytes()
        boxes.register()
        registered = server.resident_bytes()
        boxes.park()
        time.sleep(SETTLE_S)
        each = (server.resident_bytes() - before) / BOXES
        known = (registered - before) / BOXES
        crowded = [boxes.hand_over() for _ in range(SUBMITS)]
    good = statistics.median(crowded) < MEDIAN_S and percentile(crowded, 99) < P99_S
    return [
        Row(
            f"submit to first script byte, {BOXES:,} boxes parked",
            median_and_p99(crowded),
            f"{SUBMITS} parked: {median_and_p99(alone)}",
            f"{statistics.median(crowded) / statistics.median(alone):.2f}",
            f"{MEDIAN_S * 1000:.0f} ms, p99 {P99_S * 1000:.0f} ms",
            good,
        ),
        Row(
            "resident memory per parked box",
            f"{each / 1000:.1f} kB",
            f"known, not parked: {known / 1000:.1f} kB",
            f"{each / BOX_BYTES:.2f} of the aim",
            f"{BOX_BYTES / 1000:.0f} kB",
            each < BOX_BYTES,
        ),
    ]
