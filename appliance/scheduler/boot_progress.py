"""Follows what testboxes fetch: bytes renew leases, job.cgz turns an offer into a boot, the last
file ends the load, and a missing file ends the job.

The word of a box is not trusted here: a file counts only at the port that the box's script names,
and is missing only if our own disk lacks it.

The file doors call `moved`, `done` and `missing` for each chunk or file: these are synchronous
and cheap.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

import attrs

from appliance import addresses, threads
from appliance.boot.script import boot_plan, cgz, lkp
from appliance.config import Config
from appliance.errors import BadState, NotFound, Refused
from appliance.jobs import box as boxes
from appliance.jobs import decisions
from appliance.jobs import job as jobs
from appliance.jobs.box import Box
from appliance.jobs.changes import Change, Job
from appliance.jobs.documents.document import Body
from appliance.jobs.job import Attempt, Finished
from appliance.jobs.packed import is_large
from appliance.scheduler.scheduler import Scheduler
from appliance.turns import Turns

PACKERS: Final = 2  # large job.cgz packed at the same time; each keeps a thread for some 60 ms

Check = Callable[[Box, str], None]  # that a box is at an address: raises Refused, Unproven
Acts = Callable[[Box, str], bool]  # the same as a bool, for fetches that are only noted
Boot = tuple[str, int]  # an attempt's token, and how often the job has restarted its box
Named = tuple[int, str]  # a file of a script: port and path


class Fetches:
    """Follows the boots under way by the files that their boxes fetch."""

    def __init__(self, scheduler: Scheduler, check: Check, acts: Acts) -> None:
        self._scheduler, self._check, self._acts = scheduler, check, acts
        self._got: dict[str, tuple[Boot, set[Named]]] = {}  # by box
        self._packers = Turns(PACKERS)

    def at(self, port: int) -> AtDoor:
        """Returns the Progress of the door at `port`."""
        return AtDoor(self, port)

    def _boots_at(self, client: str) -> list[tuple[Box, Job]]:
        """Returns the boots under way at the address `client`, each with its box.

        There are several if the machine there runs virtual boxes.  A request does not say which of
        them it is for, so a file counts for all of them that wait for it.
        """
        store = self._scheduler.store
        held = [(job.attempt, job) for job in store.held_at(client)]
        boots = [(store.boxes[attempt.box], job) for attempt, job in held if attempt is not None]
        return [(box, job) for box, job in boots if self._acts(box, client)]

    def moved(self, client: str, file: Named, n: int) -> None:
        """Renews the lease of the box at `client`, which was sent `n` bytes of a file's body.

        While the box loads, only files of its script count; later the job may fetch any file.
        """
        self._scheduler.measures.sent(file[1], n)
        for box, job in self._boots_at(client):
            if not jobs.is_loading(job.state) or file in self._wanted(job):
                self._scheduler.heard[box.name] = self._scheduler.clock.now()

    def done(self, client: str, file: Named, size: int, seconds: float) -> None:
        """Notes that `client` has the last byte of `file`."""
        for box, job in self._boots_at(client):
            if file in (wanted := self._wanted(job)):
                self._got_it(box, job, file, size, seconds, wanted)

    def _wanted(self, job: Job) -> set[Named]:
        return {(file.port, file.path) for file in boot_plan.files_of(self._scheduler.config, job)}

    def _ours(self, job: Job) -> set[Named]:
        """Returns the wanted files that we serve: fetches from other servers are not seen here."""
        files = boot_plan.files_of(self._scheduler.config, job)
        return {(file.port, file.path) for file in files if file.host is None}

    def _got_it(
        self, box: Box, job: Job, file: Named, size: int, seconds: float, wanted: set[Named]
    ) -> None:
        now = self._scheduler.clock.now()
        assert job.attempt is not None
        boot = (job.attempt.token, job.attempt.reboots)
        earlier, got = self._got.get(box.name, (boot, _told(box, job, wanted)))
        if earlier != boot:
            got = set()
        got.add(file)
        self._got[box.name] = (boot, got)
        changes: list[Change] = [
            decisions.step(box, now, "file", file[1], size, round(seconds, 3), job)
        ]
        if got >= self._ours(job):
            changes += decisions.loaded(
                self._scheduler.store, job, now, self._scheduler.config.waits
            )
        self._scheduler.change(changes)

    def missing(self, client: str, file: Named, reached: str) -> None:
        """Ends the job if its script names this file, which `client` wanted and our disk lacks.

        `reached`: the address by which the box reached us, which the script may use.
        """
        port, path = file
        ours = (None, addresses.in_url(reached), self._scheduler.config.network.address)
        for box, job in self._boots_at(client):
            places = [(port, path, host) for host in ours]
            named = boot_plan.files_of(self._scheduler.config, job)
            if any((one.port, one.path, one.host) in places for one in named):
                now = self._scheduler.clock.now()
                changes: list[Change] = [decisions.step(box, now, "missing", path, job=job)]
                store, waits = self._scheduler.store, self._scheduler.config.waits
                reason = f"{path} is gone (404)"
                changes += decisions.unbootable(store, job, reason, now, waits)
                self._scheduler.change(changes)

    async def job_cgz(self, job_id: str, client: str, reached: str, *, takes: bool = True) -> bytes:
        """Returns job.cgz for the box that holds the job; without `takes` (HEAD) nothing moves.

        Raises NotFound without such a job or attempt, Refused for anybody but its box, Unproven
        if the client's identity cannot be told, DiskTrouble while its document cannot be read.
        """
        scheduler = self._scheduler
        job = scheduler.store.job(job_id)
        attempt = job.attempt
        if attempt is None or isinstance(job.state, Finished):
            raise NotFound(f"{job_id} has no attempt under way")
        if attempt.address != client:
            raise Refused(f"{job_id} is not {client}'s")
        self._check(scheduler.store.box(attempt.box), client)
        if takes:
            now = scheduler.clock.now()
            scheduler.heard[attempt.box] = now
            await scheduler.durable(
                scheduler.change(
                    decisions.fetched_job(scheduler.store, job, now, scheduler.config.waits)
                )
            )
        disks = boot_plan.disks_of(job.document, scheduler.store.box(attempt.box).facts)
        data = await self._packed(job, attempt, scheduler.host(reached), disks)
        self._check_current(job, attempt)
        return data

    def _check_current(self, job: Job, attempt: Attempt) -> None:
        """Raises NotFound if the attempt is over: the disk may have taken longer than the lease."""
        now_job = self._scheduler.store.jobs.get(job.id)
        if now_job is None or not decisions.is_current(now_job, attempt):
            raise NotFound(f"attempt {attempt.number} of {job.id} is over")

    async def _packed(self, job: Job, attempt: Attempt, host: str, disks: tuple[str, ...]) -> bytes:
        """Makes a small job.cgz anew each time, a large one once, in a thread.  Raises NotFound."""
        packed, key = self._scheduler.packed, (attempt.token, attempt.address, host, disks)
        if (kept := packed.find(job.id, key)) is not None:
            return kept
        body = await self._body(job)
        self._check_current(job, attempt)
        make = partial(pack, self._scheduler.config, job, body, attempt, host, disks)
        if not is_large(body):
            return make()
        turn = await self._packers.begin(job.id)
        try:
            if (kept := packed.find(job.id, key)) is not None:  # another request made it meanwhile
                return kept
            data = await threads.run(make)
            self._check_current(job, attempt)
            packed.keep(job.id, attempt.token, key, data)
            return data
        finally:
            turn.give_back()

    async def _body(self, job: Job) -> Body:
        """Returns the body.  Raises NotFound if it is lost (the job fails), or DiskTrouble."""
        scheduler = self._scheduler
        try:
            return await scheduler.body(job)
        except BadState as error:
            reason = f"its document cannot be read: {error}"
            now = scheduler.clock.now()
            store, waits = scheduler.store, scheduler.config.waits
            lost = decisions.unbootable(store, store.jobs[job.id], reason, now, waits)
            await scheduler.durable(scheduler.change(lost))
            raise NotFound(f"{job.id}: {reason}") from error


@attrs.frozen
class AtDoor:
    """The Progress of one door: a file's name is the door's port and a path."""

    fetches: Fetches
    port: int

    def moved(self, client: str, path: str, n: int) -> None:
        """See the method of Fetches."""
        self.fetches.moved(client, (self.port, path), n)

    def done(self, client: str, path: str, size: int, seconds: float) -> None:
        """See the method of Fetches."""
        self.fetches.done(client, (self.port, path), size, seconds)

    def missing(self, client: str, path: str, reached: str) -> None:
        """See the method of Fetches."""
        self.fetches.missing(client, (self.port, path), reached)


def _told(box: Box, job: Job, wanted: set[Named]) -> set[Named]:
    """Returns the files of this boot that the box fetched before the server restarted."""
    if job.attempt is None:
        return set()
    paths = boxes.fetched(box, job.id, job.attempt.number)
    return {(port, path) for port, path in wanted if path[: boxes.DETAIL_MAX] in paths}


def pack(
    config: Config,
    job: Job,
    body: Body,
    attempt: Attempt,
    host: str,
    disks: tuple[str, ...] = (),
) -> bytes:
    """Returns job.cgz of one attempt; the same bytes each time."""
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
            **boot_plan.fetched_later(config, job, host),
        },
    )
    return cgz.pack(lkp.entries(body, fields, attempt.address))
