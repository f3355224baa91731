"""Moves document bodies and finished jobs from memory to the archive.

The order: the job is on disk, then the archive has it, then the journal records the move, and
only this record removes it from memory.
"""

from __future__ import annotations

from typing import Final, NoReturn

import structlog
import trio

from appliance.errors import BadState, DiskTrouble
from appliance.jobs.changes import Archived, Change, Filed
from appliance.scheduler.scheduler import Scheduler

# Lets a burst of submits share commits; a body is often asked for within that time.
GATHER_S: Final = 1.0
# Bodies or jobs in one transaction: some ten milliseconds of a thread's work.
BATCH_MAX: Final = 500
RETRY_S: Final = 60.0  # after the disk refused; until then all stays in memory

log = structlog.get_logger()


async def file(
    scheduler: Scheduler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """Files bodies and archives jobs, for ever."""
    task_status.started()
    pause = 0.0  # what the last run left behind is filed at once
    while True:
        await scheduler.paperwork.wait()
        await trio.sleep(pause)
        pause = GATHER_S
        scheduler.paperwork = trio.Event()
        try:
            while await _step(scheduler):
                pass
        except (BadState, DiskTrouble) as error:
            log.error("the archive takes nothing; trying again", why=str(error), every=RETRY_S)
            await trio.sleep(RETRY_S)
            scheduler.paperwork.set()


async def look_over(scheduler: Scheduler) -> None:
    """Reads the whole archive, unless the start did, and shuts the gate if it is damaged.

    If a submit is repeated and its key finds no job in a damaged archive, a second job is made; and
    writing to a damaged tree may destroy more of it.  Jobs that wait or run go on.
    """
    if scheduler.archive.is_sound:
        return
    try:
        await scheduler.archive.read_through()
    except BadState as error:
        log.error("the archive is damaged: no new jobs are taken", why=str(error))
        scheduler.gate.shut("archive", f"the archive is damaged ({error}, with no server running)")
    except DiskTrouble as error:
        log.warning("the archive was not looked over", why=str(error))


async def _step(scheduler: Scheduler) -> bool:
    """Moves one batch of bodies or jobs; returns whether there was one."""
    newest = scheduler.config.limits.finished_in_memory
    if not (scheduler.store.unfiled(1) or scheduler.store.over(newest, 1)):
        return False
    async with scheduler.archive.still:
        return await _file(scheduler) or await _archive(scheduler)


async def _file(scheduler: Scheduler) -> bool:
    """Files one batch of bodies; returns whether there was one."""
    jobs = scheduler.store.unfiled(BATCH_MAX)
    if not jobs:
        return False
    await scheduler.durable()
    bodies = [(job.number, job.document.body) for job in jobs if job.document.body is not None]
    await scheduler.archive.file(bodies)
    filed: list[Change] = [Filed(tuple(job.id for job in jobs))]
    scheduler.change(filed)
    return True


async def _archive(scheduler: Scheduler) -> bool:
    """Archives one batch of jobs; returns whether there was one."""
    store = scheduler.store
    jobs = store.over(scheduler.config.limits.finished_in_memory, BATCH_MAX)
    if not jobs:
        return False
    await scheduler.durable()
    await scheduler.archive.take(jobs)
    # A job that a person marked meanwhile is not the same object; the next batch takes it again.
    same = tuple(job.id for job in jobs if store.jobs[job.id] is job)
    archived: list[Change] = [Archived(same)]
    scheduler.change(archived)
    return True
