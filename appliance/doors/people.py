"""What a person may ask: the verbs behind the command line, whichever door they come through.

Each verb takes plain values and returns plain values (the shapes stand in `jobs/views`).
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog
import trio

import appliance
from appliance.boot import dnsmasq
from appliance.doors.retention import Retention
from appliance.errors import BadRequest, NoSpace, NotFound, Refused
from appliance.jobs import box as boxes
from appliance.jobs import decisions, hosts, intake, views
from appliance.jobs.changes import Job
from appliance.jobs.intake import Paper
from appliance.jobs.job import Attempt, Finished, stage
from appliance.jobs.scheduler import Scheduler
from appliance.keep import results
from appliance.keep.archive import Wanted

READ_BYTES: Final = 2**20  # of a result file in one answer
JOBS_SHOWN: Final = 1000  # by default; `limit` asks for more

log = structlog.get_logger()

Event = Callable[[dict[str, Any]], Awaitable[None]]
Arguments = dict[str, Any]


class People:
    """The verbs, for one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        retention = Retention(scheduler)
        self._verbs: dict[str, Callable[[Arguments, str, Event], Awaitable[dict[str, Any]]]] = {
            "submit": self._submit,
            "jobs": self._jobs,
            "show": self._show,
            "cancel": self._cancel,
            "wait": self._wait,
            "results": self._results,
            "read": self._read,
            "hosts": self._hosts,
            "host-add": self._host_add,
            "host-show": self._host_show,
            "host-preview": self._host_preview,
            "host-reserve": self._host_reserve,
            "host-release": self._host_release,
            "drain": self._drain,
            "resume": self._resume,
            "renew": self._renew,
            "status": self._status,
            "results-keep": lambda arguments, user, event: retention.keep(arguments, user),
            "results-gc": lambda arguments, user, event: retention.sweep(arguments, user),
        }

    async def do(self, verb: str, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        """Run one verb.  Raises the errors of appliance.errors."""
        if verb not in self._verbs:
            raise BadRequest(f"no verb {verb[:40]!r}; known: {', '.join(self._verbs)}")
        try:
            return await self._verbs[verb](arguments, user, event)
        except (KeyError, TypeError, AttributeError) as error:
            if isinstance(error, KeyError) and error.args and error.args[0] not in arguments:
                raise BadRequest(f"{verb}: {error.args[0]!r} is missing") from error
            raise

    async def _submit(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        papers = [
            Paper(
                os.path.basename(str(paper.get("name", "job.yaml"))),
                str(paper["text"]),
                paper.get("defaults") or {},
                paper.get("overrides") or {},
            )
            for paper in arguments["documents"]
        ]
        jobs = await intake.submit(self._scheduler, papers, user, str(arguments["key"]))
        warnings = [text for job in jobs for text in intake.warnings(self._scheduler, job)]
        rows = [{"id": job.id, "result_root": "/srv" + job.result_root} for job in jobs]
        return {"jobs": rows, "warnings": warnings}

    async def _jobs(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        most = int(arguments.get("limit") or JOBS_SHOWN)
        in_memory = reversed(self._scheduler.store.jobs.values())
        found = list(itertools.islice((job for job in in_memory if _fits(job, arguments)), most))
        wanted = _of_the_archive(arguments)
        if wanted is not None and self._scheduler.store.archived:
            there = {job.id for job in found}
            old = await self._scheduler.archive.search(wanted, most)
            found += [job for job in old if job.id not in there]
        newest = sorted(found, key=lambda job: job.number, reverse=True)[:most]
        return {"jobs": [views.job_row(job) for job in newest]}

    async def _show(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        return {
            "job": views.job_row(job),
            "document": views.document_row(job, await self._scheduler.body(job)),
            "history": [views.moment_row(moment) for moment in job.history],
        }

    async def _cancel(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        if user not in ("root", job.submitter):
            raise Refused(f"{job.id} is {job.submitter}'s; only {job.submitter} or root cancels it")
        return {"job": views.job_row(await self._scheduler.cancel(job.id, user))}

    async def _wait(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        seen = 0
        while True:
            job = await self._scheduler.changes_of(str(arguments["job"]), seen)
            for moment in job.history[max(0, seen - job.forgotten) :]:
                await event({"job": job.id, **views.moment_row(moment)})
            seen = job.moments
            if isinstance(job.state, Finished):
                return {"job": views.job_row(job)}

    async def _results(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        attempt = job.attempts[-1] if job.attempts else None
        root = self._root(job, attempt)
        listed = await trio.to_thread.run_sync(results.listing, root)
        files = [{"path": _utf8(path), "size": size, "modified": at} for path, size, at in listed]
        complete = isinstance(job.state, Finished) and (attempt is None or attempt.refused is None)
        return {"root": str(root), "files": files, "complete": complete}

    async def _read(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        root = self._root(job, job.attempts[-1] if job.attempts else None)
        offset = int(arguments.get("offset") or 0)
        read = partial(_read_part, root, str(arguments["path"]), offset)
        data, size = await trio.to_thread.run_sync(read)
        end = offset + len(data)
        return {"data": data, "size": size, "next": end if end < size else None}

    def _root(self, job: Job, attempt: Attempt | None) -> Path:
        url = decisions.attempt_root(job, attempt.number if attempt else 1)
        return self._scheduler.config.paths.srv / url[1:]

    async def _hosts(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        return {"hosts": [self._row(box) for box in self._scheduler.store.boxes.values()]}

    def _row(self, box: boxes.Box) -> dict[str, Any]:
        scheduler = self._scheduler
        return views.host_row(scheduler.store, scheduler.lobby, box, scheduler.clock.now())

    async def _host_add(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        _only_root(user, "says which testboxes there are")
        config = self._scheduler.config
        name = str(arguments["name"])
        fields = {key: value for key, value in arguments.items() if value and key != "name"}
        fields["mac"] = [boxes.normal_mac(str(mac)) for mac in fields.pop("macs", None) or []]
        facts = boxes.facts(name, fields, config.defaults.queue)
        where: list[Path] = []

        async def write() -> None:
            folder = config.paths.hosts
            try:
                where.append(await trio.to_thread.run_sync(hosts.write, folder, name, fields))
            except OSError as error:
                raise NoSpace(f"{error.filename or folder}: {error.strerror}") from error
            entry = dnsmasq.host_entry(name, facts.macs)
            try:
                await trio.to_thread.run_sync(write_lease, config.paths.dhcp_hosts, name, entry)
            except OSError as error:  # the next start writes it
                log.warning("no lease file", host=name, why=str(error))

        box = await self._scheduler.register(facts, write)
        return {"host": self._row(box), "file": str(where[0])}

    async def _host_show(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        box = self._box(str(arguments["host"]))
        return {"host": self._row(box), "boots": views.boot_rows(box)}

    def _box(self, word: str) -> boxes.Box:
        """By name or by MAC.  Raises NotFound."""
        store = self._scheduler.store
        if word in store.boxes:
            return store.boxes[word]
        try:
            found = store.box_of(boxes.Identity(boxes.normal_mac(word), ""))
        except BadRequest:
            found = None
        if found is None:
            raise NotFound(f"no testbox {word[:80]}")
        return found

    async def _host_preview(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        box = self._box(str(arguments["host"]))
        store, seat = self._scheduler.store, self._scheduler.lobby.seat(box.name)
        wanted = arguments.get("job")
        job = await self._scheduler.find(str(wanted)) if wanted else store.next_for(box)
        if job is None:
            return {"script": "", "why": "no queued job fits it; it would be parked"}
        shown = self._scheduler.script(job, box, seat.reached if seat else "SERVER")
        named = f"{job.id}, were it next; it is in {stage(job.state)}"
        return {"script": shown, "why": named if wanted else f"{job.id} would be next"}

    async def _host_reserve(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        """`for`: whose jobs it takes; without it nobody's."""
        _only_root(user, "keeps testboxes")
        box, whom = self._box(str(arguments["host"])), arguments.get("for")
        until, why = float(arguments["until"]), str(arguments.get("why") or "")
        await self._scheduler.reserve(box, str(whom) if whom else None, until, user, why)
        return {"host": self._row(box)}

    async def _host_release(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        _only_root(user, "releases testboxes")
        box = self._box(str(arguments["host"]))
        await self._scheduler.release(box, user)
        return {"host": self._row(box)}

    async def _drain(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        """Answers at once, or (`wait`) when no job holds a box any more."""
        _only_root(user, "drains the lab")
        await self._scheduler.drain(user)
        while arguments.get("wait") and (active := self._scheduler.store.active()):
            job = next(iter(active))
            await event({"running": len(active), "job": views.job_row(job)})
            await self._scheduler.changes_of(job.id, job.moments)
        return {"jobs": [views.job_row(job) for job in self._scheduler.store.active()]}

    async def _resume(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        _only_root(user, "resumes a drained lab")
        await self._scheduler.resume()
        return {}

    async def _renew(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        if user not in ("root", job.submitter):
            raise Refused(f"{job.id} is {job.submitter}'s; only {job.submitter} or root renews it")
        return {
            "job": views.job_row(await self._scheduler.renew(job.id, float(arguments["seconds"])))
        }

    async def _status(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        store = self._scheduler.store
        stages = Counter(stage(job.state) for job in store.jobs.values())
        if store.archived:
            stages["finish"] += store.archived
        return {
            "lab": self._scheduler.config.lab,
            "drained": store.drained,
            "gate": self._scheduler.gate.reasons,  # why no new jobs are taken
            "version": appliance.__version__,
            "boxes": dict(Counter(self._row(box)["state"] for box in store.boxes.values())),
            "jobs": dict(stages),
            "parked": len(self._scheduler.lobby),
            "since": self._scheduler.clock.started_utc,
        }


def _only_root(user: str, does: str) -> None:
    if user != "root":
        raise Refused(f"only root {does}")


def _fits(job: Job, wanted: Arguments) -> bool:
    row = views.job_row(job)
    return (
        wanted.get("user") in (None, job.submitter)
        and (not wanted.get("health") or row["health"] in wanted["health"])
        and (not wanted.get("state") or row["stage"] in wanted["state"])
        and wanted.get("box") in (None, row["box"])
        and wanted.get("queue") in (None, row["queue"])
        and job.submitted >= float(wanted.get("since") or 0.0)
    )


def _of_the_archive(wanted: Arguments) -> Wanted | None:
    """The same filters for the archive; None where it can have none of those jobs."""
    states = wanted.get("state")
    if states and "finish" not in states:
        return None
    return Wanted(
        wanted.get("user"),
        tuple(wanted.get("health") or ()),
        wanted.get("box"),
        wanted.get("queue"),
        float(wanted.get("since") or 0.0),
    )


def _utf8(path: str) -> str:
    """`path` as it can be sent; boxes upload no other names, but people have shells."""
    return os.fsencode(path).decode(errors="replace")


def write_lease(folder: Path, name: str, entry: str) -> None:
    """A known box's file in dnsmasq's dhcp-hostsdir; dnsmasq reads it as soon as it is there."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    if not path.exists() or path.read_text() != entry:
        beside = folder.parent / f".{name}.new"  # not within: dnsmasq reads all it finds there
        beside.write_text(entry)
        beside.rename(path)


def _read_part(root: Path, path: str, offset: int) -> tuple[bytes, int]:
    real = (root / path).resolve()
    if not real.is_relative_to(root.resolve()) or not real.is_file():
        raise NotFound(f"no result {path[:200]!r}; see `results` for what there is")
    with real.open("rb") as file:
        file.seek(max(offset, 0))
        return file.read(READ_BYTES), os.fstat(file.fileno()).st_size
