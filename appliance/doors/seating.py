"""Gives a box that asks for work, by any kind of request, a seat in the lobby.

    GET /boot.ipxe/mac/<mac>                           firmware
    GET /~<user>/cgi-bin/gpxelinux.cgi?hostname=&mac=  Linux, for the next job by kexec

A request does not prove which box sent it: a client with another card is refused (admission.py).
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
    """A box's request for work."""

    mac: str  # as the box wrote it; empty if it gave only a name
    hostname: str
    query: Mapping[str, str]
    ipxe: str | None = None  # version of its iPXE; empty: it did not say; None: it is no iPXE


def question(scope: Scope) -> Question:
    """Returns the question in a request.  Raises NotFound for a path that asks for no work."""
    match = _WAYS.fullmatch(scope["path"])
    if match is None:
        raise NotFound("ask for /boot.ipxe/mac/<mac>")
    version = None if match["mac"] is None else _version(query_of(scope))
    return asked_of(scope, match["mac"], version)


def _version(query: str) -> str:
    said = dict(parse_qsl(query.replace("+", "%2B"))).get("ipxe", "")  # "1.0.0+git"
    # Interned, since thousands of seats share a few versions.
    return sys.intern(_NO_VERSION.sub("", said)[:_VERSION_MAX])


def asked_of(scope: Scope, mac: str | None, version: str | None = None) -> Question:
    """Returns the question in a request's query; `mac`: the MAC in its path, if there is one."""
    asked = dict(parse_qsl(query_of(scope)))
    named = asked.get("mac", "") if mac is None else mac
    return Question(named, asked.get("hostname", ""), asked, version)


def query_of(scope: Scope) -> str:
    """Returns the part of the URL after the `?`."""
    return str(scope["query_string"].decode("ascii", "replace"))


def lease_in(scope: Scope) -> float | None:
    """Returns the reported lease of the box in seconds; None: for ever, or not reported."""
    return ipxe.lease_of(dict(parse_qsl(query_of(scope))))


class Usher:
    """Gives boxes their seats, or refuses them."""

    def __init__(self, scheduler: Scheduler, admission: Admission) -> None:
        self._scheduler = scheduler
        self._admission = admission

    def seat(self, asked: Question, scope: Scope) -> Seat:
        """Returns the box's seat.

        Raises BadRequest, NotFound, Refused, Unproven if it may not wait.
        """
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
        """Warns if the unregistered box `name` newly reports the UUID of a known box."""
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
        """Raises NotFound for an unknown box on a network with other people's machines."""
        box = self._scheduler.store.box_of(who)
        if self._scheduler.config.network.proxy and (box is None or not box.known):
            raise NotFound(f"{who.mac} is no testbox of this lab")


def status(error: ApplianceError) -> int:
    """Returns the HTTP status for a refused box: 503 if asking again may help.

    A box that is refused now may be known, or be alone at its address, in a minute.
    """
    return error.status if isinstance(error, BadRequest | NotFound) else 503
