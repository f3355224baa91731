"""Heads of questions: each is looked through in its turn, and none is longer than 16 KiB.

A head of nothing but empty headers takes 14 ms, and h11 looks at its length only while its end has
not come.  Whether it came by itself, byte by byte, behind a body or behind another question: what
counts is all that there is of it when it is looked through.

Must not: read, or answer.
"""

from __future__ import annotations

import re
from typing import Final

import h11

from appliance.turns import round_for

HEAD_BYTES_MAX: Final = 16 * 1024  # iPXE's have some two hundred, curl's with a cookie some more
_END: Final = re.compile(rb"\n\r?\n")  # as h11 finds it


async def turn(connection: h11.Connection, who: str) -> None:
    """Returns where the head that came first may be looked through, of which `who` is the client.

    Raises h11.RemoteProtocolError where it is too long.
    """
    if size := _size(connection.trailing_data[0]):
        await round_for(who, size)


def _size(data: bytes) -> int:
    """Bytes of the first head, 0 where it has not ended.  Raises h11.RemoteProtocolError."""
    if (end := _END.search(data, 0, HEAD_BYTES_MAX)) is not None:
        return end.end()
    if len(data) > HEAD_BYTES_MAX:
        why = f"its head has more than {HEAD_BYTES_MAX} bytes"
        raise h11.RemoteProtocolError(why, error_status_hint=431)
    return 0
