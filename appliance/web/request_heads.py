"""Heads of requests: each waits for its turn to be parsed, and none is longer than 16 KiB.

A head that consists of empty headers takes 14 ms to parse, and h11 checks the length of a head only
while its end has not arrived.  So the whole head is measured just before it is parsed, whether it
arrived alone, byte by byte, behind a body or behind another request.

Must not: read, or answer.
"""

from __future__ import annotations

import re
from typing import Final

import h11

from appliance.turns import round_for

HEAD_BYTES_MAX: Final = 16 * 1024  # iPXE's have some 200 bytes, curl's with a cookie a few more
_END: Final = re.compile(rb"\n\r?\n")  # h11 looks for the same


async def turn(connection: h11.Connection, who: str) -> None:
    """Returns when the first head that has arrived may be parsed; `who` is its client.

    Raises h11.RemoteProtocolError if the head is too long.
    """
    if size := _size(connection.trailing_data[0]):
        await round_for(who, size)


def _size(data: bytes) -> int:
    """Returns the bytes of the first head, 0 if its end is missing.

    Raises h11.RemoteProtocolError.
    """
    if (end := _END.search(data, 0, HEAD_BYTES_MAX)) is not None:
        return end.end()
    if len(data) > HEAD_BYTES_MAX:
        why = f"its head has more than {HEAD_BYTES_MAX} bytes"
        raise h11.RemoteProtocolError(why, error_status_hint=431)
    return 0
