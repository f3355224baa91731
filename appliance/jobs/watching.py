"""Who watches: the news that each of them asked for, kept until it is read.

A query is a map: each of its keys must be a key of the message, or an expression that finds one;
each value, or one of several in a list, must be the message's or find something in it
(protocol.md §9).  Expressions are RE2's: the time they take grows with the text alone, so nobody's
can hold the loop.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any, Final

import re2
import trio

from appliance.errors import BadRequest, Refused
from appliance.jobs import news
from appliance.jobs.news import Message

WATCHERS_MAX: Final = 200  # people and their scripts; each costs a look at every message
# Of one watcher, not read yet: some hundred kB.  A job has about forty messages.
UNREAD_MAX: Final = 1000
JOBS_MAX: Final = 10_000  # named in one query: a submit of a large matrix
EXPRESSIONS_MAX: Final = 100  # in one query, each a microsecond for each message
EXPRESSION_CHARS_MAX: Final = 200
EXPRESSION_BYTES_MAX: Final = 2**16  # of one that is compiled; RE2 refuses a larger one
# An expression finds lab.1 in lab.10, whose end its client would take for its own job's.
_JOB: Final = re.compile(r"[A-Za-z0-9_-]+\.[0-9]+\Z")

DISMISSED: Final = "the server stops"
BEHIND: Final = f"more than {UNREAD_MAX} messages were not read"


class Query:
    """What somebody wants to hear of."""

    def __init__(self, said: Any) -> None:
        """Raises BadRequest with what would be right."""
        if not isinstance(said, dict) or not all(isinstance(key, str) for key in said):
            raise BadRequest('a query is a JSON object, such as {"job_id": ["lab.1"]}')
        self._rules = [_Rule(key, value) for key, value in said.items()]
        if sum(rule.size for rule in self._rules) > EXPRESSIONS_MAX:
            raise BadRequest(f"a query has at most {EXPRESSIONS_MAX} expressions")

    def fits(self, message: Mapping[str, Any]) -> bool:
        """Whether every rule finds what it wants."""
        return all(rule.fits(message) for rule in self._rules)


class _Rule:
    """One key of a query, and its values."""

    def __init__(self, key: str, value: Any) -> None:
        values = value if isinstance(value, list) else [value]
        self._key = key
        self._finds_key = _expression(key)
        self._any = None in values
        self._words = {_word(one) for one in values}
        if len(self._words) > JOBS_MAX:
            raise BadRequest(f"{key[:40]}: at most {JOBS_MAX} values")
        wide = [word for word in self._words if not (key == "job_id" and _JOB.match(word))]
        self.size = 1 + len(wide)
        if self.size > EXPRESSIONS_MAX:  # before they are compiled
            raise BadRequest(f"a query has at most {EXPRESSIONS_MAX} expressions")
        self._find_value = [_expression(word) for word in wide]

    def fits(self, message: Mapping[str, Any]) -> bool:
        key: str | None = self._key
        if key not in message:
            key = next((name for name in message if self._finds_key.search(name)), None)
        if key is None:
            return False
        word = _word(message[key])
        return (
            self._any
            or word in self._words
            or any(expression.search(word) for expression in self._find_value)
        )


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _expression(text: str) -> Any:
    """Raises BadRequest for one that is too long, or none of RE2's."""
    if len(text) > EXPRESSION_CHARS_MAX:
        raise BadRequest(f"{text[:40]!r}...: an expression has at most {EXPRESSION_CHARS_MAX}")
    options = re2.Options()
    options.log_errors = False
    options.max_mem = EXPRESSION_BYTES_MAX
    try:
        return re2.compile(text, options=options)
    except (re2.error, UnicodeEncodeError) as error:
        raise BadRequest(f"{text[:40]!r} is no expression of RE2's: {_why(error)}") from error


def _why(error: Exception) -> str:
    why = error.args[0] if error.args else ""
    return why.decode(errors="replace") if isinstance(why, bytes) else "it is no text"


class Watcher:
    """One who watches."""

    def __init__(self) -> None:
        self.query: Query | None = None  # it has not said yet
        self.ended = ""  # why nothing more will come
        self._unread: deque[str] = deque()
        self._something = trio.Event()

    def tell(self, message: Message, text: str) -> None:
        """Keep it for the watcher, if it is what was asked for."""
        if self.ended or self.query is None or not self.query.fits(message):
            return
        if len(self._unread) >= UNREAD_MAX:
            self.end(BEHIND)
            return
        self._unread.append(text)
        self._something.set()

    def end(self, why: str) -> None:
        """Nothing more will come."""
        self.ended = self.ended or why
        self._something.set()

    async def read(self) -> list[str]:
        """All that was not read, at least one; empty at the end."""
        while not self._unread and not self.ended:
            await self._something.wait()
            self._something = trio.Event()
        unread, self._unread = list(self._unread), deque()
        return unread


class Watchers:
    """All who watch one scheduler."""

    def __init__(self) -> None:
        self._watchers: dict[int, Watcher] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._watchers)

    def __iter__(self) -> Iterator[Watcher]:
        return iter(list(self._watchers.values()))

    def join(self) -> Watcher:
        """One more, which has not said yet what it wants.  Raises Refused past WATCHERS_MAX."""
        if len(self._watchers) >= WATCHERS_MAX:
            raise Refused(f"{WATCHERS_MAX} watch already")
        watcher = Watcher()
        self._watchers[id(watcher)] = watcher
        if self._closed:
            watcher.end(DISMISSED)
        return watcher

    def leave(self, watcher: Watcher) -> None:
        """It watches no more."""
        self._watchers.pop(id(watcher), None)

    def tell(self, message: Message) -> None:
        """Tell all whom it concerns."""
        text = news.text(message)
        for watcher in self:
            watcher.tell(message, text)

    def dismiss(self) -> None:
        """Send everybody away, and whoever comes from now on."""
        self._closed = True
        for watcher in self:
            watcher.end(DISMISSED)
