"""`GET /boot.ipxe/mac/<mac>`: a box asks what to run, and may wait half an hour for the answer.

Linux on a box asks by `gpxelinux.cgi`, and starts the kernel of the same script by kexec.

A plain ASGI callable.  The answer is 200 and chunked: `#!ipxe` at once, one comment line every
`drip` seconds, and at the end the rest of the script (docs/wire.md#the-boot-wait).  The seat's
cancel scope ends the wait; the comment lines are sent between its sleeps, so no hand-over can
interrupt a send (docs/firmware.md#libraries).
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, Final

import structlog
import trio

from appliance.boot.script import ipxe
from appliance.doors import seating
from appliance.doors.admission import Admission
from appliance.doors.boot_wait_ws import SOCKETS, Sockets
from appliance.doors.metrics import METRICS, Metrics
from appliance.doors.seating import GPXELINUX, Usher, lease_in, query_of, question
from appliance.doors.submits import CANCEL, SUBMIT, Submits
from appliance.errors import ApplianceError, DiskTrouble, NotFound, Refused, Unproven
from appliance.jobs import served
from appliance.scheduler.boot_progress import Fetches
from appliance.scheduler.lobby import ASKED_AGAIN, HUNG_UP, Seat
from appliance.scheduler.scheduler import Scheduler
from appliance.web.asgi import TEXT, App, Paths, Receive, Scope, Send, answer, forget_headers
from appliance.web.files import RETRY_AFTER_S as RETRY_SOON_S
from appliance.web.files import send_bytes

# Retry-After for a box that may not wait here; long, since nothing changes by itself.
RETRY_AFTER_S: Final = 60
# Boxes that are sent back at the same time.  After a power cut thousands of waits end in the same
# second; if all of them ended in one round of the loop, everybody else would wait for them.
LEAVING_MAX: Final = 50
# Servers of 2024 answer everything beneath this prefix, too (docs/wire.md#ports).
NEWER: Final = "/scheduler"
_JOB_CGZ: Final = re.compile(r"/job_initrd_tmpfs/([A-Za-z0-9._-]{1,80})/job\.cgz\Z")

_SCRIPT: Final = [(b"content-type", TEXT), (b"connection", b"close")]

log = structlog.get_logger()


class Boots:
    """The boot wait."""

    def __init__(self, scheduler: Scheduler, usher: Usher) -> None:
        self._scheduler = scheduler
        self._usher = usher
        self._turns = trio.CapacityLimiter(LEAVING_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one box's request.

        Thousands of boxes wait in this stack frame; another call would cost memory for each.
        """
        seat = await self._seat(scope, send)
        if seat is None:
            return
        waits, lease = self._scheduler.config.waits, lease_in(scope)
        forget_headers(scope, ipxe.QUERY_MAX)
        told = False
        try:
            await send({"type": "http.response.start", "status": 200, "headers": _SCRIPT})
            await _body(send, ipxe.SHEBANG.encode())
            drip, until_gone = partial(_body, send, ipxe.DRIP), partial(_until_gone, receive)
            patience = ipxe.patience(waits.park, lease)
            script = await seat.wait(patience, drip, waits.drip, until_gone, self._turns)
            if script is not None:
                told = await _tell(script, seat, receive, send)
                if told:  # else the answer ends short, and a client does not run half a script
                    await send({"type": "http.response.body", "body": b""})
            elif seat.ended not in (HUNG_UP, ASKED_AGAIN):  # losing a re-chain does no harm
                rechain = _rest(self._rechain(seat, scope, lease))
                await send({"type": "http.response.body", "body": rechain})
                told = True
        finally:
            if seat.leaving:
                self._turns.release_on_behalf_of(seat)
            self._scheduler.leave(seat)
            if not told:
                self._scheduler.undelivered(seat)
            log.info("box left the lobby", box=seat.box, told=told, why=seat.ended or "a job")

    async def _seat(self, scope: Scope, send: Send) -> Seat | None:
        """Returns the box's seat; None if it was refused, and told so."""
        try:
            if scope["method"] != "GET":
                raise NotFound("ask for /boot.ipxe/mac/<mac>, by GET")
            return self._usher.seat(question(scope), scope)
        except ApplianceError as error:
            status = seating.status(error)
            again = [(b"retry-after", b"%d" % RETRY_AFTER_S)] if status == 503 else []
            await answer(send, status, str(error), again)
        return None

    def _rechain(self, seat: Seat, scope: Scope, lease: float | None) -> str:
        renew = lease is not None or self._scheduler.config.network.proxy
        return ipxe.rechain(self._where(seat), query_of(scope), renew=renew)

    def _where(self, seat: Seat) -> str:
        host = self._scheduler.host(seat.reached)
        return f"{host}:{self._scheduler.config.ports.scheduler}"


async def _body(send: Send, data: bytes) -> None:
    await send({"type": "http.response.body", "body": data, "more_body": True})


def _rest(script: str) -> bytes:
    """Returns the script without its first line, which was sent at once."""
    return script.removeprefix(ipxe.SHEBANG).encode()


async def _tell(script: str, seat: Seat, receive: Receive, send: Send) -> bool:
    """Sends the rest of the script; returns whether the box was still connected afterwards."""

    async def watch() -> None:
        await _until_gone(receive)
        seat.hang_up()

    # The watching task starts only now: for thousands of parked boxes it would cost memory.
    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch)
        await _body(send, _rest(script))
        # Hypercorn drops data sent to a client that hung up, and makes `receive` return a
        # disconnect; by the next tick watch() has seen it.
        await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    return not seat.hung_up


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def door(
    scheduler: Scheduler, admission: Admission, fetches: Fetches, runner: bytes, small: Any
) -> Paths:
    """Returns the door on port 3000: the boot wait, job.cgz, the runner, Quart for the rest."""
    progress = fetches.at(scheduler.config.ports.scheduler)

    async def job_cgz(scope: Scope, receive: Receive, send: Send) -> None:
        match = _JOB_CGZ.match(scope["path"])
        client = scope["client"][0]
        try:
            if match is None:
                raise NotFound("ask for /job_initrd_tmpfs/<job>/job.cgz")
            takes = scope["method"] == "GET"
            data = await fetches.job_cgz(match[1], client, scope["server"][0], takes=takes)
        except (NotFound, Refused, DiskTrouble, Unproven) as error:
            if not isinstance(error, NotFound):
                log.warning("job.cgz refused", path=scope["path"], address=client, why=str(error))
            # A 503 is over in a moment, and iPXE asks again.
            again = [(b"retry-after", b"%d" % RETRY_SOON_S)] if error.status == 503 else []
            await answer(send, error.status, str(error), again)
        else:
            await send_bytes(scope, receive, send, data, path=scope["path"], progress=progress)

    async def runner_cgz(scope: Scope, receive: Receive, send: Send) -> None:
        await send_bytes(scope, receive, send, runner, path=served.RUNNER, progress=progress)

    usher = Usher(scheduler, admission)
    boots = Boots(scheduler, usher)
    submits = Submits(scheduler)
    sockets: dict[str, App] = {SOCKETS: Sockets(scheduler, usher)}
    paths: dict[str, App] = {
        "/boot.": boots,
        "/job_initrd_tmpfs/": job_cgz,
        served.RUNNER: runner_cgz,
        METRICS: Metrics(scheduler),
        SUBMIT: submits,
        CANCEL: submits,
    }
    return Paths(paths, small, NEWER, {GPXELINUX: boots}, sockets)
