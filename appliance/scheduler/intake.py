"""How jobs come in: documents are read, their images pinned, then all jobs are kept, or none."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Final

import attrs
import trio

from appliance import threads
from appliance.boot.script import boot_plan, ipxe
from appliance.errors import ApplianceError, BadDocument, BadImage, BadRequest, Problem, Refused
from appliance.jobs import decisions
from appliance.jobs.changes import Change, Job, Moment, Pinned, Submitted
from appliance.jobs.documents import document
from appliance.jobs.documents.document import Document
from appliance.jobs.documents.reading import PROBLEMS_MAX
from appliance.scheduler.scheduler import Scheduler

# A document of this size is read in five milliseconds, whatever its content.  Larger ones, and
# those whose aliases expand them, are not read in the event loop: parked boxes would wait.
READ_AT_ONCE_BYTES: Final = 2**12
# Others are read one at a time: each takes a share of the one Python interpreter.
READERS: Final = trio.CapacityLimiter(1)
# In one submit, which becomes one record of the journal: at most some 50 ms of the loop.
DOCUMENTS_MAX: Final = 500
VALUES_MAX: Final = 50_000  # names included: a cluster of 100 nodes with 500 each
# The longest address, for a kernel line when the server's address is not known yet.
_ANY_HOST = "255.255.255.255"


@attrs.frozen
class Paper:
    """One document as it was submitted."""

    name: str  # of the file
    text: str
    before: Mapping[str, str] = attrs.field(factory=dict)  # values where the text has none
    after: Mapping[str, str] = attrs.field(factory=dict)  # values instead of the text's

    def size(self, most: int) -> int:
        """Returns the size of all texts in bytes of UTF-8; stops counting beyond `most`."""
        total = 0
        for text in self._texts():
            total += len(text) if len(text) > most else len(text.encode(errors="replace"))
            if total > most:
                break
        return total

    @property
    def has_aliases(self) -> bool:
        """Whether the document may expand beyond its size."""
        return any("*" in text for text in self._texts())

    def _texts(self) -> Iterator[str]:
        yield self.text
        for words in (self.before, self.after):
            yield from words.keys()
            yield from words.values()


async def submit(scheduler: Scheduler, papers: list[Paper], submitter: str, key: str) -> list[Job]:
    """Returns the new jobs once they are on disk; for a key seen before, that submit's jobs.

    All or nothing.  Raises BadDocument with every mistake of every paper, BadImage, BadRequest,
    DiskTrouble while the gate is shut (nothing was taken), Unknown if the disk takes too long.
    """
    if not papers or not 8 <= len(key) <= 64 or not key.isalnum():
        raise BadRequest("a submit needs documents, and a key of 8 to 64 letters and digits")
    if len(papers) > DOCUMENTS_MAX:
        raise BadRequest(f"a submit has at most {DOCUMENTS_MAX} documents: submit some at a time")
    archived = scheduler.store.archived
    if await scheduler.jobs_with_key(submitter, key):
        return await _found(scheduler, submitter, key)
    accepted = await _accept_all(scheduler, papers)
    # The same submit may run twice at once: the other one's jobs may even be archived by now.
    while archived != scheduler.store.archived:
        archived = scheduler.store.archived
        if await scheduler.jobs_with_key(submitter, key):
            return await _found(scheduler, submitter, key)
    if scheduler.store.jobs_with_key(submitter, key):
        return await _found(scheduler, submitter, key)
    scheduler.gate.check()
    changes: list[Change] = [
        Submitted(_job(scheduler, name, fits, pinned, submitter, key, ahead))
        for ahead, (name, fits, pinned) in enumerate(accepted, start=1)
    ]
    await scheduler.durable_in_time(lambda: changes)
    return scheduler.store.jobs_with_key(submitter, key)


async def _accept_all(
    scheduler: Scheduler, papers: list[Paper]
) -> list[tuple[str, Document, Pinned]]:
    accepted: list[tuple[str, Document, Pinned]] = []
    problems: list[Problem] = []
    left = VALUES_MAX
    for paper in papers:
        await trio.lowlevel.checkpoint()  # lets boxes' requests in between
        try:
            fits, pinned, values = await _accept(scheduler, paper)
        except BadDocument as error:
            many = len(papers) > 1
            problems += (
                [_of_file(p, paper.name) for p in error.problems] if many else error.problems
            )
        else:
            accepted.append((paper.name, fits, pinned))
            left -= values
        if left < 0:
            raise BadRequest(f"the documents hold more than {VALUES_MAX} values: submit fewer")
        if len(problems) > PROBLEMS_MAX:
            rest = "there may be more mistakes, here and in the documents after it"
            problems[PROBLEMS_MAX:] = [_of_file(Problem("yaml", None, rest), paper.name)]
            break
    if problems:
        raise BadDocument(problems)
    return accepted


async def _found(scheduler: Scheduler, submitter: str, key: str) -> list[Job]:
    """Returns the jobs of an earlier submit, once they are on disk."""
    await scheduler.durable_in_time()
    return await scheduler.jobs_with_key(submitter, key)


def _of_file(problem: Problem, name: str) -> Problem:
    return attrs.evolve(problem, field=f"{name}: {problem.field}")


async def _accept(scheduler: Scheduler, paper: Paper) -> tuple[Document, Pinned, int]:
    """Returns the document, its image, and how many values it holds."""
    config = scheduler.config
    size = paper.size(config.limits.document_bytes)
    if size > config.limits.document_bytes:
        raise BadDocument(
            [Problem("yaml", None, f"is larger than {config.limits.document_bytes} bytes")]
        )
    read = partial(
        document.examine, paper.text, paper.name, config.defaults, paper.before, paper.after
    )
    at_once = size <= READ_AT_ONCE_BYTES and not paper.has_aliases
    found = read() if at_once else await threads.run(read, limiter=READERS)
    fits, problems, lines = found.document, found.problems, found.lines
    wrong = {problem.field for problem in problems}
    try:
        pinned = await scheduler.images.pin(fits)
        _check_kernel_line(scheduler, fits, pinned)
    except BadImage as error:
        if _is_of_defaults(error.field, wrong):
            raise BadDocument(problems) from error
        problem = Problem(error.field, lines.get(error.field), str(error))
        raise BadDocument([*problems, problem]) from error
    except ApplianceError as error:
        field = "kernel_custom_params"
        raise BadDocument([*problems, Problem(field, lines.get(field), str(error))]) from error
    if problems:
        raise BadDocument(problems)
    return fits, pinned, found.values


def _is_of_defaults(field: str, wrong: set[str]) -> bool:
    """Whether the search for the image, which failed at `field`, used a default for a mistake."""
    path = ("os", "os_arch", "arch", "os_version", field)
    return bool(wrong & set(path[: path.index(field) + 1]))


def _check_kernel_line(scheduler: Scheduler, fits: Document, pinned: Pinned) -> None:
    """Raises Refused if the kernel line is too long, with room kept for the host's own words."""
    if fits.os_mount == document.CONTAINER:
        return
    number = scheduler.store.counter + 1_000_000
    job = Job(f"{scheduler.config.lab}.{number}", number, "", fits, "", "", 0.0, pinned, "")
    boot = boot_plan.boot_of(scheduler.config, job, None, _ANY_HOST)
    length = ipxe.kernel_line_length(boot.kernel, ipxe.kernel_arguments(boot))
    most = ipxe.KERNEL_LINE_MAX - ipxe.HOST_ROOM
    if length > most:
        raise Refused(
            f"the kernel line would be {length} bytes, {length - most} too many: kernels take"
            f" {ipxe.KERNEL_LINE_MAX}, and {ipxe.HOST_ROOM} are kept for the testbox's own words"
        )


def _job(
    scheduler: Scheduler,
    name: str,
    fits: Document,
    pinned: Pinned,
    submitter: str,
    key: str,
    ahead: int,
) -> Job:
    now = scheduler.clock.now()
    number = scheduler.store.counter + ahead
    job_id = f"{scheduler.config.lab}.{number}"
    root = decisions.result_root(fits, job_id, now)
    history = (Moment(now, "submit", f"submitted by {submitter}"),)
    return Job(job_id, number, name, fits, submitter, key, now, pinned, root, history=history)


def warnings(scheduler: Scheduler, job: Job) -> list[str]:
    """Returns warnings for the submitter of a job that was taken."""
    store, (queue, arch) = scheduler.store, job.match_key
    told = []
    if not store.serving(job.match_key):
        told.append(f"{job.id} waits: no known testbox serves the queue {queue} on {arch} yet")
    if store.drained:
        told.append(f"{job.id} waits: {store.drained} has drained the lab, until it is resumed")
    return told
