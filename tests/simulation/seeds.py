"""Many seeds: each run keeps one core busy, so as many processes as there are cores play them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.lab import Report, Size, simulate


def play(seed: int, size: Size = Size(), again: str = "") -> Report:  # noqa: B008 - frozen
    """One run; a failure names the seed and how to see it again, and has the last changes."""
    try:
        return simulate(seed, size)
    except BaseException as error:
        again = again or f"SIM_SEED={seed} pytest tests/test_simulation.py -k new_seeds"
        error.add_note(f"seed {seed}{', HTTP' if size.http else ''}; again: {again}")
        raise


def _here(number: int) -> int:
    """Whoever answers is up, and has all modules."""
    return number


@contextlib.contextmanager
def on_all_cores() -> Iterator[Callable[[Iterable[int], Size], Iterator[Report]]]:
    """A `play` for many seeds: reports in their order, the first failure is raised here."""
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(_here, range(cores)))

        def play_all(seeds: Iterable[int], size: Size) -> Iterator[Report]:
            seeds = list(seeds)
            return pool.map(play, seeds, [size] * len(seeds))

        yield play_all
