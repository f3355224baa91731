"""The command line's door: CBOR sequences (RFC 8742) over a unix socket.

    server  {"appliance": 1, "version": "...", "lab": "...", "pid": N}
    client  {"appliance": 1}
    client  {"verb": "submit", ...}
    server  {"event": {...}} *   {"result": {...}}  or  {"error": {"kind", "message", "problems"}}

Who asks is who the kernel says: the peer's credentials name the user.  Who may connect is the
socket file's mode: root, and the group `appliance` where there is one.
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
PIECE_BYTES: Final = 2**13  # read in some ten milliseconds, whatever they are
SMALL_BYTES: Final = 2**11  # of them; a command fits, and does not wait for a round of its own
# Of one message: a submit of ten documents of the largest size, or of hundreds as people write.
MESSAGE: Final = cbor_items.Limits(held=12 * 2**20, text=4 * 2**20, values=50_000, depth=8)
GATHERED_BYTES_MAX: Final = 16 * 2**20  # of all messages together

# Of a message whose verb waits, perhaps for days, while its memory is others': it names a job.
WAITING_BYTES_MAX: Final = 2**12
HANG_UP_S: Final = 2.0  # between two looks whether a client that has sent more is still there
TOLD_MAX: Final = 16  # are told at once why they find no place; each has a file open for LINGER_S

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
    """Answer the command line, on the socket that systemd `made` or on one of our own.

    `callers`: how many may be connected; None: everybody.  `owed` counts what they have not taken,
    with the clients of other doors.
    Raises OSError where the socket cannot be made, Refused where another server has it.
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
        os.unlink(path)  # left by one that was killed
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
    """Somebody listens; on a state of his own, or the lock would have said so."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)  # a full queue of somebody's is an answer, too
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
    """Let who calls talk, or turn them away."""
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
    """Say why, and read for a moment what was asked: the kernel drops our words with it else."""
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
        # The kernel names whoever made the socket, which may be systemd.
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
        pass  # the person pressed Ctrl-C, or Ctrl-Z long ago


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
    """What `work` returns or raises; cancelled, and BrokenResourceError, when the client hangs up.

    Only for verbs that merely wait, perhaps for days: what is being decided is finished whoever
    listens.
    """
    result: dict[str, Any] | None = None
    failed: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def watch() -> None:
            try:
                more = await stream.socket.recv(1, socket.MSG_PEEK)  # the next request stays
            except OSError:
                more = b""
            if more:
                await _hung_up(stream)
            nursery.cancel_scope.cancel()

        nursery.start_soon(watch)
        try:
            result = await work()
        except Exception as error:
            failed = error  # raised below: by itself, not in a group
        nursery.cancel_scope.cancel()
    if failed is not None:
        raise failed
    if result is None:
        raise trio.BrokenResourceError("the client hung up")
    return result


async def _hung_up(stream: trio.SocketStream) -> None:
    """Returns when nothing more will come than what waits to be read."""
    look = select.poll()
    look.register(stream.socket.fileno(), select.POLLRDHUP)
    while not look.poll(0):  # noqa: ASYNC110 - trio waits for what can be read, and that is there
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
    """CBOR takes no half characters, which file names may bring."""
    return text.encode(errors="replace").decode()


async def _messages(stream: trio.SocketStream, place: Place) -> AsyncGenerator[Any, None]:
    """The items of a CBOR sequence.  Raises BadRequest for what is none or too much, NoRoom."""
    decoder = cbor_items.Decoder(MESSAGE)
    while data := await place.wait(partial(stream.receive_some, PIECE_BYTES)):
        if len(data) > SMALL_BYTES:
            await own_round()  # to decode it may take milliseconds
        for message, held in decoder.feed(data):
            place.hold(held)
            place.arrives = False  # while it is answered
            yield message
            place.arrives = True
            place.hold(0)
        place.hold(decoder.held)


def _peer(stream: trio.SocketStream) -> str:
    """The user at the other end."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack(
        "3i", stream.socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    )
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid-{uid}"
