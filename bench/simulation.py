"""How many box-hours of a lab one second plays: the real scheduler, lobby, store and journal.

A lab at work: 300 boxes for 15 hours, 300 jobs, its weather drawn from the seed, and each fault at
most as often as in a bad lab (tests/simulation/lab.py, WORKING).  Its iPXE waits in silence, so a
parked box costs two questions an hour; what comes beside is the worst: four boxes, a power cut each
half hour and a server that dies every ten minutes, by hand and through Hypercorn and Quart.
"""

from __future__ import annotations

import time
from typing import Final

from bench.table import Row
from tests.simulation.lab import WORKING, Size, simulate

WORKING_SEEDS: Final = range(3000, 3003)
SEEDS: Final = range(1000, 1020)
WEB_SEEDS: Final = range(2000, 2006)
DIRECT_AIM: Final = 1000.0  # box-hours a second
WEB_AIM: Final = 30.0


def rows() -> list[Row]:
    """The doors called by hand, and the whole stack."""
    working = _speed(WORKING_SEEDS, WORKING)
    direct = _speed(SEEDS, Size())
    web = _speed(WEB_SEEDS, Size(http=True))
    return [
        _row("simulation, box-hours/s", working, DIRECT_AIM, f"worst: {direct:,.0f}", direct),
        _row("simulation through HTTP", web, WEB_AIM, f"by hand: {direct:,.0f}", direct),
    ]


def _speed(seeds: range, size: Size) -> float:
    began = time.perf_counter()
    hours = sum(simulate(seed, size).box_hours for seed in seeds)
    return hours / (time.perf_counter() - began)


def _row(what: str, ours: float, aim: float, peer: str, other: float) -> Row:
    return Row(what, f"{ours:,.0f}", peer, f"{ours / other:.2f}", f"{aim:,.0f}", ours >= aim)
