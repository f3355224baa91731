"""Shares work that clients cause fairly: a few at once, and one of each address at a time.

A client with a hundred requests waits only for itself: of each address, one piece of work competes
with other addresses.  Work on the event loop is done in slices, one in each round of the loop.  A
long-running thread pauses regularly so that the loop, which shares the interpreter, can run.

Must not: know what the work is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Final, TypeVar

import trio

T = TypeVar("T")

# How long a thread works before it pauses, and how long it pauses.  Without pauses the loop would
# wait 5 ms (sys.getswitchinterval) for the interpreter at each event.
SLICE_S: Final = 0.002
BREATH_S: Final = 0.0002
# A question of a box or a client has fewer bytes, and takes a quarter of a millisecond.
SMALL_BYTES: Final = 2**10
# The small ones in one round, and what each of them counts at least, since even the shortest takes
# time.  Four of the worst or sixteen of the shortest take some 2 ms.
ROUND_BYTES: Final = 2**12
LEAST_BYTES: Final = 2**8
_LOOKS: Final = 64  # items between two readings of the clock
US: Final = ""  # the key for clients of the control socket; no client of a port has it


class Slices:
    """Gives each round of the loop at most one slice of work whose size clients choose.

    A hundred slices of two milliseconds do no harm in rounds of their own, but block the loop for
    a fifth of a second in one round.  The lab and all other clients alternate while both wait, and
    within each group the addresses take turns: two hundred connections of one address count as one.
    """

    def __init__(self) -> None:
        self.is_lab: Callable[[str], bool] = US.__eq__
        # In each line, the address whose turn is next comes first.
        self._lab: dict[str, trio.lowlevel.ParkingLot] = {}
        self._others: dict[str, trio.lowlevel.ParkingLot] = {}
        self._taken = False  # this round's slice has an owner
        self._lab_was_last = False
        self._small = 0  # bytes of small pieces that this round has

    def __len__(self) -> int:
        """Returns how many addresses wait."""
        return len(self._lab) + len(self._others)

    async def own_round(self, who: str) -> None:
        """Returns in a round of the loop that has no other slice.

        The slice is the caller's work from here to its next await.
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
        """Wakes the next waiting address, in the next round."""
        self._taken = False
        while not self._taken and (self._lab or self._others):
            lab = not self._others or bool(self._lab and not self._lab_was_last)
            line, self._lab_was_last = (self._lab if lab else self._others), lab
            who = next(iter(line))
            lot = line.pop(who)
            # A task cancelled in this round has left its lot, but its address is still in line.
            self._taken = bool(lot.unpark())
            if lot:
                line[who] = lot


_SLICES: Final = trio.lowlevel.RunVar[Slices]("slices")


def slices() -> Slices:
    """Returns the Slices of this event loop."""
    try:
        return _SLICES.get()
    except LookupError:
        _SLICES.set(made := Slices())
        return made


async def own_round(who: str = US) -> None:
    """Returns in a round of the loop that has no other slice; addresses take turns."""
    await slices().own_round(who)


async def round_for(who: str, size: int) -> None:
    """Returns in a round that has room for work on `size` bytes, small or not."""
    if size > SMALL_BYTES:
        await own_round(who)
    else:
        await slices().small(who, size)


class Pace:
    """Paces a sequence of small steps of `who`: as many in a round as fit into a slice."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._until = 0.0

    async def step(self) -> None:
        """Returns at once until the slice is used up, then in a round of its own.

        The steps in between must not await.
        """
        if time.monotonic() >= self._until:
            await own_round(self._who)
            self._until = time.monotonic() + SLICE_S


class Turns:
    """Slots for work: at most `at_once`, and at most one for each address."""

    def __init__(self, at_once: int) -> None:
        self._places = trio.Semaphore(at_once)
        self._queues: dict[str, trio.Semaphore] = {}

    def __len__(self) -> int:
        """Returns how many addresses hold or wait for a slot."""
        return len(self._queues)

    def begin_nowait(self, who: str) -> Turn | None:
        """Takes a slot for `who`; returns None if it would have to wait."""
        if who in self._queues or not self._places.value:
            return None
        self._places.acquire_nowait()
        self._queues[who] = trio.Semaphore(0)
        return Turn(self, who)

    async def begin(self, who: str) -> Turn:
        """Waits for a slot for `who`; the caller gives it back."""
        queue = self._queues.setdefault(who, trio.Semaphore(1))
        try:
            await queue.acquire()
        except BaseException:
            if queue.value and self._queues.get(who) is queue:  # nobody holds a slot
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
        """Holds a slot for `who` until the end of the block."""
        turn = await self.begin(who)
        try:
            yield
        finally:
            turn.give_back()

    def end(self, who: str) -> None:
        """Releases the slot of `who`."""
        self._places.release()
        self._next(who)

    def _next(self, who: str) -> None:
        queue = self._queues[who]
        queue.release()
        if queue.value:  # nobody else at this address waits
            del self._queues[who]


class Turn:
    """A held slot of Turns."""

    def __init__(self, turns: Turns, who: str) -> None:
        self._turns, self._who = turns, who
        self._over = False

    def give_back(self) -> None:
        """Releases the slot; a second call does nothing."""
        if not self._over:
            self._over = True
            self._turns.end(self._who)


def in_slices(items: Iterable[T]) -> Iterator[T]:
    """Yields the items; pauses the thread regularly so that the loop can run."""
    until = time.monotonic() + SLICE_S
    for number, item in enumerate(items):
        if number % _LOOKS == 0 and time.monotonic() > until:
            time.sleep(BREATH_S)
            until = time.monotonic() + SLICE_S
        yield item
