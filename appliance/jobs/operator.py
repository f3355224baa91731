"""Pure: no clock, no socket, no await.

An operator's decisions about testboxes, results and the lab: each function returns the changes to
make, or raises Refused with the reason.  Nothing is changed here.  `now` is UTC in seconds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from appliance.errors import BadRequest, Refused
from appliance.jobs import suspicion
from appliance.jobs.box import Box, Reservation
from appliance.jobs.changes import (
    Change,
    Drained,
    Job,
    Kept,
    Missed,
    Quarantined,
    Reserved,
    Unregistered,
)
from appliance.jobs.job import Finished
from appliance.jobs.store import Store

RESERVED_MAX_S: Final = 30 * 86400.0  # docs/wire.md#stages-and-deadlines: the longest loan
_ITSELF: Final = "the appliance"


def suspects(store: Store, names: Iterable[str], now: float) -> list[Change]:
    """Quarantines suspicious boxes among `names` (DESIGN.md#a-bad-box-doesnt-eat-the-queue)."""
    return [
        Quarantined(box.name, why, _ITSELF, now)
        for box in (store.boxes[name] for name in names if name in store.boxes)
        if not box.quarantine and (why := suspicion.against(box, store.jobs, store.evidence))
    ]


def unregistered(box: Box, by: str, now: float) -> list[Change]:
    """Unregisters a box.  Raises Refused if it holds a job, or is not registered."""
    if not box.known:
        raise Refused(f"{box.name} is unknown already: no hosts file names it")
    if box.job is not None:
        raise Refused(f"{box.name} holds {box.job}: wait for its end, or cancel it first")
    return [Unregistered(box.name, by, now)]


def reserved(
    box: Box, user: str | None, until: float, by: str, why: str, now: float
) -> list[Change]:
    """Reserves the box for the jobs of `user`, or holds it from all jobs (None).

    Raises Refused if the box is unknown or has another reservation, BadRequest for a bad time.
    """
    if not box.known:
        raise Refused(f"{box.name} is unknown and gets no jobs anyway: `host add` it first")
    there = box.reservation
    if there is not None and (there.by, there.user) != (by, user):
        raise Refused(f"{box.name} is {told(there)}: `host release {box.name}` first")
    if not now < until <= now + RESERVED_MAX_S:
        raise BadRequest("until: must be a moment to come, within 30 days")
    return [Reserved(box.name, Reservation(user, until, by, why), by, now)]


def released(box: Box, by: str, now: float) -> list[Change]:
    """Ends quarantine, reservation and back-off of the box.  Raises Refused if it has none."""
    changes: list[Change] = []
    if box.quarantine:
        changes.append(Quarantined(box.name, "", by, now))
    if box.reservation is not None:
        changes.append(Reserved(box.name, None, by, now))
    if box.backoff_until > now:
        changes.append(Missed(box.name, 0.0))
    if not changes:
        raise Refused(f"{box.name} is neither quarantined, held, reserved nor backing off")
    return changes


def expired(boxes: Iterable[Box], now: float) -> list[Change]:
    """Ends the reservations whose time is up."""
    return [
        Reserved(box.name, None, "its time is up", now)
        for box in boxes
        if box.reservation is not None and box.reservation.until <= now
    ]


def drained(store: Store, by: str, now: float) -> list[Change]:
    """Stops giving out jobs; no change if the lab is drained already."""
    return [] if store.drained else [Drained(by, now)]


def resumed(store: Store, now: float) -> list[Change]:
    """Starts giving out jobs again.  Raises Refused if the lab is not drained."""
    if not store.drained:
        raise Refused("nobody drains this lab: jobs are given out")
    return [Drained("", now)]


def kept(job: Job, on: bool, by: str, now: float) -> list[Kept]:
    """Keeps a job's results for good, or no longer.  Raises Refused if it has none to keep."""
    if not isinstance(job.state, Finished):
        raise Refused(f"{job.id} is not over; its results stay at least until then")
    if job.swept is not None:
        raise Refused(f"the results of {job.id} are removed already")
    return [Kept(job.id, on, by, now)] if on != job.kept else []


def sweepable(store: Store, before: float) -> list[Job]:
    """Returns the jobs that ended before `before` and whose results nobody keeps, oldest first."""
    found = [
        job
        for job in store.jobs.values()
        if job.finished is not None and job.finished < before
        if job.swept is None and not job.kept
    ]
    return sorted(found, key=lambda job: job.finished or 0.0)


def told(reservation: Reservation) -> str:
    """Describes a reservation in words."""
    kind = f"reserved for {reservation.user}" if reservation.user else "held"
    why = f" ({reservation.why})" if reservation.why else ""
    return f"{kind} by {reservation.by}{why}"
