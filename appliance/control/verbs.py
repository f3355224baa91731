"""What a person may ask: the verbs behind the command line, whichever door they come through.

Each verb takes plain values and returns plain values (the shapes stand in `jobs/shown/views`).
"""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import structlog

from appliance import threads
from appliance.control.backups import Backups
from appliance.control.host_verbs import Testboxes
from appliance.control.lab_verbs import Disks, Operators, disks
from appliance.control.retention import Retention
from appliance.control.verb_fields import check
from appliance.errors import BadRequest, BadState, NotFound, Refused
from appliance.jobs import decisions
from appliance.jobs.changes import Job
from appliance.jobs.job import SUCCESS, Attempt, Finished
from appliance.jobs.shown import views
from appliance.keep import results
from appliance.keep.archive import Listed, Wanted
from appliance.scheduler import intake
from appliance.scheduler.intake import Paper
from appliance.scheduler.scheduler import Scheduler

READ_BYTES: Final = 2**20  # of a result file in one answer
JOBS_SHOWN: Final = 1000  # by default; `limit` asks for more
_NO_PATH: Final = (errno.ENAMETOOLONG, errno.ENOENT, errno.ELOOP, errno.ENOTDIR)
_SAME_KEY: Final = "this key made these jobs before; what was sent now was not looked at"

# What is answered was read in memory, which is ahead of the disk for as long as a write takes.
# These wait for the disk themselves: for what they tell, and not for what others do meanwhile.
_TOLD_AS_KEPT: Final = frozenset(["submit", "wait", "watch", "backup"])

log = structlog.get_logger()

Event = Callable[[dict[str, Any]], Awaitable[None]]
Arguments = dict[str, Any]


class People:
    """The verbs, for one scheduler."""

    def __init__(self, scheduler: Scheduler, disks: Disks = disks) -> None:
        self._scheduler = scheduler
        retention, testboxes = Retention(scheduler), Testboxes(scheduler)
        operators, backups = Operators(scheduler, disks), Backups(scheduler)
        self._row = testboxes.row
        self._job_row = partial(views.job_row, srv=scheduler.config.paths.srv)
        self._verbs: dict[str, Callable[[Arguments, str, Event], Awaitable[dict[str, Any]]]] = {
            "submit": self._submit,
            "jobs": self._jobs,
            "show": self._show,
            "cancel": self._cancel,
            "wait": self._wait,
            "results": self._results,
            "read": self._read,
            "hosts": lambda arguments, user, event: testboxes.all(),
            "host-add": lambda arguments, user, event: testboxes.add(arguments, user),
            "host-remove": lambda arguments, user, event: testboxes.remove(arguments, user),
            "host-show": lambda arguments, user, event: testboxes.show(arguments),
            "host-preview": lambda arguments, user, event: testboxes.preview(arguments),
            "host-reserve": lambda arguments, user, event: testboxes.reserve(arguments, user),
            "host-release": lambda arguments, user, event: testboxes.release(arguments, user),
            "drain": self._drain,
            "resume": self._resume,
            "renew": self._renew,
            "status": lambda arguments, user, event: operators.status(),
            "backup": lambda arguments, user, event: backups.send(user, event),
            "watch": lambda arguments, user, event: operators.watch(user, event),
            "images-used": lambda arguments, user, event: operators.images_used(),
            "host-file": lambda arguments, user, event: testboxes.file(arguments, user),
            "host-edit": lambda arguments, user, event: testboxes.edit(arguments, user),
            "log-level": lambda arguments, user, event: operators.log_level(arguments, user),
            "results-keep": lambda arguments, user, event: retention.keep(arguments, user),
            "results-gc": lambda arguments, user, event: retention.sweep(arguments, user),
        }

    @property
    def verbs(self) -> tuple[str, ...]:
        """Their names."""
        return tuple(self._verbs)

    async def do(self, verb: str, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        """Run one verb.  Raises the errors of appliance.errors."""
        if verb not in self._verbs:
            raise BadRequest(f"no verb {verb[:40]!r}; known: {', '.join(self.verbs)}")
        check(verb, arguments)
        arguments = {name: value for name, value in arguments.items() if value is not None}
        try:
            answer = await self._verbs[verb](arguments, user, event)
        except (NotFound, Refused):  # they tell of jobs and boxes, too
            await self._scheduler.shown()
            raise
        except (KeyError, TypeError, AttributeError) as error:
            if isinstance(error, KeyError) and error.args and error.args[0] not in arguments:
                raise BadRequest(f"{verb}: {error.args[0]!r} is missing") from error
            raise
        if verb not in _TOLD_AS_KEPT:
            await self._scheduler.shown()
        return answer

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
        newest = self._scheduler.store.counter
        jobs = await intake.submit(self._scheduler, papers, user, str(arguments["key"]))
        warnings = [text for job in jobs for text in intake.warnings(self._scheduler, job)]
        if jobs[0].number <= newest:  # no refusal: who was left in doubt must be able to ask again
            warnings.append(_SAME_KEY)
        rows = [{key: self._job_row(job)[key] for key in ("id", "result_root")} for job in jobs]
        return {"jobs": rows, "warnings": warnings}

    async def _jobs(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        most = int(arguments.get("limit") or JOBS_SHOWN)
        in_memory = reversed(self._scheduler.store.jobs.values())
        found = list(itertools.islice((job for job in in_memory if _fits(job, arguments)), most))
        wanted, lacks = _of_the_archive(arguments), ""
        if wanted is not None and self._scheduler.store.archived:
            there = {job.id for job in found}
            old = await self._search(wanted, most)
            found += [job for job in old.jobs if job.id not in there and _fits(job, arguments)]
            lacks = old.lacks
        newest = sorted(found, key=lambda job: job.number, reverse=True)[:most]
        rows = [self._job_row(job) for job in newest]
        return {"jobs": rows, "lacks": lacks} if lacks else {"jobs": rows}

    async def _search(self, wanted: Wanted, most: int) -> Listed:
        """What memory has is shown whatever the archive is like."""
        try:
            return await self._scheduler.archive.search(wanted, most)
        except BadState as error:
            return Listed([], str(error))

    async def _show(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        return {
            "job": self._job_row(job),
            "document": views.document_row(job, await self._scheduler.body(job)),
            "history": [views.moment_row(moment) for moment in job.history],
        }

    async def _cancel(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        if user not in ("root", job.submitter):
            raise Refused(f"{job.id} is {job.submitter}'s; only {job.submitter} or root cancels it")
        return {"job": self._job_row(await self._scheduler.cancel(job.id, user))}

    async def _wait(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        seen = 0
        while True:
            job = await self._scheduler.changes_of(str(arguments["job"]), seen)
            for moment in job.history[max(0, seen - job.forgotten) :]:
                await event({"job": job.id, **views.moment_row(moment)})
            seen = job.moments
            if isinstance(job.state, Finished):
                return {"job": self._job_row(job)}

    async def _results(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        attempt = job.attempts[-1] if job.attempts else None
        root = self._root(job, attempt)
        files = await threads.run(_files, root)
        lacking = attempt.refused if attempt is not None else None
        return {
            "root": str(root),
            "files": files,
            "complete": isinstance(job.state, Finished) and lacking is None,
            "lacking": lacking,  # why an upload was refused
            "swept": job.swept,  # when `results gc` removed them
        }

    async def _read(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        root = self._root(job, job.attempts[-1] if job.attempts else None)
        offset = int(arguments.get("offset") or 0)
        read = partial(_read_part, root, str(arguments["path"]), offset)
        data, size = await threads.run(read)
        end = offset + len(data)
        return {"data": data, "size": size, "next": end if end < size else None}

    def _root(self, job: Job, attempt: Attempt | None) -> Path:
        url = decisions.attempt_root(job, attempt.number if attempt else 1)
        return self._scheduler.config.paths.srv / url[1:]

    async def _drain(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        """Answers at once, or (`wait`) when no job holds a box any more.

        Raises Refused where somebody resumed the lab meanwhile.
        """
        _only_root(user, "drains the lab")
        await self._scheduler.drain(user)
        while arguments.get("wait") and (active := self._scheduler.store.active()):
            job = next(iter(active))
            await event({"running": len(active), "job": self._job_row(job)})
            await self._scheduler.changes_of(job.id, job.moments)
            if not self._scheduler.store.drained:
                raise Refused("somebody resumed the lab meanwhile: jobs are given out again")
        return {"jobs": [self._job_row(job) for job in self._scheduler.store.active()]}

    async def _resume(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        _only_root(user, "resumes a drained lab")
        await self._scheduler.resume()
        return {}

    async def _renew(self, arguments: Arguments, user: str, event: Event) -> dict[str, Any]:
        job = await self._scheduler.find(str(arguments["job"]))
        if user not in ("root", job.submitter):
            raise Refused(f"{job.id} is {job.submitter}'s; only {job.submitter} or root renews it")
        return {
            "job": self._job_row(await self._scheduler.renew(job.id, float(arguments["seconds"])))
        }


def _only_root(user: str, does: str) -> None:
    if user != "root":
        raise Refused(f"only root {does}")


def _fits(job: Job, wanted: Arguments) -> bool:
    row = views.job_row(job)
    return (
        wanted.get("user") in (None, job.submitter)
        and (not wanted.get("health") or row["health"] in wanted["health"])
        and (not wanted.get("failed") or row["health"] not in (None, SUCCESS))
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
        bool(wanted.get("failed")),
        wanted.get("box"),
        wanted.get("queue"),
        float(wanted.get("since") or 0.0),
    )


def _files(root: Path) -> list[dict[str, Any]]:
    found = results.listing(root)
    return [{"path": _utf8(path), "size": size, "modified": at} for path, size, at in found]


def _utf8(path: str) -> str:
    """`path` as it can be sent; boxes upload no other names, but people have shells."""
    return os.fsencode(path).decode(errors="replace")


def _read_part(root: Path, path: str, offset: int) -> tuple[bytes, int]:
    lacking = NotFound(f"no result {path[:200]!r}; see `results` for what there is")
    try:
        real = (root / path).resolve()
        if not real.is_relative_to(root.resolve()) or not real.is_file():
            raise lacking
        with real.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(min(offset, size))  # no file system has all the offsets that a number has
            return file.read(READ_BYTES), size
    except ValueError as error:  # a NUL byte
        raise lacking from error
    except OSError as error:
        if error.errno not in _NO_PATH:
            raise
        raise lacking from error
