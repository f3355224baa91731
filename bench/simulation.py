"""How many box-hours of a lab one second plays: the real scheduler, lobby, store and journal.

A box-hour is an hour of one fake box under iPXE's rules, in virtual time; a second is one of the
wall, in which each core plays a seed of its own, as the tests do.  All that the tests check is
checked here: safety on every change, liveness when the weather has calmed.

A lab at work: 300 boxes for 15 to 20 hours, 300 jobs of a minute to 40 minutes, its weather drawn
from the seed: boxes lose power, hang up, fetch twice or too slowly, panic and report late; server
and disk fail up to three times an hour, and the server starts again from what the disk holds
(tests/simulation/lab.py, WORKING).  Its iPXE waits in silence (facts of Debian 13's), so a parked
box costs two questions an hour and one comment line in each.

Beside it the worst: four boxes, each with a power cut each half hour, and a server that dies every
ten minutes; by hand, and through Hypercorn and Quart.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from bench.table import Row
from tests.simulation.lab import WORKING, Report, Size
from tests.simulation.seeds import on_all_cores

WORKING_SEEDS: Final = range(3000, 3008)
SEEDS: Final = range(1000, 1040)
WEB_SEEDS: Final = range(2000, 2012)
DIRECT_AIM: Final = 1000.0  # box-hours a second
WEB_AIM: Final = 30.0
# What must have happened in the lab at work, or it was none.
HAPPENED: Final = ("the server died", "a box lost power", "lapse", "end success", "re-chain")

_Play = Callable[[Iterable[int], Size], Iterator[Report]]


def rows() -> list[Row]:
    """The doors called by hand, and the whole stack."""
    with on_all_cores() as play:
        working = _speed(play, WORKING_SEEDS, WORKING, HAPPENED)
        direct = _speed(play, SEEDS, Size())
        web = _speed(play, WEB_SEEDS, Size(http=True))
    return [
        _row("simulation, box-hours/s", working, DIRECT_AIM, f"worst: {direct:,.0f}", direct),
        _row("simulation through HTTP", web, WEB_AIM, f"by hand: {direct:,.0f}", direct),
    ]


def _speed(play: _Play, seeds: range, size: Size, happened: Iterable[str] = ()) -> float:
    """Raises LookupError where the seeds have none of what must have happened."""
    sometimes: Counter[str] = Counter()
    hours, began = 0.0, time.perf_counter()
    for report in play(seeds, size):
        hours += report.box_hours
        sometimes.update(report.sometimes)
    took = time.perf_counter() - began
    if missing := [what for what in happened if not sometimes[what]]:
        raise LookupError(f"never happened: {', '.join(missing)}")
    return hours / took


def _row(what: str, ours: float, aim: float, peer: str, other: float) -> Row:
    return Row(what, f"{ours:,.0f}", peer, f"{ours / other:.2f}", f"{aim:,.0f}", ours >= aim)
