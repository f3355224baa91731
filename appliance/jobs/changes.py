"""Pure: no clock, no socket, no await.

What the store holds of a job, and every change that there can be: what the journal keeps.
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

# Images, and kinds of needs, that are kept once for all jobs that share them; a few hundred bytes
# each.  A hundred thousand waiting jobs are of some hundred kinds.
KINDS_MAX: Final = 10_000
HISTORY_MAX: Final = 200  # moments kept of one job; ten attempts make about sixty
RESTARTED: Final = "the server restarted"  # in a job's history: its attempt began anew
ATTEMPTS_KEPT: Final = 20  # whose late uploads are still taken


def _interned(words: Iterable[str]) -> tuple[str, ...]:
    return tuple(map(once, words))


@attrs.frozen
class Pinned:
    """The image's files as they were at submit (docs/wire.md#files); URL paths, or whole URLs."""

    kernel: str = attrs.field(converter=once)  # many jobs share them
    initrds: tuple[str, ...] = attrs.field(converter=_interned)
    root: str = attrs.field(converter=once)
    kernel_version: str = attrs.field(converter=once)
    packages: tuple[str, ...] = ()  # behind job.cgz: what its pkg_data names
    deps: tuple[str, ...] = ()  # of its programs; see boot/images/catalogue
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
    """What the node of a cluster has said of itself (see `cluster`)."""

    attempt: int  # that said it
    state: str = ""  # start, ready, finish or abort
    ready: bool = False  # it has said so, whatever it said then
    roles: tuple[str, ...] = ()
    ip: str = ""
    direct_macs: tuple[str, ...] = ()
    direct_ips: tuple[str, ...] = ()


@attrs.frozen
class Job:
    """One job; its state moves only through `jobs.job.advance`."""

    id: str
    number: int
    name: str = attrs.field(converter=once)  # of the document's file
    document: Document
    submitter: str = attrs.field(converter=once)
    key: str  # the client's own, so that a repeat finds the same job
    submitted: float
    pinned: Pinned = attrs.field(converter=_shared)
    result_root: str  # "/result/..."; on disk under srv
    state: State = attrs.field(factory=Queued)
    finished: float | None = None
    history: tuple[Moment, ...] = ()
    attempts: tuple[Attempt, ...] = ()  # the newest ATTEMPTS_KEPT, as they were last
    kept: bool = False  # a person wants its results for good
    swept: float | None = None  # when its results were removed
    forgotten: int = 0  # moments that its history had no room for
    node: Node | None = None  # of a cluster

    @property
    def moments(self) -> int:
        """How many there have been, whether its history still has them or not."""
        return self.forgotten + len(self.history)

    @property
    def attempt(self) -> Attempt | None:
        """The attempt under way, or the last one of a finished job."""
        return jobs.attempt_of(self.state)

    @property
    def match_key(self) -> Key:
        """What a box must serve to run it."""
        return self.needs.key

    @property
    def needs(self) -> Needs:
        """What it asks of a box, and whose turn it takes."""
        document = self.document
        return _needs(
            line(document.queue, document.arch),
            document.platform,
            document.priority,
            self.submitter,
            document.tags,
        )


def with_moment(job: Job, moment: Moment, **fields: Any) -> Job:
    """The job with one moment more, and other fields."""
    history = (*job.history[-HISTORY_MAX + 1 :], moment)
    forgotten = job.moments + 1 - len(history)
    return attrs.evolve(job, history=history, forgotten=forgotten, **fields)


@attrs.frozen
class Submitted:
    """A job came in."""

    job: Job


@attrs.frozen
class Moved:
    """A job took an event; `at` in UTC seconds."""

    job: str
    event: jobs.Event
    at: float
    what: str = ""  # for its history


@attrs.frozen
class Known:
    """A hosts file says who a box is."""

    facts: Facts
    at: float


@attrs.frozen
class Unregistered:
    """Its hosts file is gone: a box is unknown again."""

    box: str
    by: str
    at: float


@attrs.frozen
class Forgotten:
    """A box that nobody registered asks no more."""

    box: str


@attrs.frozen
class Seen:
    """A box asked for work; `box` is its name, found or made from its MAC."""

    box: str
    identity: Identity
    at: float


@attrs.frozen
class Missed:
    """A box lost a boot or a job, and rests; or (until 0) it proved well again."""

    box: str
    until: float
    counts: bool = True  # False: the row of what it lost is no longer for it


@attrs.frozen
class Stepped:
    """Something happened in a box's boot."""

    box: str
    step: Step
    job: str | None = None
    attempt: int | None = None


@attrs.frozen
class Quarantined:
    """A box gets no job any more, for the reason `why`; empty: it was released."""

    box: str
    why: str
    by: str
    at: float


@attrs.frozen
class Reserved:
    """A person keeps a box, or (None) lets it go, or its time is up."""

    box: str
    reservation: Reservation | None
    by: str
    at: float


@attrs.frozen
class Clocked:
    """What the clocks of a run said at its start, and at its end (see `restart`)."""

    at: float  # UTC, as this run counts it
    boot: str  # which boot of the kernel; empty: nobody knows
    uptime: float  # the kernel's seconds since then
    step: float = 0.0  # at a start: by how much the wall was moved since what is known before


@attrs.frozen
class Drained:
    """No job is given out any more, or (empty) again; `by` whom."""

    by: str
    at: float


@attrs.frozen
class Kept:
    """A person wants a job's results for good, or no longer."""

    job: str
    on: bool
    by: str
    at: float


@attrs.frozen
class Swept:
    """A job's results are removed."""

    job: str
    at: float


@attrs.frozen
class Lacking:
    """A result of an attempt that is over was not taken, so what is there of it is not all."""

    job: str
    number: int  # of the attempt
    reason: str
    at: float


@attrs.frozen
class Filed:
    """The archive has the bodies of these jobs' documents; memory need not hold them."""

    jobs: tuple[str, ...]


@attrs.frozen
class Archived:
    """The archive has these jobs, which are over; memory need not hold them."""

    jobs: tuple[str, ...]


@attrs.frozen
class Synced:
    """The node of a cluster said how far it is."""

    job: str
    node: Node


def moved(job: Job, change: Moved) -> Job:
    """The job after its event.  Raises IllegalMove where the table says so."""
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
    """What becomes of a job without a move."""
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
    """When it was made, where it says so."""
    match change:
        case Submitted(job):
            return job.submitted
        case Stepped(_, step):
            return step.at
        case Missed() | Forgotten() | Filed() | Archived() | Synced():
            return None
    return change.at
