"""Pure: no clock, no socket, no await.

Limits repeated log lines, which clients may cause by the thousand.  In each period the first lines
of a kind are logged; the others are counted, and their number is logged at the end.

A kind is what happened (event, level, status, class of the error) and to whom (an address, a user,
a testbox), but never the rest of the line, which may hold a stranger's own words.

Each kind has its own count, up to a maximum for each group.  Strangers, who may use any number of
addresses, are a group of their own, so that they cannot hide the first line about a testbox, a
user or the server.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

PERIOD_S: Final = 60.0
# Lines of one kind in a period.  More of `info`, where each line may be news: a box's own reports.
SHOWN: Final = {"info": 30, "warning": 3, "error": 3, "critical": 3}
LIBRARY_SHOWN: Final = 1  # a library's lines are always the same, with a trace
OTHERS: Final = "others"
LIBRARY: Final = "logger"  # the key for a library's name
MORE: Final = "more"  # the key for the number of lines that were not logged
_WHO: Final = ("client", "address", "user", "box")

_USER: Final = "user"


class Group(enum.Enum):
    """Whose kinds share one maximum."""

    SERVER = "server"  # lines about no client: libraries, errors
    LAB = "lab"  # testboxes, users, and clients on the server itself
    STRANGER = "stranger"


# Kinds with a count of their own, 600 bytes each; further kinds are counted together as `others`,
# by event.  Strangers cause at most 1,200 lines a minute; a testbox has one address and therefore,
# however broken, some fifty kinds.
KINDS_MAX: Final = {Group.SERVER: 200, Group.LAB: 10_000, Group.STRANGER: 300}

_Kind = tuple[Group, str, str, str, str, str]


@attrs.define
class _Count:
    """The count of one kind in one period."""

    until: float
    said: int = 0
    more: int = 0
    fields: dict[str, Any] = attrs.field(factory=dict)


class Floods:
    """Counts the lines that were logged in this period, and those that were not."""

    def __init__(self) -> None:
        self._counts: dict[_Kind, _Count] = {}
        self._sizes = dict.fromkeys(Group, 0)  # how many kinds each group has
        # Whether an address or a testbox is the lab's; set by log.learn().
        self.is_known: Callable[[str], bool] = lambda who: False

    def __len__(self) -> int:
        """Returns how many kinds are counted."""
        return len(self._counts)

    def takes(self, event: Mapping[str, Any], level: str, now: float) -> bool:
        """Whether to log a line; counts the line if not."""
        who = next((str(event[key]) for key in _WHO if event.get(key)), "")
        library, error = str(event.get(LIBRARY, "")), _class(event.get("exc_info"))
        most = LIBRARY_SHOWN if library else SHOWN.get(level)
        if MORE in event or most is None or not (who or library or error):
            return True
        name = library or str(event.get("event"))
        group = Group.SERVER if not who else self._group(event, who)
        status = str(event.get("status", ""))
        count = self._count((group, name, level, status, error, who), event, now)
        if count.until <= now:  # the period is over, and over() has not been called yet
            count.until, count.said = now + PERIOD_S, 0
        if count.said < most:
            count.said += 1
            return True
        count.more += 1
        return False

    def _count(self, kind: _Kind, event: Mapping[str, Any], now: float) -> _Count:
        group = kind[0]
        if kind not in self._counts and self._sizes[group] >= KINDS_MAX[group]:
            kind = (*kind[:3], "", "", OTHERS)
        count = self._counts.get(kind)
        if count is None:
            fields = {key: event[key] for key in (*_WHO, LIBRARY, "status") if event.get(key)}
            if kind[5] == OTHERS:
                fields = {key: OTHERS for key in _WHO if key in fields}
            fields["event"] = event.get("event")
            count = self._counts[kind] = _Count(now + PERIOD_S, fields=fields)
            self._sizes[group] += 1
        return count

    def _group(self, event: Mapping[str, Any], who: str) -> Group:
        # The kernel names a user, so a user is never a stranger.
        known = who == str(event.get(_USER)) or self.is_known(who)
        return Group.LAB if known else Group.STRANGER

    def over(self, now: float) -> list[tuple[str, dict[str, Any]]]:
        """Returns level and fields of a line for each ended period with lines not logged."""
        found = []
        for kind, count in list(self._counts.items()):
            if count.until <= now:
                del self._counts[kind]
                self._sizes[kind[0]] -= 1
                if count.more:
                    why = f"and {count.more} more like this within {PERIOD_S:.0f} s"
                    found.append((kind[2], {**count.fields, MORE: count.more, "why": why}))
        return found


def _class(error: Any) -> str:
    """Returns the class name of a logger's `exc_info`; empty for none."""
    if isinstance(error, tuple):
        error = error[1]
    return type(error).__name__ if isinstance(error, BaseException) else ""
