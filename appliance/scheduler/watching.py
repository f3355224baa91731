"""Who watches, and how all watchers get the news.

`Watchers.tell` notes an event in the same step in which it happens, and looks at no watcher.
Each watcher goes through the news by itself, in slices that take turns: what two hundred watchers
ask for together holds the loop for a millisecond at a time, and takes a limited share of it.
A watcher that falls too far behind, because it does not read or because others ask for too much,
is sent away with that reason; the lab waits for no watcher.

There are three groups: watchers over the network, watchers on the server itself, and command
lines.  Each group has its own places, turns and share of the loop: none keeps another out, or
delays it.
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
ADDRESS_WATCHERS_MAX: Final = 50  # from one address: a machine where many submit and wait
LOCAL_WATCHERS_MAX: Final = 100  # by WebSocket on the server itself, user unknown
COMMANDS_MAX: Final = 100  # command lines
USER_COMMANDS_MAX: Final = 50  # of one user, so that no user keeps the others out
ROOT_KEPT: Final = 4  # of COMMANDS_MAX: kept for root
# Compiled size of all expressions in a group: together they cost 20 ms for the longest message.
# Words and job ids count for nothing here.
PROGRAMS_MAX: Final = 20_000
# Messages that some watcher has not looked at yet: some 15,000, as from so many jobs in one submit.
UNREAD_BYTES_MAX: Final = 32 * 2**20
TRIM: Final = 256  # messages a watcher looks at before messages seen by all are dropped
# In one turn, as `Query.work` counts: some 0.7 ms.  Then other tasks get their turn.
SLICE_WORK: Final = 500_000
TEXT_WORK: Final = 15_000  # to encode a message that is sent
# After each SLICE_WORK: the expressions of a group take an eighth of the loop at most.
PAUSE_S: Final = 0.005
# Pause after a query was read and compiled (12 ms at most), as a multiple of the time it took:
# new queries of a group take another eighth of the loop at most.
QUERY_PAUSE: Final = 7

DISMISSED: Final = "the server stops"
BEHIND: Final = f"too far behind: more than {UNREAD_BYTES_MAX >> 20} MiB of messages were not read"


class Group(enum.Enum):
    """Where a watcher is, as far as that can be proved."""

    NETWORK = "over the network"
    SERVER = "on this server"
    COMMANDS = "by the command line"


MOST: Final = {
    Group.NETWORK: WATCHERS_MAX,
    Group.SERVER: LOCAL_WATCHERS_MAX,
    Group.COMMANDS: COMMANDS_MAX,
}
# Of one address, or one user.  On the server anybody may use any address of 127.0.0.0/8.
EACH: Final = {
    Group.NETWORK: ADDRESS_WATCHERS_MAX,
    Group.SERVER: LOCAL_WATCHERS_MAX,
    Group.COMMANDS: USER_COMMANDS_MAX,
}


class Pacing:
    """The turns of a group: in one round of the loop only one of its watchers is worked for."""

    def __init__(self) -> None:
        self.looks = trio.Lock()
        self._queries = trio.Lock()
        self._query_at = -math.inf  # when the next query may be read
        self.work = 0  # of looks, since the last pause

    @contextlib.asynccontextmanager
    async def query(self) -> AsyncIterator[None]:
        """Wraps the reading of a query; the group's next one waits seven times as long."""
        async with self._queries:
            await trio.sleep_until(self._query_at)
            began = trio.current_time()
            try:
                yield
            finally:  # a refused or cancelled query has cost as much
                now = trio.current_time()
                self._query_at = now + QUERY_PAUSE * (now - began)


@attrs.define(eq=False)
class Watcher:
    """One watcher."""

    _all: Watchers
    group: Group
    who: str  # an address, or a user
    query: Query | None = None  # None: not sent yet
    ended: str = ""  # why nothing more will come
    at: int = 0  # the number of the next message to look at
    until: int | None = None  # once ended: the number of the first message not shown

    def ask(self, query: Query) -> None:
        """Sets what the watcher hears of.  Raises Refused if all ask for too much together."""
        self._all.weigh(self, query)
        if self.query is None:
            self.at = self._all.next
        self.query = query

    def end(self, why: str) -> None:
        """Ends the watch: shows nothing that happens after now."""
        self.ended = self.ended or why
        self.until = self._all.next if self.until is None else self.until
        self._all.stir()

    async def read(self) -> list[str]:
        """Waits for unread messages; returns at least one, or none at the end."""
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
        self.next = 0  # the number of the next message
        self._bytes = 0
        self._bell = trio.Event()
        self.turns = {group: Pacing() for group in Group}

    def __len__(self) -> int:
        return len(self._watchers)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(list(self._watchers.values()))

    def join(self, group: Group, who: str) -> Watcher:
        """Adds a watcher that has no query yet.

        `who`: an address or a user.  Raises Refused if the group has too many watchers already,
        or `who` has; root finds a place when other users do not.
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
        """Removes a watcher."""
        self._watchers.pop(id(watcher), None)
        if not self._watchers:
            self._news.clear()
            self._bytes = 0

    def weigh(self, watcher: Watcher, query: Query) -> None:
        """Raises Refused if `query` would make the group's expressions too large together."""
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
        """Notes a message for all watchers."""
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
        """Drops messages that all have looked at."""
        seen = min(watcher.at for watcher in self if watcher.query is not None)
        while self._news and self._first < seen:
            self._forget()

    def stir(self) -> None:
        """Wakes the watchers that wait for more."""
        self._bell.set()
        self._bell = trio.Event()

    @property
    def _first(self) -> int:
        return self.next - len(self._news)

    def has_more(self, watcher: Watcher) -> bool:
        """Returns whether there is a message that the watcher has not looked at."""
        until = self.next if watcher.until is None else watcher.until
        return watcher.query is not None and watcher.at < until

    async def more(self, watcher: Watcher) -> None:
        """Returns when the watcher has more to look at, or has ended."""
        while not self.has_more(watcher) and not watcher.ended:
            await self._bell.wait()

    async def look(self, watcher: Watcher) -> list[str]:
        """Returns what the watcher wants of the next few messages: one slice of the work."""
        turns = self.turns[watcher.group]
        async with turns.looks:
            found = self._slice(watcher, turns)
            if turns.work >= SLICE_WORK:
                turns.work = 0
                await trio.sleep(PAUSE_S)
        return found

    def _slice(self, watcher: Watcher, turns: Pacing) -> list[str]:
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
        """Sends all watchers away, and each that comes from now on."""
        self._closed = True
        for watcher in self:
            watcher.end(DISMISSED)
