"""One seed, one history.

Trio shuffles each batch of runnable tasks with a Random of its own, and sorts the batch first only
in its "Hypothesis mode".  Both names are private to Trio; they are touched in this file only, and
`test_determinism` is the canary.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import structlog
import trio
from trio._core import _run as trio_run
from trio.testing import MockClock


def run(seed: int, main: Callable[..., Awaitable[Any]], *args: Any) -> Any:
    """`trio.run` in virtual time, with every choice of Trio's drawn from `seed`."""
    with _sorted_and_seeded(seed), _silent_log():
        return trio.run(main, *args, clock=MockClock(autojump_threshold=0))


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
    """A digest of what happened."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    def note(self, at: float, what: object) -> None:
        """One line of it."""
        self._digest.update(f"{at:.6f} {what!r}\n".encode())

    @property
    def digest(self) -> str:
        """Of all lines so far."""
        return self._digest.hexdigest()
