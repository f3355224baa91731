"""Pure: no clock, no socket, no await.

The back-off of a testbox that loses a job.  Each further loss makes it longer, so that a box that
loses job after job, for whatever reason, does not drain the queue.

    When the job is lost                       What happens to the box

    before it had every file of the script     it backs off, from the first loss on
    in any other way, before its job has run   the first loss is free; then it backs off
    within moments of its job's first report   likewise
    the same after a verdict or a close, if    likewise: reports alone prove nothing
      its files were never served
    a kernel of the submitter's own, all       the shortest back-off, and the loss is not counted,
      files served, and the previous loss        so a person trying kernels can go on to the next;
      was the same person's own kernel           the kernels of different people do count
    later, or closed by the box itself         the count of losses goes back to zero

A job that a person or the server ends is not a loss of the box.
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

DOUBLINGS_MAX: Final = 20  # of a back-off; fewer already reach the longest one


def after(store: Store, job: Job, event: jobs.Event, now: float, waits: Waits) -> list[Missed]:
    """Returns the change to its box's back-off when `event` is about to move the job."""
    state, attempt = job.state, job.attempt
    if attempt is None or isinstance(state, Finished):
        return []
    if not isinstance(jobs.advance(state, event, job.document.rules), Queued | Finished):
        return []  # the box still holds the job
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
    """Tells whether the job really ran on the box, or the box closed it after being served."""
    if not isinstance(job.state, Running | PostRun | Held):
        return False
    if not 0 <= now - suspicion.began(job) < suspicion.QUICK_S:
        return True
    assert job.attempt is not None
    if not (_is_served(box, job) or suspicion.met_restart(job)):
        return False  # reports alone: a box cannot run files that we never served
    return job.attempt.health is not None or isinstance(event, jobs.Close | jobs.Lapse)


def _is_served(box: Box, job: Job) -> bool:
    """Tells whether the box fetched every file of the script that we serve, in this boot.

    A file cached from an earlier boot counts once the box has revalidated it (304).
    """
    assert job.attempt is not None
    got = boxes.fetched(box, job.id, job.attempt.number)
    return {path[: boxes.DETAIL_MAX] for path in served.own_paths(job)} <= got


def _is_own_kernels(box: Box, job: Job) -> bool:
    """Tells whether the lost job brought its own kernel, and the box had all files for it."""
    return job.document.rules.own_kernel and _is_served(box, job)


def _is_same_persons(store: Store, box: Box, job: Job) -> bool:
    """Tells whether the box's previous job had the same submitter and its own kernel, too."""
    earlier = (boot.job for boot in reversed(box.boots[:-1]) if boot.job is not None)
    before = store.jobs.get(next(earlier, ""))
    if before is None:  # the job is in the archive: long ago
        return False
    return before.submitter == job.submitter and before.document.rules.own_kernel


def _pause(box: Box, waits: Waits, *, at_once: bool) -> float:
    earlier = box.misses if at_once else box.misses - 1
    if earlier < 0:
        return 0.0
    return min(waits.backoff_first * 2.0 ** min(earlier, DOUBLINGS_MAX), waits.backoff_max)
