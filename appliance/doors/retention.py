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

    async def keep(self, arguments: dict[str, Any], user: str) -> dict[str, Any]:
        """`on`: for good, or no longer."""
        scheduler = self._scheduler
        job, on = scheduler.store.job(str(arguments["job"])), bool(arguments.get("on", True))
        if user not in ("root", job.submitter):
            raise Refused(f"{job.id} is {job.submitter}'s; only {job.submitter} or root keeps it")
        await scheduler.keep(operator.kept(job, on, user, scheduler.clock.now()))
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
        for job in operator.sweepable(scheduler.store, scheduler.clock.now() - older):
            now = scheduler.store.jobs[job.id]
            if now.kept or now.swept is not None:
                continue  # somebody was quicker, while another's files were removed
            root = scheduler.config.paths.srv / job.result_root.removeprefix("/")
            if arguments.get("dry_run"):
                listed = await trio.to_thread.run_sync(results.listing, root)
                freed = sum(size for _, size, _ in listed)
            else:
                await scheduler.keep([Swept(job.id, scheduler.clock.now())])
                freed = await trio.to_thread.run_sync(partial(results.remove, root, folder))
                log.info("results removed", job=job.id, bytes=freed)
            rows.append({"job": job.id, "root": str(root), "bytes": freed})
        return {"jobs": rows}
