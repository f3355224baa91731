"""Pure: no clock, no socket, no await.

The expected errors, each with the facts about it; bugs of the program are assertions instead.
Each class holds its HTTP status, its name on the control socket and its exit code, so that a new
error is defined in one place.
"""

from __future__ import annotations

from typing import ClassVar, Final

import attrs

# Limits of a Problem's field and message.  A field's name may be as long as its document, and a
# person may have to read fifty problems.
FIELD_CHARS_MAX: Final = 100
MESSAGE_CHARS_MAX: Final = 1000


# Exit codes of the command line, for scripts.  click itself uses USAGE for a wrong command line.
FAILED: Final = 1  # a job did not succeed, or a check found errors
USAGE: Final = 2  # the command line or the document is wrong
NOT_FOUND: Final = 3
REFUSED: Final = 4  # not allowed, or the server could not do it
NO_SERVER: Final = 5
UNKNOWN: Final = 6  # perhaps done: ask again with the same key


class ApplianceError(Exception):
    """Something outside the program is wrong; `str()` says what would be right.

    `status`: of the HTTP answer; 503 if a retry may succeed soon.  `kind`: the name on the control
    socket.  `exit_code`: of the command that fails with it.
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
    """A request does not parse: a broken MAC, an illegal path, an unknown filter."""

    status = 400
    kind = "bad-request"
    exit_code = USAGE


class NotFound(ApplianceError):
    """No such job, testbox, image or file."""

    status = 404
    kind = "not-found"
    exit_code = NOT_FOUND


class Refused(ApplianceError):
    """A request parses but is not allowed: wrong address, wrong owner, wrong moment."""


class Unproven(ApplianceError):
    """The client cannot be identified now, and must be: nothing was done, ask again."""

    status = 503


class IllegalMove(ApplianceError):
    """A job in this state cannot take this event."""


class NoSpace(ApplianceError):
    """The disk or a quota is full, or the disk refuses writes; nothing was written."""

    status = 507
    kind = "no-space"


class BadImage(ApplianceError):
    """An image or one of its files is missing or unreadable; names it and the existing ones.

    `field`: the field of the job document that asked for it.
    """

    kind = "bad-image"
    exit_code = USAGE

    def __init__(self, text: str, field: str = "os") -> None:
        super().__init__(text)
        self.field = field


class BadState(ApplianceError):
    """State files are foreign, of a newer version, or damaged; names file and offset."""

    status = 503


class NewerState(BadState):
    """State files of a later version, which this program must not change, repair or skip."""


class DiskTrouble(ApplianceError):
    """The disk does not accept the state now; nothing was decided, ask again with the same key."""

    status = 503
    kind = "disk-trouble"


class Unknown(ApplianceError):
    """The outcome is not known; asking again with the same key finds it out, or does the work."""

    status = 503
    kind = "unknown"
    exit_code = UNKNOWN


class SyncFailed(ApplianceError):
    """A sync of the state failed: only a restart can find out what the disk holds."""


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
    line: int | None  # 1-based line of the document; None if the field is absent
    # What is wrong, and what would be right.
    message: str = attrs.field(converter=_short_message)

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line is not None else ""
        return f"{where}{self.field}: {self.message}"


class BadDocument(ApplianceError):
    """A job document has mistakes; lists all of them."""

    status = 400
    kind = "bad-document"
    exit_code = USAGE

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


def of_kind(kind: str) -> type[ApplianceError]:
    """Returns the class for a `kind` of the control socket; Refused for one of a newer server.

    BadDocument is not among them, because it is made from problems and not from a text.
    """
    return _BY_KIND.get(kind, Refused)


_BY_KIND: Final[dict[str, type[ApplianceError]]] = {
    each.kind: each for each in (BadRequest, NotFound, NoSpace, BadImage, DiskTrouble, Unknown)
}
