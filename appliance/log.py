"""What the log looks like: key=value to a terminal or file, fields to systemd's journal.

Under systemd each event is one datagram in the journal's own protocol, so its keys can be asked
for: `journalctl -u appliance JOB=lab.1`, `MAC=52:54:00:12:34:56`, `-p warning`.  Lines with a
priority in front, which systemd also reads, would keep only the priority.  MESSAGE is the whole
event as key=value, for who just reads.

A line that names a job or a testbox has the other one and the MAC too, as far as they are known.
Lines that others cause by the thousand are said a few times and then counted (floods.py).
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
# syslog's priorities (RFC 5424): what `journalctl -p` goes by
_PRIORITIES: Final = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
FLOODS_S: Final = 10.0  # seconds between two looks at what was not said
LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING,
                 "error": logging.ERROR}  # fmt: skip

_NAMES: Final = frozenset(["job", "box", "host", "client", "address"])

Event = MutableMapping[str, Any]
About = Callable[[Mapping[str, Any]], Mapping[str, Any]]


@attrs.define
class Threshold:
    """Below which level nothing is said; it can be changed for a while."""

    word: str = "info"
    before: str = "info"  # what it goes back to
    until: float | None = None  # of `clock`; None: for good
    clock: Callable[[], float] = time.monotonic

    def set(self, word: str, seconds: float | None = None) -> None:
        """From now on, or for so many seconds."""
        if self.until is None:
            self.before = self.word
        self.word = word
        self.until = None if seconds is None else self.clock() + seconds
        if seconds is None:
            self.before = word

    @property
    def now(self) -> str:
        """The level that holds."""
        if self.until is not None and self.clock() >= self.until:
            self.word, self.until = self.before, None
        return self.word

    def lets(self, level: str) -> bool:
        """Whether something of this level is said."""
        return LEVELS.get(level, logging.CRITICAL) >= LEVELS[self.now]


threshold: Final = Threshold()  # the process's: a log is one
_floods: Final = Floods()
_turn: Final = threading.Lock()  # threads say something, too
_about: list[About] = []  # who knows more about a job or a testbox; the newest is asked


def begin(*, verbose: bool) -> None:
    """Set up structlog and the standard library's logging, which Hypercorn uses."""
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
    """From now on `about` says what else is known of an event's job or testbox.

    `is_known` says whether an address is one of the lab's: no stranger's lines hide its own.
    """
    _about[:] = [about]
    _floods.is_known = is_known


def connect(path: Path) -> socket.socket | None:
    """The journal's socket; None where it cannot be reached."""
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
    """Say how many lines were not said, of the periods that are over, or of all."""
    with _turn:
        found = _floods.over(math.inf if all_of_them else time.monotonic())
    for level, fields in found:
        structlog.get_logger().log(logging.getLevelName(level.upper()), **fields)


class Library(logging.Handler):
    """What libraries say by the standard library's logging, said as ours."""

    def emit(self, record: logging.LogRecord) -> None:
        """Say it."""
        fields: dict[str, Any] = {LIBRARY: record.name}
        # How accept was called says nothing; why it failed, the line does.
        if record.exc_info and record.name != "trio.serve_listeners":
            fields["exc_info"] = record.exc_info
        structlog.get_logger().log(record.levelno, record.getMessage(), **fields)


def _complete(logger: Any, method: str, event: Event) -> Event:
    if _about and not _NAMES.isdisjoint(event):
        for key, value in _about[0](event).items():
            event.setdefault(key, value)
    return event


def plain(logger: Any, method: str, event: Event) -> Event:
    """What strangers wrote moves no cursor, and begins no line of its own; a trace keeps its."""
    for key, value in event.items():
        if key == "exception":
            event[key] = printable(str(value), "\n\t")
        elif value is not None and not isinstance(value, int | float):
            event[key] = printable(str(value))
    return event


class Journal:
    """The last processor: sends an event to the journal; what it does not take goes to stderr."""

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
        except OSError:  # full, gone, or too long for it
            lines = message.split("\n")
            return "\n".join(f"<{priority}>{line}" for line in lines)
        raise structlog.DropEvent


def datagram(fields: Mapping[str, Any]) -> bytes:
    """A journal entry: FIELD=value lines; a value with line ends goes with its length."""
    parts = []
    for key, value in fields.items():
        name = "".join(c if c.isalnum() and c.isascii() else "_" for c in key).upper().lstrip("_")
        data = str(value).encode(errors="replace")
        if b"\n" in data:
            parts.append(name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n")
        else:
            parts.append(name.encode() + b"=" + data + b"\n")
    return b"".join(parts)
