"""Pure: no clock, no socket, no await.

The rows of the archive: columns that SQLite can search, then CBOR behind a checksum of all.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, Final, TypeVar

import cbor2
import google_crc32c

from appliance.errors import BadState
from appliance.jobs.documents.document import Body
from appliance.keep.state import records

NAME: Final = "archive.sqlite"
HELP: Final = "`appliance state repair` says what can be saved"
CHECK_HELP: Final = "`appliance state check` says what is damaged"
CRC: Final = struct.Struct(">I")  # before each row's CBOR: of its other columns and that
_NAMED_MAX: Final = 10  # damaged rows that one message names

T = TypeVar("T")


def seal(columns: tuple[Any, ...], value: Any, kind: type) -> tuple[Any, ...]:
    """A row: its columns, then CBOR behind the CRC32C of all: SQLite does not see a flipped bit."""
    data = records.dumps(value, kind)
    return (*columns, _sum(columns, data) + data)


def _sum(columns: Sequence[Any], data: bytes) -> bytes:
    return CRC.pack(google_crc32c.value(repr(tuple(columns)).encode() + data))


def is_whole(row: Sequence[Any]) -> bool:
    """Whether the row holds what was written."""
    *columns, sealed = row
    if not isinstance(sealed, bytes):  # of any type where the file is damaged
        return False
    if not 0 < columns[0] <= records.NUMBER_MAX:  # no job has it, whoever wrote this row
        return False
    return sealed[: CRC.size] == _sum(columns, sealed[CRC.size :])


def unseal(row: Sequence[Any], kind: type[T]) -> T:
    """What was sealed.  Raises BadState."""
    if not is_whole(row):
        what = "document" if kind is Body else "job"
        raise BadState(f"{NAME}: {named(what, [row[0]])}; {CHECK_HELP}")
    return records.loads(row[-1][CRC.size :], kind, NAME)


def tokens_of(row: Sequence[Any]) -> list[str]:
    """Those of the attempts of the job in a whole row; the rest of it is not made."""
    return [attempt["token"] for attempt in cbor2.loads(row[-1][CRC.size :]).get("attempts", ())]


def named(what: str, numbers: Sequence[int]) -> str:
    """That the rows of the jobs with these numbers are damaged; `what` they hold."""
    words = ", ".join(map(str, numbers[:_NAMED_MAX]))
    more = f" and {len(numbers) - _NAMED_MAX} more" if len(numbers) > _NAMED_MAX else ""
    one = len(numbers) == 1
    return f"the {what}{'' if one else 's'} number {words}{more} {'is' if one else 'are'} damaged"
