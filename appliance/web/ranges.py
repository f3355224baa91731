"""Pure: no clock, no socket, no await.

Reads which part of a file a request wants and which copy the client has (RFC 9110 §13 and §14).
A header that cannot be understood is ignored, as the RFC allows; the answer is then the whole file.
"""

from __future__ import annotations

import email.utils
import re
from collections.abc import Mapping
from typing import Final

Headers = list[tuple[bytes, bytes]]

_RANGE: Final = re.compile(rb"([0-9]*)-([0-9]*)")
_BLANK: Final = b" \t"


class Unsatisfiable(Exception):
    """The range contains no byte of the file."""


def parse_range(header: bytes, size: int) -> tuple[int, int] | None:
    """Returns (start, stop) of the one range asked for; None: answer with the whole.

    Several ranges at once are answered with the whole.  Raises Unsatisfiable.
    """
    unit, _, rest = header.partition(b"=")
    match = _RANGE.fullmatch(rest.strip(_BLANK))
    if unit.strip(_BLANK).lower() != b"bytes" or match is None:
        return None
    first, last = (_number(digits) for digits in match.groups())
    if first is None:
        return _suffix(last, size)
    if last is not None and last < first:
        return None
    if first >= size:
        raise Unsatisfiable
    return (first, size if last is None else min(last + 1, size))


def _suffix(length: int | None, size: int) -> tuple[int, int] | None:
    """Returns the range of the last `length` bytes; None, so the whole, for an empty file."""
    if length is None:
        return None
    if length == 0:
        raise Unsatisfiable
    return (max(0, size - length), size) if size else None


def _number(digits: bytes) -> int | None:
    """Returns the first 20 digits as a number: no file is larger, and int() refuses thousands."""
    return int(digits.lstrip(b"0")[:20] or b"0") if digits else None


def asked(headers: Mapping[bytes, bytes], validators: Headers, size: int) -> tuple[int, int] | None:
    """Returns the range that a GET asks for, if it has no If-Range or one that still holds."""
    header = headers.get(b"range")
    condition = headers.get(b"if-range")
    if header is None or (condition is not None and condition not in dict(validators).values()):
        return None
    return parse_range(header, size)


def is_fresh(headers: Mapping[bytes, bytes], etag: bytes, modified: int | None) -> bool:
    """Returns whether the client's copy is current (304).  Tags take precedence over dates."""
    if (tags := headers.get(b"if-none-match")) is not None:
        known = [tag.strip(_BLANK).removeprefix(b"W/") for tag in tags.split(b",")]
        return known == [b"*"] or (etag != b"" and etag in known)
    since = headers.get(b"if-modified-since")
    if since is None or modified is None:
        return False
    try:
        return modified <= email.utils.parsedate_to_datetime(since.decode("ascii")).timestamp()
    except (ValueError, OverflowError):
        return False


def validators(etag: bytes, modified: int | None) -> Headers:
    """Returns the headers with which a client can later ask whether its copy is current."""
    headers = [(b"etag", etag)] if etag else []
    if modified is not None:
        date = email.utils.formatdate(modified, usegmt=True)
        headers.append((b"last-modified", date.encode()))
    return headers
