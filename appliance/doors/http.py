"""What is said on a connection: HTTP/1.1 and WebSockets, as Hypercorn and h11 understand them.

Hypercorn 0.18 goes on gathering a WebSocket message after it has called it too long; speaks HTTP/2
with whoever begins so, which no client of ours does and nobody here has tried to break; and says
no word to what is no HTTP.
"""

from __future__ import annotations

import sys
from typing import Any

import h11
import structlog
from hypercorn.events import RawData
from hypercorn.protocol.events import Body, Data, EndBody, Event, Response, StreamClosed
from hypercorn.protocol.h11 import H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import ASGIWebsocketState, WebsocketBuffer, WSStream
from wsproto.events import Message

log = structlog.get_logger()


class TooLong(Exception):
    """A message goes on although its sender was told that it is too long."""


class Http(H11Protocol):
    """HTTP/1.1, and no way from there to HTTP/2."""

    _held = b""  # of an answer, until what follows is there

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn's own would begin HTTP/2 here."""

    async def _send_h11_event(self, event: Any) -> None:
        """Answer: the head goes out with the first bytes, and the end with the last.

        Packets by themselves, they were a tenth of what it costs that a box asks again.
        """
        try:
            self._held += self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        last = isinstance(event, h11.Data) and isinstance(self.stream, Stream) and self.stream.last
        if not last and not isinstance(event, h11.Response):
            await self._flush()

    async def _maybe_recycle(self) -> None:
        await self._flush()  # an app that ends short of its body
        await super()._maybe_recycle()

    async def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            await self.send(RawData(data=data))

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


class Stream(HTTPStream):
    """One question and its answer."""

    last = False  # what is being sent ends the answer

    async def app_send(self, message: Any) -> None:
        """What the app says."""
        body = message is not None and message["type"] == "http.response.body"
        self.last = body and not message.get("more_body", False)
        await super().app_send(message)


class Handshake(WSStream):
    """A WebSocket, or what would be one."""

    async def handle(self, event: Event) -> None:
        """Take what came; behind a handshake that its app refuses, nothing is listened to."""
        refused = self.state in (ASGIWebsocketState.RESPONSE, ASGIWebsocketState.HTTPCLOSED)
        if not (refused and isinstance(event, Body | Data)):
            await super().handle(event)

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


def no_http(error: BaseException | None) -> str:
    """Why a request is none, in a line, with the beginning of what was sent as Python writes it."""
    return f"this is no HTTP/1.1 request: {str(error)[:100]}"


def late(seconds: float) -> str:
    """What is said where a request goes no further."""
    return f"no whole request came within {seconds:.0f} s"
