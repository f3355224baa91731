"""What a watcher wants to hear of, and what it costs to find out.

A query is a map.  Each key must be a key of the message, or an expression that finds one; each
value, or one of several in a list, must equal the message's value or find something in it
(docs/wire.md#the-monitor).  Expressions are RE2's: their running time grows with their compiled
size and with the text, and both are limited before anything is matched.  A word without special
characters is searched for as it is, which costs next to nothing.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final

import re2

from appliance.errors import BadRequest
from appliance.jobs.shown import news
from appliance.jobs.shown.news import Message

JOBS_MAX: Final = 10_000  # named in one query: a submit of a large matrix
EXPRESSIONS_MAX: Final = 100  # in one query, plain words included
EXPRESSION_CHARS_MAX: Final = 200
# Of one expression, compiled, with what RE2 caches while it matches.  RE2 refuses a larger one:
# some thousand instructions are the most.
EXPRESSION_BYTES_MAX: Final = 2**14
# Of all expressions in one query, in instructions: with the longest text, a millisecond for each
# message.  An expression that finds a name or a number has twenty; .{1,100} has 900.
PROGRAM_MAX: Final = 1000
SEARCH: Final = 10  # the cost of starting a search, in instructions: 2 us
# Of a value, the part that is searched: the longest name of a file, and what is said of it.
TEXT_BYTES_MAX: Final = 512
# Work is counted in instructions times bytes, some 1.5 ns each if RE2 has nothing cached.
LOOK_WORK: Final = 2000  # for each message, and again for every ten words: 3 us
# In memory: the map, its keys in the text sent, each value there twice, and as it is searched.
NEWS_BYTES: Final = 1500
_SPECIAL: Final = frozenset(r"\.+*?()|[]{}^$")
# A job id is compared as a whole: as an expression lab.1 would also find lab.10, and the client
# would take the end of lab.10 for the end of its own job.
_JOB: Final = re.compile(r"[A-Za-z0-9_-]+\.[0-9]+\Z")


class News:
    """One message for many watchers: the text that they search is made once."""

    __slots__ = ("_text", "_words", "longest", "message", "size")

    def __init__(self, message: Message) -> None:
        self.message = message
        self._words: dict[str, tuple[str, str, bytes]] = {}
        self._text = ""
        said = sum(len(value) for value in message.values() if isinstance(value, str))
        self.size = NEWS_BYTES + 4 * said
        self.longest = min(said, TEXT_BYTES_MAX)  # no value has a longer searched part

    @property
    def text(self) -> str:
        """The message as it is sent."""
        self._text = self._text or news.text(self.message)
        return self._text

    def words(self, key: str) -> tuple[str, str, bytes]:
        """Returns the value as a whole, then its searched part as text and as bytes."""
        if key not in self._words:
            word = _word(self.message[key])
            data = word.encode(errors="replace")[:TEXT_BYTES_MAX]
            self._words[key] = word, data.decode(errors="ignore"), data
        return self._words[key]


class Query:
    """What a watcher wants to hear of."""

    def __init__(self, said: Any) -> None:
        """Compiles a query.  Raises BadRequest with what would be right."""
        if not isinstance(said, dict) or not all(isinstance(key, str) for key in said):
            raise BadRequest('a query is a JSON object, such as {"job_id": ["lab.1"]}')
        if len(said) > EXPRESSIONS_MAX:
            raise _too_many()
        self._rules: list[_Rule] = []
        self.program = 0  # the compiled size, in instructions
        size = 0
        for key, value in said.items():
            rule = _Rule(key, value, self.program)
            self._rules.append(rule)
            size += rule.size
            self.program += rule.program
            if size > EXPRESSIONS_MAX:
                raise _too_many()
        self._look = LOOK_WORK + LOOK_WORK * size // 10

    def fits(self, item: News) -> bool:
        """Whether every rule finds what it wants."""
        return all(rule.fits(item) for rule in self._rules)

    def work(self, item: News) -> int:
        """Returns what `fits` costs at most."""
        return self._look + self.program * item.longest


class _Rule:
    """One key of a query, and its values."""

    def __init__(self, key: str, value: Any, before: int) -> None:
        """`before`: the compiled size of the query's earlier rules."""
        values = value if isinstance(value, list) else [value]
        self._key = key
        self._any = None in values
        self._words = {_word(one) for one in values}
        if len(self._words) > JOBS_MAX:
            raise BadRequest(f"{key[:40]}: at most {JOBS_MAX} values")
        wide = [word for word in self._words if not (key == "job_id" and _JOB.match(word))]
        self.size = 1 + len(wide)
        if self.size > EXPRESSIONS_MAX:
            raise _too_many()
        self.program = 0
        self._finds_key = self._finder(key, before)
        self._found: dict[str, bool] = {}  # by name of a key seen so far: messages have a dozen
        self._finders = [self._finder(word, before) for word in sorted(wide)]

    def _finder(self, text: str, before: int) -> _Word | _Expression:
        """Compiles an expression.  Raises BadRequest if it is too long, too large or not RE2's."""
        if len(text) > EXPRESSION_CHARS_MAX:
            raise BadRequest(f"{text[:40]!r}...: an expression has at most {EXPRESSION_CHARS_MAX}")
        try:
            data = text.encode()
        except UnicodeEncodeError as error:
            raise BadRequest(f"{text[:40]!r} is no expression of RE2's: it is no text") from error
        if not _SPECIAL & {*text}:
            return _Word(text)
        found = _Expression(text, data)
        self.program += found.program
        if before + self.program > PROGRAM_MAX:
            raise _too_large(text)
        return found

    def fits(self, item: News) -> bool:
        key: str | None = self._key
        if key not in item.message:
            key = next((name for name in item.message if self._is_key(name)), None)
        if key is None:
            return False
        word, text, data = item.words(key)
        return (
            self._any
            or word in self._words
            or any(finder.finds(text, data) for finder in self._finders)
        )

    def _is_key(self, name: str) -> bool:
        if name not in self._found:
            self._found[name] = self._finds_key.finds(name, name.encode())
        return self._found[name]


class _Word:
    """A plain word, which finds itself."""

    def __init__(self, text: str) -> None:
        self._text = text

    def finds(self, text: str, data: bytes) -> bool:
        return self._text in text


class _Expression:
    """An expression, which finds what RE2 finds."""

    def __init__(self, text: str, data: bytes) -> None:
        """Compiles the expression.  Raises BadRequest."""
        options = re2.Options()
        options.log_errors = False
        options.never_capture = True  # we only ask whether it finds anything
        options.max_mem = EXPRESSION_BYTES_MAX
        try:
            self._compiled = re2.compile(data, options=options)
        except re2.error as error:
            if "too large" in _why(error):
                raise _too_large(text) from error
            raise BadRequest(f"{text[:40]!r} is no expression of RE2's: {_why(error)}") from error
        self.program: int = SEARCH + self._compiled.programsize

    def finds(self, text: str, data: bytes) -> bool:
        return self._compiled.search(data) is not None


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _too_many() -> BadRequest:
    return BadRequest(f"a query has at most {EXPRESSIONS_MAX} expressions")


def _too_large(text: str) -> BadRequest:
    return BadRequest(
        f"{text[:20]!r}: the expressions of a query compile to {PROGRAM_MAX} instructions at most;"
        " repeat less, as .{1,9} does"
    )


def _why(error: Exception) -> str:
    why = error.args[0] if error.args else ""
    return why.decode(errors="replace") if isinstance(why, bytes) else "it is no text"
