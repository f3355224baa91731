"""Ends what is due: leases, deadlines, back-offs, reservations.

Sleeps until the next one, never by a tick.
"""

from __future__ import annotations

from typing import Final, NoReturn

import structlog
import trio

from appliance.jobs import decisions, operator
from appliance.jobs.changes import Moved
from appliance.jobs.job import Finished
from appliance.jobs.scheduler import Scheduler

# Two moments closer than this are one: the reaper must not spin on the last bit of a float.
TICK_S: Final = 0.001

log = structlog.get_logger()


async def reap(
    scheduler: Scheduler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """End what is due, for ever."""
    now = scheduler.clock.now()
    for box in scheduler.store.boxes.values():
        if box.backoff_until > now:
            # The wall may have been set back since: no rest is longer than the longest there is.
            longest = now + scheduler.config.waits.backoff_max
            scheduler.resting[box.name] = min(box.backoff_until, longest)
    task_status.started()
    while True:
        now = scheduler.clock.now() + TICK_S
        _end_attempts(scheduler, now)
        _wake_boxes(scheduler, now)
        _let_go(scheduler, now)
        scheduler.alarm.by(_next(scheduler))
        await scheduler.alarm.ring()


def _end_attempts(scheduler: Scheduler, now: float) -> None:
    due = decisions.due(scheduler.store, scheduler.heard, now, scheduler.config.waits)
    if not due:
        return
    scheduler.change(due)
    for change in due:
        if isinstance(change, Moved):
            state = scheduler.store.jobs[change.job].state
            became = state.health if isinstance(state, Finished) else "queued again"
            log.info("attempt over", job=change.job, why=change.what, became=became)


def _wake_boxes(scheduler: Scheduler, now: float) -> None:
    rested = [box for box, until in scheduler.resting.items() if until <= now]
    for box in rested:
        del scheduler.resting[box]
        scheduler.repark(box)
    if rested:
        scheduler.change([])


def _let_go(scheduler: Scheduler, now: float) -> None:
    if expired := operator.expired(scheduler.store, now):
        scheduler.change(expired)


def _next(scheduler: Scheduler) -> float:
    waits, store = scheduler.config.waits, scheduler.store
    moments = [decisions.deadline(job, scheduler.heard, waits) for job in store.active()]
    moments += scheduler.resting.values()
    moments += [
        box.reservation.until for box in store.boxes.values() if box.reservation is not None
    ]
    return scheduler.clock.trio_time(min(moments)) if moments else float("inf")
