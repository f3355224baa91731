"""What is said on a connection: HTTP/1.1 and WebSockets, as Hypercorn and h11 understand them.

Hypercorn 0.18 goes on gathering a WebSocket message after it has called it too long; inflates one
before it looks how long that makes it; speaks HTTP/2 with whoever begins so, which no client of
ours does and nobody here has tried to break; and says no word to what is no HTTP.
"""

from __future__ import annotations

import dataclasses
import sys
from io import BytesIO
from typing import Any, Final

import h11
import structlog
from hypercorn.events import Closed, RawData, Updated
from hypercorn.protocol.events import Body, Data, EndBody, Event, Request, Response, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import (
    ASGIWebsocketState,
    FrameTooLargeError,
    WebsocketBuffer,
    WSStream,
)
from wsproto.connection import ConnectionState
from wsproto.events import Message, TextMessage

from appliance.turns import own_round
from appliance.web import request_heads

# Of what came of a WebSocket, looked through before others get their turn: 170 frames without a
# word, at 6 us each.  All that one read brings, 30 ms, held the loop for as long as clients liked.
FRAMES_BYTES: Final = 2**10
_EXTENSIONS: Final = b"sec-websocket-extensions"

log = structlog.get_logger()


class TooLong(Exception):
    """A message is too long, and its sender has been told so."""


class Http(H11Protocol):
    """HTTP/1.1, and no way from there to HTTP/2."""

    _held = b""  # of an answer, until what follows is there
    _chunked = False

    @property
    def awaits_head(self) -> bool:
        """Whether what comes next is a question's head, which waits for its turn by itself."""
        return self.connection.their_state is h11.IDLE

    @property
    def takes_plain(self) -> bool:
        """Whether what comes next is a body's bytes, which cost nothing to look through.

        Those of a body in chunks do: a chunk may have one of them.
        """
        return self.connection.their_state is h11.SEND_BODY and not self._chunked

    @property
    def waiting(self) -> int:
        """Bytes that have come, and are looked through when more has."""
        return len(self.connection.trailing_data[0])

    def receive(self, data: bytes) -> None:
        """Take bytes; b"": no more will come."""
        self.connection.receive_data(data)

    async def look_through(self) -> None:
        """See what has come: questions, bodies, a WebSocket's frames."""
        await self._handle_events()

    async def _handle_events(self) -> None:
        """As Hypercorn's; each head has its turn, also behind a body or another question."""
        while True:
            if self.connection.they_are_waiting_for_100_continue:
                headers = self.config.response_headers("h11")
                go_on = h11.InformationalResponse(status_code=100, headers=headers)
                await self._send_h11_event(go_on)
            try:
                if isinstance(self.connection, h11.Connection) and self.awaits_head:
                    await request_heads.turn(self.connection, self._who)
                event: Any = self.connection.next_event()
            except h11.RemoteProtocolError as error:
                if self.connection.our_state in {h11.IDLE, h11.SEND_RESPONSE}:
                    await self._send_error_response(error.error_status_hint)
                await self.send(Closed())
                return
            if event is h11.PAUSED:
                await self.can_read.clear()
                await self.can_read.wait()
            elif not await self._took(event):
                return

    async def _took(self, event: Any) -> bool:
        """Take what h11 or a WebSocket has; whether there may be more of it."""
        over = isinstance(event, h11.ConnectionClosed) or event is h11.NEED_DATA
        if isinstance(event, h11.Request):
            await self.send(Updated(idle=False))
            await self._check_protocol(event)
            await self._create_stream(event)
        elif over or self.stream is None:
            return False
        elif isinstance(event, h11.Data):
            await self.stream.handle(Body(stream_id=STREAM_ID, data=event.data))
        elif isinstance(event, h11.EndOfMessage):
            await self.stream.handle(EndBody(stream_id=STREAM_ID))
        elif isinstance(event, Data):  # a WebSocket's
            await self.stream.handle(event)
        return True

    @property
    def _who(self) -> str:
        return self.client[0] if self.client else "unknown"

    async def _check_protocol(self, event: h11.Request) -> None:
        """Hypercorn's own would begin HTTP/2 here."""
        self._chunked = any(name == b"transfer-encoding" for name, _ in event.headers)

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
    """A WebSocket, or what would be one.

    No extension is taken up, whatever its client offers: 32 kB that are compressed may be 32 MB,
    and are so before anybody can say that they are too long.  No client of ours needs one.
    """

    buffer: Buffer

    @property
    def _who(self) -> str:
        return self.client[0] if self.client else "unknown"

    async def handle(self, event: Event) -> None:
        """Take what came; behind a handshake that its app refuses, nothing is listened to."""
        if isinstance(event, Request):
            headers = [(name, value) for name, value in event.headers if name != _EXTENSIONS]
            event = dataclasses.replace(event, headers=headers)
        refused = self.state in (ASGIWebsocketState.RESPONSE, ASGIWebsocketState.HTTPCLOSED)
        if refused and isinstance(event, Body | Data):
            return
        if isinstance(event, Data) and self.state is ASGIWebsocketState.CONNECTED:
            await self._handle_frames(event)
        else:
            await super().handle(event)

    async def _handle_frames(self, event: Data) -> None:
        for start in range(0, len(event.data), FRAMES_BYTES):
            if self.closed:
                break
            piece = event.data[start : start + FRAMES_BYTES]
            await own_round(self._who)  # what follows, up to its first wait, is this round's
            await super().handle(Data(stream_id=self.stream_id, data=piece))
            self.buffer.check()  # it was told; its seat is not kept until it goes
        if self.closed and self.connection.state is ConnectionState.OPEN:  # nobody said goodbye
            why = "this is no WebSocket's frame, or is compressed, which was not agreed on"
            log.warning("no websocket", client=self.client and self.client[0], why=why)

    async def app_send(self, message: Any) -> None:
        """What the app says.  With `websocket.accept` it may say how long a message it takes."""
        if message is not None and message["type"] == "websocket.accept":
            self.buffer.max_length = message.get("message_bytes_max", self.buffer.max_length)
        await super().app_send(message)

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
    """A WebSocket message on its way in, as bytes: as text, one rare character makes it four times
    as large."""

    _is_text = False

    def extend(self, event: Message[Any]) -> None:
        """Take a part of it.  Raises FrameTooLargeError once, then TooLong."""
        self.check()
        if self.value is None:
            self.value = BytesIO()
            self._is_text = isinstance(event, TextMessage)
        data = event.data.encode() if isinstance(event, TextMessage) else bytes(event.data)
        self.value.write(data)  # type: ignore[arg-type] # Hypercorn's own may be a StringIO
        self.length += len(data)
        if self.length > self.max_length:
            raise FrameTooLargeError

    def check(self) -> None:
        """Raises TooLong where it is."""
        if self.length > self.max_length:
            raise TooLong(f"more than {self.max_length} bytes in one message")

    def to_message(self) -> dict[str, Any]:
        """The whole of it, as ASGI says it."""
        assert isinstance(self.value, BytesIO)
        data = self.value.getvalue()
        whole = {"text": data.decode()} if self._is_text else {"bytes": data}
        return {"type": "websocket.receive", "text": None, "bytes": None, **whole}


def no_http(error: BaseException | None) -> str:
    """Why a request is none, in a line, with the beginning of what was sent as Python writes it."""
    return f"this is no HTTP/1.1 request: {str(error)[:100]}"


def late(seconds: float) -> str:
    """What is said where a request goes no further."""
    return f"no whole request came within {seconds:.0f} s"
