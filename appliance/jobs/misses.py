"""Pure: no clock, no socket, no await.

What it costs a testbox to lose a job: a rest, longer each time, so that a box that loses job after
job does not eat the queue, whatever it loses them by.

    before it had every file of the script     it rests, from the first time on
    in any other way, before its job has run   the first time for nothing; then it rests
    within moments of its job's first report   likewise
    the same with a last word, if its files    likewise
      were never served: words alone
    later, or closed by the box itself         the row is over

What a person ends, or the server by itself, is no loss of the box's.
"""

from __future__ import annotations

from typing import Final

from appliance.boot import plan
from appliance.config import Waits
from appliance.jobs import box as boxes
from appliance.jobs import job as jobs
from appliance.jobs import suspicion
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
    return [Missed(box.name, now + _pause(box, waits, at_once=at_once))]


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
    return {path[: boxes.DETAIL_MAX] for path in plan.own_paths(job)} <= got


def _pause(box: Box, waits: Waits, *, at_once: bool) -> float:
    earlier = box.misses if at_once else box.misses - 1
    if earlier < 0:
        return 0.0
    return min(waits.backoff_first * 2.0 ** min(earlier, DOUBLINGS_MAX), waits.backoff_max)
