"""What a person may ask about results that have grown old: keep these, remove those."""

from __future__ import annotations

from functools import partial
from typing import Any

import structlog
import trio

from appliance.errors import BadRequest, Refused
from appliance.jobs import operator
from appliance.jobs.changes import Swept
from appliance.jobs.scheduler import Scheduler
from appliance.keep import results

log = structlog.get_logger()


class Retention:
    """The verbs, for one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._turn = trio.Lock()  # what is decided of a job in the archive is done before the next

    async def keep(self, arguments: dict[str, Any], user: str) -> dict[str, Any]:
        """`on`: for good, or no longer."""
        scheduler = self._scheduler
        job, on = await scheduler.find(str(arguments["job"])), bool(arguments.get("on", True))
        if user not in ("root", job.submitter):
            raise Refused(f"{job.id} is {job.submitter}'s; only {job.submitter} or root keeps it")
        async with self._turn:
            job = await scheduler.find(job.id)
            for change in operator.kept(job, on, user, scheduler.clock.now()):
                await scheduler.mark(job, change)
        return {"job": job.id, "kept": on}

    async def sweep(self, arguments: dict[str, Any], user: str) -> dict[str, Any]:
        """Remove what is older than `older` seconds; with `dry_run` only say what that would be.

        The disk knows that the results are gone before they are: a start in between finds a job
        that says so, and files that the next sweep does not miss.
        """
        if user != "root":
            raise Refused("only root removes results")
        scheduler, older = self._scheduler, float(arguments["older"])
        if not older >= 0:
            raise BadRequest("older: must be seconds")
        folder = scheduler.config.paths.srv / "result"
        rows = []
        before = scheduler.clock.now() - older
        old = await scheduler.archive.sweepable(before) if scheduler.store.archived else []
        for job in [*old, *operator.sweepable(scheduler.store, before)]:
            root = scheduler.config.paths.srv / job.result_root.removeprefix("/")
            if arguments.get("dry_run"):
                listed = await trio.to_thread.run_sync(results.listing, root)
                freed = sum(size for _, size, _ in listed)
            elif not await self._mark_swept(job.id):
                continue  # somebody was quicker, while another's files were removed
            else:
                freed = await trio.to_thread.run_sync(partial(results.remove, root, folder))
                log.info("results removed", job=job.id, bytes=freed)
            rows.append({"job": job.id, "root": str(root), "bytes": freed})
        return {"jobs": rows}

    async def _mark_swept(self, name: str) -> bool:
        """Whether it could be: nobody keeps its results, and nobody has removed them."""
        async with self._turn:
            job = await self._scheduler.find(name)
            if job.kept or job.swept is not None:
                return False
            await self._scheduler.mark(job, Swept(name, self._scheduler.clock.now()))
            return True
