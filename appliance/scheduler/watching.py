"""Who watches, and the news that all of them are shown.

`Watchers.tell` notes that something happened, in the very step in which it did, and looks at
nobody.  Each watcher goes through the news by itself, in slices that take turns: what two hundred
of them ask for together costs the loop a millisecond at a time, and a part of its time altogether.
One that falls too far behind, because it does not read or because others ask for too much, is sent
away with that reason; the lab waits for nobody.

Who watches over the network, who does on the server itself, and the command lines are three groups.
Each has places, turns and a part of the loop's time of its own: none keeps another out, or waiting.
"""

from __future__ import annotations

import contextlib
import enum
import math
from collections.abc import AsyncIterator, Iterator
from typing import Final

import attrs
import trio

from appliance.errors import Refused
from appliance.jobs.shown.news import Message
from appliance.scheduler.queries import News, Query

WATCHERS_MAX: Final = 200  # over the network: people and their scripts
ADDRESS_WATCHERS_MAX: Final = 50  # of one address: a machine where many submit and wait
LOCAL_WATCHERS_MAX: Final = 100  # by WebSocket on the server itself, which does not say of whom
COMMANDS_MAX: Final = 100  # command lines
USER_COMMANDS_MAX: Final = 50  # of one user, so that no one user keeps the others out
ROOT_KEPT: Final = 4  # of the command lines; nobody but root gets these
# Of the expressions of all in a group: together they cost 20 ms for the longest message.  Words
# and job ids count for nothing here.
PROGRAMS_MAX: Final = 20_000
# News that somebody has not looked at yet: some 15,000, as of so many jobs in one submit.
UNREAD_BYTES_MAX: Final = 32 * 2**20
TRIM: Final = 256  # messages that a watcher looks at before those are let go that all have seen
# In one turn, as `Query.work` counts: some 0.7 ms.  Then the others of the loop get theirs.
SLICE_WORK: Final = 500_000
TEXT_WORK: Final = 15_000  # to write a message that goes out
# After as much as a slice: the expressions of a group take an eighth of the loop at most.
PAUSE_S: Final = 0.005
# After a query was read and compiled, which takes 12 ms at most, in parts of the time it took: new
# queries of a group take another eighth.
QUERY_PAUSE: Final = 7

DISMISSED: Final = "the server stops"
BEHIND: Final = f"too far behind: more than {UNREAD_BYTES_MAX >> 20} MiB of messages were not read"


class Group(enum.Enum):
    """From where somebody watches, as far as it can be proved."""

    NETWORK = "over the network"
    SERVER = "on this server"
    COMMANDS = "by the command line"


MOST: Final = {
    Group.NETWORK: WATCHERS_MAX,
    Group.SERVER: LOCAL_WATCHERS_MAX,
    Group.COMMANDS: COMMANDS_MAX,
}
# Of one address, or one user.  On the server itself any address of 127.0.0.0/8 is anybody's.
EACH: Final = {
    Group.NETWORK: ADDRESS_WATCHERS_MAX,
    Group.SERVER: LOCAL_WATCHERS_MAX,
    Group.COMMANDS: USER_COMMANDS_MAX,
}


class Turns:
    """Those of a group: who works for a watcher does so in one round of the loop, alone of it."""

    def __init__(self) -> None:
        self.looks = trio.Lock()
        self._queries = trio.Lock()
        self._query_at = -math.inf  # when the next one may be read
        self.work = 0  # of looks, since the last pause

    @contextlib.asynccontextmanager
    async def query(self) -> AsyncIterator[None]:
        """To read a query; the next one of the group waits seven times as long as it takes."""
        async with self._queries:
            await trio.sleep_until(self._query_at)
            began = trio.current_time()
            try:
                yield
            finally:  # one that is refused, or cut, has cost as much
                now = trio.current_time()
                self._query_at = now + QUERY_PAUSE * (now - began)


@attrs.define(eq=False)
class Watcher:
    """One who watches."""

    _all: Watchers
    group: Group
    who: str  # an address, or a user
    query: Query | None = None  # it has not said yet
    ended: str = ""  # why nothing more will come
    at: int = 0  # the number of the message that it looks at next
    until: int | None = None  # the number of the first one that it is not shown, once it has ended

    def ask(self, query: Query) -> None:
        """Hear of this from now on.  Raises Refused where all ask for too much together."""
        self._all.weigh(self, query)
        if self.query is None:
            self.at = self._all.next
        self.query = query

    def end(self, why: str) -> None:
        """Nothing more will come than what has happened until now."""
        self.ended = self.ended or why
        self.until = self._all.next if self.until is None else self.until
        self._all.stir()

    async def read(self) -> list[str]:
        """What was not read, at least one; empty at the end."""
        while True:
            found = await self._all.look(self)
            if found or (self.ended and not self._all.has_more(self)):
                return found
            await self._all.more(self)


class Watchers:
    """All who watch one scheduler."""

    def __init__(self) -> None:
        self._watchers: dict[int, Watcher] = {}
        self._closed = False
        self._news: dict[int, News] = {}  # by number, without a gap
        self.next = 0  # the number of the next
        self._bytes = 0
        self._bell = trio.Event()
        self.turns = {group: Turns() for group in Group}

    def __len__(self) -> int:
        return len(self._watchers)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(list(self._watchers.values()))

    def join(self, group: Group, who: str) -> Watcher:
        """One more, which has not said yet what it wants.

        `who`: its address, or its user.  Raises Refused where too many of the group watch already,
        or too many of `who`; root finds a place where other users find none.
        """
        there = [watcher for watcher in self if watcher.group is group]
        kept = ROOT_KEPT if group is Group.COMMANDS and who != "root" else 0
        if len(there) >= MOST[group] - kept:
            raise Refused(f"{len(there)} watch {group.value} already")
        if sum(watcher.who == who for watcher in there) >= EACH[group] and who != "root":
            word = "as" if group is Group.COMMANDS else "from"
            raise Refused(f"{EACH[group]} watch {word} {who} already")
        watcher = Watcher(self, group, who)
        self._watchers[id(watcher)] = watcher
        if self._closed:
            watcher.end(DISMISSED)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """It watches no more."""
        self._watchers.pop(id(watcher), None)
        if not self._watchers:
            self._news.clear()
            self._bytes = 0

    def weigh(self, watcher: Watcher, query: Query) -> None:
        """Raises Refused where the expressions of all are too large with those of `query`."""
        others = sum(
            other.query.program
            for other in self
            if other.query and other is not watcher and other.group is watcher.group
        )
        if query.program and others + query.program > PROGRAMS_MAX:
            raise Refused(
                "those who watch have too many expressions together; job ids and plain words are"
                " always taken"
            )

    def tell(self, message: Message) -> None:
        """Something happened."""
        if not self._watchers:
            return
        item = News(message)
        self._news[self.next] = item
        self._bytes += item.size
        self.next += 1
        while self._bytes > UNREAD_BYTES_MAX:
            self._forget()
        self.stir()

    def _forget(self) -> None:
        self._bytes -= self._news.pop(self._first).size

    def _trim(self) -> None:
        """Let go what all have looked at."""
        seen = min(watcher.at for watcher in self if watcher.query is not None)
        while self._news and self._first < seen:
            self._forget()

    def stir(self) -> None:
        """Whoever waits for more looks again."""
        self._bell.set()
        self._bell = trio.Event()

    @property
    def _first(self) -> int:
        return self.next - len(self._news)

    def has_more(self, watcher: Watcher) -> bool:
        """Whether there is anything that it has not looked at."""
        until = self.next if watcher.until is None else watcher.until
        return watcher.query is not None and watcher.at < until

    async def more(self, watcher: Watcher) -> None:
        """Returns when there is, or when it has ended."""
        while not self.has_more(watcher) and not watcher.ended:
            await self._bell.wait()

    async def look(self, watcher: Watcher) -> list[str]:
        """What it wants of the next few messages: one slice of the work."""
        turns = self.turns[watcher.group]
        async with turns.looks:
            found = self._slice(watcher, turns)
            if turns.work >= SLICE_WORK:
                turns.work = 0
                await trio.sleep(PAUSE_S)
        return found

    def _slice(self, watcher: Watcher, turns: Turns) -> list[str]:
        found: list[str] = []
        until = turns.work + SLICE_WORK
        while self.has_more(watcher) and turns.work < until:
            if watcher.at < self._first:
                watcher.at, watcher.until = self.next, self.next
                watcher.end(BEHIND)
                break
            assert watcher.query is not None
            item = self._news[watcher.at]
            watcher.at += 1
            if watcher.at % TRIM == 0:
                self._trim()
            turns.work += watcher.query.work(item)
            if watcher.query.fits(item):
                turns.work += TEXT_WORK
                found.append(item.text)
        return found

    def dismiss(self) -> None:
        """Send everybody away, and whoever comes from now on."""
        self._closed = True
        for watcher in self:
            watcher.end(DISMISSED)
