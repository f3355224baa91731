"""One large file to 1 and to 16 clients, against nginx with sendfile; and whether a parked box
still gets its job quickly while 16 of them load."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import process, reader
from bench.parked import Boxes, parked
from bench.table import Row, median_and_p99

SIZE: Final = 200 * 2**20
RUNS: Final = 9
HAND_OVERS: Final = 100
BETWEEN_S: Final = 0.05
RATIO: Final = 0.9
HAND_OVER_S: Final = 0.025
_URL: Final = "/os/large"


def rows() -> list[Row]:
    """Throughput at 1 and 16 clients, then the hand-over under load."""
    with (
        tempfile.TemporaryDirectory() as ours,
        tempfile.TemporaryDirectory() as theirs,
        process.appliance(Path(ours)) as server,
    ):
        large = server.srv / "os/large"
        large.write_bytes(os.urandom(SIZE))
        with process.nginx(Path(theirs), server.srv) as nginx:
            rates = [_row(server.ports[1], nginx, large, clients) for clients in (1, 16)]
        return [*rates, _hand_over(server)]


def _row(ours: int, nginx: int, large: Path, clients: int) -> Row:
    taken: dict[int, list[float]] = {ours: [], nginx: []}
    for run in range(RUNS):
        _warm(large)
        # Taking turns, and who begins changes: a busy moment of the machine hits both.
        for port in (ours, nginx) if run % 2 else (nginx, ours):
            taken[port].append(reader.seconds(port, _URL, SIZE, clients))
    mine, peer = (statistics.median(taken[port]) for port in (ours, nginx))
    return Row(
        f"200 MiB file, {clients} client{'s' * (clients > 1)}",
        _rate(clients, mine),
        f"nginx, sendfile: {_rate(clients, peer)}",
        f"{peer / mine:.2f}",
        f"{RATIO}",
        peer / mine >= RATIO,
    )


def _hand_over(server: process.Appliance) -> Row:
    with parked(server, 2 * HAND_OVERS) as boxes:
        quiet = _hand_overs(boxes)
        with reader.load(server.ports[1], _URL, SIZE, 16):
            loaded = _hand_overs(boxes)
    return Row(
        "submit to first script byte while 16 clients load",
        median_and_p99(loaded),
        f"while none does: {median_and_p99(quiet)}",
        f"{statistics.median(loaded) / statistics.median(quiet):.1f}",
        f"{HAND_OVER_S * 1000:.0f} ms",
        statistics.median(loaded) < HAND_OVER_S,
    )


def _hand_overs(boxes: Boxes) -> list[float]:
    taken = []
    for _ in range(HAND_OVERS):
        time.sleep(BETWEEN_S)
        taken.append(boxes.hand_over())
    return taken


def _warm(path: Path) -> None:
    """Both serve from memory: that is what many boxes with one image do."""
    with path.open("rb") as file:
        while file.read(2**20):
            pass


def _rate(clients: int, seconds: float) -> str:
    return f"{clients * SIZE / seconds / 1e6:,.0f} MB/s"
