"""Pure: no clock, no socket, no await.

Every way the world can be wrong, flat, with the facts in it.
Our own mistakes are assertions; these are other people's.  Each class knows what it is called at
every door, so that a new one is said in one place.
"""

from __future__ import annotations

from typing import ClassVar, Final

import attrs

# Of what a mistake is about, and of what is wrong with it.  A name may be as long as its document:
# somebody is to read fifty of these.
FIELD_CHARS_MAX: Final = 100
MESSAGE_CHARS_MAX: Final = 1000


# Exit codes of the command line, for scripts.  click itself uses USAGE for a wrong command line.
FAILED: Final = 1  # the job that was waited for did not succeed
USAGE: Final = 2  # the command line or the document is wrong
NOT_FOUND: Final = 3
REFUSED: Final = 4  # it may not be done, or the server could not
NO_SERVER: Final = 5
UNKNOWN: Final = 6  # it may have been done: ask again with the same key


class ApplianceError(Exception):
    """Something outside the program is wrong; `str()` says what would be right.

    `status`: of an answer by HTTP, 503 where the same may be well in a moment.  `kind`: its name on
    the control socket.  `exit_code`: of the command that met it.
    """

    status: ClassVar[int] = 403
    kind: ClassVar[str] = "refused"
    exit_code: ClassVar[int] = REFUSED


class BadConfig(ApplianceError):
    """A configuration or hosts file cannot be used; names file, key and the nearest right one."""

    status = 400
    kind = "bad-request"
    exit_code = USAGE


class BadRequest(ApplianceError):
    """What was asked does not parse: a broken MAC, an illegal path, an unknown filter."""

    status = 400
    kind = "bad-request"
    exit_code = USAGE


class NotFound(ApplianceError):
    """No such job, testbox, image or file."""

    status = 404
    kind = "not-found"
    exit_code = NOT_FOUND


class Refused(ApplianceError):
    """It parses, but may not be done: wrong address, wrong owner, wrong moment."""


class Unproven(ApplianceError):
    """Who asks cannot be told now, and would have to be: nothing was done, ask again."""

    status = 503


class IllegalMove(ApplianceError):
    """A job in this state cannot take this event."""


class NoSpace(ApplianceError):
    """The disk or a quota is full, or takes nothing; nothing of the write was kept."""

    status = 507
    kind = "no-space"


class BadImage(ApplianceError):
    """An image or one of its files is missing or unreadable; names it and those there are.

    `field`: of the job document that asked for it.
    """

    kind = "bad-image"
    exit_code = USAGE

    def __init__(self, text: str, field: str = "os") -> None:
        super().__init__(text)
        self.field = field


class BadState(ApplianceError):
    """State files that are not ours, newer than us, or damaged; names file and offset."""

    status = 503


class NewerState(BadState):
    """State files of a later program, which nobody here may change, repair or leave out."""


class DiskTrouble(ApplianceError):
    """The disk does not take the state now; nothing was decided, ask again with the same key."""

    status = 503
    kind = "disk-trouble"


class Unknown(ApplianceError):
    """Whether it was done is not known; asking again with the same key finds out, or does it."""

    status = 503
    kind = "unknown"
    exit_code = UNKNOWN


class SyncFailed(ApplianceError):
    """A sync of the state failed: what the disk holds, only a restart can find out."""


class NotRunning(ApplianceError):
    """No server answers on the control socket."""

    exit_code = NO_SERVER


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

    status = 400
    kind = "bad-document"
    exit_code = USAGE

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def of_kind(kind: str) -> type[ApplianceError]:
    """The class that the control socket calls `kind`; Refused for a word of a newer server.

    A BadDocument has more to it than its text.
    """
    return _BY_KIND.get(kind, Refused)


_BY_KIND: Final[dict[str, type[ApplianceError]]] = {
    each.kind: each for each in (BadRequest, NotFound, NoSpace, BadImage, DiskTrouble, Unknown)
}
