"""`/ws/boot...`: the boot wait of virtual boxes and containers, by WebSocket.

docs/wire.md#websockets specifies it.
The seat, the wait and the script are the same as over HTTP; only the messages around them differ:

    /ws/boot.ipxe/mac/<mac>              2021: before the script the host is asked for memory, and
                                         sends the same message back once it has the memory
    /ws/boot.ipxe?mac=<mac>&hostname=    newer: the script at once, followed by `close`
    /ws/boot.container/hostname/<name>   the same two for containers, which have no MAC; their
    /ws/boot.container?hostname=<name>   script is a map, as JSON text

No comment lines are sent: an idle WebSocket needs none, and the socket's keepalive detects a host
that lost power.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

import structlog
import trio

from appliance import json_text
from appliance.boot.script import ipxe
from appliance.doors import seating
from appliance.doors.seating import Question, Usher, asked_of
from appliance.errors import ApplianceError, BadRequest, NotFound
from appliance.jobs import box as boxes
from appliance.jobs import decisions
from appliance.scheduler.lobby import ASKED_AGAIN, HUNG_UP, Seat
from appliance.scheduler.scheduler import Scheduler
from appliance.web.asgi import TEXT, Receive, Scope, Send, forget_headers

SOCKETS: Final = "/ws/"
MESSAGE_BYTES_MAX: Final = 2**16  # on any door: a monitor's query may name thousands of jobs
# Limit of a message of a box's host, which sends a single short one: a thousand hosts that never
# end a message hold 4 MB.
WORD_BYTES_MAX: Final = 2**12
VALUES_MAX: Final = 100  # in that message: a host returns the same map that it was sent
# Time for a host to find the memory of one box.  Shorter than the lease of an offer, so that
# another host can run the job that this one cannot.
MEMORY_S: Final = 60.0
NEWER_SLASHES: Final = 2  # in a path of the newer form, which names the box in its query
CLOSE_S: Final = 5.0  # time for the client to close its side, too, as the protocol requires
_PATHS: Final = re.compile(
    r"/ws/boot\.(ipxe(/mac/(?P<mac>[^/]*))?|container(/hostname/(?P<name>[^/]*)|(?P<newer>)))",
    re.DOTALL,
)
_NO_CONTAINER: Final = json.dumps({"job_id": "0"})
_REQUEST: Final = {"type": "request_memory"}
_RELEASE: Final = {"type": "release_memory"}
_CLOSE: Final = {"type": "close"}

log = structlog.get_logger()


class Sockets:
    """The boot wait, by WebSocket."""

    def __init__(self, scheduler: Scheduler, usher: Usher) -> None:
        self._scheduler = scheduler
        self._usher = usher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one box's request."""
        await receive()  # websocket.connect
        seat = await self._seat(scope, send)
        if seat is None:
            return
        forget_headers(scope)
        told, of_2021 = False, scope["path"].count("/") > NEWER_SLASHES
        try:
            await send({"type": "websocket.accept", "message_bytes_max": WORD_BYTES_MAX})
            gone = partial(_until_gone, receive)
            script = await seat.wait(self._scheduler.config.waits.park, until_gone=gone)
            if script is not None and of_2021 and not seat.hung_up:
                script = await self._with_memory(script, seat, receive, send)
            if seat.ended not in (HUNG_UP, ASKED_AGAIN):
                idle = self._idle(seat) if "ipxe" in scope["path"] else _NO_CONTAINER
                boot = {"type": "boot", "response": script or idle}
                messages = [boot] if of_2021 else [boot, _CLOSE]
                told = await _tell(messages, seat, receive, send)
        finally:
            self._scheduler.leave(seat)
            if not told:
                self._scheduler.undelivered(seat)
            log.info("box left the lobby", box=seat.box, told=told, why=seat.ended or "a job")
        if not seat.hung_up:
            await send({"type": "websocket.close", "code": 1000})
            with trio.move_on_after(CLOSE_S):
                await _until_gone(receive)

    async def _seat(self, scope: Scope, send: Send) -> Seat | None:
        """Returns the box's seat; None if it was refused, and told so."""
        try:
            return self._usher.seat(_question(scope), scope)
        except ApplianceError as error:
            await turn_away(send, seating.status(error), str(error))
        return None

    async def _with_memory(
        self, script: str, seat: Seat, receive: Receive, send: Send
    ) -> str | None:
        """Returns the script once the box's host has the memory; None if not, or if too late."""
        await send(_text(_REQUEST))
        has, seat.looks_since = False, trio.current_time()
        with trio.move_on_after(MEMORY_S):
            has = await _until_said(_REQUEST["type"], receive)
            if not has:
                seat.hang_up()
        assert seat.handed is not None
        if has and decisions.is_offered(self._scheduler.store, *seat.handed):
            seat.looks_since = None
            return script
        self._scheduler.undelivered(seat)
        if not seat.hung_up:
            log.warning("no memory for a box", box=seat.box)
            await send(_text(_RELEASE))
        return None

    def _idle(self, seat: Seat) -> str:
        host = self._scheduler.host(seat.reached)
        return ipxe.rechain(f"{host}:{self._scheduler.config.ports.scheduler}")


def _question(scope: Scope) -> Question:
    match = _PATHS.fullmatch(scope["path"])
    if match is None:
        raise NotFound(
            "ask for /ws/boot.ipxe/mac/<mac>, /ws/boot.container/hostname/<name>,"
            " or with ?mac=<mac> or ?hostname=<name>"
        )
    asked = asked_of(scope, match["mac"])
    if match["name"] is None and match["newer"] is None:
        return asked
    name = boxes.container_name(match["name"] or asked.hostname)
    return Question(boxes.mac_of(name), name, asked.query)


async def turn_away(send: Send, status: int, text: str) -> None:
    """Refuses the handshake with a plain HTTP answer."""
    body = f"{text}\n".encode()
    headers = [(b"content-type", TEXT), (b"content-length", b"%d" % len(body))]
    start = "websocket.http.response.start"
    await send({"type": start, "status": status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": body})


async def _tell(messages: Iterable[Any], seat: Seat, receive: Receive, send: Send) -> bool:
    """Sends messages; returns whether the box was still connected after the last one."""

    async def watch() -> None:
        await _until_gone(receive)
        seat.hang_up()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        for message in messages:
            await send(_text(message))
        # Hypercorn drops data sent to a client that hung up, and makes `receive` return a
        # disconnect; by the next tick watch() has seen it.
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return not seat.hung_up


def _text(message: Any) -> dict[str, str]:
    return {"type": "websocket.send", "text": json.dumps(message)}


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "websocket.disconnect":
        pass  # messages that nobody asked for are ignored


async def _until_said(word: str, receive: Receive) -> bool:
    """Returns whether the client sent a message of type `word` before it was gone."""
    while (event := await receive())["type"] != "websocket.disconnect":
        try:
            said = json_text.load(event.get("text") or "null", VALUES_MAX)
        except BadRequest:
            continue
        if isinstance(said, dict) and said.get("type") == word:
            return True
    return False
