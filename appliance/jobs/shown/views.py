"""Pure: no clock, no socket, no await.

Jobs and boxes as plain maps, in the form that the control socket sends.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import attrs

from appliance import addresses
from appliance.jobs import decisions, operator
from appliance.jobs import job as jobs
from appliance.jobs.box import STRANGER, Box
from appliance.jobs.changes import Job, Moment
from appliance.jobs.documents.document import Body
from appliance.jobs.job import Finished
from appliance.jobs.store import Store


class Seat(Protocol):
    """A parked box's wait."""

    since: float
    ipxe: str | None


SRV: Final = Path("/srv")


class Seats(Protocol):
    """The part of the lobby that the views need."""

    def seat(self, box: str) -> Seat | None:
        """Returns the open seat of `box`."""


def job_row(job: Job, srv: Path = SRV) -> dict[str, Any]:
    """Returns one line of `appliance jobs`; `srv` is the folder of the lab's /srv."""
    state, attempt = job.state, job.attempt
    over = isinstance(state, Finished)
    return {
        "id": job.id,
        "name": job.name,
        "suite": job.document.suite,
        "submitter": job.submitter,
        "submitted": job.submitted,
        "stage": jobs.stage(state),
        "health": state.health if isinstance(state, Finished) else attempt and attempt.health,
        "reason": state.reason if isinstance(state, Finished) else None,
        "box": attempt.box if attempt else None,
        "attempt": attempt.number if attempt else 0,
        "queue": job.document.queue,
        "os": f"{job.document.os} {job.document.os_version}",
        "arch": job.document.arch,
        "result_root": f"{srv}{job.result_root}",
        "finished": job.finished if over else None,
        "lacking": job.attempts[-1].refused if job.attempts else None,
    }


def subject(store: Store, event: Mapping[str, Any]) -> dict[str, str]:
    """Returns more about the `job`, `box` (`host`) or `client` that an event names."""
    job = store.jobs.get(str(event.get("job")))
    held = job.attempt.box if job is not None and job.attempt is not None else ""
    box = store.boxes.get(str(event.get("box") or event.get("host") or held))
    if box is None and (client := event.get("client") or event.get("address")):
        box = store.box_at(str(client))
    known: dict[str, str] = {}
    if box is not None:
        known = {"box": box.name} | ({"mac": box.macs[0]} if box.macs else {})
        if job is None and box.job is not None:
            known["job"] = box.job
    return known


def is_of_the_lab(store: Store, server: str, client: str) -> bool:
    """Tells whether `client` is a known testbox or its address, or the server itself.

    Any other text that is not an address counts too: it is our word for a local client.
    """
    if client.startswith(STRANGER):
        return False
    box = store.boxes.get(client) or store.box_at(client)
    at_home = not addresses.is_in(client, ("0.0.0.0/0", "::/0")) or addresses.is_own(client, server)
    return at_home or (box is not None and box.known)


def moment_row(moment: Moment) -> dict[str, Any]:
    """Returns one line of a job's history."""
    return attrs.asdict(moment)


def document_row(job: Job, body: Body) -> dict[str, Any]:
    """Returns the document as parsed, with the names of its secrets but not their values."""
    shown = attrs.asdict(attrs.evolve(job.document, body=None)) | attrs.asdict(body)
    shown["secrets"] = sorted(body.secrets)
    return {key: value for key, value in shown.items() if value not in (None, (), [], {}, "")}


def host_row(store: Store, seats: Seats, box: Box, now: float) -> dict[str, Any]:
    """Returns one line of `appliance hosts`."""
    state, since = _doing(store, seats, box, now)
    seat = seats.seat(box.name)
    return {
        "name": box.name,
        "known": box.known,
        "macs": list(box.macs),
        "arch": box.runs_arch,
        "address": box.address,
        "state": state,
        "since": since,
        "job": box.job,
        "queues": list(box.facts.served) if box.facts else [],
        "uuid": box.uuid,
        "says": says.name if (says := store.said_to_be(box)) is not None else None,
        "serial": box.serial,
        "product": box.product,
        "kept": _kept(box),
        "ipxe": seat.ipxe if seat is not None else None,
    }


def testbox(store: Store, seats: Seats, box: Box, now: float, deadline: str) -> dict[str, Any]:
    """Returns a box as `get_testbox` answers, with the field's names (docs/wire.md#reports)."""
    state, since = _doing(store, seats, box, now)
    return {
        "testbox": box.name,
        "state": state,
        "time": decisions.iso(since),
        "job_id": box.job or "",
        "deadline": deadline,
        "mac": box.macs[0].replace(":", "-") if box.macs else "",
        "ip": box.address or "",
        "arch": box.runs_arch or "unknown",
        "queues": list(box.facts.served) if box.facts else [],
    }


def _kept(box: Box) -> str:
    """Returns why the box gets no jobs, or only some people's; mostly empty."""
    words = [f"quarantined: {box.quarantine}"] if box.quarantine else []
    if box.reservation is not None:
        words.append(operator.told(box.reservation))
    return "; ".join(words)


def _doing(store: Store, seats: Seats, box: Box, now: float) -> tuple[str, float]:
    if box.job is not None:
        stage = jobs.stage(store.jobs[box.job].state)
        return {"boot": "booting"}.get(stage, stage), box.since
    seat = seats.seat(box.name)
    if seat is not None:
        if not box.takes_jobs:
            return ("quarantined" if box.quarantine else "held"), seat.since
        return ("backing-off" if box.backoff_until > now else "parked"), seat.since
    if box.boot is not None and box.boot.job is not None and box.boot.ended is None:
        return "returning", box.since
    return "away", box.since


def boot_rows(box: Box) -> list[dict[str, Any]]:
    """Returns the last boots of a box, newest last, step by step."""
    return [
        {
            "began": boot.began,
            "job": boot.job,
            "attempt": boot.attempt,
            "steps": [_step_row(step) for step in boot.steps],
            "ended": boot.ended,
        }
        for boot in box.boots
    ]


def _step_row(step: Any) -> dict[str, Any]:
    row = attrs.asdict(step)
    row["bytes"] = row.pop("size")
    return {key: value for key, value in row.items() if value is not None}
