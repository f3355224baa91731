"""The verbs about jobs and their results."""

from __future__ import annotations

import errno
import itertools
import os
from functools import partial
from pathlib import Path
from typing import Any, Final

import attrs

from appliance import threads
from appliance.control.verb import Answer, Asked, Document, Filter, Whole, verb
from appliance.errors import BadState, NotFound
from appliance.jobs import decisions
from appliance.jobs.changes import Job
from appliance.jobs.job import SUCCESS, Finished
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


def row(scheduler: Scheduler, job: Job) -> dict[str, Any]:
    """Returns a job as people and programs are shown it."""
    return views.job_row(job, srv=scheduler.config.paths.srv)


@verb("submit", kept=True)
@attrs.frozen(kw_only=True)
class Submit:
    """Makes jobs of all the documents, or of none.

    A repeat with the same `key` makes none, and returns the jobs made before.
    """

    documents: list[Document]
    key: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"jobs": [{"id", "result_root"}], "warnings": [...]}."""
        scheduler = asked.lab.scheduler
        papers = [
            Paper(os.path.basename(one.name), one.text, one.defaults, one.overrides)
            for one in self.documents
        ]
        newest = scheduler.store.counter
        jobs = await intake.submit(scheduler, papers, asked.user, self.key)
        warnings = [text for job in jobs for text in intake.warnings(scheduler, job)]
        if jobs[0].number <= newest:  # no error: a client left in doubt must be able to ask again
            warnings.append(_SAME_KEY)
        shown = ({key: row(scheduler, job)[key] for key in ("id", "result_root")} for job in jobs)
        return {"jobs": list(shown), "warnings": warnings}


@verb("jobs")
@attrs.frozen(kw_only=True)
class Jobs:
    """Lists jobs, newest first, from memory and from the archive."""

    user: str | None = None  # the submitter
    failed: bool = False  # only jobs that ended without success
    health: Filter | None = None
    state: Filter | None = None  # stages
    box: str | None = None
    queue: str | None = None
    since: float | None = None  # submitted then or later, UTC seconds
    limit: Whole | None = None

    async def do(self, asked: Asked) -> Answer:
        """Returns {"jobs": [...]}, with "lacks" if some could not be read."""
        scheduler, most = asked.lab.scheduler, self.limit or JOBS_SHOWN
        in_memory = reversed(scheduler.store.jobs.values())
        found = list(itertools.islice(filter(self._fits, in_memory), most))
        wanted, lacks = self._of_the_archive(), ""
        if wanted is not None and scheduler.store.archived:
            there = {job.id for job in found}
            old = await _search(scheduler, wanted, most)
            found += [job for job in old.jobs if job.id not in there and self._fits(job)]
            lacks = old.lacks
        newest = sorted(found, key=lambda job: job.number, reverse=True)[:most]
        rows = [row(scheduler, job) for job in newest]
        return {"jobs": rows, "lacks": lacks} if lacks else {"jobs": rows}

    def _fits(self, job: Job) -> bool:
        shown = views.job_row(job)
        return (
            self.user in (None, job.submitter)
            and (not self.health or shown["health"] in self.health)
            and (not self.failed or shown["health"] not in (None, SUCCESS))
            and (not self.state or shown["stage"] in self.state)
            and self.box in (None, shown["box"])
            and self.queue in (None, shown["queue"])
            and job.submitted >= (self.since or 0.0)
        )

    def _of_the_archive(self) -> Wanted | None:
        """Returns the filters for the archive; None if it cannot hold such jobs."""
        if self.state and "finish" not in self.state:
            return None
        return Wanted(
            self.user, tuple(self.health or ()), self.failed, self.box, self.queue,
            float(self.since or 0.0),
        )  # fmt: skip


async def _search(scheduler: Scheduler, wanted: Wanted, most: int) -> Listed:
    """Searches the archive; if it cannot be read, finds no jobs and says why."""
    try:
        return await scheduler.archive.search(wanted, most)
    except BadState as error:
        return Listed([], str(error))


@verb("show")
@attrs.frozen(kw_only=True)
class Show:
    """Shows one job: its document, attempts and history."""

    job: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"job", "document", "history"}."""
        scheduler = asked.lab.scheduler
        job = await scheduler.find(self.job)
        return {
            "job": row(scheduler, job),
            "document": views.document_row(job, await scheduler.body(job)),
            "history": [views.moment_row(moment) for moment in job.history],
        }


@verb("cancel")
@attrs.frozen(kw_only=True)
class Cancel:
    """Cancels a job.  Only its submitter or root may."""

    job: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"job"}."""
        scheduler = asked.lab.scheduler
        job = await scheduler.find(self.job)
        asked.only_submitter(job, "cancels")
        return {"job": row(scheduler, await scheduler.cancel(job.id, asked.user))}


@verb("renew")
@attrs.frozen(kw_only=True)
class Renew:
    """Gives a running job more time.  Only its submitter or root may."""

    job: str
    seconds: float

    async def do(self, asked: Asked) -> Answer:
        """Returns {"job"}."""
        scheduler = asked.lab.scheduler
        job = await scheduler.find(self.job)
        asked.only_submitter(job, "renews")
        return {"job": row(scheduler, await scheduler.renew(job.id, self.seconds))}


@verb("wait", waits=True, kept=True)
@attrs.frozen(kw_only=True)
class Wait:
    """Sends each change of a job, from the first on, until the job ends."""

    job: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"job"}, after one event for each change."""
        scheduler, seen = asked.lab.scheduler, 0
        while True:
            job = await scheduler.changes_of(self.job, seen)
            for moment in job.history[max(0, seen - job.forgotten) :]:
                await asked.event({"job": job.id, **views.moment_row(moment)})
            seen = job.moments
            if isinstance(job.state, Finished):
                return {"job": row(scheduler, job)}


@verb("results")
@attrs.frozen(kw_only=True)
class Results:
    """Lists the files that a job's last attempt uploaded."""

    job: str

    async def do(self, asked: Asked) -> Answer:
        """Returns {"root", "files", "complete", "lacking", "swept"}."""
        job = await asked.lab.scheduler.find(self.job)
        root = _root(asked.lab.scheduler, job)
        files = await threads.run(_files, root)
        lacking = job.attempts[-1].refused if job.attempts else None
        return {
            "root": str(root),
            "files": files,
            "complete": isinstance(job.state, Finished) and lacking is None,
            "lacking": lacking,  # why an upload was refused
            "swept": job.swept,  # when `results gc` removed them
        }


@verb("read")
@attrs.frozen(kw_only=True)
class Read:
    """Reads a piece of a result file."""

    job: str
    path: str
    offset: Whole | None = None

    async def do(self, asked: Asked) -> Answer:
        """Returns {"data", "size", "next"}; `next` is None at the end."""
        job = await asked.lab.scheduler.find(self.job)
        offset = self.offset or 0
        read = partial(read_part, _root(asked.lab.scheduler, job), self.path, offset)
        data, size = await threads.run(read)
        end = offset + len(data)
        return {"data": data, "size": size, "next": end if end < size else None}


def _root(scheduler: Scheduler, job: Job) -> Path:
    number = job.attempts[-1].number if job.attempts else 1
    return scheduler.config.paths.srv / decisions.attempt_root(job, number)[1:]


def _files(root: Path) -> list[dict[str, Any]]:
    found = results.listing(root)
    return [{"path": _utf8(path), "size": size, "modified": at} for path, size, at in found]


def _utf8(path: str) -> str:
    """Makes `path` valid UTF-8; only a person with a shell can have made other names."""
    return os.fsencode(path).decode(errors="replace")


def read_part(root: Path, path: str, offset: int) -> tuple[bytes, int]:
    """Returns at most READ_BYTES of a file below `root`, and its size.  Raises NotFound."""
    lacking = NotFound(f"no result {path[:200]!r}; see `results` for what there is")
    try:
        real = (root / path).resolve()
        if not real.is_relative_to(root.resolve()) or not real.is_file():
            raise lacking
        with real.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(min(offset, size))  # an offset may be too large for seek()
            return file.read(READ_BYTES), size
    except ValueError as error:  # a NUL byte
        raise lacking from error
    except OSError as error:
        if error.errno not in _NO_PATH:
            raise
        raise lacking from error
