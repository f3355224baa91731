"""Turns at work that anybody may ask for: a few at once, and each address's one after the other.

Who asks a hundred times waits for himself: of each address one piece of work waits with those of
the others.  What is done on the loop itself is done in slices, one in each round.  And a thread
that works for long lets the loop run in between, with which it shares the interpreter.

Must not: know what the work is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Final, TypeVar

import trio

T = TypeVar("T")

# How long a thread works before it lets the loop have the interpreter, which would else have to
# wait 5 ms for it (sys.getswitchinterval) each time that something happens; and for how long.
SLICE_S: Final = 0.002
BREATH_S: Final = 0.0002
# A question of a box or a client has fewer bytes, and takes a quarter of a millisecond.
SMALL_BYTES: Final = 2**10
# Of small ones in one round, and what each of them counts at least: one that says nothing takes
# its time, too.  Four of the worst or sixteen of the shortest take some 2 ms.
ROUND_BYTES: Final = 2**12
LEAST_BYTES: Final = 2**8
_LOOKS: Final = 64  # items between two looks at the clock
US: Final = ""  # who asks at the control socket, for whom nobody at a port is taken


class Slices:
    """Slices of work whose size others choose: in each round of the loop there is one of them.

    A hundred slices of two milliseconds are nothing one by one, and a fifth of a second in one
    round.  The lab and everybody else have theirs by turns, as long as both want some, and among
    each the addresses do: who asks on two hundred connections is one that asks.
    """

    def __init__(self) -> None:
        self.is_lab: Callable[[str], bool] = US.__eq__
        self._lab: dict[str, trio.lowlevel.ParkingLot] = {}  # whose turn is next comes first
        self._others: dict[str, trio.lowlevel.ParkingLot] = {}
        self._taken = False  # somebody has this round's, or is about to
        self._lab_was_last = False
        self._small = 0  # bytes of small pieces that this round has

    def __len__(self) -> int:
        """How many addresses wait."""
        return len(self._lab) + len(self._others)

    async def own_round(self, who: str) -> None:
        """Returns in a round of the loop that has no other slice in it.

        The slice is what its caller does from here to its next wait.
        """
        if self._taken:
            await self._wait(who)
        else:
            self._taken = True
            try:
                await trio.lowlevel.checkpoint()
            except BaseException:
                self._pass_on()
                raise
        self._pass_on()

    async def small(self, who: str, size: int) -> None:
        """Returns where the small pieces of one round are few, of which `who` has one.

        The first of a round waits for the next one, which is how the others know that it is over;
        who finds no room waits for a round of his own.
        """
        size = max(size, LEAST_BYTES)
        if self._small + size > ROUND_BYTES:
            await self.own_round(who)
        elif self._small:
            self._small += size
        else:
            self._small = size
            try:
                await trio.lowlevel.checkpoint()
            finally:
                self._small = 0

    async def _wait(self, who: str) -> None:
        line = self._lab if who == US or self.is_lab(who) else self._others
        lot = line.setdefault(who, trio.lowlevel.ParkingLot())
        try:
            await lot.park()
        except BaseException:
            if not lot and line.get(who) is lot:
                del line[who]
            raise

    def _pass_on(self) -> None:
        """Who is next wakes up in the next round."""
        self._taken = False
        while not self._taken and (self._lab or self._others):
            lab = not self._others or bool(self._lab and not self._lab_was_last)
            line, self._lab_was_last = (self._lab if lab else self._others), lab
            who = next(iter(line))
            lot = line.pop(who)
            # Who was cancelled in this round has left his lot, and his address is still there.
            self._taken = bool(lot.unpark())
            if lot:
                line[who] = lot


_SLICES: Final = trio.lowlevel.RunVar[Slices]("slices")


def slices() -> Slices:
    """Those of this loop."""
    try:
        return _SLICES.get()
    except LookupError:
        _SLICES.set(made := Slices())
        return made


async def own_round(who: str = US) -> None:
    """Returns in a round of the loop that has no other slice in it, in turn with others."""
    await slices().own_round(who)


async def round_for(who: str, size: int) -> None:
    """Returns in a round that has room for work on `size` bytes, small or not."""
    if size > SMALL_BYTES:
        await own_round(who)
    else:
        await slices().small(who, size)


class Pace:
    """Small steps of `who`, one behind the other: as many in a round as fit into a slice."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._until = 0.0

    async def step(self) -> None:
        """Returns at once while the slice is not used up; no step in between waits."""
        if time.monotonic() >= self._until:
            await own_round(self._who)
            self._until = time.monotonic() + SLICE_S


class Turns:
    """At most `at_once`, one of an address."""

    def __init__(self, at_once: int) -> None:
        self._places = trio.Semaphore(at_once)
        self._queues: dict[str, trio.Semaphore] = {}

    def __len__(self) -> int:
        """How many addresses have one, or wait for one."""
        return len(self._queues)

    def begin_nowait(self, who: str) -> Turn | None:
        """A turn for `who`, where it need not wait for one."""
        if who in self._queues or not self._places.value:
            return None
        self._places.acquire_nowait()
        self._queues[who] = trio.Semaphore(0)
        return Turn(self, who)

    async def begin(self, who: str) -> Turn:
        """A turn for `who`, which it gives back."""
        queue = self._queues.setdefault(who, trio.Semaphore(1))
        try:
            await queue.acquire()
        except BaseException:
            if queue.value and self._queues.get(who) is queue:  # nobody has its turn
                del self._queues[who]
            raise
        turn = Turn(self, who)
        try:
            await self._places.acquire()
        except BaseException:
            self._next(who)
            raise
        return turn

    @contextlib.asynccontextmanager
    async def turn(self, who: str) -> AsyncIterator[None]:
        """A turn for `who`, to the end of the block."""
        turn = await self.begin(who)
        try:
            yield
        finally:
            turn.give_back()

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
