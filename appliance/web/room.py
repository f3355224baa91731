"""Room in memory for what is being sent to a door: so much of all senders, and so much of each.

For messages that do not say how long they become; a body that does waits for its berth (berths.py).
Nobody waits for room.  Where there is none, one of those gives way whose message has not arrived
yet: the one that has held most bytes for most time, and a small one only where there is no other.
So slow senders lose their places to quick ones; who gave way is told, and may send it again.
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
    """`most` bytes in all, of a sender at most `each`; what has no more than `small` is small."""

    def __init__(self, most: int, each: int, small: int = 2**16) -> None:
        self._most, self._each, self.small = most, each, small
        self._places: dict[Place, None] = {}
        self._held: dict[str, int] = {}  # bytes of each sender
        self.taken = 0  # bytes

    @contextlib.contextmanager
    def place(self, who: str) -> Iterator[Place]:
        """A place for one message of `who`, empty at first."""
        place = Place(self, who)
        self._places[place] = None
        try:
            yield place
        finally:
            self.resize(place, 0)
            del self._places[place]

    def resize(self, place: Place, size: int) -> None:
        """It has so many bytes from now on, for which there is room."""
        held = self._held.pop(place.who, 0) + size - place.size
        if held:
            self._held[place.who] = held
        self.taken += size - place.size
        place.size = size

    def make(self, more: int, place: Place) -> None:
        """So many bytes more for `place`.  Raises NoRoom."""
        while self._held.get(place.who, 0) + more > self._each:
            self._make_from(place, [one for one in self._places if one.who == place.who])
        while self.taken + more > self._most:
            self._make_from(place, self._places)

    def _make_from(self, place: Place, places: Iterable[Place]) -> None:
        # One that holds nothing would make no room, however often it gave way.
        able = [one for one in places if one.arrives and (one.size or one is place)]
        heaviest = max(able, key=Place.weight, default=place)
        if heaviest is place:
            raise NoRoom(GAVE_WAY)
        heaviest.give_way()


class Place:
    """Where one message is gathered."""

    def __init__(self, room: Room, who: str) -> None:
        self.who, self.size = who, 0
        self.arrives = True  # it may have to give way
        self._room = room
        self._since = trio.current_time()
        self._waiting: trio.CancelScope | None = None
        self._gone = False

    def hold(self, size: int) -> None:
        """It has so many bytes now.  Raises NoRoom."""
        if self._gone:
            raise NoRoom(GAVE_WAY)
        if size > self.size:
            self._room.make(size - self.size, self)
        if not size or not self.size:
            self._since = trio.current_time()  # of this message
        self._room.resize(self, size)

    async def wait(self, receive: Callable[[], Awaitable[T]]) -> T:
        """What `receive` returns.  Raises NoRoom where others got the place meanwhile."""
        with trio.CancelScope() as self._waiting:
            found = await receive()
        self._waiting = None
        if self._gone:
            raise NoRoom(GAVE_WAY)
        return found

    def weight(self) -> tuple[bool, float]:
        """How soon it gives way: what has arrived never does, and is the lightest of all."""
        if not self.arrives:
            return False, -1.0
        return self.size > self._room.small, self.size * (trio.current_time() - self._since)

    def give_way(self) -> None:
        """Others have its room from now on."""
        self._room.resize(self, 0)
        self._gone = True
        if self._waiting is not None:
            self._waiting.cancel(reason="others need the room")
