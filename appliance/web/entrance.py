"""Admits connections: each takes a place (shares.py) or is refused.

A refused client gets a 503 with Retry-After, which iPXE obeys.  Only a few get it at the same time;
the other connections are closed without an answer.

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
# Connections that are sent a 503 at the same time, and for how long each may stay: until what the
# client sent has been read, or the kernel would discard the answer together with that data.
TOLD_MAX: Final = 16
LINGER_S: Final = 1.0
_READ_BYTES: Final = 16 * 1024
# Time for a connection that was cut to end by itself.  The task that serves it may be waiting for
# something other than the client, and the place is needed.
CUT_S: Final = 1.0
# Limit of all connections together for heads whose end has not arrived; a byte takes two in memory.
HEADS_BYTES_MAX: Final = 4 * 2**20

Who = Callable[[str, str], tuple[str, Kind]]
Ends = tuple[tuple[str, int], tuple[str, int]]  # addresses and ports: the client's, ours
Scope = Callable[[], trio.CancelScope | None]

log = structlog.get_logger()


class Entrance:
    """Admits the connections of all HTTP ports."""

    def __init__(self, places: Places, who: Who, waiting: Collection[int] = ()) -> None:
        """`who` maps a connection's two addresses to its owner; `waiting`: ports without files."""
        self.places = places
        self._who, self._waiting = who, frozenset(waiting)
        self.heads = Heads(HEADS_BYTES_MAX)
        self._told = 0

    def enter(self, stream: Any, ends: Ends, scope: Scope) -> Place:
        """Takes a place for a connection.  Raises Full.

        `ends` has addresses in their normal form.  `scope` returns the cancel scope in which the
        connection is served, None before that.
        """
        (client, _), (server, port) = ends
        who, kind = self._who(client, server)
        cost = WAITS if port in self._waiting else READS
        return self.places.enter(who, kind, cost, partial(cut, stream, scope))

    async def refuse(self, stream: Any, client: str, why: Full) -> None:
        """Tells the client why, unless TOLD_MAX are being told; the caller closes the stream."""
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
    """Limits the memory of incomplete request heads: the oldest are ended to make room."""

    def __init__(self, most: int) -> None:
        self._most = most  # bytes
        self._held: dict[Callable[[], object], int] = {}  # by function that ends it, oldest first
        self.taken = 0  # bytes

    def hold(self, end: Callable[[], object], size: int) -> None:
        """Notes that a connection holds `size` bytes of a head, 0 once the head is complete.

        `end` ends that connection.
        """
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
    """Ends a connection; the task that serves it notices, or is cancelled after CUT_S."""
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
