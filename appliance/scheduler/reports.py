"""What testboxes report about their jobs, and what follows from it.

A report belongs to one attempt: by its token (in HTTP_PREFIX), else by the address it came from,
if its box's network card is found there.
A report that is late, repeated or about somebody else's job moves nothing; it is noted among the
steps of its box, and answered as if all were well: clients of 2021 only read `Done`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import attrs
import structlog
import trio

from appliance.config import PORT_MAX
from appliance.errors import BadRequest, IllegalMove, Refused
from appliance.jobs import cluster, decisions
from appliance.jobs.box import Box
from appliance.jobs.changes import Change, Job, Synced
from appliance.jobs.job import Attempt, Finished
from appliance.jobs.shown import views
from appliance.scheduler.scheduler import Scheduler

log = structlog.get_logger()

Verb = Callable[[Job, float], list[Change]]
Check = Callable[[Box, str], None]  # that a box is at an address: raises Refused, Unproven

_WORD: Final = re.compile(r"[A-Za-z0-9_.:+-]{1,60}\Z")
_SECONDS: Final = re.compile(r"\d{1,8}(\.\d{0,6})?\Z", re.ASCII)
_PORT: Final = re.compile(r"[1-9]\d{0,4}\Z", re.ASCII)
CLUSTER_PATIENCE_S: Final = 1500.0  # wget gives up after 1800 s without a byte


@attrs.frozen
class Source:
    """Where a report came from."""

    token: str | None
    client: str  # address


class Reports:
    """The verbs of /~<user>/cgi-bin/."""

    def __init__(self, scheduler: Scheduler, check: Check) -> None:
        self._scheduler = scheduler
        self._check = check

    async def _find(self, source: Source, job_id: str | None) -> tuple[Job, Attempt] | None:
        found = await self._attempt_of(source, job_id)
        if found is None:
            why = "its token is no attempt's" if source.token else "no job of its address"
            log.info(
                "report of no attempt", client=source.client, job=_short(job_id or ""), why=why
            )
        return found

    async def _attempt_of(self, source: Source, job_id: str | None) -> tuple[Job, Attempt] | None:
        store = self._scheduler.store
        if source.token is not None:
            found = await self._scheduler.attempt_with(source.token)
            return found if found and job_id in (None, found[0].id) else None
        box = self._box_at(source.client)
        if box is None or box.job is None or job_id not in (None, box.job):
            return None
        job = store.jobs[box.job]
        return (job, job.attempt) if job.attempt is not None else None

    def _box_at(self, client: str) -> Box | None:
        """Returns the box at `client`: the last one that asked from there, unless it has moved on.

        Raises Refused if the boxes that asked from there are elsewhere, Unproven if it is unknown.
        """
        store, wrong = self._scheduler.store, None
        last = store.box_at(client)
        held = [job.attempt.box for job in store.held_at(client) if job.attempt is not None]
        for box in ([last] if last is not None else []) + [store.boxes[name] for name in held]:
            try:
                self._check(box, client)
            except Refused as error:
                wrong = wrong or error
            else:
                return box
        if wrong is not None:
            raise wrong
        return None

    async def wtmp(self, source: Source, query: Mapping[str, str]) -> None:
        """lkp-wtmp: notes a sign of life."""
        found = await self._find(source, query.get("job_id") or None)
        if found is not None:
            job, attempt = found
            self._scheduler.heard[attempt.box] = self._scheduler.clock.now()
            await self._step(job, attempt, f"wtmp {_short(query.get('tbox_state', ''))}")

    async def append(self, source: Source, query: Mapping[str, str]) -> None:
        """lkp-jobfile-append-var: takes a stage, a verdict, or facts about the run."""
        found = await self._find(source, query.get("job_id") or None)
        if found is None:
            return
        job, attempt = found
        facts = {
            key: value
            for key, value in query.items()
            if key not in ("job_file", "job_id", "job_state")
        }
        if facts:
            text = " ".join(f"{_short(key)}={_short(value)}" for key, value in facts.items())
            await self._step(job, attempt, text)
        if word := query.get("job_state"):
            await self._take(job, attempt, f"job_state={_short(word)}", self._state_changes(word))

    def _state_changes(self, word: str) -> Verb:
        if not _WORD.match(word):
            raise BadRequest(f"job_state: {word[:60]!r} must be one word")

        def decide(job: Job, now: float) -> list[Change]:
            return decisions.reported(job, word, now, self._scheduler.config.waits)

        return decide

    async def hold(self, source: Source, query: Mapping[str, str]) -> None:
        """set-job-stage: begins another stage, with the time that it may take."""
        word, seconds = query.get("job_stage", ""), query.get("timeout") or "0"
        if not _WORD.match(word) or not _SECONDS.match(seconds):
            raise BadRequest("wanted: job_stage=<one word>, timeout=<seconds>")
        length = min(float(seconds), decisions.BORROW_MAX_S)

        def decide(job: Job, now: float) -> list[Change]:
            return decisions.staged(job, word, length, now, self._scheduler.config.waits)

        found = await self._find(source, query.get("job_id") or None)
        if found is not None:
            await self._take(*found, f"job_stage={word}", decide)

    async def close(self, source: Source, query: Mapping[str, str]) -> None:
        """lkp-post-run: takes the client's last report."""
        health = query.get("job_health") or None
        if health is not None and not _WORD.match(health):
            raise BadRequest("job_health must be one word")
        store, waits = self._scheduler.store, self._scheduler.config.waits

        def decide(job: Job, now: float) -> list[Change]:
            return decisions.closed(store, job, health, now, waits)

        found = await self._find(source, query.get("job_id") or None)
        if found is not None:
            await self._take(*found, "post-run", decide)

    async def still_wanted(self, source: Source, query: Mapping[str, str]) -> bool:
        """Returns whether the attempt that asks is the one under way."""
        found = await self._find(source, query.get("job_id") or None)
        if found is not None and decisions.is_current(*found):
            return True
        await self._scheduler.durable()  # a box that hears "no" stops its job
        return False

    async def ssh(self, source: Source, query: Mapping[str, str]) -> None:
        """report_ssh_info and report_ssh_port: notes how to reach a borrowed box by ssh."""
        port, message = query.get("ssh_port", ""), _short(query.get("message", ""))
        if port and not (_PORT.match(port) and int(port) <= PORT_MAX):
            raise BadRequest("wanted: job_id, ssh_port=<1 to 65535>, message")
        found = await self._find(source, query.get("job_id") or None)
        if found is not None:
            said = " ".join(word for word in (f"ssh_port={port}" if port else "", message) if word)
            await self._step(*found, said or "no ssh", "ssh")

    async def step(self, source: Source, query: Mapping[str, str]) -> None:
        """report-job-step: notes a step of the boot under way."""
        found = await self._find(source, query.get("job_id") or None)
        if found is not None:
            await self._step(*found, f"job_step={_short(query.get('job_step', ''))}")

    async def sync(self, source: Source, query: Mapping[str, str]) -> str:
        """lkp-cluster-sync: keeps what a node says, then returns the word that the node waits for.

        Returns `abort` for an attempt that is not under way: nobody will ever be ready for it.
        """
        word = query.get("state", "")
        found = await self._find(source, query.get("job_id") or None)
        if found is None or not decisions.is_current(*found):
            await self._scheduler.durable()  # its end may not be on disk yet
            return cluster.ABORT
        job, attempt = found
        node = cluster.said(job, word, query)
        if node != job.node:
            box, now = self._scheduler.store.boxes[attempt.box], self._scheduler.clock.now()
            step = decisions.told(box, now, "report", f"cluster {word}", job, attempt)
            await self._scheduler.durable(self._scheduler.change([step, Synced(job.id, node)]))
        if (state := cluster.gate(word, node)) is not None:
            return await self._gate(job, state)
        nodes = await self._nodes(job)
        await self._scheduler.durable()  # another node's words may not be on disk yet
        return (
            cluster.roles_ip(nodes) if word == cluster.ROLES else json.dumps(cluster.shown(nodes))
        )

    async def _gate(self, job: Job, state: str) -> str:
        answer = cluster.RETRY
        with trio.move_on_after(CLUSTER_PATIENCE_S):
            while answer == cluster.RETRY:
                stirring = self._scheduler.stirring(job)  # before the look: misses no change
                answer = cluster.answer(await self._nodes(job), state)
                if answer == cluster.RETRY:
                    await stirring.wait()
        await self._scheduler.durable()
        return answer

    async def _nodes(self, job: Job) -> list[Job]:
        together = await self._scheduler.jobs_with_key(job.submitter, job.key)
        return cluster.members(together, job)

    async def renew(self, source: Source, query: Mapping[str, str]) -> str:
        """renew_deadline: gives the job of the asking box more time; returns the new deadline.

        Raises BadRequest, and Refused if the job is not the box's own or does not run.
        """
        seconds, job_id = query.get("time", ""), query.get("job_id", "")
        if not job_id or not _SECONDS.match(seconds):
            raise BadRequest("wanted: job_id=<job>, time=<seconds>")
        found = await self._find(source, job_id)
        if found is None:
            raise Refused("The testbox does not match the job")
        now = self._scheduler.clock.now()
        job = await self._scheduler.find(job_id)  # its state may have changed since
        changes = decisions.renewed(job, float(seconds), now)
        await self._scheduler.durable(self._scheduler.change(changes))
        return self._deadline(await self._scheduler.find(job_id))

    async def deadline(self, query: Mapping[str, str]) -> str:
        """get_deadline: returns when the stage of the box's job ends, or `no deadline`."""
        due = self._deadline_of(query.get("testbox", ""))
        await self._scheduler.caught_up()
        return due

    def _deadline_of(self, name: str) -> str:
        box = self._scheduler.store.boxes.get(name)
        return self._deadline(self._scheduler.store.jobs[box.job] if box and box.job else None)

    def _deadline(self, job: Job | None) -> str:
        if job is None or job.attempt is None or isinstance(job.state, Finished):
            return "no deadline"
        due = decisions.deadline(job, self._scheduler.heard, self._scheduler.config.waits)
        return decisions.iso(due)

    async def testbox(self, query: Mapping[str, str]) -> dict[str, Any]:
        """get_testbox: returns what is known of a box.  Raises NotFound."""
        scheduler, box = self._scheduler, self._scheduler.store.box(query.get("testbox", ""))
        now, due = scheduler.clock.now(), self._deadline_of(box.name)
        told = views.testbox(scheduler.store, scheduler.lobby, box, now, due)
        await scheduler.caught_up()
        return told

    async def _take(self, job: Job, attempt: Attempt, said: str, decide: Verb) -> None:
        now = self._scheduler.clock.now()
        job = await self._scheduler.find(job.id)  # its state may have changed since
        box = self._scheduler.store.boxes[attempt.box]
        try:
            if not decisions.is_current(job, attempt):
                raise IllegalMove(f"attempt {attempt.number} is over")
            changes = decide(job, now)
        except IllegalMove as error:
            log.info("late report", job=job.id, box=attempt.box, said=said, why=str(error))
            changes, said = [], f"late: {said} ({error})"
        steps: list[Change] = [decisions.told(box, now, "report", said, job, attempt)]
        await self._scheduler.durable(self._scheduler.change([*steps, *changes]))

    async def _step(self, job: Job, attempt: Attempt, said: str, what: str = "report") -> None:
        box = self._scheduler.store.boxes[attempt.box]
        now = self._scheduler.clock.now()
        await self._scheduler.durable(
            self._scheduler.change([decisions.told(box, now, what, said, job, attempt)])
        )


def _short(text: str) -> str:
    return "".join(c for c in text if c.isprintable())[:60]
