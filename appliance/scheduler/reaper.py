"""Ends what is due: leases, deadlines, back-offs, reservations.

Sleeps until the next one is due, without a tick; a wake-up looks only at what is due.
"""

from __future__ import annotations

from typing import Final, NoReturn

import structlog
import trio

from appliance.jobs import decisions, operator
from appliance.jobs.changes import Moved
from appliance.jobs.dues import JOB, KEPT, REST
from appliance.jobs.job import Finished
from appliance.scheduler.scheduler import Scheduler

# Moments closer than this count as one: the reaper must not spin on the last bit of a float.
TICK_S: Final = 0.001

log = structlog.get_logger()


async def reap(
    scheduler: Scheduler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """Ends what is due, for ever."""
    now = scheduler.clock.now()
    for box in scheduler.store.boxes.values():
        if box.backoff_until > now:
            # The system's clock may have been set back since: no rest exceeds `backoff_max`.
            longest = now + scheduler.config.waits.backoff_max
            scheduler.resting[box.name] = min(box.backoff_until, longest)
            scheduler.look(REST, box.name, scheduler.resting[box.name])
        if box.reservation is not None:
            scheduler.look(KEPT, box.name, box.reservation.until)
    for job in scheduler.store.active():
        scheduler.watch(job.id)
    task_status.started()
    while True:
        now = scheduler.clock.now() + TICK_S
        due = scheduler.dues.take(now)
        _end_attempts(scheduler, [name for kind, name in due if kind == JOB], now)
        _wake_boxes(scheduler, [name for kind, name in due if kind == REST], now)
        _let_go(scheduler, [name for kind, name in due if kind == KEPT], now)
        scheduler.alarm.by(scheduler.clock.trio_time(scheduler.dues.next))
        await scheduler.alarm.ring()


def _end_attempts(scheduler: Scheduler, names: list[str], now: float) -> None:
    due = decisions.due(scheduler.store, names, scheduler.heard, now, scheduler.config.waits)
    if due:
        scheduler.change(due)
    for change in due:
        if isinstance(change, Moved):
            state = scheduler.store.jobs[change.job].state
            became = state.health if isinstance(state, Finished) else "queued again"
            log.info("attempt over", job=change.job, why=change.what, became=became)
    for name in names:  # jobs that moved on meanwhile, and jobs whose box was heard
        scheduler.watch(name)


def _wake_boxes(scheduler: Scheduler, names: list[str], now: float) -> None:
    rested = []
    for box in names:
        if (until := scheduler.resting.get(box)) is None:
            continue
        if until > now:
            scheduler.look(REST, box, until)
            continue
        del scheduler.resting[box]
        scheduler.repark(box)
        rested.append(box)
    if rested:
        scheduler.change([])


def _let_go(scheduler: Scheduler, names: list[str], now: float) -> None:
    boxes = [scheduler.store.boxes[name] for name in names if name in scheduler.store.boxes]
    if expired := operator.expired(boxes, now):
        scheduler.change(expired)
    for box in boxes:
        if box.reservation is not None:
            scheduler.look(KEPT, box.name, box.reservation.until)
