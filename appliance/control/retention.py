"""Keeps or removes the results of jobs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Final

import structlog
import trio

from appliance import threads
from appliance.errors import (
    ApplianceError,
    BadState,
    DiskTrouble,
    NoSpace,
    NotFound,
)
from appliance.jobs import operator
from appliance.jobs.changes import Job, Swept
from appliance.keep import results
from appliance.scheduler.scheduler import Scheduler

log = structlog.get_logger()

BATCH: Final = 1000  # jobs of the archive in memory at a time: some 2 MiB


async def tidy(scheduler: Scheduler) -> None:
    """Removes files that a killed server left half-written, for the jobs in memory.

    Only these jobs can have uploaded lately; the first `results gc` looks at all results.
    """
    roots = [job.result_root for job in scheduler.store.jobs.values() if job.attempts]
    srv, gone = scheduler.config.paths.srv, [0, 0]
    for root in roots:
        try:
            count, size = await threads.run(results.drop_parts, srv / root[1:])
        except OSError as error:
            log.warning("half-written results stay", root=root, why=error.strerror)
            continue
        gone = [gone[0] + count, gone[1] + size]
    if gone[0]:
        log.info("half-written results removed", files=gone[0], bytes=gone[1])


class Retention:
    """Keeps and removes the results of one scheduler's jobs."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._lock = trio.Lock()  # see _turn
        self._folder = scheduler.config.paths.srv / "result"
        self._looked_everywhere = False  # for files that a killed server left half-written

    async def keep(self, name: str, *, on: bool, user: str) -> None:
        """Keeps a job's results for good (`on`), or allows their removal again.

        Raises Unknown if the disk takes too long; DiskTrouble if the wait for `_turn` does.
        """
        scheduler = self._scheduler
        async with self._turn():
            job = await scheduler.find(name)
            changes = operator.kept(job, on, user, scheduler.clock.now())
            await self._put_back(job)
            for change in changes:
                await scheduler.mark(job, change)
        await scheduler.durable_in_time()  # the last change may not be durable yet

    async def sweep(self, older: float, *, dry_run: bool) -> list[dict[str, Any]]:
        """Removes results older than `older` seconds; with `dry_run`, only returns which.

        Each job's results are moved aside, then the job is durably marked as swept, then the
        results are removed.  If a kill or a bad disk leaves results aside, the next sweep removes
        them if their job is marked, and puts them back if not.  Raises NoSpace if the disk
        does not allow the removal.
        """
        before = self._scheduler.clock.now() - older
        try:
            if not dry_run:
                await self._tidy()
                await self._drop_parts()
            async with contextlib.aclosing(self._old(before)) as old:
                swept = [await self._sweep(job, dry_run=dry_run) async for job in old]
        except OSError as error:
            raise NoSpace(f"the disk does not let the results go: {error.strerror}") from error
        return [row for row in swept if row is not None]

    async def _old(self, before: float) -> AsyncGenerator[Job, None]:
        """Yields each old job once, reading the archive in batches."""
        scheduler, after = self._scheduler, (0.0, 0)
        mine = operator.sweepable(scheduler.store, before)
        names = {job.id for job in mine}  # which may move to the archive meanwhile
        while scheduler.store.archived:
            old = await scheduler.archive.sweepable(before, after, BATCH)
            if not old:
                break
            after = (old[-1].finished or 0.0, old[-1].number)
            for job in old:
                if job.id not in names:
                    yield job
        for job in mine:
            yield job

    async def _sweep(self, job: Job, *, dry_run: bool) -> dict[str, Any] | None:
        """Removes one job's results; returns None if they were kept or removed meanwhile."""
        root = self._root(job)
        if dry_run:
            freed, _ = await threads.run(results.used, root)
        else:
            async with self._turn():
                now = await self._scheduler.find(job.id)
                if now.kept or now.swept is not None:
                    return None
                aside = await threads.run(results.set_aside, root, self._folder)
                try:
                    await self._scheduler.mark(now, Swept(job.id, self._scheduler.clock.now()))
                except ApplianceError:
                    await self._put_back(now)
                    raise
            await self._scheduler.durable_in_time()
            freed = await threads.run(results.remove, aside)
            log.info("results removed", job=job.id, bytes=freed)
        return {"job": job.id, "root": str(root), "bytes": freed}

    async def _tidy(self) -> None:
        """Removes results that an earlier sweep left aside; puts back those of unmarked jobs."""
        for aside in await threads.run(results.set_apart, self._folder):
            async with self._turn():
                try:
                    job = await self._scheduler.find(aside.name)
                except (NotFound, BadState) as error:  # nobody can say whose results these are
                    log.warning("results of no job", folder=str(aside), why=str(error))
                    continue
                if job.swept is None:
                    await self._put_back(job)
                    continue
            await self._scheduler.durable_in_time()  # the job may be marked in memory only
            await threads.run(results.remove, aside)

    async def _drop_parts(self) -> None:
        """Removes half-written files, once: this process leaves none behind."""
        if not self._looked_everywhere:
            files, size = await threads.run(results.drop_parts, self._folder)
            self._looked_everywhere = True
            if files:
                log.info("half-written results removed", files=files, bytes=size)

    async def _put_back(self, job: Job) -> None:
        """Puts back results that a sweep moved aside and whose job it could not mark."""
        root = self._root(job)
        aside = self._folder / results.ASIDE / root.name
        try:
            await threads.run(results.put_back, aside, root)
        except OSError as error:
            raise NoSpace(
                f"{aside} does not go back to its place: {error.strerror}; it is not removed"
            ) from error

    def _root(self, job: Job) -> Path:
        return self._folder.parent / job.result_root.removeprefix("/")

    @contextlib.asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Serialises changes to results; a holder does not wait for the journal.

        Raises DiskTrouble if the wait takes longer than `waits.answer`: nothing was done then.
        """
        within = self._scheduler.config.waits.answer
        with trio.move_on_after(within):
            await self._lock.acquire()
        if self._lock.statistics().owner is not trio.lowlevel.current_task():
            raise DiskTrouble(f"the disk takes more than {within:.0f} s for another: nothing done")
        try:
            yield
        finally:
            self._lock.release()
