"""Pure: no clock, no socket, no await.

Builds a store from parts that no longer fit together: some jobs, boxes or changes are lost
(survey.py).  What is left is taken as true, and the store is made consistent with it.
"""

from __future__ import annotations

from typing import Final

import attrs

from appliance.errors import IllegalMove
from appliance.jobs import job as jobs
from appliance.jobs.box import Box
from appliance.jobs.changes import Archived, Change, Filed, Moved
from appliance.jobs.job import Attempt
from appliance.jobs.store import Store
from appliance.keep.state import records

ENDED_UNSEEN: Final = "how it ended is lost: the state was repaired"


def store_of(loading: records.Loading) -> Store:
    """Returns the store of a snapshot that may lack some of its jobs and boxes."""
    for box in loading.boxes.values():
        box.job = None  # set again from the jobs that are left
    for job in loading.jobs.values():
        for attempt in job.attempts:  # the last one may be under way
            loading.boxes.setdefault(attempt.box, Box(attempt.box, ()))
    return loading.store()


def make(store: Store, change: Change) -> str | None:
    """Applies a change; returns why it cannot be applied, None if it was."""
    if isinstance(change, Archived | Filed):  # only for those named jobs that are left
        change = attrs.evolve(
            change, jobs=tuple(name for name in change.jobs if name in store.jobs)
        )
    try:
        store.apply(change)
    except (IllegalMove, KeyError, AssertionError) as error:
        return f"{error}" or type(error).__name__
    return None


def caught_up(store: Store, change: Moved, attempt: Attempt) -> Store:
    """Returns the store as it must have been before an offer: the job queued, its box free."""
    job, box = store.jobs.get(change.job), store.boxes.get(attempt.box)
    if job is None:
        return store
    if box is None:
        store.boxes[attempt.box] = Box(attempt.box, ())
    elif box.job is not None and box.job != job.id:
        store.apply(Moved(box.job, jobs.Lapse(ENDED_UNSEEN), change.at, ENDED_UNSEEN))
    if isinstance(job.state, jobs.Queued) and job.state.tries == attempt.number - 1:
        return store
    queued = jobs.Queued(attempt.number - 1, attempt.losses, attempt.avoid, attempt.lost_by)
    store.jobs[job.id] = attrs.evolve(job, state=queued, finished=None)
    for other in store.boxes.values():
        other.job = None  # set again from the jobs
    return Store(
        store.jobs, store.boxes, store.counter, store.drained, store.archived,
        store.clocked, store.moment,
    )  # fmt: skip
