"""One seed, one history, and as little time of ours as may be for each turn of Trio's loop.

Trio shuffles each batch of runnable tasks with a Random of its own, and sorts the batch first only
in its "Hypothesis mode".  These names, and that of what waits for sockets, are private to Trio;
they are touched in this file only, and `test_determinism` is the canary.
"""

from __future__ import annotations

import contextlib
import gc
import hashlib
import heapq
import itertools
import logging
import math
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from unittest import mock

import structlog
import trio
from trio._core import _run as trio_run

# Python looks for garbage in circles after every 700 new objects by default, and a parked box is
# some hundred that stay: a seventh of a run's time.
GC_THRESHOLDS: Final = (50_000, 20, 100)

TAIL_LINES: Final = 40  # of a trace, with a failure
LINE_MAX: Final = 300  # characters of each
IDLE_S: Final = 0.001  # of real time, until Trio's own wake each other by a socket
IDLE_MAX: Final = 1000  # turns of the loop in which nothing can happen; Trio's own need two


def run(seed: int, main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """`trio.run` in virtual time, with every choice of Trio's drawn from `seed`."""
    with _sorted_and_seeded(seed), _no_sockets(), _silent_log(), _little_garbage():
        return trio.run(main, *args, clock=Jumping())


class Jumping(trio.abc.Clock):
    """Time goes on when all tasks wait, to the next deadline at once.

    MockClock looks for that moment by a turn of the loop in which nothing happens, with a census of
    the tasks; that is for programs with threads and sockets, and half of the time of one without.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._idle = 0
        self._sleepers: list[tuple[float, int, list[trio.lowlevel.Task]]] = []  # a heap
        self._order = itertools.count()

    def start_clock(self) -> None:
        """It begins at zero."""

    def current_time(self) -> float:
        """Seconds since the run began."""
        return self._now

    def deadline_to_sleep_time(self, deadline: float) -> float:
        """Trio asks this when no task can run: then it is time for the next that can."""
        deadline = min(deadline, self._sleepers[0][0]) if self._sleepers else deadline
        if deadline == math.inf:  # only Trio's own tasks, when it begins and ends
            self._idle += 1
            assert self._idle < IDLE_MAX, "nobody waits for a moment: nothing will ever happen"
            return IDLE_S
        self._idle = 0
        self._now = max(self._now, deadline)
        while self._sleepers and self._sleepers[0][0] <= self._now:
            for task in heapq.heappop(self._sleepers)[2]:
                trio.lowlevel.reschedule(task)
        return 0.0

    async def sleep_until(self, moment: float) -> None:
        """As trio's, for one who asks by `sleep`."""
        sleeper = [trio.lowlevel.current_task()]
        heapq.heappush(self._sleepers, (moment, next(self._order), sleeper))

        def abort(_: Any) -> trio.lowlevel.Abort:
            sleeper.clear()
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


async def sleep(seconds: float) -> None:
    """`trio.sleep`, but for its cancel scope and its exception: a third of the time of both."""
    clock = trio.lowlevel.current_clock()
    assert isinstance(clock, Jumping)
    if seconds <= 0:
        await trio.lowlevel.checkpoint()
    else:
        await clock.sleep_until(clock.current_time() + seconds)


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


class _NoSockets(trio_run.TheIOManager):
    """Nobody but Trio has a socket here, so the kernel need not be asked each turn."""

    def get_events(self, timeout: float) -> Any:
        """Where a turn follows at once, there are none."""
        return super().get_events(timeout) if timeout else ()


@contextlib.contextmanager
def _no_sockets() -> Iterator[None]:
    with mock.patch.object(trio_run, "TheIOManager", _NoSockets):
        yield


@contextlib.contextmanager
def _silent_log() -> Iterator[None]:
    silent = structlog.wrap_logger(
        None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
    ).bind()

    def bind(proxy: Any) -> Any:
        return silent

    # Else each line makes its logger anew.
    with mock.patch.object(type(structlog.get_logger()), "bind", bind):
        yield


def child(rng: random.Random) -> random.Random:
    """A Random of one's own, so that a draw more in one place shifts nothing elsewhere."""
    return random.Random(rng.getrandbits(64))


class Trace:
    """A digest of what happened: every change's kind and moment, and every byte for a disk."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._tail: deque[tuple[float, object]] = deque(maxlen=TAIL_LINES)

    def note(self, at: float, what: object) -> None:
        """One change."""
        self._digest.update(f"{at:.6f} {type(what).__name__}\n".encode())
        self._tail.append((at, what))

    def wrote(self, name: str, data: bytes | memoryview) -> None:
        """These bytes go to the end of that file."""
        self._digest.update(name.encode())
        self._digest.update(data)

    @property
    def tail(self) -> str:
        """The last lines."""
        return "\n".join(f"{at:11.3f} {what!r}"[:LINE_MAX] for at, what in self._tail)

    @property
    def digest(self) -> str:
        """Of all so far."""
        return self._digest.hexdigest()
