"""One connection's trouble ends that connection, and nothing else.

Hypercorn 0.18 lets errors of its protocol code out of a connection into the nursery of the
server: bytes behind a WebSocket's handshake that come before its answer, for one, and any machine
on the network could stop the process with one packet.  None of these classes and of those in
web/http.py is a public interface, so the version is pinned, and tests/bad_input/ fails where this
does not hold any more.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

import hypercorn.protocol
import hypercorn.protocol.h11
import hypercorn.protocol.ws_stream
import hypercorn.trio.run
import structlog
import trio
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol import ProtocolWrapper
from hypercorn.trio.task_group import TaskGroup
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import EventWrapper, WorkerContext
from hypercorn.typing import ConnectionState

from appliance import addresses
from appliance.turns import SMALL_BYTES, own_round
from appliance.web.entrance import Entrance
from appliance.web.http import Buffer, Handshake, Http, Stream
from appliance.web.sending import Owed, TakesNothing
from appliance.web.shares import Full, Place, note

# Of a socket at once.  Hypercorn's own 64 KiB are held up to seven times on their way to an upload,
# and hundreds of boxes upload at once.
READ_BYTES: Final = 2**15

_Address = tuple[str, int] | None

log = structlog.get_logger()


class Terminated(EventWrapper):
    """Set when the server stops: whoever asks for nothing then is cut off."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: set[Idle] = set()

    async def set(self) -> None:
        """Cut them off."""
        await super().set()
        for connection in list(self.idle):
            connection.end()


class Context(WorkerContext):
    """What the connections of a server share."""

    def __init__(
        self,
        max_requests: int | None,
        entrance: Entrance | None = None,
        owed: Owed | None = None,
    ) -> None:
        super().__init__(max_requests)
        self.terminated: Terminated = Terminated()
        self.owed = owed or Owed()  # with those of other doors
        self.entrance = entrance  # None: whoever comes is let in


class Idle:
    """How long a connection may ask for nothing: the deadline of the read that it waits in.

    Hypercorn has a task, a nursery and a lock for it, and another scope around each read; together
    they are an eighth of what the coming of a box costs.
    """

    __slots__ = ("_patience", "_read", "_terminated", "_until", "place")  # each parked box has one

    def __init__(self, patience: float, terminated: Terminated) -> None:
        self._patience = patience  # seconds
        self._terminated = terminated
        self._until = math.inf
        self._read: trio.CancelScope | None = None
        self.place: Place | None = None

    async def restart(self, *_: object) -> None:
        """It is idle from now on."""
        self._terminated.idle.add(self)
        note(self.place, idle=True)
        over = self._terminated.is_set()
        self._set(-math.inf if over else trio.current_time() + self._patience)

    async def stop(self) -> None:
        """It has asked, or is gone."""
        self._terminated.idle.discard(self)
        note(self.place, idle=False)
        self._set(math.inf)

    def end(self) -> None:
        """The server stops."""
        self._set(-math.inf)

    def _set(self, until: float) -> None:
        self._until = until
        if self._read is not None:
            self._read.deadline = until

    async def read(self, stream: trio.abc.ReceiveStream) -> bytes | None:
        """The next bytes, b"" at their end; None where nothing came for too long."""
        with trio.CancelScope(deadline=self._until) as self._read:
            return bytes(await stream.receive_some(READ_BYTES))
        return None


class Connection(TCPServer):
    """One connection of Hypercorn's."""

    context: Context
    _tasks: Tasks | None = None  # while it is served
    _held = 0  # bytes of a head, in the room for such

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Not one of Hypercorn's, but all that it does with one.
        self.idle_task: Idle = Idle(  # type: ignore[assignment]
            self.config.keep_alive_timeout, self.context.terminated
        )
        self._closed = False
        self._client = "unknown"

    async def run(self) -> None:
        """Serve it until it ends; never raises."""
        try:
            sock = self.stream.socket
            peer, own = addresses.end(sock.getpeername()), addresses.end(sock.getsockname())
            self._client = peer[0]
            self._enter(peer, own)
            await self._serve(peer, own)
        except Full as why:
            await self._refuse(self._client, why)
        except OSError:
            pass  # it is gone
        except Exception as error:  # whatever foreign bytes make Hypercorn, h11 and wsproto say
            log.warning("connection cut", client=self._client, why=_reason(error))
        finally:
            try:
                await self.idle_task.stop()
                await self._close()
            finally:  # also where the server's stop cuts that short
                self._leave()
            # The two refer to each other.  When thousands of boxes come back at once, what is left
            # of their connections would have Python look through all others for garbage.
            vars(self).pop("protocol", None)

    def _enter(self, peer: tuple[str, int], own: tuple[str, int]) -> None:
        """Take a place.  Raises Full."""
        if self.context.entrance is not None:
            ends = peer, own
            self.idle_task.place = self.context.entrance.enter(self.stream, ends, self._scope)

    def _scope(self) -> trio.CancelScope | None:
        return None if self._tasks is None else self._tasks.scope

    async def _refuse(self, client: str, why: Full) -> None:
        assert self.context.entrance is not None
        with contextlib.suppress(OSError):
            await self.context.entrance.refuse(self.stream, client, why)

    def _leave(self) -> None:
        self._hold(0)
        place, self.idle_task.place = self.idle_task.place, None
        if self.context.entrance is not None and place is not None:
            self.context.entrance.places.leave(place)

    async def _serve(self, peer: _Address, own: _Address) -> None:
        """As Hypercorn's own `run`, without TLS."""
        tasks = Tasks()
        async with tasks:
            self._tasks = tasks
            self._task_group = tasks
            self.protocol = ProtocolWrapper(
                self.app,
                self.config,
                self.context,  # type: ignore[arg-type] # its `terminated` does more, and no less
                tasks,
                ConnectionState(self.state),
                False,  # no TLS
                peer,
                own,
                self.protocol_send,
            )
            await self.idle_task.restart()
            await self._read_data()

    async def _read_data(self) -> None:
        with contextlib.suppress(trio.ClosedResourceError, trio.BrokenResourceError):
            while (data := await self.idle_task.read(self.stream)) is not None:
                if self._takes_time(data):
                    await own_round(self._client)
                ended = not data
                self._http.receive(data)
                del data  # what follows may take a day, with thousands of heads in memory
                await self._http.look_through()
                self._hold(self._http.waiting)
                if ended:
                    break
            else:
                await self._give_up()
        await self.protocol.handle(Closed())

    def _hold(self, size: int) -> None:
        if self.context.entrance is not None and size != self._held:
            self._held = size
            self.context.entrance.heads.hold(self.idle_task.end, size)

    @property
    def _http(self) -> Http:
        assert isinstance(self.protocol.protocol, Http)  # see `guard`
        return self.protocol.protocol

    def _takes_time(self, data: bytes) -> bool:
        """Whether it may be milliseconds to look through what has come, and `data`."""
        free = self._http.awaits_head or self._http.takes_plain
        return not free and self._http.waiting + len(data) > SMALL_BYTES

    async def _give_up(self) -> None:
        """No request came; what came of one is answered."""
        if not self.context.terminated.is_set():
            await self._http.give_up(self.config.keep_alive_timeout)

    async def protocol_send(self, event: Event) -> None:
        """As Hypercorn's; who finds nobody else sending does not wait a turn of the loop.

        Nor does a client that takes nothing hold its answer for ever.
        """
        if not isinstance(event, RawData):
            await super().protocol_send(event)
            return
        try:
            self.send_lock.acquire_nowait()
        except trio.WouldBlock:
            await self.send_lock.acquire()
        try:
            await self.context.owed.send(self.stream, event.data, self._client, shield=True)
        except TakesNothing:
            await self._close()
            await self.protocol.handle(Closed())
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            await self.protocol.handle(Closed())
        finally:
            self.send_lock.release()

    async def _close(self) -> None:
        if not self._closed:  # at the end of an answer, and again at the end of the connection
            await self.stream.aclose()  # a shutdown right before it would say nothing more
            self._closed = True


class Tasks(TaskGroup):
    """The tasks of one connection.

    An app that answers before a body's end leaves messages that nobody takes.  Hypercorn waits for
    room among them for ever, to tell the very same app that its client is gone.
    """

    @property
    def scope(self) -> trio.CancelScope | None:
        """What ends all of them, while there are some."""
        return None if self._nursery is None else self._nursery.cancel_scope

    async def __aexit__(self, *error: Any) -> Any:
        """As Hypercorn's, which lets a cancellation out of the scope that it is for."""
        assert self._nursery_manager is not None
        try:
            return await self._nursery_manager.__aexit__(*error)
        finally:
            self._nursery = self._nursery_manager = None

    async def spawn_app(
        self, app: Any, config: Any, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Start `app`; returns what gives it a message, and waits only where it will be taken."""
        nursery = self._nursery
        assert nursery is not None
        into, out = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def say(message: Any) -> None:
            if message.get("more_body", message["type"] == "http.response.start"):
                await send(message)
                return
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


def guard(entrance: Entrance | None = None, owed: Owed | None = None) -> None:
    """Make Hypercorn use them; who connects comes in through `entrance`.

    `owed` counts what clients have not taken, with those of other doors.
    """
    made = partial(Context, entrance=entrance, owed=owed)
    hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined,assignment]
    hypercorn.trio.run.WorkerContext = made  # type: ignore[attr-defined,assignment]
    hypercorn.protocol.H11Protocol = Http  # type: ignore[attr-defined]
    hypercorn.protocol.h11.HTTPStream = Stream  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = Handshake  # type: ignore[attr-defined]
    hypercorn.protocol.ws_stream.WebsocketBuffer = Buffer  # type: ignore[misc]


def _reason(error: BaseException) -> str:
    """What it was, in a line: of several, the first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:200]
