"""Stand-ins for the world: a network without sockets, and clients that use it.

`Wire` opens connections in memory to a real Hypercorn that serves an ASGI app, so a test can
play half an hour of HTTP in virtual time.  Hypercorn's TCPServer, which web/connections.py
guards, is not a public interface: the version is pinned.
"""

from __future__ import annotations

import errno
import json
import socket
from collections.abc import Mapping
from typing import Any

import attrs
import h11
import trio
import wsproto
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from trio.testing import lockstep_stream_pair, memory_stream_pair

from appliance.doors.boot_wait_ws import MESSAGE_BYTES_MAX
from appliance.doors.neighbours import OnLink, Own, Place, Routed
from appliance.web import connections

Address = tuple[str, int]

BOX: Address = ("10.0.0.5", 40000)
SERVER: Address = ("10.0.0.1", 3000)


@attrs.frozen
class FakeSocket:
    """What Hypercorn asks a connection's socket: who is at its two ends."""

    peer: Address
    own: Address
    family: socket.AddressFamily = socket.AF_INET
    stream: Any = attrs.field(default=None, eq=False, repr=False)  # the server's end

    def shutdown(self, how: int) -> None:
        """Whoever reads finds the end."""
        self.stream.receive_stream.put_eof()

    def getpeername(self) -> Address:
        return self.peer

    def getsockname(self) -> Address:
        return self.own


class FakeNeighbours:
    """The kernel's neighbours: `cards` by address, and whoever is `routed`; only 10.0.0.1 is ours.

    Everybody else is on the link and has no entry.  `broken`: the kernel says nothing.
    """

    def __init__(self) -> None:
        self.cards: dict[str, str] = {}
        self.routed: set[str] = set()
        self.broken = False
        self.asked: list[str] = []

    def place(self, address: str) -> Place:
        self.asked.append(address)
        if self.broken:
            raise OSError(errno.ENOBUFS, "No buffer space available")
        if address == SERVER[0]:
            return Own()
        return Routed() if address in self.routed else OnLink(self.cards.get(address))


class Wire:
    """Opens in-memory connections to a real Hypercorn serving `app`.

    What the app lets escape is kept in `crashes` (Hypercorn would print it and answer 500), so a
    test that is about something else can still end with `assert [] == wire.crashes`.
    """

    def __init__(self, nursery: trio.Nursery, app: Any) -> None:
        self.nursery = nursery
        self.app = app
        self.crashes: list[Exception] = []
        self.config = Config()
        self.config.errorlog = None
        self.config.websocket_max_message_size = MESSAGE_BYTES_MAX
        self.context = connections.Context(None)
        connections.guard()

    def connect(
        self, client: Address = BOX, server: Address = SERVER, *, lockstep: bool = False
    ) -> trio.StapledStream[Any, Any]:
        """A new connection.  `lockstep`: a send blocks until the other side has read it all."""
        ends: Any = lockstep_stream_pair() if lockstep else memory_stream_pair()
        near, far = ends
        far.socket = FakeSocket(client, server, stream=far)
        serving: Any = connections.Connection(
            ASGIWrapper(self._app), self.config, self.context, {}, far
        )
        self.nursery.start_soon(serving.run)
        connection: trio.StapledStream[Any, Any] = near
        return connection

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            self.crashes.append(error)
            raise


class Rounds(trio.abc.Instrument):
    """In which rounds of the loop something happened."""

    def __init__(self) -> None:
        self.number = 0
        self.seen: list[int] = []

    def before_io_wait(self, timeout: float) -> None:
        """Another one is over."""
        self.number += 1

    def note(self) -> None:
        """It happened."""
        self.seen.append(self.number)


@attrs.frozen
class Response:
    """A whole answer.  Header names are lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class Answer:
    """An answer under way: status and headers are here, the body comes piece by piece."""

    def __init__(self, stream: trio.abc.Stream, connection: h11.Connection) -> None:
        self._stream = stream
        self._connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}

    async def piece(self) -> bytes | None:
        """The next piece of the body (of a chunked one: one chunk); None after the last.

        Raises h11.RemoteProtocolError if the server closed before the body was whole.
        """
        event = await self._event()
        if isinstance(event, h11.EndOfMessage):
            return None
        assert isinstance(event, h11.Data), event
        return bytes(event.data)

    async def rest(self) -> bytes:
        """Everything that is still to come."""
        body = b""
        while (piece := await self.piece()) is not None:
            body += piece
        return body

    async def hang_up(self) -> None:
        """Close the connection, as a box that lost power does not."""
        await self._stream.aclose()

    async def _begin(self) -> None:
        while isinstance(event := await self._event(), h11.InformationalResponse):
            pass
        assert isinstance(event, h11.Response), event
        self.status = event.status_code
        self.headers = {name.decode(): value.decode() for name, value in event.headers}

    async def _event(self) -> Any:
        while (event := self._connection.next_event()) is h11.NEED_DATA:
            self._connection.receive_data(bytes(await self._stream.receive_some(65536)))
        return event


async def begin(
    where: Wire | trio.abc.Stream,
    method: str,
    target: str | bytes,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    client: Address = BOX,
    server: Address = SERVER,
) -> Answer:
    """Ask on a Wire (a new connection from `client` to `server`) or on an open stream.

    Returns once status and headers are there.  `target` goes out as it is, nothing is quoted.
    """
    stream = where.connect(client, server) if isinstance(where, Wire) else where
    sent = {"host": f"{server[0]}:{server[1]}", **(headers or {})}
    if body and "transfer-encoding" not in sent:
        sent.setdefault("content-length", str(len(body)))
    connection = h11.Connection(h11.CLIENT)
    out = connection.send(h11.Request(method=method, target=target, headers=list(sent.items())))
    out += connection.send(h11.Data(data=body)) if body else b""
    out += connection.send(h11.EndOfMessage())
    await stream.send_all(out)
    answer = Answer(stream, connection)
    await answer._begin()
    return answer


async def fetch(
    where: Wire | trio.abc.Stream,
    method: str,
    target: str | bytes,
    headers: Mapping[str, str] | None = None,
    body: bytes = b"",
    client: Address = BOX,
    server: Address = SERVER,
) -> Response:
    """Ask and read the whole answer; the connection of a Wire is closed, a stream stays open."""
    answer = await begin(where, method, target, headers, body, client, server)
    whole = await answer.rest()
    if isinstance(where, Wire):
        await answer.hang_up()
    return Response(answer.status, answer.headers, whole)


class WebSocket:
    """A client's end of a WebSocket."""

    def __init__(self, wire: Wire, target: str, client: Address = BOX, server: Address = SERVER):
        self.stream = wire.connect(client, server)
        self._connection = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self._request = wsproto.events.Request(host=f"{server[0]}:{server[1]}", target=target)
        self.ended: int | None = None  # the code that it was closed with
        self.reason = ""

    async def open(self) -> Response | None:
        """Shake hands; None if it is a WebSocket now, else the answer that it was refused with."""
        await self._send(self._request)
        event = await self._event()
        if isinstance(event, wsproto.events.AcceptConnection):
            return None
        assert isinstance(event, wsproto.events.RejectConnection), event
        body, status = b"", event.status_code
        headers = {name.decode(): value.decode() for name, value in event.headers}
        while event.has_body if isinstance(event, wsproto.events.RejectConnection) else True:
            event = await self._event()
            assert isinstance(event, wsproto.events.RejectData), event
            body += event.data
            if event.body_finished:
                break
        return Response(status, headers, body)

    async def next(self) -> Any:
        """The next message, as JSON says it; None after the last."""
        text = ""
        while True:
            event = await self._event()
            if isinstance(event, wsproto.events.TextMessage):
                text += event.data
                if event.message_finished:
                    return json.loads(text)
            elif isinstance(event, wsproto.events.CloseConnection):
                self.ended, self.reason = event.code, event.reason or ""
                if self._connection.state is wsproto.connection.ConnectionState.REMOTE_CLOSING:
                    await self._send(event.response())
                return None

    async def say(self, message: Any) -> None:
        """One JSON message; bytes and text go out as they are."""
        data = message if isinstance(message, bytes | str) else json.dumps(message)
        await self._send(wsproto.events.Message(data=data))

    async def hang_up(self) -> None:
        """Close the connection without a word."""
        await self.stream.aclose()

    async def _send(self, event: Any) -> None:
        await self.stream.send_all(self._connection.send(event))

    async def _event(self) -> Any:
        while True:
            for event in self._connection.events():
                return event
            data = bytes(await self.stream.receive_some(65536))
            self._connection.receive_data(data or None)
