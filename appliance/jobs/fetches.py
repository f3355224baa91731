"""What testboxes fetch: bytes renew leases, job.cgz turns an offer into a boot, the last file ends
the load, and a file that is gone ends the job.

`moved`, `done` and `missing` are called by the file door for each chunk or file: they are
synchronous and cheap.
"""

from __future__ import annotations

from appliance.boot import cgz, lkp, plan
from appliance.config import Config
from appliance.errors import BadState, NotFound, Refused
from appliance.jobs import decisions
from appliance.jobs.box import Box
from appliance.jobs.changes import Change, Job
from appliance.jobs.document import Body
from appliance.jobs.job import Attempt, Finished
from appliance.jobs.scheduler import Scheduler

Boot = tuple[str, int]  # an attempt's token, and how often the job has restarted its box


class Fetches:
    """Follows the boots under way by what their boxes fetch."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._got: dict[str, tuple[Boot, set[str]]] = {}  # by box: URL paths

    def _boots_at(self, client: str) -> list[tuple[Box, Job]]:
        """The boots under way at `client`, each with its box.

        Several where the machine there runs virtual boxes: which of them a file is for, it does
        not say, so it counts for all that wait for it.
        """
        store = self._scheduler.store
        held = [(job.attempt, job) for job in store.held_at(client)]
        return [(store.boxes[attempt.box], job) for attempt, job in held if attempt is not None]

    def moved(self, client: str, path: str, n: int) -> None:
        """A body byte went to `client`: its lease is renewed."""
        self._scheduler.measures.sent(path, n)
        for box, _ in self._boots_at(client):
            self._scheduler.heard[box.name] = self._scheduler.clock.now()

    def done(self, client: str, path: str, size: int, seconds: float) -> None:
        """`client` has the last byte of `path`."""
        for box, job in self._boots_at(client):
            if path in (wanted := plan.paths_of(job)):
                self._got_it(box, job, path, size, seconds, wanted)

    def _got_it(
        self, box: Box, job: Job, path: str, size: int, seconds: float, wanted: set[str]
    ) -> None:
        now = self._scheduler.clock.now()
        assert job.attempt is not None
        boot = (job.attempt.token, job.attempt.reboots)
        earlier, got = self._got.get(box.name, (boot, _told(box, job)))
        if earlier != boot:
            got = set()
        got.add(path)
        self._got[box.name] = (boot, got)
        changes: list[Change] = [
            decisions.step(box, now, "file", path, size, round(seconds, 3), job)
        ]
        if got >= wanted:
            changes += decisions.loaded(
                self._scheduler.store, job, now, self._scheduler.config.waits
            )
        self._scheduler.change(changes)

    def missing(self, client: str, path: str) -> None:
        """`client` was told that `path` is not there; if its script names it, nobody can boot."""
        for box, job in self._boots_at(client):
            if path in plan.paths_of(job):
                now = self._scheduler.clock.now()
                changes: list[Change] = [decisions.step(box, now, "missing", path, job=job)]
                changes += decisions.failed(job, "incomplete", f"{path} is gone (404)", now)
                self._scheduler.change(changes)

    async def job_cgz(self, job_id: str, client: str, reached: str, *, takes: bool = True) -> bytes:
        """job.cgz for the box that holds the job; a box that only looks (HEAD) moves nothing.

        Raises NotFound without such a job or attempt, Refused for anybody but its box, DiskTrouble
        while its document cannot be read.
        """
        scheduler = self._scheduler
        job = scheduler.store.job(job_id)
        attempt = job.attempt
        if attempt is None or isinstance(job.state, Finished):
            raise NotFound(f"{job_id} has no attempt under way")
        if attempt.address != client:
            raise Refused(f"{job_id} is not {client}'s")
        if takes:
            now = scheduler.clock.now()
            scheduler.heard[attempt.box] = now
            await scheduler.keep(
                decisions.fetched_job(scheduler.store, job, now, scheduler.config.waits)
            )
        body = await self._body(job)
        now_job = scheduler.store.jobs.get(job_id)  # a disk may have taken longer than the lease
        if now_job is None or not decisions.is_current(now_job, attempt):
            raise NotFound(f"attempt {attempt.number} of {job_id} is over")
        disks = plan.disks_of(job.document, scheduler.store.box(attempt.box).facts)
        return pack(scheduler.config, job, body, attempt, scheduler.host(reached), disks)

    async def _body(self, job: Job) -> Body:
        """Raises NotFound where it is lost: no box can run the job; DiskTrouble: not now."""
        scheduler = self._scheduler
        try:
            return await scheduler.body(job)
        except BadState as error:
            reason = f"its document cannot be read: {error}"
            now = scheduler.clock.now()
            await scheduler.keep(
                decisions.failed(scheduler.store.jobs[job.id], "incomplete", reason, now)
            )
            raise NotFound(f"{job.id}: {reason}") from error


def _told(box: Box, job: Job) -> set[str]:
    """What it fetched of this boot before the server restarted."""
    boot = box.boot
    if (
        boot is None
        or job.attempt is None
        or (boot.job, boot.attempt) != (job.id, job.attempt.number)
    ):
        return set()
    return {step.detail for step in boot.steps if step.what == "file"}


def pack(
    config: Config,
    job: Job,
    body: Body,
    attempt: Attempt,
    host: str,
    disks: tuple[str, ...] = (),
) -> bytes:
    """job.cgz of one attempt; the same bytes each time."""
    prefix = f"http://{host}:{config.ports.scheduler}/~lkp/{attempt.token}"
    way = lkp.Way(host, config.ports.scheduler, config.ports.upload, prefix)
    fields = lkp.fields(
        job.document,
        body,
        job=job.id,
        testbox=attempt.box,
        result_root=decisions.attempt_root(job, attempt.number),
        submitted=decisions.iso(job.submitted),
        way=way,
        disks=disks,
        more={
            "lab": config.lab,
            "kernel_version": job.pinned.kernel_version,
            **plan.fetched_later(config, job, host),
        },
    )
    return cgz.pack(lkp.entries(body, fields, attempt.address))
