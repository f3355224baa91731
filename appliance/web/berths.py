"""Berths for incoming bodies: memory that is reserved for each body before it arrives.

A body waits until there is room for as many bytes as it declares; it is not refused just because
others are sending too.  A body keeps its berth while it arrives quickly.  While others wait, a body
of which less than PIECE_BYTES arrived in PIECE_S of our waiting loses its berth.

There are four queues ("lines").  Small bodies do not wait for large ones.  Known addresses, those
from which an account was used before, have half of the room for large bodies and some room for
small ones to themselves, whatever strangers send.  In a line the addresses take turns.

Must not: read a body.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeVar

import attrs
import trio

from appliance.errors import Refused

T = TypeVar("T")

SMALL_BYTES: Final = 2**16  # a job as people write it has some thousand
SMALLS_BYTES: Final = 2**20  # limit of all small bodies in a line
LEAST_BYTES: Final = 2**12  # the least that a body counts, since its request takes memory, too
# Each waiting body has sent up to 128 KiB already, which Hypercorn has read ahead of us.
WAITING_MAX: Final = 128  # in a line
# The longest that a body waits for its berth; Ruby's clients give up after a minute.
ROOM_S: Final = 45.0
# A sender must deliver PIECE_BYTES in PIECE_S of our waiting: 128 kB/s.  Ten megabytes must arrive
# within a minute anyway (submits.BODY_S), which is 170 kB/s.
PIECE_BYTES: Final = 2**17
PIECE_S: Final = 1.0
LOOK_S: Final = 0.25  # between two searches for slow senders
KNOWN_MAX: Final = 1000  # addresses; a lab has some hundred people

SLOW: Final = "others wait for the room, and too little came in a second: send it again"
CROWD: Final = "too many others wait to send: send it again"
LATE: Final = f"there was no room within {ROOM_S:.0f} s, others are sending too: send it again"


class NoRoom(Refused):
    """The body got no berth in time, or lost its berth to others."""


class Berths:
    """Gives out berths: `most` bytes for large bodies, half of them at most for strangers.

    One address gets at most `each` bytes.
    """

    def __init__(self, most: int, each: int) -> None:
        self._most, self._each = most, each
        self._larges = 0  # bytes
        self._held: dict[str, int] = {}  # bytes of each address
        self._inside: dict[Berth, None] = {}
        self._known: dict[str, None] = {}  # addresses; the least recent account use first
        self._look_at = 0.0
        lines = [_Line(known, SMALLS_BYTES, large=False) for known in (True, False)]
        lines += [_Line(known, most if known else most // 2, large=True) for known in (True, False)]
        self._lines = {(line.known, line.large): line for line in lines}

    @property
    def taken(self) -> int:
        """Returns the bytes that are reserved."""
        return sum(line.size for line in self._lines.values())

    @property
    def waiting(self) -> int:
        """Returns how many bodies wait for a berth."""
        return sum(len(line) for line in self._lines.values())

    def prove(self, who: str) -> None:
        """Notes that an account was used at the address `who`."""
        self._known.pop(who, None)
        self._known[who] = None
        if len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]

    @contextlib.asynccontextmanager
    async def berth(self, who: str, size: int) -> AsyncIterator[Berth]:
        """Waits for a berth for `size` bytes of the address `who`.  Raises NoRoom."""
        berth = Berth(self._lines[who in self._known, size > SMALL_BYTES], who, size, self._resize)
        try:
            await self._come(berth)
            yield berth
        finally:
            berth.line.remove(berth)
            self._put_out(berth)
            self._let_in()  # also if it never got its berth: those behind it may fit

    async def _come(self, berth: Berth) -> None:
        berth.line.add(berth)
        self._let_in()
        with trio.move_on_after(ROOM_S):
            while berth not in self._inside and not berth.lost:
                self._look()
                with trio.move_on_after(LOOK_S):
                    await berth.turn.wait()
        if berth not in self._inside:
            raise NoRoom(berth.lost or LATE)

    def _let_in(self) -> None:
        """Gives berths to all bodies whose turn it is and for which there is room."""
        for line in self._lines.values():
            while berth := self._next(line):
                line.remove(berth, served=True)
                self._inside[berth] = None
                self._count(berth, berth.size)
                berth.turn.set()

    def _next(self, line: _Line) -> Berth | None:
        """Returns the next body of `line`, None if there is no room for it.

        Smaller bodies do not overtake it, or it might wait for ever.  An address that has reached
        its own limit is skipped, and so does not hold up other addresses.
        """
        for who, berths in line.waiting.items():
            if self._held.get(who, 0) + berths[0].size <= self._each:
                return berths[0] if self._fits(berths[0]) else None
        return None

    def _fits(self, berth: Berth) -> bool:
        line = berth.line
        if line.large and self._larges + berth.size > self._most:
            return False
        return line.size + berth.size <= line.most

    def _count(self, berth: Berth, more: int) -> None:
        berth.line.size += more
        self._larges += more if berth.line.large else 0
        self._held[berth.who] = self._held.get(berth.who, 0) + more
        if not self._held[berth.who]:
            del self._held[berth.who]

    def _resize(self, berth: Berth, size: int) -> None:
        if berth in self._inside:
            self._count(berth, size - berth.size)
            berth.size = size
            self._let_in()

    def _put_out(self, berth: Berth) -> None:
        if berth in self._inside:
            del self._inside[berth]
            self._count(berth, -berth.size)
            self._let_in()

    def _look(self) -> None:
        """Takes berths away from slow bodies, slowest first, while others wait for the room."""
        now = trio.current_time()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        slow = sorted(self._inside, key=Berth.waited, reverse=True)
        for berth in slow:
            if berth.waited() < PIECE_S:
                break
            if any(line.waits_for(berth) for line in self._lines.values()):
                berth.lose(SLOW)
                self._put_out(berth)


class Berth:
    """The memory reserved for one body."""

    def __init__(
        self, line: _Line, who: str, size: int, resize: Callable[[Berth, int], None]
    ) -> None:
        self.line, self.who, self.size = line, who, max(size, LEAST_BYTES)
        self.turn = trio.Event()
        self.lost = ""  # why the berth was lost; empty: it was not
        self._resize = resize
        self._came = 0  # bytes of the present piece
        self._waited = 0.0  # seconds, for that piece
        self._wait: tuple[trio.CancelScope, float] | None = None  # scope and start of the wait

    async def wait(self, receive: Callable[[], Awaitable[T]]) -> T:
        """Returns what `receive` returns.  Raises NoRoom if the berth was lost meanwhile."""
        self._check()
        with trio.CancelScope() as scope:
            self._wait = scope, trio.current_time()
            try:
                found = await receive()
            finally:
                self._waited, self._wait = self.waited(), None
        self._check()
        return found

    def took(self, size: int) -> None:
        """Notes that `size` more bytes arrived."""
        self._came += size
        if self._came >= PIECE_BYTES:
            self._came, self._waited = 0, 0.0

    def settle(self, size: int) -> None:
        """Notes that the body is complete and has `size` bytes."""
        self._resize(self, max(size, LEAST_BYTES))

    def waited(self) -> float:
        """Returns the seconds that we have waited for the present piece; 0 if not waiting now."""
        return self._waited + trio.current_time() - self._wait[1] if self._wait else 0.0

    def lose(self, why: str) -> None:
        """Marks the berth as lost and cancels its wait; the client is told `why`."""
        self.lost = why
        self.turn.set()
        if self._wait is not None:
            self._wait[0].cancel(reason="others wait for the room")

    def _check(self) -> None:
        if self.lost:
            raise NoRoom(self.lost)


@attrs.define(eq=False)
class _Line:
    """One queue: of known or unknown addresses, for large or small bodies."""

    known: bool
    most: int  # bytes
    large: bool
    size: int = 0  # bytes of the bodies that have a berth
    waiting: dict[str, deque[Berth]] = attrs.field(factory=dict)  # by address, the next one first

    def __len__(self) -> int:
        return sum(map(len, self.waiting.values()))

    def add(self, berth: Berth) -> None:
        """Queues `berth`.  Raises NoRoom if the line is full.

        If its address has, with this one, fewer waiting bodies than the greediest address, the
        newest body of that address loses its place instead.
        """
        if len(self) >= WAITING_MAX:
            greedy = max(self.waiting.values(), key=len)
            if len(greedy) <= len(self.waiting.get(berth.who, ())) + 1:
                raise NoRoom(CROWD)
            newest = greedy[-1]
            self.remove(newest)
            newest.lose(CROWD)
        self.waiting.setdefault(berth.who, deque()).append(berth)

    def remove(self, berth: Berth, *, served: bool = False) -> None:
        """Takes `berth` out of the queue; an address that was served goes to the end."""
        own = self.waiting.get(berth.who)
        if own is None or berth not in own:
            return
        own.remove(berth)
        if served or not own:
            del self.waiting[berth.who]
        if served and own:
            self.waiting[berth.who] = own

    def waits_for(self, berth: Berth) -> bool:
        """Returns whether a body in this line could use the room that `berth` has."""
        theirs = berth.line
        ours = theirs is self or (self.known and self.large and theirs.large)
        return berth.who in self.waiting or (ours and bool(self.waiting))
