"""Pure: no clock, no socket, no await.

Lines of the log that others cause, and may cause by the thousand: the first ones of a kind are
said, the rest of a period is counted, and its number is said at the end.

A kind is what happened (event, level, status, the class of the error) and to whom (an address, a
user, a testbox), and never what the line says of it: that may be the stranger's own words.

Kinds are counted apart as far as there is room for them.  Strangers, who may come from as many
addresses as they like, have room of their own, and so no number of them hides the first line about
a testbox, a user or the server.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs

PERIOD_S: Final = 60.0
# Of one kind in a period.  Some lines of `info` tell one thing each: what a box says of itself.
SHOWN: Final = {"info": 30, "warning": 3, "error": 3, "critical": 3}
LIBRARY_SHOWN: Final = 1  # a library's: the same words each time, with a trace
OTHERS: Final = "others"
LIBRARY: Final = "logger"  # the key that says which one
MORE: Final = "more"  # the key of a line that says how many were not said
_WHO: Final = ("client", "address", "user", "box")

_USER: Final = "user"


class Group(enum.Enum):
    """Who has room together."""

    SERVER = "server"  # what is nobody's: libraries, errors
    LAB = "lab"  # testboxes, users, and who is on the server itself
    STRANGER = "stranger"


# Kinds that are counted apart, of 600 bytes each; what comes beyond them counts as `others`, by
# event.  Strangers cause 1,200 lines a minute at most; a testbox has one address, and so, be it as
# bad as it may, some fifty kinds.
KINDS_MAX: Final = {Group.SERVER: 200, Group.LAB: 10_000, Group.STRANGER: 300}

_Kind = tuple[Group, str, str, str, str, str]


@attrs.define
class _Count:
    """Of one kind, in one period."""

    until: float
    said: int = 0
    more: int = 0
    fields: dict[str, Any] = attrs.field(factory=dict)


class Floods:
    """What has been said in this period, and what has not."""

    def __init__(self) -> None:
        self._counts: dict[_Kind, _Count] = {}
        self._sizes = dict.fromkeys(Group, 0)  # how many of them
        # Whether an address or a testbox is the lab's; whoever knows that says so here.
        self.is_known: Callable[[str], bool] = lambda who: False

    def __len__(self) -> int:
        """Kinds that are counted."""
        return len(self._counts)

    def takes(self, event: Mapping[str, Any], level: str, now: float) -> bool:
        """Whether a line is said; else it is counted."""
        who = next((str(event[key]) for key in _WHO if event.get(key)), "")
        library, error = str(event.get(LIBRARY, "")), _class(event.get("exc_info"))
        most = LIBRARY_SHOWN if library else SHOWN.get(level)
        if MORE in event or most is None or not (who or library or error):
            return True
        name = library or str(event.get("event"))
        group = Group.SERVER if not who else self._group(event, who)
        status = str(event.get("status", ""))
        count = self._count((group, name, level, status, error, who), event, now)
        if count.until <= now:  # and nobody has asked yet how many they were
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
        # A user is who the kernel names, and stands where no address does.
        known = who == str(event.get(_USER)) or self.is_known(who)
        return Group.LAB if known else Group.STRANGER

    def over(self, now: float) -> list[tuple[str, dict[str, Any]]]:
        """The level and the fields of a line for each period that is over and had more to say."""
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
    """The name of an exception's class, as a logger is given it; empty for none."""
    if isinstance(error, tuple):
        error = error[1]
    return type(error).__name__ if isinstance(error, BaseException) else ""
