"""Who comes in: each connection takes a place (shares.py), or is told that there is none.

It is told so with a 503 that says when to ask again, which iPXE obeys, as far as few are told at
once; the others find the door shut.

Must not: read a request.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Final

import structlog
import trio

from appliance.web.shares import READS, WAITS, Full, Kind, Place, Places

RETRY_AFTER_S: Final = 5  # as for files: longer than a burst, far below iPXE's 120 s
# Connections that are told at once why they find no place, and for how long: until what they have
# sent is read, or the kernel would throw away the answer with it.
TOLD_MAX: Final = 16
LINGER_S: Final = 1.0
_READ_BYTES: Final = 16 * 1024
# A connection that was cut ends by itself, and has so long for it.  Whoever serves it may wait for
# something else than its client, and its place is needed.
CUT_S: Final = 1.0
# Of heads whose end has not come, all connections together; each byte takes two.
HEADS_BYTES_MAX: Final = 4 * 2**20

Who = Callable[[str, str], tuple[str, Kind]]
Ends = tuple[tuple[str, int], tuple[str, int]]  # addresses and ports: the client's, ours
Scope = Callable[[], trio.CancelScope | None]

log = structlog.get_logger()


class Entrance:
    """The one of all HTTP ports."""

    def __init__(self, places: Places, who: Who, waiting: Collection[int] = ()) -> None:
        """`who` says whose a connection is, by both its addresses; on `waiting` no file is read."""
        self.places = places
        self._who, self._waiting = who, frozenset(waiting)
        self.heads = Heads(HEADS_BYTES_MAX)
        self._told = 0

    def enter(self, stream: Any, ends: Ends, scope: Scope) -> Place:
        """A place for a connection between two addresses, in their normal form.  Raises Full.

        `scope` is where it is served, as soon as it is.
        """
        (client, _), (server, port) = ends
        who, kind = self._who(client, server)
        cost = WAITS if port in self._waiting else READS
        return self.places.enter(who, kind, cost, partial(cut, stream, scope))

    async def refuse(self, stream: Any, client: str, why: Full) -> None:
        """Say why; the connection is to be closed then."""
        log.warning("connection refused", client=client, why=str(why))
        if self._told >= TOLD_MAX:
            return
        self._told += 1
        try:
            with trio.move_on_after(LINGER_S), contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(_answer(str(why)))
                await stream.send_eof()
                while await stream.receive_some(_READ_BYTES):
                    pass
        finally:
            self._told -= 1


class Heads:
    """The beginnings of questions: of those whose end does not come, the oldest make room."""

    def __init__(self, most: int) -> None:
        self._most = most  # bytes
        self._held: dict[Callable[[], object], int] = {}  # by what ends it, the oldest first
        self.taken = 0  # bytes

    def hold(self, end: Callable[[], object], size: int) -> None:
        """A connection, which `end` ends, holds so many bytes of a head; 0 where that is whole."""
        self.taken += size - self._held.get(end, 0)
        if not size:
            self._held.pop(end, None)
            return
        self._held[end] = size
        while self.taken > self._most:
            oldest = next(iter(self._held))
            self.taken -= self._held.pop(oldest)
            oldest()


def cut(stream: Any, scope: Scope) -> None:
    """End a connection; who serves it finds that out, or is cancelled."""
    with contextlib.suppress(OSError):
        stream.socket.shutdown(socket.SHUT_RDWR)
    if (serving := scope()) is not None:
        serving.deadline = min(serving.deadline, trio.current_time() + CUT_S)


def _answer(why: str) -> bytes:
    body = f"{why}: try again\n"
    return (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain; charset=utf-8\r\n"
        f"content-length: {len(body)}\r\nretry-after: {RETRY_AFTER_S}\r\nconnection: close\r\n\r\n"
        f"{body}"
    ).encode()
