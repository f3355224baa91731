"""One connection's trouble ends that connection, and nothing else.

Hypercorn 0.18 lets errors of its protocol code out of a connection into the nursery of the
server: bytes behind a WebSocket's handshake that come before its answer, for one, and any machine
on the network could stop the process with one packet.  It also goes on gathering a WebSocket
message after it has called it too long.  Neither class is a public interface, so the version is
pinned, and tests/test_bad_input.py fails where this does not hold any more.
"""

from __future__ import annotations

from typing import Any

import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import structlog
from hypercorn.protocol.ws_stream import WebsocketBuffer
from hypercorn.trio.tcp_server import TCPServer
from wsproto.events import Message

log = structlog.get_logger()


class TooLong(Exception):
    """A message goes on although its sender was told that it is too long."""


class Connection(TCPServer):
    """One connection of Hypercorn's."""

    async def run(self) -> None:
        """Serve it until it ends; never raises."""
        client = "unknown"
        try:
            client = str(self.stream.socket.getpeername()[0])
            await super().run()
        except Exception as error:  # whatever foreign bytes make Hypercorn, h11 and wsproto say
            log.warning("connection cut", client=client, why=_reason(error))


class Buffer(WebsocketBuffer):
    """A WebSocket message on its way in."""

    def extend(self, event: Message[Any]) -> None:
        """Take a part of it.  Raises FrameTooLargeError once, then TooLong."""
        if self.length > self.max_length:
            raise TooLong(f"more than {self.max_length} bytes in one message")
        super().extend(event)


def guard() -> None:
    """Make Hypercorn use both."""
    hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined]
    hypercorn.protocol.ws_stream.WebsocketBuffer = Buffer  # type: ignore[misc]


def _reason(error: BaseException) -> str:
    """What it was, in a line: of several, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:200]
