"""Pure: no clock, no socket, no await.

The archive's rows: columns that SQLite can search, then a checksum of the row, then CBOR.
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
CRC: Final = struct.Struct(">I")  # before each row's CBOR: of the other columns and the CBOR
_NAMED_MAX: Final = 10  # damaged rows named in one message

T = TypeVar("T")


def seal(columns: tuple[Any, ...], value: Any, kind: type) -> tuple[Any, ...]:
    """Makes a row: columns, CRC32C of all, CBOR.  SQLite itself does not notice a flipped bit."""
    data = records.dumps(value, kind)
    return (*columns, _sum(columns, data) + data)


def _sum(columns: Sequence[Any], data: bytes) -> bytes:
    return CRC.pack(google_crc32c.value(repr(tuple(columns)).encode() + data))


def is_whole(row: Sequence[Any]) -> bool:
    """Whether the row holds what was written."""
    *columns, sealed = row
    if not isinstance(sealed, bytes):  # in a damaged file it may have any type
        return False
    if not 0 < columns[0] <= records.NUMBER_MAX:  # no job has such a number
        return False
    return sealed[: CRC.size] == _sum(columns, sealed[CRC.size :])


def unseal(row: Sequence[Any], kind: type[T]) -> T:
    """Returns the value in a row.  Raises BadState if the row is damaged."""
    if not is_whole(row):
        what = "document" if kind is Body else "job"
        raise BadState(f"{NAME}: {named(what, [row[0]])}; {CHECK_HELP}")
    return records.loads(row[-1][CRC.size :], kind, NAME)


def tokens_of(row: Sequence[Any]) -> list[str]:
    """Returns the tokens of a job's attempts from a whole row, without building the job."""
    return [attempt["token"] for attempt in cbor2.loads(row[-1][CRC.size :]).get("attempts", ())]


def named(what: str, numbers: Sequence[int]) -> str:
    """Says that the rows of the jobs with these numbers are damaged; `what` the rows hold."""
    words = ", ".join(map(str, numbers[:_NAMED_MAX]))
    more = f" and {len(numbers) - _NAMED_MAX} more" if len(numbers) > _NAMED_MAX else ""
    one = len(numbers) == 1
    return f"the {what}{'' if one else 's'} number {words}{more} {'is' if one else 'are'} damaged"
