"""One seed, one history.

Trio shuffles each batch of runnable tasks with a Random of its own, and sorts the batch first only
in its "Hypothesis mode".  Both names are private to Trio; they are touched in this file only, and
`test_determinism` is the canary.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import structlog
import trio
from trio._core import _run as trio_run

# Python looks for garbage in circles after every 700 new objects by default, and a parked box is
# some hundred that stay: a seventh of a run's time.
GC_THRESHOLDS: Final = (50_000, 20, 100)

TAIL_LINES: Final = 40  # of a trace, with a failure
LINE_MAX: Final = 300  # characters of each
IDLE_MAX: Final = 1000  # turns of the loop in which nothing can happen; Trio's own need two


def run(seed: int, main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """`trio.run` in virtual time, with every choice of Trio's drawn from `seed`."""
    with _sorted_and_seeded(seed), _silent_log(), _little_garbage():
        return trio.run(main, *args, clock=Jumping())


class Jumping(trio.abc.Clock):
    """Time goes on when all tasks wait, to the next deadline at once.

    MockClock looks for that moment by a turn of the loop in which nothing happens, with a census of
    the tasks; that is for programs with threads and sockets, and half of the time of one without.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._idle = 0

    def start_clock(self) -> None:
        """It begins at zero."""

    def current_time(self) -> float:
        """Seconds since the run began."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks this when no task can run: then it is time for the next that can."""
        if deadline == math.inf:  # only Trio's own tasks, when it begins and ends
            self._idle += 1
            assert self._idle < IDLE_MAX, "nobody waits for a moment: nothing will ever happen"
            return 0.0
        self._idle = 0
        self._now = max(self._now, deadline)
        return 0.0


@contextlib.contextmanager
def _little_garbage() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(*GC_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextlib.contextmanager
def _sorted_and_seeded(seed: int) -> Iterator[None]:
    sorts, shuffles = trio_run._ALLOW_DETERMINISTIC_SCHEDULING, trio_run._r.getstate()
    trio_run._ALLOW_DETERMINISTIC_SCHEDULING = True  # type: ignore[misc] # Final, to everybody else
    trio_run._r.seed(seed)
    try:
        yield
    finally:
        trio_run._ALLOW_DETERMINISTIC_SCHEDULING = sorts  # type: ignore[misc]
        trio_run._r.setstate(shuffles)


@contextlib.contextmanager
def _silent_log() -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def child(rng: random.Random) -> random.Random:
    """A Random of one's own, so that a draw more in one place shifts nothing elsewhere."""
    return random.Random(rng.getrandbits(64))


class Trace:
    """A digest of what happened, and its last lines."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._tail: deque[tuple[float, object]] = deque(maxlen=TAIL_LINES)

    def note(self, at: float, what: object) -> None:
        """One line of it."""
        self._digest.update(f"{at:.6f} {what!r}\n".encode())
        self._tail.append((at, what))

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(f"{at:11.3f} {what!r}"[:LINE_MAX] for at, what in self._tail)

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._digest.hexdigest()
