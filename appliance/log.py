"""Writes the log: key=value to a terminal or file, fields to systemd's journal.

Under systemd each event is one datagram in the journal's own protocol, so that journalctl can
filter by its keys: `journalctl -u appliance JOB=lab.1`, `MAC=52:54:00:12:34:56`, `-p warning`.
(Lines on stderr with a priority in front, which systemd also reads, would lose the other fields.)
MESSAGE is the whole event as key=value, for readers.

A line that names a job or a testbox also has the other one and the MAC, as far as they are known.
Repeated lines that clients cause are logged a few times and then counted (floods.py).
"""

from __future__ import annotations

import functools
import logging
import math
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final

import attrs
import structlog

from appliance import systemd
from appliance.floods import LIBRARY, Floods
from appliance.printable import printable

JOURNAL: Final = Path("/run/systemd/journal/socket")
# syslog's priorities (RFC 5424), which `journalctl -p` filters by
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
FLOODS_S: Final = 10.0  # seconds between two reports of lines that were not logged
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
                 "error": logging.ERROR}  # fmt: skip

_NAMES: Final = frozenset(["job", "box", "host", "client", "address"])

Event = MutableMapping[str, Any]
About = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@attrs.define
class Threshold:
    """The lowest level that is logged; it can be changed for a while."""

    word: str = "info"
    before: str = "info"  # the level after `until`
    until: float | None = None  # by `clock`; None: for good
    clock: Callable[[], float] = time.monotonic

    def set(self, word: str, seconds: float | None = None) -> None:
        """Sets the level, for good or for some seconds."""
        if self.until is None:
            self.before = self.word
        self.word = word
        self.until = None if seconds is None else self.clock() + seconds
        if seconds is None:
            self.before = word

    @property
    def now(self) -> str:
        """The current level."""
        if self.until is not None and self.clock() >= self.until:
            self.word, self.until = self.before, None
        return self.word

    def lets(self, level: str) -> bool:
        """Whether an event of this level is logged."""
        return LEVELS.get(level, logging.CRITICAL) >= LEVELS[self.now]


threshold: Final = Threshold()  # one for the process, as the log
_floods: Final = Floods()
_turn: Final = threading.Lock()  # threads log, too
_about: list[About] = []  # at most one: the function that learn() was given


def begin(*, verbose: bool) -> None:
    """Sets up structlog and the standard library's logging, which Hypercorn uses."""
    threshold.set("debug" if verbose else "info")
    logging.basicConfig(level=logging.WARNING, handlers=[Library()], force=True)
    journal = connect(JOURNAL) if systemd.reads(sys.stderr) else None
    last = [_stamp, plain, _render] if journal is None else [plain, Journal(journal)]
    structlog.configure(
        processors=[_filter, structlog.processors.add_log_level, _fold, _complete,
                    structlog.processors.format_exc_info, *last],
        wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )  # fmt: skip


def learn(about: About, is_known: Callable[[str], bool]) -> None:
    """Sets `about`, which returns more facts about an event's job or testbox.

    Also sets `is_known`, which says whether an address is the lab's (floods.py).
    """
    _about[:] = [about]
    _floods.is_known = is_known


def connect(path: Path) -> socket.socket | None:
    """Connects to the journal's socket; returns None if it cannot be reached."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)  # the loop never waits for a log
        sock.connect(str(path))
    except OSError:
        sock.close()
        return None
    return sock


_text: Final = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
_message: Final = structlog.processors.LogfmtRenderer(key_order=["event"])


def _render(logger: Any, method: str, event: Event) -> str:
    return str(_text(logger, method, event))


def _stamp(logger: Any, method: str, event: Event) -> Event:
    event["timestamp"] = _at(int(time.time()))
    return event


@functools.lru_cache(1)
def _at(second: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))


def _filter(logger: Any, method: str, event: Event) -> Event:
    if not threshold.lets("error" if method == "exception" else method):
        raise structlog.DropEvent
    return event


def _fold(logger: Any, method: str, event: Event) -> Event:
    if event.get("exc_info") is True:
        event["exc_info"] = sys.exc_info()
    with _turn:
        said = _floods.takes(event, str(event["level"]), time.monotonic())
    if not said:
        raise structlog.DropEvent
    return event


def tell_floods(*, all_of_them: bool = False) -> None:
    """Logs how many lines were not logged, for the periods that are over or for all periods."""
    with _turn:
        found = _floods.over(math.inf if all_of_them else time.monotonic())
    for level, fields in found:
        structlog.get_logger().log(logging.getLevelName(level.upper()), **fields)


class Library(logging.Handler):
    """Passes log records of libraries, from the standard library's logging, to our log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Logs a record."""
        fields: dict[str, Any] = {LIBRARY: record.name}
        # The trace of a failed accept() says nothing that the line does not say.
        if record.exc_info and record.name != "trio.serve_listeners":
            fields["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, record.getMessage(), **fields)


def _complete(logger: Any, method: str, event: Event) -> Event:
    if _about and not _NAMES.isdisjoint(event):
        for key, value in _about[0](event).items():
            event.setdefault(key, value)
    return event


def plain(logger: Any, method: str, event: Event) -> Event:
    """Escapes control characters and line ends, which strangers may send; not those of a trace."""
    for key, value in event.items():
        if key == "exception":
            event[key] = printable(str(value), "\n\t")
        elif value is not None and not isinstance(value, int | float):
            event[key] = printable(str(value))
    return event


class Journal:
    """The last processor: sends events to the journal, or to stderr if the journal refuses one."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __call__(self, logger: Any, method: str, event: Event) -> str:
        level = str(event.pop("level", "info"))
        trace = event.pop("exception", None)
        message = str(_message(logger, method, dict(event)))
        if trace is not None:
            message += f"\n{trace}"
        priority = _PRIORITIES.get(level, 6)
        fields = {"MESSAGE": message, "PRIORITY": priority, "SYSLOG_IDENTIFIER": "appliance"}
        fields |= {key.upper(): value for key, value in event.items()}
        try:
            self._sock.send(datagram(fields))
        except OSError:  # the journal is full or gone, or the event is too long
            lines = message.split("\n")
            return "\n".join(f"<{priority}>{line}" for line in lines)
        raise structlog.DropEvent


def datagram(fields: Mapping[str, Any]) -> bytes:
    """Encodes a journal entry: FIELD=value lines, or with a length if the value has line ends."""
    parts = []
    for key, value in fields.items():
        name = "".join(c if c.isalnum() and c.isascii() else "_" for c in key).upper().lstrip("_")
        data = str(value).encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
