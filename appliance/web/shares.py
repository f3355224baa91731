"""Pure: no clock, no socket, no await.

The files that the process may have open, in shares: so many for the state and what threads read,
so many for the control socket, and of the rest most for the lab and some for everybody else.

    limit = RESERVED + control + lab (boxes, providers, the server itself) + others

Of each share one address has a part at most.  Where a share is full, who has less than the
greediest address gets a place of that one: who holds all that he may keeps nobody out by it.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Final

import attrs

# The listening sockets, the journal, the archive and its copies, SQLite's side files: 60 at most.
# Threads that read folders, images and hosts files, and the removal of a tree of results, which
# holds a folder of each depth: 100.  Connections that are being turned away or cut: 48.
RESERVED: Final = 208
CONTROL_PART: Final = 64  # one of so many is the control socket's, for a connection and its file
CONTROL_MIN: Final = 16  # connections
ROOT_KEPT: Final = 4  # of them; nobody but root gets these
LAB_PARTS: Final = (
    3,
    4,
)  # of what is left: 10,000 parked boxes and their loads at a limit of 20,000
# Of one address: a rack of two hundred boxes behind a relay that hides theirs, with their loads.
# Of a smaller share at most a quarter, so that no address is a crowd by itself.
ADDRESS_MAX: Final = 512
ADDRESS_PART: Final = 4
HOST_PARTS: Final = (3, 4)  # of the lab's share: a lab may be one provider's virtual boxes
CONNECTIONS_MIN: Final = 16  # however low the limit is
# Of everybody else, however high the limit is: a thousand unknown boxes may wait, and beside them
# there are people.  A connection that says nothing takes 10 kB, and strangers can have thousands.
OTHERS_MAX: Final = 2048
LEAVING_MAX: Final = 16  # connections of a share that were cut and are not gone yet

WAITS: Final = 1  # descriptors: a parked box reads no file
READS: Final = 2  # a connection, and the file that it reads or writes


class Kind(enum.Enum):
    """Who it is, as far as its address says."""

    BOX = "box"  # a known testbox was there last
    HOST = "host"  # the server itself, or who runs virtual boxes
    OTHER = "other"


_FULL: Final = "too many connections are open"
_LEAVING: Final = "too many connections are being closed"


class Full(Exception):
    """There is no place; the words say for whom."""


@attrs.frozen
class Shares:
    """How the limit is divided."""

    control: int  # connections
    lab: int  # descriptors, as the following
    others: int

    @classmethod
    def of(cls, limit: int) -> Shares:
        """Those of a limit of open files."""
        control = max(CONTROL_MIN, limit // (CONTROL_PART * READS))
        rest = max(CONNECTIONS_MIN, limit - RESERVED - control * READS)
        others = min(OTHERS_MAX, rest - rest * LAB_PARTS[0] // LAB_PARTS[1])
        return cls(control, rest - others, others)

    def most(self, kind: Kind) -> int:
        """What one address of that kind may hold."""
        if kind is Kind.HOST:
            return self.lab * HOST_PARTS[0] // HOST_PARTS[1]
        share = self.lab if kind is Kind.BOX else self.others
        return max(READS, min(ADDRESS_MAX, share // ADDRESS_PART))


@attrs.define(eq=False)
class Place:
    """One connection's."""

    who: str  # an address, or those that are one machine's
    cost: int  # descriptors
    cut: Callable[[], None]  # ends the connection, sooner or later
    crowd: _Crowd
    leaving: bool = False  # it was cut


def note(place: Place | None, *, idle: bool) -> None:
    """Whether a connection asks for nothing from now on; such are ended first."""
    if place is not None and not place.leaving:
        place.crowd.note(place, idle=idle)


@attrs.define
class _Held:
    """What one address holds."""

    size: int = 0  # descriptors
    busy: dict[Place, None] = attrs.field(factory=dict)  # in the order of their coming
    idle: dict[Place, None] = attrs.field(factory=dict)  # in the order in which they became so


class _Crowd:
    """Those who have a share together."""

    def __init__(self, size: int) -> None:
        self.size = size  # descriptors
        self.used = 0
        self.leaving = 0  # connections that were cut, and are not gone yet
        self._held: dict[str, _Held] = {}
        self._by_size: dict[int, dict[str, None]] = {}
        self._greatest = 0

    def held(self, who: str) -> int:
        """Descriptors of `who`."""
        return self._held[who].size if who in self._held else 0

    @property
    def greatest(self) -> int:
        """The most that anybody holds."""
        while self._greatest and not self._by_size.get(self._greatest):
            self._greatest -= 1
        return self._greatest

    def add(self, place: Place) -> None:
        held = self._held.setdefault(place.who, _Held())
        held.busy[place] = None
        self._resize(place.who, held, place.cost)

    def remove(self, place: Place) -> None:
        held = self._held[place.who]
        held.busy.pop(place, None)
        held.idle.pop(place, None)
        self._resize(place.who, held, -place.cost)
        if not held.size:
            del self._held[place.who]

    def note(self, place: Place, *, idle: bool) -> None:
        held = self._held[place.who]
        into, out = (held.idle, held.busy) if idle else (held.busy, held.idle)
        if out.pop(place, place) is None:
            into[place] = None

    def idlest(self, who: str) -> Place | None:
        """The connection of `who` that asks for nothing for the longest time."""
        return next(iter(self._held[who].idle), None) if who in self._held else None

    def worst(self) -> Place:
        """Of the greediest address the idlest connection, or else the newest."""
        who = next(iter(self._by_size[self.greatest]))
        return self.idlest(who) or next(reversed(self._held[who].busy))

    def _resize(self, who: str, held: _Held, by: int) -> None:
        self.used += by
        if held.size:
            there = self._by_size[held.size]
            del there[who]
            if not there:
                del self._by_size[held.size]
        held.size += by
        if held.size:
            self._by_size.setdefault(held.size, {})[who] = None
            self._greatest = max(self._greatest, held.size)


class Places:
    """The places for connections, and who has them."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._lab, self._others = _Crowd(shares.lab), _Crowd(shares.others)

    @property
    def used(self) -> tuple[int, int]:
        """Descriptors of the lab and of all others."""
        return self._lab.used, self._others.used

    @property
    def leaving(self) -> int:
        """Connections that were cut, and are not gone yet."""
        return self._lab.leaving + self._others.leaving

    def enter(self, who: str, kind: Kind, cost: int, cut: Callable[[], None]) -> Place:
        """A place for a connection of `who`.  Raises Full; another may be cut for it."""
        crowd = self._others if kind is Kind.OTHER else self._lab
        while crowd.held(who) + cost > self._shares.most(kind):
            if (idle := crowd.idlest(who)) is None:
                raise Full(f"{who} has as many connections open as one address may")
            self._cut(idle)
        while crowd.used + cost > crowd.size:
            # Who has one connection is not greedy, though it be an upload and has a file open, too.
            if crowd.greatest <= max(crowd.held(who) + cost, READS):
                raise Full(_FULL)
            self._cut(crowd.worst())
        place = Place(who, cost, cut, crowd)
        crowd.add(place)
        return place

    def leave(self, place: Place) -> None:
        """Its connection is closed."""
        if place.leaving:
            place.crowd.leaving -= 1
        else:
            place.crowd.remove(place)

    def _cut(self, place: Place) -> None:
        if place.crowd.leaving >= LEAVING_MAX:
            raise Full(_LEAVING)
        place.crowd.remove(place)
        place.leaving = True
        place.crowd.leaving += 1
        place.cut()


class Callers:
    """Who is connected to the control socket."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}

    def enter(self, user: str) -> None:
        """Raises Full; root finds a place where others find none."""
        held, used = self._held.get(user, 0), sum(self._held.values())
        kept = 0 if user == "root" else ROOT_KEPT
        if user != "root" and held >= self._most // 2:
            raise Full(f"{user} has {held} connections to the control socket open: no more")
        if used >= self._most - kept:
            raise Full(f"{used} connections to the control socket are open: try again")
        self._held[user] = held + 1

    def leave(self, user: str) -> None:
        """The connection is closed."""
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
