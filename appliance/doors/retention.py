"""What a person may ask about results that have grown old: keep these, remove those."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import structlog
import trio

from appliance.errors import BadRequest, NoSpace, Refused
from appliance.jobs import operator
from appliance.jobs.changes import Job, Swept
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

        Files go out of sight first, then the disk knows that they are gone, then they are removed:
        what a kill or a bad disk leaves of them, the next sweep removes.  Raises NoSpace where the
        disk does not let them go.
        """
        if user != "root":
            raise Refused("only root removes results")
        scheduler, older = self._scheduler, float(arguments["older"])
        if not older >= 0:
            raise BadRequest("older: must be seconds")
        folder = scheduler.config.paths.srv / "result"
        before = scheduler.clock.now() - older
        old = await scheduler.archive.sweepable(before) if scheduler.store.archived else []
        jobs = [*old, *operator.sweepable(scheduler.store, before)]
        try:
            if not arguments.get("dry_run"):
                await trio.to_thread.run_sync(results.remove, folder / results.ASIDE)
            rows = [row for job in jobs if (row := await self._sweep(job, folder, arguments))]
        except OSError as error:
            raise NoSpace(f"the disk does not let the results go: {error.strerror}") from error
        return {"jobs": rows}

    async def _sweep(
        self, job: Job, folder: Path, arguments: dict[str, Any]
    ) -> dict[str, Any] | None:
        """One job's; None where somebody was quicker, while another's files were removed."""
        root = folder.parent / job.result_root.removeprefix("/")
        if arguments.get("dry_run"):
            listed = await trio.to_thread.run_sync(results.listing, root)
            freed = sum(size for _, size, _ in listed)
        else:
            async with self._turn:
                now = await self._scheduler.find(job.id)
                if now.kept or now.swept is not None:
                    return None
                aside = await trio.to_thread.run_sync(results.set_aside, root, folder)
                await self._scheduler.mark(now, Swept(job.id, self._scheduler.clock.now()))
            freed = await trio.to_thread.run_sync(results.remove, aside)
            log.info("results removed", job=job.id, bytes=freed)
        return {"job": job.id, "root": str(root), "bytes": freed}
