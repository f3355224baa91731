"""Hands boxes the jobs that were decided for them, once the decision is on disk.

The script is made here, at the last moment: meanwhile the job may have ended, its image may have
been removed, and the box may have hung up.
"""

from __future__ import annotations

from typing import NoReturn

import structlog
import trio

from appliance.errors import ApplianceError
from appliance.jobs import decisions
from appliance.jobs.changes import Job
from appliance.jobs.job import Offered
from appliance.scheduler.outbox import HandOver
from appliance.scheduler.scheduler import Scheduler

log = structlog.get_logger()


async def hand_over(
    scheduler: Scheduler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """Handles the hand-overs one after another, for ever."""
    task_status.started()
    async for each in scheduler.outbox:
        await scheduler.durable(each.position)
        await _hand(scheduler, each)
        scheduler.outbox.told(each)
    raise AssertionError("the hand-overs never end")


def _offered(scheduler: Scheduler, hand_over: HandOver) -> Job | None:
    """Returns the job unless its offer is over: with a stuck disk it may even be archived."""
    job = scheduler.store.jobs.get(hand_over.job)
    if job is None or not isinstance(job.state, Offered):
        return None
    return job if job.state.attempt.number == hand_over.number else None


async def _hand(scheduler: Scheduler, hand_over: HandOver) -> None:
    job = _offered(scheduler, hand_over)
    if job is None:
        return
    gone = await scheduler.images.missing(job.pinned)
    job = _offered(scheduler, hand_over)  # its state may have changed while a thread looked
    if job is None:
        return
    now = scheduler.clock.now()
    if gone:
        reason = f"its image is gone: {', '.join(gone[:3])}"
        scheduler.change([*decisions.failed(job, "incomplete", reason, now)])
        return
    box = scheduler.store.boxes[hand_over.box]
    seat = scheduler.lobby.seat(box.name)
    if seat is None:
        store, waits, back = scheduler.store, scheduler.config.waits, hand_over.sent_back
        scheduler.change(
            decisions.undelivered(store, job.id, hand_over.number, now, waits, excused=back)
        )
        return
    try:
        script = scheduler.script(job, box, seat.reached)
    except ApplianceError as error:
        scheduler.change([*decisions.failed(job, "incomplete", str(error), now)])
        return
    log.info("script handed over", job=job.id, box=box.name, attempt=hand_over.number)
    scheduler.change([decisions.step(box, now, "script", job.id, len(script), job=job)])
    seat.hand(script, job.id, hand_over.number)
    # A job that waited through a restart may have been submitted by another system clock.
    scheduler.measures.dispatch.observe(max(0.0, now - max(job.history[-2].at, seat.since)))
