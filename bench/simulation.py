"""How many hours of a whole lab in its worst weather one second plays."""

from __future__ import annotations

import time
from typing import Final

from bench.table import Row
from tests.simulation.lab import Size, simulate

SEEDS: Final = range(1000, 1020)
WEB_SEEDS: Final = range(2000, 2006)
DIRECT_AIM: Final = 1000.0  # box-hours a second
WEB_AIM: Final = 30.0


def rows() -> list[Row]:
    """The doors called by hand, and the same weather through Hypercorn and Quart."""
    direct = _speed(SEEDS, Size())
    web = _speed(WEB_SEEDS, Size(http=True))
    return [
        _row("simulation, box-hours a second", direct, DIRECT_AIM, f"HTTP: {web:,.0f}", web),
        _row("simulation through HTTP", web, WEB_AIM, f"by hand: {direct:,.0f}", direct),
    ]


def _speed(seeds: range, size: Size) -> float:
    began = time.perf_counter()
    hours = sum(simulate(seed, size).box_hours for seed in seeds)
    return hours / (time.perf_counter() - began)


def _row(what: str, ours: float, aim: float, peer: str, other: float) -> Row:
    return Row(what, f"{ours:,.0f}", peer, f"{ours / other:.2f}", f"{aim:,.0f}", ours >= aim)
