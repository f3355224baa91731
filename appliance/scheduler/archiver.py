"""Moves to the archive what memory need not hold: documents' bodies, and jobs that are over.

First the disk knows of the job, then the archive has it, then the journal is told, and only that
takes it out of memory.
"""

from __future__ import annotations

from typing import Final, NoReturn

import structlog
import trio

from appliance.errors import BadState, DiskTrouble
from appliance.jobs.changes import Archived, Change, Filed
from appliance.scheduler.scheduler import Scheduler

# So that a burst of submits shares its commits; a body may well be asked for within that time.
GATHER_S: Final = 1.0
# Bodies or jobs in one transaction: some ten milliseconds of a thread's work.
BATCH_MAX: Final = 500
RETRY_S: Final = 60.0  # after a disk that took it not; until then it stays in memory

log = structlog.get_logger()


async def file(
    scheduler: Scheduler, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
) -> NoReturn:
    """File and archive, for ever."""
    task_status.started()
    pause = 0.0  # what the last run left is filed at once
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
    """Read all of the archive, unless the start has, and shut the gate where it is damaged.

    A key whose job cannot be found would make a second one, and what is filed in a damaged tree
    may end more of it.  What waits and runs goes on.
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
    """One batch of either kind; whether there was one."""
    newest = scheduler.config.limits.finished_in_memory
    if not (scheduler.store.unfiled(1) or scheduler.store.over(newest, 1)):
        return False
    async with scheduler.archive.still:
        return await _file(scheduler) or await _archive(scheduler)


async def _file(scheduler: Scheduler) -> bool:
    """One batch of bodies; whether there was one."""
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
    """One batch of jobs; whether there was one."""
    store = scheduler.store
    jobs = store.over(scheduler.config.limits.finished_in_memory, BATCH_MAX)
    if not jobs:
        return False
    await scheduler.durable()
    await scheduler.archive.take(jobs)
    # One that a person has marked meanwhile is taken again, as it is now.
    same = tuple(job.id for job in jobs if store.jobs[job.id] is job)
    archived: list[Change] = [Archived(same)]
    scheduler.change(archived)
    return True
