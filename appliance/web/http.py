"""HTTP/1.1 and WebSockets on a connection: classes of Hypercorn's, with its faults corrected.

Hypercorn 0.18 goes on gathering a WebSocket message after it has refused it as too long; inflates
a compressed message before it checks the resulting length; speaks HTTP/2 with any client that
begins so, which none of ours does and which has not been tested here for attacks; and sends no
reason to a client whose request is no HTTP.
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

# Bytes of a WebSocket that are parsed before others get their turn: 170 empty frames, at 6 us each.
# All bytes of one read took 30 ms, so clients could keep the loop busy for as long as they liked.
FRAMES_BYTES: Final = 2**10
_EXTENSIONS: Final = b"sec-websocket-extensions"

log = structlog.get_logger()


class TooLong(Exception):
    """A message is too long; its sender has been told so."""


class Http(H11Protocol):
    """HTTP/1.1, without an upgrade to HTTP/2."""

    _held = b""  # bytes of an answer, kept back until the next ones follow
    _chunked = False

    @property
    def awaits_head(self) -> bool:
        """Returns whether a request's head comes next, which waits for its turn by itself."""
        return self.connection.their_state is h11.IDLE

    @property
    def takes_plain(self) -> bool:
        """Returns whether bytes of an unchunked body come next, which cost nothing to parse.

        A chunked body does cost time, since a chunk may hold a single byte.
        """
        return self.connection.their_state is h11.SEND_BODY and not self._chunked

    @property
    def waiting(self) -> int:
        """Returns how many bytes have arrived and will be parsed when more arrive."""
        return len(self.connection.trailing_data[0])

    def receive(self, data: bytes) -> None:
        """Takes bytes; b"": no more will come."""
        self.connection.receive_data(data)

    async def look_through(self) -> None:
        """Parses and handles what has arrived: requests, bodies, a WebSocket's frames."""
        await self._handle_events()

    async def _handle_events(self) -> None:
        """Like Hypercorn's, but each head waits for its turn, also behind a body or a request."""
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
        """Handles an event of h11 or a WebSocket; returns whether there may be more events."""
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
        """Notes whether the body is chunked; Hypercorn's own method would begin HTTP/2 here."""
        self._chunked = any(name == b"transfer-encoding" for name, _ in event.headers)

    async def _send_h11_event(self, event: Any) -> None:
        """Sends an answer: its head together with the first bytes, its end with the last.

        Sent as packets of their own they made up a tenth of the cost of a box asking again.
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
        await self._flush()  # for an app that ends before its body is complete
        await super()._maybe_recycle()

    async def _flush(self) -> None:
        if self._held:
            data, self._held = self._held, b""
            await self.send(RawData(data=data))

    async def give_up(self, seconds: float) -> None:
        """Answers 408 if only a part of a request has arrived."""
        if self.connection.our_state is h11.IDLE and self.connection.trailing_data[0]:
            await self._refuse(408, late(seconds))

    async def _send_error_response(self, status_code: int) -> None:
        """Refuses bytes that are no HTTP; called while h11's exception is being handled."""
        await self._refuse(status_code, no_http(sys.exception()))

    async def _refuse(self, status_code: int, why: str) -> None:
        log.warning("no HTTP", client=self.client and self.client[0], why=why)
        body = f"{why}\n".encode()
        headers = [("content-length", str(len(body))), ("connection", "close")]
        # In one send: an answer to an earlier request may be under way and would get in between.
        said = self.connection.send(h11.Response(status_code=status_code, headers=headers)) or b""
        said += self.connection.send(h11.Data(data=body)) or b""
        said += self.connection.send(h11.EndOfMessage()) or b""
        await self.send(RawData(data=said))


class Stream(HTTPStream):
    """One request and its answer."""

    last = False  # whether the message that is being sent ends the answer

    async def app_send(self, message: Any) -> None:
        """Sends a message of the app."""
        body = message is not None and message["type"] == "http.response.body"
        self.last = body and not message.get("more_body", False)
        await super().app_send(message)


class Handshake(WSStream):
    """A WebSocket, or a handshake that may become one.

    No extension is accepted, whatever the client offers: 32 compressed kB may become 32 MB, and
    Hypercorn inflates them before their length can be checked.  No client of ours needs one.
    """

    buffer: Buffer

    @property
    def _who(self) -> str:
        return self.client[0] if self.client else "unknown"

    async def handle(self, event: Event) -> None:
        """Handles an event; ignores what arrives after a handshake that the app refused."""
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
            await own_round(self._who)  # this round's slice is the code up to the next wait
            await super().handle(Data(stream_id=self.stream_id, data=piece))
            self.buffer.check()  # the client was told; its seat is not kept until it hangs up
        if self.closed and self.connection.state is ConnectionState.OPEN:  # without a close frame
            why = "this is no WebSocket's frame, or is compressed, which was not agreed on"
            log.warning("no websocket", client=self.client and self.client[0], why=why)

    async def app_send(self, message: Any) -> None:
        """Sends a message of the app; `websocket.accept` may set `message_bytes_max`."""
        if message is not None and message["type"] == "websocket.accept":
            self.buffer.max_length = message.get("message_bytes_max", self.buffer.max_length)
        await super().app_send(message)

    async def _send_error_response(self, status_code: int) -> None:
        """Refuses a broken handshake, a frame sent before its answer, or what the app refuses."""
        none = status_code == 400  # 400 comes from Hypercorn, other codes from the app
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
    """An incoming WebSocket message, kept as bytes: as text, one rare character would make it four
    times as large."""

    _is_text = False

    def extend(self, event: Message[Any]) -> None:
        """Adds a part of the message.  Raises FrameTooLargeError once, then TooLong."""
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
        """Raises TooLong if the message is too long."""
        if self.length > self.max_length:
            raise TooLong(f"more than {self.max_length} bytes in one message")

    def to_message(self) -> dict[str, Any]:
        """Returns the whole message in ASGI's form."""
        assert isinstance(self.value, BytesIO)
        data = self.value.getvalue()
        whole = {"text": data.decode()} if self._is_text else {"bytes": data}
        return {"type": "websocket.receive", "text": None, "bytes": None, **whole}


def no_http(error: BaseException | None) -> str:
    """Returns why bytes are no request, in one line that quotes their beginning as a repr."""
    return f"this is no HTTP/1.1 request: {str(error)[:100]}"


def late(seconds: float) -> str:
    """Returns what a client is told whose request did not become complete in time."""
    return f"no whole request came within {seconds:.0f} s"
