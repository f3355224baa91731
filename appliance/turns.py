"""Turns at work that anybody may ask for: a few at once, and each address's one after the other.

Who asks a hundred times waits for himself: of each address one piece of work waits with those of
the others.  And a thread that works for long lets the loop run in between, with which it shares the
interpreter.

Must not: know what the work is.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

import trio

T = TypeVar("T")

# How long a thread works before it lets the loop have the interpreter, which would else have to
# wait 5 ms for it (sys.getswitchinterval) each time that something happens; and for how long.
SLICE_S: Final = 0.002
BREATH_S: Final = 0.0002
_LOOKS: Final = 64  # items between two looks at the clock


# Held for one slice of work whose size strangers choose: in each round of the loop there is one of
# them, however many connections want theirs at the same moment.  A hundred slices of two
# milliseconds each are nothing one by one, and a fifth of a second in one round.
ONE_SLICE: Final = trio.Lock()


async def own_round() -> None:
    """Returns in a round of the loop that has no other slice in it.

    The slice is what its caller does from here to its next wait.
    """
    async with ONE_SLICE:
        pass


class Turns:
    """At most `at_once`, one of an address."""

    def __init__(self, at_once: int) -> None:
        self._places = trio.Semaphore(at_once)
        self._queues: dict[str, trio.Semaphore] = {}

    def __len__(self) -> int:
        """How many addresses have one, or wait for one."""
        return len(self._queues)

    async def begin(self, who: str) -> Turn:
        """A turn for `who`, which it gives back."""
        queue = self._queues.setdefault(who, trio.Semaphore(1))
        await queue.acquire()
        turn = Turn(self, who)
        try:
            await self._places.acquire()
        except BaseException:
            self._next(who)
            raise
        return turn

    def end(self, who: str) -> None:
        """`who` gives its turn back."""
        self._places.release()
        self._next(who)

    def _next(self, who: str) -> None:
        queue = self._queues[who]
        queue.release()
        if queue.value:  # nobody else of its address waits
            del self._queues[who]


class Turn:
    """One of them."""

    def __init__(self, turns: Turns, who: str) -> None:
        self._turns, self._who = turns, who
        self._over = False

    def give_back(self) -> None:
        """Let others have theirs; once is enough."""
        if not self._over:
            self._over = True
            self._turns.end(self._who)


def in_slices(items: Iterable[T]) -> Iterator[T]:
    """The same items; a thread that goes through them lets the loop run in between."""
    until = time.monotonic() + SLICE_S
    for number, item in enumerate(items):
        if number % _LOOKS == 0 and time.monotonic() > until:
            time.sleep(BREATH_S)
            until = time.monotonic() + SLICE_S
        yield item
