"""Pure: no clock, no socket, no await.

The store's record of a job, and every kind of change; the journal keeps the changes.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from typing import Any, Final

import attrs

from appliance.jobs import job as jobs
from appliance.jobs.box import Facts, Identity, Reservation, Step
from appliance.jobs.documents.document import Document, line, once
from appliance.jobs.job import Attempt, Finished, Queued, State
from appliance.jobs.ready import Key, Needs

# Images, and kinds of needs, stored once and shared by all jobs that have them; a few hundred bytes
# each.  A hundred thousand waiting jobs have some hundred kinds.
KINDS_MAX: Final = 10_000
HISTORY_MAX: Final = 200  # moments kept per job; ten attempts make about sixty
RESTARTED: Final = "the server restarted"  # in a job's history: a start renewed its deadline
ATTEMPTS_KEPT: Final = 20  # attempts whose late uploads are still accepted


def _interned(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(once, words))


@attrs.frozen
class Pinned:
    """The image's files as they were at submit (docs/wire.md#files); URL paths, or whole URLs."""

    kernel: str = attrs.field(converter=once)  # many jobs share them
    initrds: tuple[str, ...] = attrs.field(converter=_interned)
    root: str = attrs.field(converter=once)
    kernel_version: str = attrs.field(converter=once)
    packages: tuple[str, ...] = ()  # initrds after job.cgz: the files that pkg_data names
    deps: tuple[str, ...] = ()  # needed by its programs; see boot/images/catalogue
    pkgs: tuple[str, ...] = ()


@functools.lru_cache(KINDS_MAX)
def _first_equal(pinned: Pinned) -> Pinned:
    return pinned


def _shared(pinned: Pinned) -> Pinned:
    return _first_equal(pinned)


@functools.lru_cache(KINDS_MAX)
def _needs(
    queue: str, platform: str, priority: int, submitter: str, tags: tuple[str, ...]
) -> Needs:
    return Needs((queue, platform), priority, submitter, frozenset(tags))


@attrs.frozen
class Moment:
    """One line of a job's history."""

    at: float
    stage: str
    what: str
    box: str | None = None
    attempt: int | None = None


@attrs.frozen
class Node:
    """What the node of a cluster has reported about itself (see `cluster`)."""

    attempt: int  # the attempt that reported it
    state: str = ""  # start, ready, finish or abort
    ready: bool = False  # whether it has been ready, also after later states
    roles: tuple[str, ...] = ()
    ip: str = ""
    direct_macs: tuple[str, ...] = ()
    direct_ips: tuple[str, ...] = ()


@attrs.frozen
class Job:
    """One job; its state moves only through `jobs.job.advance`."""

    id: str
    number: int
    name: str = attrs.field(converter=once)  # the name of the document's file
    document: Document
    submitter: str = attrs.field(converter=once)
    key: str  # chosen by the client, so that a repeated submit finds the same job
    submitted: float
    pinned: Pinned = attrs.field(converter=_shared)
    result_root: str  # "/result/..."; on disk under srv
    state: State = attrs.field(factory=Queued)
    finished: float | None = None
    history: tuple[Moment, ...] = ()
    attempts: tuple[Attempt, ...] = ()  # the newest ATTEMPTS_KEPT, each in its last form
    kept: bool = False  # whether a person keeps its results for good
    swept: float | None = None  # when its results were removed
    forgotten: int = 0  # moments dropped from its history
    node: Node | None = None  # its state in a cluster

    @property
    def moments(self) -> int:
        """The number of moments so far, including those dropped from the history."""
        return self.forgotten + len(self.history)

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way, or the last one of a finished job."""
        return jobs.attempt_of(self.state)

    @property
    def match_key(self) -> Key:
        """The key that a box must serve to run the job."""
        return self.needs.key

    @property
    def needs(self) -> Needs:
        """What the job asks of a box, and whose turn it takes."""
        document = self.document
        return _needs(
            line(document.queue, document.arch),
            document.platform,
            document.priority,
            self.submitter,
            document.tags,
        )


def with_moment(job: Job, moment: Moment, **fields: Any) -> Job:
    """Returns the job with one more moment in its history, and with other `fields`."""
    history = (*job.history[-HISTORY_MAX + 1 :], moment)
    forgotten = job.moments + 1 - len(history)
    return attrs.evolve(job, history=history, forgotten=forgotten, **fields)


@attrs.frozen
class Submitted:
    """A job came in."""

    job: Job


@attrs.frozen
class Moved:
    """An event moved a job; `at` in UTC seconds."""

    job: str
    event: jobs.Event
    at: float
    what: str = ""  # a text for the job's history


@attrs.frozen
class Known:
    """A box was registered, or its hosts file changed."""

    facts: Facts
    at: float


@attrs.frozen
class Unregistered:
    """The hosts file of a box is gone: the box is unknown again."""

    box: str
    by: str
    at: float


@attrs.frozen
class Forgotten:
    """An unregistered box is dropped, since it has stopped asking."""

    box: str


@attrs.frozen
class Seen:
    """A box asked for work; `box` is its name, looked up or made from its MAC."""

    box: str
    identity: Identity
    at: float


@attrs.frozen
class Missed:
    """A box lost a boot or a job and backs off; or (until 0) it is in good standing again."""

    box: str
    until: float
    counts: bool = True  # False: does not count as one more consecutive loss


@attrs.frozen
class Stepped:
    """Something happened in a box's boot."""

    box: str
    step: Step
    job: str | None = None
    attempt: int | None = None


@attrs.frozen
class Quarantined:
    """A box was quarantined for the reason `why`, or (empty) released."""

    box: str
    why: str
    by: str
    at: float


@attrs.frozen
class Reserved:
    """A person reserved a box, or (None) the reservation was given up or ran out."""

    box: str
    reservation: Reservation | None
    by: str
    at: float


@attrs.frozen
class Clocked:
    """The clocks' readings at the start and at the end of a run (see `restart`)."""

    at: float  # UTC, as this run counts it
    boot: str  # the kernel's boot id; empty: unknown
    uptime: float  # the kernel's seconds since its boot
    step: float = 0.0  # at a start: how far the wall clock was moved since the last reading


@attrs.frozen
class Drained:
    """The lab was drained `by` a person, or (empty) resumed."""

    by: str
    at: float


@attrs.frozen
class Kept:
    """A person keeps a job's results for good, or no longer."""

    job: str
    on: bool
    by: str
    at: float


@attrs.frozen
class Swept:
    """A job's results were removed."""

    job: str
    at: float


@attrs.frozen
class Lacking:
    """An upload of a finished attempt was refused, so some of its results are missing."""

    job: str
    number: int  # of the attempt
    reason: str
    at: float


@attrs.frozen
class Filed:
    """The archive has these jobs' document bodies; memory need not hold them."""

    jobs: tuple[str, ...]


@attrs.frozen
class Archived:
    """The archive has these finished jobs; memory need not hold them."""

    jobs: tuple[str, ...]


@attrs.frozen
class Synced:
    """The node of a cluster reported its state."""

    job: str
    node: Node


def moved(job: Job, change: Moved) -> Job:
    """Returns the job after its event.  Raises IllegalMove if the job cannot take it."""
    state = jobs.advance(job.state, change.event, job.document.rules)
    attempt = jobs.attempt_of(state) or jobs.attempt_of(job.state)
    attempts = job.attempts
    if attempt is not None:
        earlier = tuple(past for past in attempts if past.number != attempt.number)
        attempts = (*earlier[-ATTEMPTS_KEPT + 1 :], attempt)
    finished = change.at if isinstance(state, Finished) else None
    stage = jobs.stage(state)
    if stage == jobs.stage(job.state) and not change.what:
        return attrs.evolve(job, state=state, finished=finished, attempts=attempts)
    what = change.what or (state.reason if isinstance(state, Finished) else "")
    box, number = (attempt.box, attempt.number) if attempt else (None, None)
    moment = Moment(change.at, stage, what, box, number)
    return with_moment(job, moment, state=state, finished=finished, attempts=attempts)


def marked(job: Job, change: Mark) -> Job:
    """Returns the job after a change that is not a move."""
    match change:
        case Lacking(_, number, reason, at):
            attempts = tuple(
                attrs.evolve(past, refused=reason) if past.number == number else past
                for past in job.attempts
            )
            what = f"upload refused: {reason}"
            moment = Moment(at, jobs.stage(job.state), what, attempt=number)
            return with_moment(job, moment, attempts=attempts)
        case Kept(_, on, by, at):
            moment = Moment(at, "finish", f"results {'kept' if on else 'let go'} by {by}")
            return with_moment(job, moment, kept=on)
        case Swept(_, at):
            return with_moment(job, Moment(at, "finish", "results removed"), swept=at)


Mark = Kept | Swept | Lacking
Change = (
    Submitted | Moved | Known | Seen | Missed | Stepped | Quarantined | Reserved | Drained
    | Kept | Swept | Filed | Archived | Unregistered | Forgotten
    | Synced | Lacking | Clocked
)  # fmt: skip


def moment_of(change: Change) -> float | None:
    """Returns the time of the change; None for kinds that have none."""
    match change:
        case Submitted(job):
            return job.submitted
        case Stepped(_, step):
            return step.at
        case Missed() | Forgotten() | Filed() | Archived() | Synced():
            return None
    return change.at
