"""Limits the memory for incoming messages of unknown length, for all senders and for each.

A body of known length waits for its berth instead (berths.py).  Nobody waits for room here.  When
there is none, a message that has not arrived completely gives way: the one with the largest product
of bytes and seconds, and a small one only if there is no other.  So slow senders lose their places
to quick ones.  A sender whose message gave way is told so, and may send it again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import TypeVar

import trio

from appliance.errors import Refused

T = TypeVar("T")


class NoRoom(Refused):
    """The message gave way to others, or did not fit beside them."""


GAVE_WAY = "others are sending too, and this took the most room for the longest: send it again"


class Room:
    """Has `most` bytes in all, and at most `each` for a sender.

    A message of at most `small` bytes is small.
    """

    def __init__(self, most: int, each: int, small: int = 2**16) -> None:
        self._most, self._each, self.small = most, each, small
        self._places: dict[Place, None] = {}
        self._held: dict[str, int] = {}  # bytes of each sender
        self.taken = 0  # bytes

    @contextlib.contextmanager
    def place(self, who: str) -> Iterator[Place]:
        """Yields a place for one message of `who`, empty at first."""
        place = Place(self, who)
        self._places[place] = None
        try:
            yield place
        finally:
            self.resize(place, 0)
            del self._places[place]

    def resize(self, place: Place, size: int) -> None:
        """Counts `size` bytes for `place` from now on; the caller has made room for them."""
        held = self._held.pop(place.who, 0) + size - place.size
        if held:
            self._held[place.who] = held
        self.taken += size - place.size
        place.size = size

    def make(self, more: int, place: Place) -> None:
        """Makes room for `more` bytes of `place`.  Raises NoRoom."""
        while self._held.get(place.who, 0) + more > self._each:
            self._make_from(place, [one for one in self._places if one.who == place.who])
        while self.taken + more > self._most:
            self._make_from(place, self._places)

    def _make_from(self, place: Place, places: Iterable[Place]) -> None:
        # A place that holds nothing would free nothing, however often it gave way.
        able = [one for one in places if one.arrives and (one.size or one is place)]
        heaviest = max(able, key=Place.weight, default=place)
        if heaviest is place:
            raise NoRoom(GAVE_WAY)
        heaviest.give_way()


class Place:
    """The room of one message."""

    def __init__(self, room: Room, who: str) -> None:
        self.who, self.size = who, 0
        self.arrives = True  # not complete yet, so it may have to give way
        self._room = room
        self._since = trio.current_time()
        self._waiting: trio.CancelScope | None = None
        self._gone = False

    def hold(self, size: int) -> None:
        """Notes that the message has `size` bytes now.  Raises NoRoom."""
        if self._gone:
            raise NoRoom(GAVE_WAY)
        if size > self.size:
            self._room.make(size - self.size, self)
        if not size or not self.size:
            self._since = trio.current_time()  # start of this message
        self._room.resize(self, size)

    async def wait(self, receive: Callable[[], Awaitable[T]]) -> T:
        """Returns what `receive` returns.  Raises NoRoom if the place was lost meanwhile."""
        with trio.CancelScope() as self._waiting:
            found = await receive()
        self._waiting = None
        if self._gone:
            raise NoRoom(GAVE_WAY)
        return found

    def weight(self) -> tuple[bool, float]:
        """Returns a sort key: the heaviest gives way first; complete messages are lightest."""
        if not self.arrives:
            return False, -1.0
        return self.size > self._room.small, self.size * (trio.current_time() - self._since)

    def give_way(self) -> None:
        """Frees the room for others; ends the wait for the rest of the message."""
        self._room.resize(self, 0)
        self._gone = True
        if self._waiting is not None:
            self._waiting.cancel(reason="others need the room")
