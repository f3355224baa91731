"""One connection's trouble ends that connection, and nothing else.

Hypercorn 0.18 lets errors of its protocol code out of a connection into the nursery of the
server: bytes behind a WebSocket's handshake that come before its answer, for one, and any machine
on the network could stop the process with one packet.  It keeps the connection of a WebSocket that
it refused for as long as the client does, and a stop waits for it; goes on gathering a message
after it has called it too long; speaks HTTP/2 with whoever begins so, which no client of ours does
and nobody here has tried to break; and says no word to what is no HTTP.  None of these classes is a
public interface, so the version is pinned, and tests/bad_input/ fails where this does not hold any
more.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Awaitable, Callable
from typing import Any, Final

import h11
import hypercorn.protocol
import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import hypercorn.trio.tcp_server
import structlog
import trio
from hypercorn.events import RawData
from hypercorn.protocol.events import Body, EndBody, Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.ws_stream import WebsocketBuffer, WSStream
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from wsproto.events import Message

# Of a socket at once.  Hypercorn's own 64 KiB are held up to seven times on their way to an upload,
# and hundreds of boxes upload at once.
READ_BYTES: Final = 2**15

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

    async def _idle_timeout(self) -> None:
        """End the connection where no request comes; what came of one is answered."""
        with trio.move_on_after(self.config.keep_alive_timeout) as scope:
            await self.context.terminated.wait()
        with trio.CancelScope(shield=True):
            if scope.cancelled_caught and isinstance(http := self.protocol.protocol, Http):
                await http.give_up(self.config.keep_alive_timeout)
            await self._initiate_server_close()


class Tasks(TaskGroup):
    """The tasks of one connection.

    An app that answers before a body's end leaves messages that nobody takes.  Hypercorn waits for
    room among them for ever, to tell the very same app that its client is gone.
    """

    async def spawn_app(
        self, app: Any, config: Any, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start `app`; returns what gives it a message, and waits only where it will be taken."""
        nursery = self._nursery
        assert nursery is not None
        into, out = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def say(message: Any) -> None:
            # Behind the end of an answer the app hears that its client is gone, and Quart cancels
            # what it was doing: saying this.  Half done, nobody closed the connection any more.
            with trio.CancelScope(shield=True):
                await send(message)

        async def serve() -> None:
            try:
                await app(scope, out.receive, say, trio.to_thread.run_sync, trio.from_thread.run)
            except BaseExceptionGroup as error:
                if error.split(trio.Cancelled)[1] is None:
                    raise
                await config.log.exception("Error in ASGI Framework")
            except Exception:
                await config.log.exception("Error in ASGI Framework")
            finally:
                out.close()  # before its connection is told that it is done
                await send(None)

        async def wait(message: Any) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await into.send(message)

        async def put(message: Any) -> None:
            if not message["type"].endswith(".disconnect"):
                await wait(message)
                return
            # Perhaps the app itself says so, behind its answer.  It knows at once where it can:
            # whoever sends looks after each send whether anybody is there.
            with contextlib.suppress(trio.BrokenResourceError):
                try:
                    into.send_nowait(message)
                except trio.WouldBlock:
                    nursery.start_soon(wait, message)

        nursery.start_soon(serve)
        return put


class Http(H11Protocol):
    """HTTP/1.1, and no way from there to HTTP/2."""

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn's own would begin HTTP/2 here."""

    async def give_up(self, seconds: float) -> None:
        """Say that a request has not become whole, where anything came of one."""
        if self.connection.our_state is h11.IDLE and self.connection.trailing_data[0]:
            await self._refuse(408, late(seconds))

    async def _send_error_response(self, status_code: int) -> None:
        """Answer what is no HTTP; called where h11 has just said why."""
        await self._refuse(status_code, no_http(sys.exception()))

    async def _refuse(self, status_code: int, why: str) -> None:
        log.warning("no HTTP", client=self.client and self.client[0], why=why)
        body = f"{why}\n".encode()
        headers = [("content-length", str(len(body))), ("connection", "close")]
        # At one go: an answer to an earlier question may be under way, and would come in between.
        said = self.connection.send(h11.Response(status_code=status_code, headers=headers)) or b""
        said += self.connection.send(h11.Data(data=body)) or b""
        said += self.connection.send(h11.EndOfMessage()) or b""
        await self.send(RawData(data=said))


class Handshake(WSStream):
    """A WebSocket, or what would be one."""

    async def _send_error_response(self, status_code: int) -> None:
        """Refuse a handshake that is none, or more behind it than that, or any on this port."""
        none = status_code == 400  # Hypercorn says this, else its app does
        if not none:
            why = "no WebSocket is here"
        elif self.app_put is None:
            why = "this is no WebSocket's handshake: it has a key, and version 13"
        else:
            why = "a WebSocket's first frame waits for the answer to its handshake"
        log.warning("no websocket", client=self.client and self.client[0], why=why)
        self.closed = none  # before anything is sent: the app may be about to accept
        body = f"{why}\n".encode()
        about = [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
        for event in (
            Response(stream_id=self.stream_id, status_code=status_code, headers=about),
            Body(stream_id=self.stream_id, data=body),
            EndBody(stream_id=self.stream_id),
        ):
            await self.send(event)
        if none:
            if self.app_put is not None:
                await self.app_put({"type": "websocket.disconnect", "code": 1002})
            await self.send(StreamClosed(stream_id=self.stream_id))


class Buffer(WebsocketBuffer):
    """A WebSocket message on its way in."""

    def extend(self, event: Message[Any]) -> None:
        """Take a part of it.  Raises FrameTooLargeError once, then TooLong."""
        if self.length > self.max_length:
            raise TooLong(f"more than {self.max_length} bytes in one message")
        super().extend(event)


def guard() -> None:
    """Make Hypercorn use them."""
    hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined]
    hypercorn.trio.tcp_server.MAX_RECV = READ_BYTES
    hypercorn.trio.tcp_server.TaskGroup = Tasks  # type: ignore[attr-defined]
    hypercorn.protocol.H11Protocol = Http  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = Handshake  # type: ignore[attr-defined]
    hypercorn.protocol.ws_stream.WebsocketBuffer = Buffer  # type: ignore[misc]


def no_http(error: BaseException | None) -> str:
    """Why a request is none, in a line, with the beginning of what was sent as Python writes it."""
    return f"this is no HTTP/1.1 request: {str(error)[:100]}"


def late(seconds: float) -> str:
    """What is said where a request goes no further."""
    return f"no whole request came within {seconds:.0f} s"


def _reason(error: BaseException) -> str:
    """What it was, in a line: of several, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:200]
