"""Pure: no clock, no socket, no await.

What a start makes of the attempts that it finds.
"""

from __future__ import annotations

from appliance.config import Waits
from appliance.jobs import job as jobs
from appliance.jobs.changes import RESTARTED, Change, Job, Moved
from appliance.jobs.decisions import waits_of
from appliance.jobs.job import Booting, Held, Offered, PostRun, Running
from appliance.jobs.store import Store


def rearmed(job: Job, now: float, waits: Waits) -> float:
    """After a restart: the smaller of what is stored and the stage's length (design.md §4)."""
    state, waits = job.state, waits_of(job, waits)
    if isinstance(state, Offered):
        return now + waits.offer_lease
    if isinstance(state, Booting):
        return now + (waits.boot if state.loaded else waits.offer_lease)
    assert isinstance(state, Running | PostRun | Held)
    length = job.document.run_s if isinstance(state, Running) else waits.post_run
    if isinstance(state, Held):
        length = waits.manual_check
    return min(state.until, now + (length if state.length is None else state.length))


def restarted(store: Store, now: float, waits: Waits) -> list[Change]:
    """What a start does to the attempts it finds: offers and boots get a fresh lease."""
    changes: list[Change] = []
    for job in store.active():
        assert job.attempt is not None
        until, began = rearmed(job, now, waits), job.attempt.began
        if isinstance(job.state, Offered | Booting):
            began = now  # by the wall of this run, with which bytes are compared
        if (until, began) != (_until(job), job.attempt.began):
            renew = jobs.Renew(until, began=began if began == now else None)
            changes.append(Moved(job.id, renew, now, RESTARTED))
    return changes


def _until(job: Job) -> float:
    assert isinstance(job.state, Offered | Booting | Running | PostRun | Held)
    return job.state.until
