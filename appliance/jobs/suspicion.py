"""Pure: no clock, no socket, no await.

When a testbox is quarantined: it gets no more jobs until a person has looked at it
(DESIGN.md#a-bad-box-doesnt-eat-the-queue).

There are two reasons.  The box lost the boots of different jobs in a row; a job does not count if
other boxes lost it too and its image has not run on another box lately, since the job or the image
is at fault then.  Or jobs failed on the box within seconds, in a row, while their suites pass
elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import attrs

from appliance.jobs import job as jobs
from appliance.jobs.box import Box
from appliance.jobs.changes import RESTARTED, Job
from appliance.jobs.job import Booting, Finished, Held, Offered, PostRun, Queued, Running

LOST_MAX: Final = 3  # boots of different jobs lost in a row
QUICK_MAX: Final = 5  # quick failures in a row; a suite may well have two flaky jobs side by side
QUICK_S: Final = 60.0  # a job that fails through its own fault has hardly begun by then
_RAN: Final = ("running", "post_run")  # a box may report the second without the first
_BOXES_KEPT: Final = 2  # per image or suite: one of two is always another box than the suspect
_NAMES_MAX: Final = 1000  # images, and suites, remembered; the least recent is forgotten first


@attrs.define
class Evidence:
    """The boxes on which an image ran, or a suite passed, lately; lost at a restart."""

    ran: OrderedDict[str, dict[str, None]] = attrs.Factory(OrderedDict)  # image -> boxes
    passed: OrderedDict[str, dict[str, None]] = attrs.Factory(OrderedDict)  # suite -> boxes


def note(evidence: Evidence, box: Box, old: Job, new: Job, event: jobs.Event, at: float) -> None:
    """Records what the move of a job from `old` to `new` shows about its box."""
    if isinstance(event, jobs.Begin):
        box.lost = ()
        _remember(evidence.ran, new.pinned.root, box.name)
    elif isinstance(event, jobs.Lapse | jobs.Asked):
        _note_loss(box, old)
    if not isinstance(new.state, Finished) or not isinstance(old.state, Running | PostRun | Held):
        return
    if new.state.health == jobs.SUCCESS:
        box.quick = ()
        _remember(evidence.passed, new.document.suite, box.name)
    elif not isinstance(event, jobs.Cancel) and 0 <= at - began(new) < QUICK_S:
        box.quick = (*box.quick[-QUICK_MAX + 1 :], (new.id, new.document.suite))
    else:
        box.quick = ()


def _note_loss(box: Box, old: Job) -> None:
    attempt = old.attempt
    if isinstance(old.state, Offered | Booting) and attempt is not None and not attempt.reboots:
        if met_restart(old):
            return  # its downloads broke off because this server restarted
        own = old.document.rules.own_kernel and jobs.is_loaded(old.state)
        if attempt.health is None and not own and old.id not in box.lost:
            box.lost = (*box.lost[-2 * LOST_MAX :], old.id)


def met_restart(job: Job) -> bool:
    """Tells whether the server restarted during the newest attempt's offer or boot."""
    number = job.attempt.number if job.attempt is not None else None
    return any((m.what, m.attempt) == (RESTARTED, number) for m in job.history)


def began(job: Job) -> float:
    """Returns when the newest attempt first reported that it runs, or has run.

    Later restarts and renewals do not count.  Without such a report in the job's history, or where
    the history has dropped it, returns the time of the attempt's offer, the earliest possible.
    """
    if job.attempt is None:
        return 0.0
    number = job.attempt.number
    ran = (m.at for m in job.history if m.stage in _RAN and m.attempt == number)
    return next(ran, job.attempt.began)


def _remember(names: OrderedDict[str, dict[str, None]], name: str, box: str) -> None:
    boxes = names.setdefault(name, {})
    boxes.pop(box, None)
    boxes[box] = None
    if len(boxes) > _BOXES_KEPT:
        del boxes[next(iter(boxes))]
    names.move_to_end(name)
    if len(names) > _NAMES_MAX:
        names.popitem(last=False)


def against(box: Box, jobs_: dict[str, Job], evidence: Evidence) -> str:
    """Returns why the box should get no more jobs; empty if there is no reason."""
    blamed = [name for name in box.lost if _is_to_blame(box, jobs_.get(name), evidence)]
    if len(blamed) >= LOST_MAX:
        return f"{len(blamed)} boots lost in a row: {', '.join(blamed)}"
    if len(box.quick) >= QUICK_MAX and all(
        evidence.passed.get(suite, {}).keys() - {box.name} for _, suite in box.quick
    ):
        names = ", ".join(name for name, _ in box.quick)
        return f"{len(box.quick)} jobs failed within seconds, and pass elsewhere: {names}"
    return ""


def _is_to_blame(box: Box, job: Job | None, evidence: Evidence) -> bool:
    """Tells whether a lost boot is the fault of the box, not of the job."""
    if job is None:
        return True
    others = set(_lost_by(job)) - {box.name}
    return not others or bool(evidence.ran.get(job.pinned.root, {}).keys() - {box.name})


def _lost_by(job: Job) -> tuple[str, ...]:
    if isinstance(job.state, Queued):
        return job.state.lost_by
    attempt = job.attempt
    if attempt is None:
        return ()
    failed = isinstance(job.state, Finished) and job.state.health == "boot_failed"
    return (*attempt.lost_by, attempt.box) if failed else attempt.lost_by
