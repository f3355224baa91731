"""Pure: no clock, no socket, no await.

What it costs a testbox to lose a job: a rest, longer each time, so that a box that loses job after
job does not eat the queue, whatever it loses them by.

    before it had every file of the script     it rests, from the first time on
    in any other way, before its job has run   the first time for nothing; then it rests
    within moments of its job's first report   likewise
    the same with a last word, if its files    likewise
      were never served: words alone
    a kernel of the submitter's own, once it   the shortest rest, and the row grows no longer,
      was served, if the same person's own       so somebody who tries kernels is not kept from
      was lost before                            trying the next; those of several people count
    later, or closed by the box itself         the row is over

What a person ends, or the server by itself, is no loss of the box's.
"""

from __future__ import annotations

from typing import Final

from appliance.config import Waits
from appliance.jobs import box as boxes
from appliance.jobs import job as jobs
from appliance.jobs import served, suspicion
from appliance.jobs.box import Box
from appliance.jobs.changes import Job, Missed
from appliance.jobs.job import Finished, Held, PostRun, Queued, Running
from appliance.jobs.store import Store

DOUBLINGS_MAX: Final = 20  # of a pause: more than lead to the longest that there is


def after(store: Store, job: Job, event: jobs.Event, now: float, waits: Waits) -> list[Missed]:
    """What `event`, which is about to move the job, means to the box that holds it."""
    state, attempt = job.state, job.attempt
    if attempt is None or isinstance(state, Finished):
        return []
    if not isinstance(jobs.advance(state, event, job.document.rules), Queued | Finished):
        return []  # it holds the job still
    box = store.box(attempt.box)
    if _ran(box, job, event, now):
        return [Missed(box.name, 0.0)] if box.misses else []
    unloaded = jobs.is_loading(state) and not attempt.reboots
    at_once = unloaded and isinstance(event, jobs.Asked | jobs.Lapse)
    pause = _pause(box, waits, at_once=at_once)
    if box.misses and _is_own_kernels(box, job) and _is_same_persons(store, box, job):
        return [Missed(box.name, now + min(pause, waits.backoff_first), counts=False)]
    return [Missed(box.name, now + pause)]


def _ran(box: Box, job: Job, event: jobs.Event, now: float) -> bool:
    """Whether the job had its time on the box, or the box has said the last word."""
    if not isinstance(job.state, Running | PostRun | Held):
        return False
    if not 0 <= now - suspicion.began(job) < suspicion.QUICK_S:
        return True
    assert job.attempt is not None
    if not (_is_served(box, job) or suspicion.met_restart(job)):
        return False  # words alone: nobody runs what we never gave out
    return job.attempt.health is not None or isinstance(event, jobs.Close | jobs.Lapse)


def _is_served(box: Box, job: Job) -> bool:
    """Whether the box has had, in the boot under way, every file of the script that is ours.

    One that it kept of an earlier boot counts when it asks whether it is still the same (304).
    """
    assert job.attempt is not None
    got = boxes.fetched(box, job.id, job.attempt.number)
    return {path[: boxes.DETAIL_MAX] for path in served.own_paths(job)} <= got


def _is_own_kernels(box: Box, job: Job) -> bool:
    """Whether it is a kernel of the submitter's own that did not boot, or not for a minute."""
    return job.document.rules.own_kernel and _is_served(box, job)


def _is_same_persons(store: Store, box: Box, job: Job) -> bool:
    """Whether what the box lost before was the same person's, and with a kernel of its own, too."""
    earlier = (boot.job for boot in reversed(box.boots[:-1]) if boot.job is not None)
    before = store.jobs.get(next(earlier, ""))
    if before is None:  # it is in the archive: long ago
        return False
    return before.submitter == job.submitter and before.document.rules.own_kernel


def _pause(box: Box, waits: Waits, *, at_once: bool) -> float:
    earlier = box.misses if at_once else box.misses - 1
    if earlier < 0:
        return 0.0
    return min(waits.backoff_first * 2.0 ** min(earlier, DOUBLINGS_MAX), waits.backoff_max)
