"""The server's end of the control socket: CBOR sequences (RFC 8742) over a unix socket.

    server  {"appliance": 1, "version": "...", "lab": "...", "pid": N}
    client  {"appliance": 1}
    client  {"verb": "submit", ...}
    server  {"event": {...}} *   {"result": {...}}  or  {"error": {"kind", "message", "problems"}}

The kernel names the user who asks, by the peer's credentials.  The socket file's mode says who may
connect: root, and the group `appliance` if it exists.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import select
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from typing import Any, Final, NoReturn

import cbor2
import structlog
import trio

import appliance
from appliance import cbor_items, errors, names
from appliance.control.verb import VERBS
from appliance.control.verbs import Verbs
from appliance.scheduler.scheduler import Scheduler
from appliance.turns import own_round
from appliance.web.entrance import LINGER_S
from appliance.web.room import NoRoom, Place, Room
from appliance.web.sending import Owed
from appliance.web.shares import Callers, Full

PROTOCOL: Final = 1
PIECE_BYTES: Final = 2**13  # decoded in some ten milliseconds, whatever the bytes are
SMALL_BYTES: Final = 2**11  # a piece up to this size, such as a command, needs no round of its own
# Of one message: a submit of ten documents of the largest size, or of hundreds of usual size.
MESSAGE: Final = cbor_items.Limits(held=12 * 2**20, text=4 * 2**20, values=50_000, depth=8)
GATHERED_BYTES_MAX: Final = 16 * 2**20  # of all messages together

# Of a message whose verb may wait for days while it takes memory from others; it only names a job.
WAITING_BYTES_MAX: Final = 2**12
HANG_UP_S: Final = 2.0  # between two checks whether a client that has sent more is still there
TOLD_MAX: Final = 16  # clients told at once why they are refused; each has a file open for LINGER_S

Say = Callable[[bytes], Awaitable[None]]

log = structlog.get_logger()


async def serve(
    scheduler: Scheduler,
    verbs: Verbs,
    *,
    made: socket.socket | None = None,
    callers: Callers | None = None,
    owed: Owed | None = None,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> NoReturn:
    """Answers the command line, on the socket that systemd `made` or on one of our own.

    `callers` limits how many clients may be connected; None: no limit.  `owed` counts the bytes
    that clients have not taken yet, together with the clients of other doors.
    Raises OSError if the socket cannot be made, Refused if another server has it.
    """
    path = scheduler.config.paths.control_socket
    ours = made is None
    listener = trio.SocketListener(
        _listen(str(path)) if made is None else trio.socket.from_stdlib_socket(made)
    )
    try:
        task_status.started()
        owing = owed or Owed()
        room = Room(GATHERED_BYTES_MAX, int(MESSAGE.held))
        told = trio.CapacityLimiter(TOLD_MAX)

        async def connection(stream: trio.SocketStream) -> None:
            talk = partial(_talk, stream, owing, scheduler, verbs, room)
            await _caller(stream, scheduler, talk, callers, told)

        await trio.serve_listeners(connection, [listener])
        raise AssertionError("serve_listeners never completes")
    finally:
        if ours:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _listen(path: str) -> trio.socket.SocketType:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if _answers(path):
        raise errors.Refused(f"{path}: another server answers here; see paths.run")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # left by a killed server
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    with contextlib.suppress(KeyError, PermissionError):
        os.chown(path, -1, grp.getgrnam(names.GROUP).gr_gid)
    sock.listen(128)
    return trio.socket.from_stdlib_socket(sock)


def _answers(path: str) -> bool:
    """Whether another server listens; it has another state, or the lock would have stopped us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)  # a full accept queue means a server, too
        try:
            sock.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except BlockingIOError:
            return True
    return True


async def _caller(
    stream: trio.SocketStream,
    scheduler: Scheduler,
    talk: Callable[[str], Awaitable[None]],
    callers: Callers | None,
    told: trio.CapacityLimiter,
) -> None:
    """Serves a client, or turns it away if there are too many."""
    user = _peer(stream)
    if callers is None:
        await talk(user)
        return
    try:
        callers.enter(user)
    except Full as why:
        log.warning("control connection refused", user=user, why=str(why))
        if told.available_tokens < 1:
            stream.socket.close()
            return
        async with told:
            await _turn_away(stream, scheduler, why)
        return
    try:
        await talk(user)
    finally:
        callers.leave(user)


async def _turn_away(stream: trio.SocketStream, scheduler: Scheduler, why: Full) -> None:
    """Says why, and reads the request for a moment: the kernel drops our answer otherwise."""
    said = cbor2.dumps(_hello(scheduler)) + cbor2.dumps({"error": _error(errors.Refused(str(why)))})
    with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
        async with stream:
            with trio.move_on_after(LINGER_S):
                await stream.send_all(said)
                await stream.send_eof()
                while await stream.receive_some(2**16):
                    pass


def _hello(scheduler: Scheduler) -> dict[str, Any]:
    return {
        "appliance": PROTOCOL,
        "version": appliance.__version__,
        "lab": scheduler.config.lab,
        # The kernel would name the process that made the socket, which may be systemd.
        "pid": os.getpid(),
    }


async def _talk(
    stream: trio.SocketStream,
    owed: Owed,
    scheduler: Scheduler,
    verbs: Verbs,
    room: Room,
    user: str,
) -> None:
    with room.place(user) as place:
        await _connection(stream, owed, scheduler, verbs, place)


async def _connection(
    stream: trio.SocketStream, owed: Owed, scheduler: Scheduler, verbs: Verbs, place: Place
) -> None:
    user = place.who

    async def say(message: bytes) -> None:
        await owed.send(stream, message, f"the command line of {user}")

    try:
        async with stream, contextlib.aclosing(_messages(stream, place)) as requests:
            await say(cbor2.dumps(_hello(scheduler)))
            try:
                greeting = await anext(requests, None)
                if not isinstance(greeting, dict) or greeting.get("appliance") != PROTOCOL:
                    raise errors.BadRequest(f"this server speaks version {PROTOCOL}")
                async for request in requests:
                    await _answer(stream, say, verbs, place, request)
            except (errors.BadRequest, NoRoom) as error:
                log.warning("control connection refused", user=user, why=str(error))
                await say(cbor2.dumps({"error": _error(error)}))
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        pass  # a person pressed Ctrl-C, or Ctrl-Z long ago


async def _answer(
    stream: trio.SocketStream, say: Say, verbs: Verbs, place: Place, request: Any
) -> None:
    user = place.who

    async def event(what: dict[str, Any]) -> None:
        await say(cbor2.dumps({"event": what}))

    try:
        if not isinstance(request, dict) or not isinstance(request.get("verb"), str):
            raise errors.BadRequest("a request is a map with a verb")
        waits = request["verb"] in VERBS and VERBS[request["verb"]].waits
        if waits and place.size > WAITING_BYTES_MAX:
            raise errors.BadRequest(f"{request['verb']}: more is said than it needs")
        arguments = {key: value for key, value in request.items() if key != "verb"}
        work = partial(verbs.do, request["verb"], arguments, user, event)
        result = await (_while_there(stream, work) if waits else work())
        reply = cbor2.dumps({"result": result})
    except errors.ApplianceError as error:
        reply = cbor2.dumps({"error": _error(error)})
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        raise
    except Exception:
        log.exception("a verb failed", verb=request.get("verb"), user=user)
        failed = {"kind": "internal", "message": "the server failed; see its log"}
        reply = cbor2.dumps({"error": failed})
    await say(reply)


async def _while_there(
    stream: trio.SocketStream, work: Callable[[], Awaitable[dict[str, Any]]]
) -> dict[str, Any]:
    """Runs `work`; when the client hangs up, cancels `work` and raises BrokenResourceError.

    Only for verbs that wait, perhaps for days; a verb that decides something must finish even if
    its client is gone.
    """
    result: dict[str, Any] | None = None
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            try:
                more = await stream.socket.recv(1, socket.MSG_PEEK)  # leaves the request unread
            except OSError:
                more = b""
            if more:
                await _hung_up(stream)
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        try:
            result = await work()
        except Exception as error:
            failed = error  # raised below, alone and not in a group
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    if result is None:
        raise trio.BrokenResourceError("the client hung up")
    return result


async def _hung_up(stream: trio.SocketStream) -> None:
    """Returns when the client has closed its end, even if bytes are unread."""
    look = select.poll()
    look.register(stream.socket.fileno(), select.POLLRDHUP)
    while not look.poll(0):  # noqa: ASYNC110 - trio waits until the socket is readable, and it is
        await trio.sleep(HANG_UP_S)


def _error(error: errors.ApplianceError) -> dict[str, Any]:
    shown: dict[str, Any] = {"kind": error.kind, "message": _sayable(str(error))}
    if isinstance(error, errors.BadDocument):
        shown["problems"] = [
            {"field": _sayable(p.field), "line": p.line, "message": _sayable(p.message)}
            for p in error.problems
        ]
    return shown


def _sayable(text: str) -> str:
    """Replaces lone surrogates, which file names may contain and CBOR cannot encode."""
    return text.encode(errors="replace").decode()


async def _messages(stream: trio.SocketStream, place: Place) -> AsyncGenerator[Any, None]:
    """Yields the items of a CBOR sequence.  Raises BadRequest if broken or too large, NoRoom."""
    decoder = cbor_items.Decoder(MESSAGE)
    while data := await place.wait(partial(stream.receive_some, PIECE_BYTES)):
        if len(data) > SMALL_BYTES:
            await own_round()  # decoding may take milliseconds
        for message, held in decoder.feed(data):
            place.hold(held)
            place.arrives = False  # while the message is answered
            yield message
            place.arrives = True
            place.hold(0)
        place.hold(decoder.held)


def _peer(stream: trio.SocketStream) -> str:
    """Returns the user at the other end."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack(
        "3i", stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
