"""HTTP server for the ports that only serve files: h11 and sendfile.

It implements as much of ASGI as web/files.py needs.  Under Hypercorn each byte of a file is copied
four times on its way, and sixteen boxes at once get half of what nginx gives them.  Here the kernel
sends from its page cache (the extension http.response.zerocopysend), as fast as nginx
(DESIGN.md#libraries-and-what-was-rejected).  A send to a client that is gone raises, and no send is
shielded from cancellation, so a stop waits for nobody.

Must not: answer anything itself except bytes that are no HTTP.
"""

from __future__ import annotations

import email.utils
import errno
import os
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final
from urllib.parse import unquote

import attrs
import h11
import structlog
import trio

from appliance import addresses, threads
from appliance.web import request_heads
from appliance.web.asgi import App
from appliance.web.entrance import Ends, Entrance
from appliance.web.http import late, no_http
from appliance.web.listen import BACKLOG
from appliance.web.page_cache import Warm, Which
from appliance.web.request_heads import HEAD_BYTES_MAX
from appliance.web.sending import PIECE_BYTES, STALL_S, Owed, tell
from appliance.web.shares import Full, Place, note

# How long a kept-alive connection may be idle; a request must arrive within this time, too.
IDLE_S: Final = 30.0
# How long we go on reading after the last answer: unread bytes from the client would make the
# kernel drop the end of that answer.
LINGER_S: Final = 2.0
# Bytes of requests that are read at once, and of later requests kept while a file goes out: some
# twenty requests of iPXE's.  Further bytes stay in the kernel.
PIPELINED_BYTES_MAX: Final = 2**12
_DISK_THREADS_MAX: Final = 16
# Bytes sent in one turn at most: some 0.3 ms of the loop, for which a hand-over may have to wait.
TURN_BYTES: Final = 2**20

logger = structlog.get_logger()


class HungUp(ConnectionError):
    """The client is gone, or no longer takes data."""


@attrs.define
class _Server:
    app: App
    limiter: trio.CapacityLimiter
    owed: Owed
    entrance: Entrance | None = None  # None: everybody is let in
    # One client is sent to in each round of the loop.  Without this lock a job waited 36 ms for its
    # box while 16 others loaded: each step of a hand-over waited for all of them, 1 MiB apiece.
    turn: trio.Lock = attrs.Factory(trio.Lock)
    warm: Warm = attrs.Factory(lambda: Warm(TURN_BYTES))
    stopping: bool = False
    idle: set[trio.CancelScope] = attrs.Factory(set)


async def serve(
    app: App,
    sockets: list[socket.socket],
    *,
    stop: Callable[[], Awaitable[object]],
    patience: float,
    entrance: Entrance | None = None,
    owed: Owed | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves `app` on bound `sockets`, which are closed when it stops.

    `owed` counts the bytes that clients have not taken; other doors share it.
    When `stop` returns, nobody new is let in, and answers under way get `patience` seconds.
    """
    server = _Server(app, trio.CapacityLimiter(_DISK_THREADS_MAX), owed or Owed(), entrance)
    for sock in sockets:
        sock.setblocking(False)
        sock.listen(BACKLOG)
    listeners = [trio.SocketListener(trio.socket.from_stdlib_socket(sock)) for sock in sockets]
    async with trio.open_nursery() as connections:
        async with trio.open_nursery() as door:
            accept = partial(trio.serve_listeners, handler_nursery=connections)
            await door.start(accept, partial(_visitor, server), listeners)
            task_status.started()
            await stop()
            door.cancel_scope.cancel("the door is shut")
        server.stopping = True
        for scope in server.idle:
            scope.cancel("the door is shut")
        connections.cancel_scope.deadline = trio.current_time() + patience


async def _visitor(server: _Server, stream: trio.SocketStream) -> None:
    """Serves one client, or tells it that there is no place."""
    place, entrance = None, server.entrance
    try:
        async with stream:
            scope = trio.CancelScope()
            sock = stream.socket
            ends = addresses.end(sock.getpeername()), addresses.end(sock.getsockname())
            if entrance is not None:
                try:
                    place = entrance.enter(stream, ends, lambda: scope)
                except Full as why:
                    await entrance.refuse(stream, ends[0][0], why)
                    return
            with scope:
                await _connection(server, stream, ends, place)
    except OSError:
        pass  # the client is gone
    finally:
        if entrance is not None and place is not None:
            entrance.places.leave(place)


async def _connection(
    server: _Server, stream: trio.SocketStream, ends: Ends, place: Place | None
) -> None:
    """Answers the requests of one connection."""
    try:
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)
        while not server.stopping:
            if not await _answered(server, stream, http, ends, place):
                if server.stopping and http.our_state is h11.IDLE:
                    return  # no answer is under way, so there is no need to linger
                break
            http.start_next_cycle()
        note(place, idle=True)  # the client has its answer, and others may need the place
        await _linger(stream)
    except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # the client is gone; the code that sent to it has seen the error
    except Exception:
        logger.exception("a request failed")


async def _answered(
    server: _Server,
    stream: trio.SocketStream,
    http: h11.Connection,
    ends: Ends,
    place: Place | None,
) -> bool:
    """Answers the next request; returns whether another one may follow.

    The request's headers, up to half a megabyte of objects, end with this call: hundreds of clients
    may linger behind their answers.
    """
    note(place, idle=True)
    request = await _question(server, stream, http, ends[0][0])
    note(place, idle=False)
    if request is None:
        return False
    exchange = _Exchange(server, stream, http, request, place)
    try:
        await server.app(exchange.scope(*ends), exchange.receive, exchange.send)
    finally:
        exchange.hold(0)  # the next request counts its own bytes
    return {http.our_state, http.their_state} == {h11.DONE}


async def _question(
    server: _Server, stream: trio.SocketStream, http: h11.Connection, client: str
) -> h11.Request | None:
    """Returns the next request; None when there will be none."""
    with trio.move_on_after(IDLE_S) as scope:
        server.idle.add(scope)
        try:
            while True:
                await request_heads.turn(http, client)
                if (event := http.next_event()) is not h11.NEED_DATA:
                    break
                if server.entrance is not None:
                    server.entrance.heads.hold(scope.cancel, len(http.trailing_data[0]))
                http.receive_data(bytes(await stream.receive_some(PIPELINED_BYTES_MAX)))
        except h11.RemoteProtocolError as error:
            await _no_http(stream, http, error.error_status_hint, no_http(error))
            return None
        finally:
            server.idle.discard(scope)
            if server.entrance is not None:
                server.entrance.heads.hold(scope.cancel, 0)
        if isinstance(event, h11.Request):
            http.next_event()  # the end of a request without a body; its state is DONE then
            return event
    if http.trailing_data[0] and not server.stopping:
        await _no_http(stream, http, 408, late(IDLE_S))
    return None


async def _no_http(stream: trio.SocketStream, http: h11.Connection, status: int, why: str) -> None:
    client, _ = addresses.end(stream.socket.getpeername())
    logger.warning("no HTTP", client=client, why=why)
    if http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
        body = f"{why}\n".encode()
        headers = [("content-length", str(len(body))), ("connection", "close")]
        head = http.send(h11.Response(status_code=status, headers=headers))
        with trio.move_on_after(STALL_S):
            await stream.send_all((head or b"") + body)


async def _linger(stream: trio.SocketStream) -> None:
    await stream.send_eof()
    with trio.move_on_after(LINGER_S):
        while await stream.receive_some(HEAD_BYTES_MAX):
            pass


class _Exchange:
    """One request and its answer, as an ASGI app sees them."""

    def __init__(
        self,
        server: _Server,
        stream: trio.SocketStream,
        http: h11.Connection,
        request: h11.Request,
        place: Place | None,
    ) -> None:
        self._server = server
        self._stream = stream
        self._http = http
        self._request = request
        self._place = place
        self._asked = False
        self._ahead = len(http.trailing_data[0])  # bytes of later requests that arrived already
        self._client = stream.socket.getpeername()[0]
        self._bodiless = request.method == b"HEAD"
        self._head = b""  # goes out together with the first piece of the body
        self.hold(self._ahead)

    def scope(self, client: tuple[str, int], server: tuple[str, int]) -> dict[str, Any]:
        """Returns the request as an ASGI scope."""
        path, _, query = self._request.target.partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": self._request.http_version.decode(),
            "method": self._request.method.decode("ascii"),
            "scheme": "http",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "headers": list(self._request.headers),
            "client": client,
            "server": server,
            "extensions": {"http.response.zerocopysend": {}},
        }

    async def receive(self) -> Mapping[str, Any]:
        """Returns an empty body, then, once the client has hung up, a disconnect.

        A body that the client sends is ignored.
        """
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        while (room := PIPELINED_BYTES_MAX - self._ahead) > 0:
            try:
                data = bytes(await self._stream.receive_some(room))
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                break
            if not data:
                break
            if self._http.their_state is h11.DONE:
                self._ahead += len(data)
                self._http.receive_data(data)
                self.hold(self._ahead)
        else:
            await trio.sleep_forever()  # reads no more; a send will notice a hang-up
        return {"type": "http.disconnect"}

    def hold(self, size: int) -> None:
        """Counts `size` kept bytes of later requests among those of heads."""
        if self._server.entrance is not None and self._place is not None:
            self._server.entrance.heads.hold(self._place.cut, size)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Sends a head, a piece of a body or a part of a file.  Raises HungUp."""
        if message["type"] == "http.response.start":
            self._begin(message)
            return
        if message["type"] == "http.response.zerocopysend":
            await self._send_file(message["file"], message["offset"], message["count"])
        elif (body := message.get("body", b"")) and not self._bodiless:
            await self._write(self._http.send(h11.Data(data=body)))
        if not message.get("more_body", False):
            await self._write(self._http.send(h11.EndOfMessage()))

    def _begin(self, message: Mapping[str, Any]) -> None:
        self._bodiless = self._bodiless or message["status"] in (204, 304)
        date = email.utils.formatdate(time.time(), usegmt=True).encode()
        headers = [(b"date", date), *message["headers"]]
        response = h11.Response(status_code=message["status"], headers=headers)
        self._head = self._http.send(response) or b""

    async def _write(self, data: bytes | None) -> None:
        if data := self._head + (data or b""):
            self._head = b""
            try:
                await self._server.owed.send(self._stream, data, self._client)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise HungUp("the client is gone") from error

    async def _send_file(self, file: int, offset: int, count: int) -> None:
        """Sends `count` bytes of an open file, without blocking the loop.

        Raises HungUp, and OSError for trouble with the file.
        """
        self._http.send_with_data_passthrough(h11.Data(data=_Elsewhere(count)))  # type: ignore[arg-type]
        await self._write(b"")
        end = offset + count
        status = os.fstat(file)
        which = (status.st_dev, status.st_ino)
        begun, until = offset, trio.current_time() + STALL_S
        while offset < end:
            try:
                offset += await self._sendfile(file, which, offset, min(TURN_BYTES, end - offset))
            except BlockingIOError:
                if offset >= begun + PIECE_BYTES:
                    begun, until = offset, trio.current_time() + STALL_S
                await self._writable(until)

    async def _sendfile(self, file: int, which: Which, offset: int, count: int) -> int:
        call = partial(os.sendfile, self._stream.socket.fileno(), file, offset, count)
        async with self._server.turn:
            here = self._server.warm.holds(file, which, offset, count)
            sent = call() if here else 0
        if not here:
            sent = await threads.run(call, limiter=self._server.limiter)
        if sent == 0:
            raise OSError(errno.ENODATA, "the file has become shorter")
        return sent

    async def _writable(self, until: float) -> None:
        with trio.CancelScope(deadline=until) as scope:
            await trio.lowlevel.wait_writable(self._stream.socket)
        if scope.cancelled_caught:
            tell(self._client, STALL_S)
            raise HungUp("the client takes nothing any more")


@attrs.frozen
class _Elsewhere:
    """Stands for bytes that h11 counts but does not get."""

    count: int

    def __len__(self) -> int:
        return self.count
