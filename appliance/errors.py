"""Pure: no clock, no socket, no await.

Every way the world can be wrong, flat, with the facts in it.
Our own mistakes are assertions; these are other people's, and each door translates them once.
"""

from __future__ import annotations

from typing import Final

import attrs

# Of what a mistake is about, and of what is wrong with it.  A name may be as long as its document:
# somebody is to read fifty of these.
FIELD_CHARS_MAX: Final = 100
MESSAGE_CHARS_MAX: Final = 1000


class ApplianceError(Exception):
    """Something outside the program is wrong; `str()` says what would be right."""


class BadConfig(ApplianceError):
    """A configuration or hosts file cannot be used; names file, key and the nearest right one."""


class BadRequest(ApplianceError):
    """What was asked does not parse: a broken MAC, an illegal path, an unknown filter."""


class NotFound(ApplianceError):
    """No such job, testbox, image or file."""


class Refused(ApplianceError):
    """It parses, but may not be done: wrong address, wrong owner, wrong moment."""


class Unproven(ApplianceError):
    """Who asks cannot be told now, and would have to be: nothing was done, ask again."""


class IllegalMove(ApplianceError):
    """A job in this state cannot take this event."""


class NoSpace(ApplianceError):
    """The disk or a quota is full, or takes nothing; nothing of the write was kept."""


class BadImage(ApplianceError):
    """An image or one of its files is missing or unreadable; names it and those there are.

    `field`: of the job document that asked for it.
    """

    def __init__(self, text: str, field: str = "os") -> None:
        super().__init__(text)
        self.field = field


class BadState(ApplianceError):
    """State files that are not ours, newer than us, or damaged; names file and offset."""


class NewerState(BadState):
    """State files of a later program, which nobody here may change, repair or leave out."""


class DiskTrouble(ApplianceError):
    """The disk does not take the state now; nothing was decided, ask again with the same key."""


class Unknown(ApplianceError):
    """Whether it was done is not known; asking again with the same key finds out, or does it."""


class SyncFailed(ApplianceError):
    """A sync of the state failed: what the disk holds, only a restart can find out."""


class NotRunning(ApplianceError):
    """No server answers on the control socket."""


def _short_field(text: str) -> str:
    return text if len(text) <= FIELD_CHARS_MAX else text[: FIELD_CHARS_MAX - 3] + "..."


def _short_message(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS_MAX else text[: MESSAGE_CHARS_MAX - 3] + "..."


@attrs.frozen
class Problem:
    """One mistake in a job document."""

    field: str = attrs.field(converter=_short_field)
    line: int | None  # 1-based line of the document; None where the field is absent
    # What is wrong, and what would be right.
    message: str = attrs.field(converter=_short_message)

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.field}: {self.message}"


class BadDocument(ApplianceError):
    """A job document that does not fit: every mistake at once."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems
