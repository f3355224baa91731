"""Pure: no clock, no socket, no await.

Divides the limit of open files into shares: one for the state and files that threads read, one for
the control socket; most of the rest is for the lab, some for everybody else.

    limit = RESERVED + control + lab (boxes, providers, the server itself) + others

One address gets at most a part of a share.  When a share is full, a newcomer that holds less than
the greediest address takes a place from it, so an address that holds all it may locks nobody out.
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
CONTROL_PART: Final = 64  # the control socket gets 1/64, for connections and a file for each
CONTROL_MIN: Final = 16  # connections
ROOT_KEPT: Final = 4  # connections of the control socket that only root gets
LAB_PARTS: Final = (
    3,
    4,
)  # of the rest: enough for 10,000 parked boxes and their loads at a limit of 20,000
# Limit of one address: enough for a rack of two hundred boxes and their loads behind a relay that
# hides their addresses.  In a smaller share it is a quarter, so that one address cannot fill it.
ADDRESS_MAX: Final = 512
ADDRESS_PART: Final = 4
HOST_PARTS: Final = (3, 4)  # of the lab's share: a lab may be one provider's virtual boxes
CONNECTIONS_MIN: Final = 16  # however low the limit is
# Limit of everybody else, however high the limit of open files is: enough for a thousand unknown
# boxes that wait, and for people.  A silent connection takes 10 kB, and strangers can open
# thousands.
OTHERS_MAX: Final = 2048
LEAVING_MAX: Final = 16  # connections of a share that were cut and have not ended yet

WAITS: Final = 1  # descriptors: a parked box reads no file
READS: Final = 2  # a connection, and the file that it reads or writes


class Kind(enum.Enum):
    """The kind of client, judged by its address."""

    BOX = "box"  # the address was last a known testbox's
    HOST = "host"  # the server itself, or a machine that runs virtual boxes
    OTHER = "other"


_FULL: Final = "too many connections are open"
_LEAVING: Final = "too many connections are being closed"


class Full(Exception):
    """There is no place; the message says which limit was reached."""


@attrs.frozen
class Shares:
    """How the limit is divided."""

    control: int  # connections
    lab: int  # descriptors
    others: int  # descriptors

    @classmethod
    def of(cls, limit: int) -> Shares:
        """Divides `limit` open files."""
        control = max(CONTROL_MIN, limit // (CONTROL_PART * READS))
        rest = max(CONNECTIONS_MIN, limit - RESERVED - control * READS)
        others = min(OTHERS_MAX, rest - rest * LAB_PARTS[0] // LAB_PARTS[1])
        return cls(control, rest - others, others)

    def most(self, kind: Kind) -> int:
        """Returns how many descriptors one address of that kind may hold."""
        if kind is Kind.HOST:
            return self.lab * HOST_PARTS[0] // HOST_PARTS[1]
        share = self.lab if kind is Kind.BOX else self.others
        return max(READS, min(ADDRESS_MAX, share // ADDRESS_PART))


@attrs.define(eq=False)
class Place:
    """The place of one connection."""

    who: str  # an address, or the addresses of one machine
    cost: int  # descriptors
    cut: Callable[[], None]  # ends the connection, sooner or later
    crowd: _Crowd
    leaving: bool = False  # it was cut


def note(place: Place | None, *, idle: bool) -> None:
    """Notes whether a connection is idle from now on; idle connections are ended first."""
    if place is not None and not place.leaving:
        place.crowd.note(place, idle=idle)


@attrs.define
class _Held:
    """The places that one address holds."""

    size: int = 0  # descriptors
    busy: dict[Place, None] = attrs.field(factory=dict)  # in the order in which they became busy
    idle: dict[Place, None] = attrs.field(factory=dict)  # in the order in which they became idle


class _Crowd:
    """The addresses that use one share together."""

    def __init__(self, size: int) -> None:
        self.size = size  # descriptors
        self.used = 0
        self.leaving = 0  # connections that were cut and have not ended yet
        self._held: dict[str, _Held] = {}
        self._by_size: dict[int, dict[str, None]] = {}
        self._greatest = 0

    def held(self, who: str) -> int:
        """Returns the descriptors that `who` holds."""
        return self._held[who].size if who in self._held else 0

    @property
    def greatest(self) -> int:
        """Returns the most descriptors that one address holds."""
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
        """Returns the connection of `who` that has been idle longest, None if none is idle."""
        return next(iter(self._held[who].idle), None) if who in self._held else None

    def worst(self) -> Place:
        """Returns the longest idle connection of the greediest address, else its newest one."""
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
    """Gives out the places for connections."""

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        self._lab, self._others = _Crowd(shares.lab), _Crowd(shares.others)

    @property
    def used(self) -> tuple[int, int]:
        """Returns the descriptors of the lab and of all others."""
        return self._lab.used, self._others.used

    @property
    def leaving(self) -> int:
        """Returns how many connections were cut and have not ended yet."""
        return self._lab.leaving + self._others.leaving

    def enter(self, who: str, kind: Kind, cost: int, cut: Callable[[], None]) -> Place:
        """Takes a place for a connection of `who`, and may cut another.  Raises Full."""
        crowd = self._others if kind is Kind.OTHER else self._lab
        while crowd.held(who) + cost > self._shares.most(kind):
            if (idle := crowd.idlest(who)) is None:
                raise Full(f"{who} has as many connections open as one address may")
            self._cut(idle)
        while crowd.used + cost > crowd.size:
            # An address with one connection is not greedy, even if an upload has a file open, too.
            if crowd.greatest <= max(crowd.held(who) + cost, READS):
                raise Full(_FULL)
            self._cut(crowd.worst())
        place = Place(who, cost, cut, crowd)
        crowd.add(place)
        return place

    def leave(self, place: Place) -> None:
        """Gives the place back; its connection is closed."""
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
    """Limits the connections of each user to the control socket."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._held: dict[str, int] = {}

    def enter(self, user: str) -> None:
        """Counts a connection of `user`.  Raises Full; ROOT_KEPT places are for root alone."""
        held, used = self._held.get(user, 0), sum(self._held.values())
        kept = 0 if user == "root" else ROOT_KEPT
        if user != "root" and held >= self._most // 2:
            raise Full(f"{user} has {held} connections to the control socket open: no more")
        if used >= self._most - kept:
            raise Full(f"{used} connections to the control socket are open: try again")
        self._held[user] = held + 1

    def leave(self, user: str) -> None:
        """Notes that a connection of `user` is closed."""
        self._held[user] -= 1
        if not self._held[user]:
            del self._held[user]
