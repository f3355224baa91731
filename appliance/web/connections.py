"""Keeps an error in one connection from ending anything but that connection.

Hypercorn 0.18 lets errors of its protocol code propagate from a connection into the nursery of the
server.  One cause is bytes behind a WebSocket's handshake that arrive before its answer; so any
machine on the network could stop the process with one packet.  The classes extended here and in
web/http.py are no public interface of Hypercorn's, so its version is pinned; tests/bad_input/ fails
if they no longer protect the server.
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

# Bytes of one read.  Hypercorn's own 64 KiB are in memory up to seven times on their way to an
# upload, and hundreds of boxes upload at once.
READ_BYTES: Final = 2**15

_Address = tuple[str, int] | None

log = structlog.get_logger()


class Terminated(EventWrapper):
    """The event that is set when the server stops; setting it ends idle connections."""

    def __init__(self) -> None:
        super().__init__()
        self.idle: set[Idle] = set()

    async def set(self) -> None:
        """Sets the event and ends all idle connections."""
        await super().set()
        for connection in list(self.idle):
            connection.end()


class Context(WorkerContext):
    """The state that the connections of a server share."""

    def __init__(
        self,
        max_requests: int | None,
        entrance: Entrance | None = None,
        owed: Owed | None = None,
    ) -> None:
        super().__init__(max_requests)
        self.terminated: Terminated = Terminated()
        self.owed = owed or Owed()  # shared with other doors
        self.entrance = entrance  # None: everybody is let in


class Idle:
    """Limits how long a connection may be idle, by the deadline of the read that it waits in.

    Hypercorn uses a task, a nursery and a lock for this, and another scope around each read;
    together they are an eighth of the cost of a box connecting.
    """

    __slots__ = ("_patience", "_read", "_terminated", "_until", "place")  # each parked box has one

    def __init__(self, patience: float, terminated: Terminated) -> None:
        self._patience = patience  # seconds
        self._terminated = terminated
        self._until = math.inf
        self._read: trio.CancelScope | None = None
        self.place: Place | None = None

    async def restart(self, *_: object) -> None:
        """Marks the connection as idle and starts its timeout."""
        self._terminated.idle.add(self)
        note(self.place, idle=True)
        over = self._terminated.is_set()
        self._set(-math.inf if over else trio.current_time() + self._patience)

    async def stop(self) -> None:
        """Stops the timeout: the client has sent a request, or is gone."""
        self._terminated.idle.discard(self)
        note(self.place, idle=False)
        self._set(math.inf)

    def end(self) -> None:
        """Ends the connection's present or next read at once."""
        self._set(-math.inf)

    def _set(self, until: float) -> None:
        self._until = until
        if self._read is not None:
            self._read.deadline = until

    async def read(self, stream: trio.abc.ReceiveStream) -> bytes | None:
        """Returns the next bytes, b"" at their end; None if nothing came in time."""
        with trio.CancelScope(deadline=self._until) as self._read:
            return bytes(await stream.receive_some(READ_BYTES))
        return None


class Connection(TCPServer):
    """One connection, as Hypercorn serves it."""

    context: Context
    _tasks: Tasks | None = None  # set once it is served
    _held = 0  # bytes that it holds of `Entrance.heads`

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # Not Hypercorn's class, but it has all the methods that Hypercorn calls.
        self.idle_task: Idle = Idle(  # type: ignore[assignment]
            self.config.keep_alive_timeout, self.context.terminated
        )
        self._closed = False
        self._client = "unknown"

    async def run(self) -> None:
        """Serves the connection until it ends; never raises."""
        try:
            sock = self.stream.socket
            peer, own = addresses.end(sock.getpeername()), addresses.end(sock.getsockname())
            self._client = peer[0]
            self._enter(peer, own)
            await self._serve(peer, own)
        except Full as why:
            await self._refuse(self._client, why)
        except OSError:
            pass  # the client is gone
        except Exception as error:  # anything that Hypercorn, h11 and wsproto raise on bad input
            log.warning("connection cut", client=self._client, why=_reason(error))
        finally:
            try:
                await self.idle_task.stop()
                await self._close()
            finally:  # also if the server's stop interrupts the close
                self._leave()
            # Breaks a reference cycle.  When thousands of boxes come back at once, such cycles
            # would make Python's garbage collector scan all other objects.
            vars(self).pop("protocol", None)

    def _enter(self, peer: tuple[str, int], own: tuple[str, int]) -> None:
        """Takes a place.  Raises Full."""
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
        """Does what Hypercorn's own `run` does, without TLS."""
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
                del data  # the next line may take a day; thousands of heads would stay in memory
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
        """Returns whether parsing the waiting bytes and `data` may take milliseconds."""
        free = self._http.awaits_head or self._http.takes_plain
        return not free and self._http.waiting + len(data) > SMALL_BYTES

    async def _give_up(self) -> None:
        """Ends the wait for a request; answers 408 to a part of one, unless the server stops."""
        if not self.context.terminated.is_set():
            await self._http.give_up(self.config.keep_alive_timeout)

    async def protocol_send(self, event: Event) -> None:
        """Like Hypercorn's, but does not wait a round of the loop if nobody else is sending.

        A client that takes nothing is cut off instead of keeping its answer for ever.
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
            await self.stream.aclose()  # a shutdown right before it would add nothing
            self._closed = True


class Tasks(TaskGroup):
    """The tasks of one connection.

    An app that answers before a body's end leaves messages in its queue that nobody takes.
    Hypercorn waits for ever for room in that queue, to tell the same app that its client is gone.
    """

    @property
    def scope(self) -> trio.CancelScope | None:
        """Returns the cancel scope of all tasks, None if there are none."""
        return None if self._nursery is None else self._nursery.cancel_scope

    async def __aexit__(self, *error: Any) -> Any:
        """Like Hypercorn's, but a cancellation does not leave the scope that it belongs to."""
        assert self._nursery_manager is not None
        try:
            return await self._nursery_manager.__aexit__(*error)
        finally:
            self._nursery = self._nursery_manager = None

    async def spawn_app(
        self, app: Any, config: Any, scope: Any, send: Callable[[Any], Awaitable[None]]
    ) -> Callable[[Any], Awaitable[None]]:
        """Starts `app`; returns a function that gives it a message.

        That function waits for room in the queue, but not for a `*.disconnect` message.
        """
        nursery = self._nursery
        assert nursery is not None
        into, out = trio.open_memory_channel[Any](config.max_app_queue_size)

        async def say(message: Any) -> None:
            if message.get("more_body", message["type"] == "http.response.start"):
                await send(message)
                return
            # After the end of an answer the app is told that its client is gone, and Quart then
            # cancels this very send.  If it were interrupted, nobody would close the connection.
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
                out.close()  # before its connection is told that the app is done
                await send(None)

        async def wait(message: Any) -> None:
            with contextlib.suppress(trio.BrokenResourceError):
                await into.send(message)

        async def put(message: Any) -> None:
            if not message["type"].endswith(".disconnect"):
                await wait(message)
                return
            # The app's own task may be calling this, after its answer, so it must not wait.  The
            # app gets the message at once if there is room: code that sends checks after each send
            # whether the client is still there.
            with contextlib.suppress(trio.BrokenResourceError):
                try:
                    into.send_nowait(message)
                except trio.WouldBlock:
                    nursery.start_soon(wait, message)

        nursery.start_soon(serve)
        return put


def guard(entrance: Entrance | None = None, owed: Owed | None = None) -> None:
    """Makes Hypercorn use these classes; `entrance` admits connections.

    `owed` counts the bytes that clients have not taken; other doors share it.
    """
    made = partial(Context, entrance=entrance, owed=owed)
    hypercorn.trio.run.TCPServer = Connection  # type: ignore[attr-defined,assignment]
    hypercorn.trio.run.WorkerContext = made  # type: ignore[attr-defined,assignment]
    hypercorn.protocol.H11Protocol = Http  # type: ignore[attr-defined]
    hypercorn.protocol.h11.HTTPStream = Stream  # type: ignore[attr-defined]
    hypercorn.protocol.h11.WSStream = Handshake  # type: ignore[attr-defined]
    hypercorn.protocol.ws_stream.WebsocketBuffer = Buffer  # type: ignore[misc]


def _reason(error: BaseException) -> str:
    """Returns the error in one line; for an exception group, its first error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"[:200]
