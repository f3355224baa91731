"""Who asks for work, in whichever way: from a request to a seat in the lobby.

    GET /boot.ipxe/mac/<mac>                           firmware
    GET /~<user>/cgi-bin/gpxelinux.cgi?hostname=&mac=  Linux, for the next job by kexec

What a box says of itself is no proof: who has another card is turned away (admission.py).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Final
from urllib.parse import parse_qsl

import attrs
import structlog

from appliance.boot.script import ipxe
from appliance.doors.admission import Admission
from appliance.errors import ApplianceError, BadRequest, NotFound, Refused, Unproven
from appliance.jobs import box as boxes
from appliance.scheduler.lobby import Seat
from appliance.scheduler.scheduler import Scheduler
from appliance.web.asgi import Scope

GPXELINUX: Final = "/cgi-bin/gpxelinux.cgi"
_NO_VERSION: Final = re.compile(r"[^A-Za-z0-9.+~ ()_-]")
_VERSION_MAX: Final = 60  # characters of an iPXE's version; "1.0.0+git-20190125.36a4c85-5.1" has 30
_WAYS: Final = re.compile(
    r"/boot\.ipxe/mac/(?P<mac>[^/]*)|/~[^/]*(/[^/]*)?" + re.escape(GPXELINUX), re.DOTALL
)

log = structlog.get_logger()


@attrs.frozen
class Question:
    """What a box asked with."""

    mac: str  # as it wrote it; empty where it gave a name alone
    hostname: str
    query: Mapping[str, str]
    ipxe: str | None = None  # its version; empty: it did not say; None: it is no iPXE


def question(scope: Scope) -> Question:
    """The question in a request.  Raises NotFound where it is none."""
    match = _WAYS.fullmatch(scope["path"])
    if match is None:
        raise NotFound("ask for /boot.ipxe/mac/<mac>")
    version = None if match["mac"] is None else _version(query_of(scope))
    return asked_of(scope, match["mac"], version)


def _version(query: str) -> str:
    said = dict(parse_qsl(query.replace("+", "%2B"))).get("ipxe", "")  # "1.0.0+git"
    # Thousands of seats have the same few words.
    return sys.intern(_NO_VERSION.sub("", said)[:_VERSION_MAX])


def asked_of(scope: Scope, mac: str | None, version: str | None = None) -> Question:
    """The question in a request's query; `mac` where its path says it."""
    asked = dict(parse_qsl(query_of(scope)))
    named = asked.get("mac", "") if mac is None else mac
    return Question(named, asked.get("hostname", ""), asked, version)


def query_of(scope: Scope) -> str:
    """What stands behind the `?`."""
    return str(scope["query_string"].decode("ascii", "replace"))


def lease_in(scope: Scope) -> float | None:
    """How long the box says its address is leased, in seconds; None: for ever, or not said."""
    return ipxe.lease_of(dict(parse_qsl(query_of(scope))))


class Usher:
    """Shows boxes to their seats, or the door."""

    def __init__(self, scheduler: Scheduler, admission: Admission) -> None:
        self._scheduler = scheduler
        self._admission = admission

    def seat(self, asked: Question, scope: Scope) -> Seat:
        """Where the box waits.  Raises BadRequest, NotFound, Refused, Unproven where it may not."""
        client, server = scope["client"][0], scope["server"][0]
        try:
            who = boxes.identity(self._mac(asked), client, asked.query)
            self._check_known(who)
            before = self._scheduler.store.box_of(who)
            now = self._scheduler.clock.now()
            there = before is not None and boxes.is_there(
                before, now, self._scheduler.config.waits.park
            )
            self._admission.check_question(who, before, there=there)
            claimed = before.uuid if before is not None else None
            seat = self._scheduler.sit(who, server, asked.ipxe)
        except (BadRequest, NotFound, Refused, Unproven) as error:
            asks_for = (asked.mac or asked.hostname)[:40]
            log.warning("box turned away", mac=asks_for, address=client, why=str(error))
            raise
        log.info("box parked", box=seat.box)
        if who.uuid not in (None, claimed):
            self._tell_claim(seat.box)
        return seat

    def _tell_claim(self, name: str) -> None:
        """A box that nobody registered says something new of itself."""
        store = self._scheduler.store
        box = store.boxes[name]
        if (says := store.said_to_be(box)) is not None:
            macs = " ".join(f"--mac {mac}" for mac in (*says.macs, *box.macs))
            confirm = f"appliance host add {says.name} {macs}"
            log.warning("says a known box's UUID", box=name, says=says.name, confirm=confirm)

    def _mac(self, asked: Question) -> str:
        box = self._scheduler.store.boxes.get(asked.hostname)
        return asked.mac if asked.mac or box is None or not box.macs else box.macs[0]

    def _check_known(self, who: boxes.Identity) -> None:
        """Raises NotFound for a stranger on a network that has other people's machines in it."""
        box = self._scheduler.store.box_of(who)
        if self._scheduler.config.network.proxy and (box is None or not box.known):
            raise NotFound(f"{who.mac} is no testbox of this lab")


def status(error: ApplianceError) -> int:
    """What a box is answered that may not wait here: 503 where asking again may help.

    Who is refused for what it is now may be known, or alone at its address, in a minute.
    """
    return error.status if isinstance(error, BadRequest | NotFound) else 503
