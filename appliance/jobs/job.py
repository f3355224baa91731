"""Pure: no clock, no socket, no await.

A job's states, its events and the legal moves between them.  Every change of a job's state goes
through `advance`; a move that is not in its table raises IllegalMove and changes nothing.

    Queued -> Offered -> Booting -> Running -> PostRun -> Finished
       ^---------'----------'          '--- Held (manual_check, renew, on_fail) ---^

An attempt is one try of the job on one testbox.  A box that falls silent, or that asks for work
again (it has rebooted), loses its attempt.  The stage decides what follows (DESIGN.md#a-jobs-life):

* before every file of the script was fetched: nobody's fault; the job goes back to its queue;
* after that, before the first report: one more attempt, then `boot_failed`; with a kernel of the
  submitter's own, `boot_failed` at once;
* while running: `timeout` if the deadline passed, else `abnormal`; an `abnormal` job is run
  again only if its document says so, and ends when RUNS_LOST_MAX runs are lost;
* after the verdict, or during the upload of results: closed with the verdict and results so far;
* lost by BOXES_MAX different boxes, at any stage: the job is at fault, and ends.

Moments are UTC seconds.  The store computes each `until`; this file only carries it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, assert_never

import attrs

from appliance.errors import IllegalMove

# One more attempt after a boot that was lost with everything fetched (DESIGN.md#a-jobs-life).
BOOT_LOSSES_MAX: Final = 2

# The lost runs after which a job with `retry: true` ends: it may crash every box it gets.
RUNS_LOST_MAX: Final = 5
# A job that so many testboxes have lost is not handed out again (DESIGN.md#a-jobs-life).
BOXES_MAX: Final = 10

SUCCESS: Final = "success"


@attrs.frozen
class Rules:
    """What a document says about being run again."""

    retry: bool = False  # run again after `abnormal`
    reboots: int = 0  # times the job may restart its own box within one attempt
    own_kernel: bool = False  # the submitter's kernel: a lost boot is the job's fault


@attrs.frozen
class Attempt:
    """One try of a job on one testbox."""

    number: int  # 1, 2, ...: never reused
    token: str  # the fence: reports carry it in HTTP_PREFIX
    box: str
    address: str  # the box asked from here; its fetches and uploads must come from here too
    began: float  # start of the boot under way; a job that restarts its box begins another
    losses: int = 0  # earlier boots lost with everything fetched
    avoid: tuple[str, ...] = ()  # the boxes that lost such boots, or runs
    lost_by: tuple[str, ...] = ()  # all boxes that lost the job, at any stage; each once
    reboots: int = 0  # times the job has restarted its box so far
    runs_lost: int = 0  # earlier attempts lost while running
    deadlines: Mapping[str, float] = attrs.field(factory=dict)  # seconds; override the lab's waits
    health: str | None = None  # the client's verdict; the first one stands
    refused: str | None = None  # why an upload was refused; such a job never ends as success


@attrs.frozen
class Queued:
    """Waits for a testbox."""

    tries: int = 0  # attempts given out so far
    losses: int = 0
    avoid: tuple[str, ...] = ()  # boxes that lost it: they get it only if no other box can
    lost_by: tuple[str, ...] = ()
    runs_lost: int = 0


@attrs.frozen
class Offered:
    """Named in a boot script; the box has not fetched job.cgz yet."""

    attempt: Attempt
    until: float


@attrs.frozen
class Booting:
    """The box has job.cgz.  `loaded`: it has every file of its script."""

    attempt: Attempt
    until: float
    loaded: bool = False


@attrs.frozen
class Running:
    """The box has reported job_state=running."""

    attempt: Attempt
    until: float
    length: float | None = None  # seconds granted for the stage; None: its usual length


@attrs.frozen
class PostRun:
    """The job's own work is over; results are on their way."""

    attempt: Attempt
    until: float
    length: float | None = None  # as with Running


@attrs.frozen
class Held:
    """Kept on its box for a person: `word` is manual_check, renew or set-job-stage's word."""

    attempt: Attempt
    until: float
    word: str
    length: float | None = None  # as with Running


@attrs.frozen
class Finished:
    """The job is over for good."""

    health: str
    reason: str
    attempt: Attempt | None


State = Queued | Offered | Booting | Running | PostRun | Held | Finished
Active = Offered | Booting | Running | PostRun | Held


@attrs.frozen
class Offer:
    """The scheduler names the job in a box's script."""

    attempt: Attempt
    until: float


@attrs.frozen
class Fetch:
    """The box fetched job.cgz."""

    until: float


@attrs.frozen
class Load:
    """The box has every file of its script."""

    until: float


@attrs.frozen
class Renew:
    """More time in the same stage: somebody asked for it, or the server restarted."""

    until: float
    length: float | None = None  # seconds, as granted: a restart leaves at most this
    began: float | None = None  # at a restart: the new start of an offer or boot


@attrs.frozen
class Begin:
    """job_state=running."""

    until: float
    length: float | None = None  # seconds, where the reporter says so


@attrs.frozen
class Wrap:
    """job_state=post_run."""

    until: float
    length: float | None = None  # seconds, where the reporter says so


@attrs.frozen
class Hold:
    """job_state=manual_check or renew, or set-job-stage with any word."""

    until: float
    word: str
    length: float | None = None  # seconds, where the reporter says so


@attrs.frozen
class Verdict:
    """The client's verdict on the job; `finished` means success."""

    health: str


@attrs.frozen
class RefuseUpload:
    """An upload was refused for lack of quota or space."""

    reason: str


@attrs.frozen
class Close:
    """lkp-post-run: the client has nothing more to say."""

    health: str | None = None


@attrs.frozen
class Lapse:
    """The deadline passed without a word from the box."""

    reason: str


@attrs.frozen
class Undelivered:
    """The script that names the job never reached its box: nothing has happened yet."""


@attrs.frozen
class Asked:
    """The box asks for work again, so it has rebooted."""

    until: float  # deadline of the attempt's next offer, if the document allows reboots
    at: float  # when the box asked


@attrs.frozen
class Fail:
    """No box can boot the job: its image is gone, or its script would not fit."""

    health: str
    reason: str


@attrs.frozen
class Cancel:
    """A person cancelled the job."""

    by: str


Event = (
    Offer | Fetch | Load | Renew | Begin | Wrap | Hold | Verdict
    | RefuseUpload | Close | Lapse | Undelivered | Asked | Fail | Cancel
)  # fmt: skip


def advance(state: State, event: Event, rules: Rules) -> State:
    """Returns the state after `event`.  Raises IllegalMove for a pair not in the table."""
    match state, event:
        case Queued(tries), Offer(attempt, until) if attempt.number == tries + 1:
            return Offered(attempt, until)
        case Queued(), Fail(health, reason):
            return Finished(health, reason, None)
        case Queued(), Cancel(by):
            return Finished("cancel", f"cancelled by {by}", None)

        case Offered(attempt), Fetch(until):
            return Booting(attempt, until)
        case Booting(), Fetch(until):
            return attrs.evolve(state, until=until)  # iPXE retries a broken download
        case Booting(loaded=False), Load(until):
            return attrs.evolve(state, until=until, loaded=True)
        case ((Running() | PostRun() | Held()), Renew(until, length)) if length is not None:
            return attrs.evolve(state, until=until, length=length)
        case ((Offered() | Booting()), Renew(until, _, began)) if began is not None:
            attempt = attrs.evolve(state.attempt, began=began)
            return attrs.evolve(state, until=until, attempt=attempt)
        case ((Offered() | Booting() | Running() | PostRun() | Held()), Renew(until)):
            return attrs.evolve(state, until=until)

        case Offered(attempt), Begin() | Wrap() if attempt.reboots:
            raise IllegalMove("said before it restarted its box")  # has no new job.cgz yet
        case ((Offered(attempt) | Booting(attempt) | Held(attempt)), Begin(until, length)):
            return Running(attempt, until, length)
        case Running(), Begin():
            return state  # reported twice: the first deadline stands
        case (
            (Offered(attempt) | Booting(attempt) | Running(attempt) | Held(attempt)),
            Wrap(until, length),
        ):
            return PostRun(attempt, until, length)
        case PostRun(), Wrap():
            return state
        case ((Running(attempt) | PostRun(attempt) | Held(attempt)), Hold(until, word, length)):
            return Held(attempt, until, word, length)

        case ((Offered() | Booting() | Running() | PostRun() | Held()), Verdict(health)):
            return attrs.evolve(state, attempt=_judged(state.attempt, health))
        case ((Offered() | Booting() | Running() | PostRun() | Held()), RefuseUpload(reason)):
            return attrs.evolve(state, attempt=attrs.evolve(state.attempt, refused=reason))
        case ((Offered(attempt) | Booting(attempt)), Close(health)):
            return _close(_judged(attempt, health or "incomplete"), "closed before it ran")
        case ((Running(attempt) | PostRun(attempt) | Held(attempt)), Close(health)):
            return _close(_judged(attempt, health or SUCCESS), "")

        case ((Offered() | Booting() | Running() | PostRun() | Held()), Lapse(reason)):
            return _lost(state, reason, rules, health="timeout")
        case Offered(attempt), Undelivered() | Asked() if attempt.reboots:
            return state  # the job restarted its box, which may ask again until the offer lapses
        case Offered(attempt), Undelivered():
            return _queued(attempt)
        case Running(attempt), Asked(until, at) if (
            attempt.health is None and attempt.reboots < rules.reboots
        ):
            return Offered(attrs.evolve(attempt, reboots=attempt.reboots + 1, began=at), until)
        case ((Offered() | Booting() | Running() | PostRun() | Held()), Asked()):
            return _lost(state, "its testbox rebooted", rules, health="abnormal")

        case ((Offered(attempt) | Booting(attempt)), Fail(health, reason)):
            return Finished(health, reason, attempt)
        case ((Offered() | Booting() | Running() | PostRun() | Held()), Cancel(by)):
            return Finished("cancel", f"cancelled by {by}", state.attempt)
    raise IllegalMove(f"a job in stage {stage(state)} cannot take {type(event).__name__.lower()}")


def _lost(state: Active, reason: str, rules: Rules, health: str) -> Queued | Finished:
    attempt = state.attempt
    if attempt.health is not None:
        return _close(attempt, reason)
    match state:
        case Offered() | Booting() if attempt.reboots:  # the job ran, then restarted its box
            return _abnormal(attempt, reason, rules, health)
        case Offered() | Booting(loaded=False):
            return _again(attempt, reason, "boot_failed")
        case Booting():
            losses = attempt.losses + 1
            if losses >= BOOT_LOSSES_MAX:
                return Finished("boot_failed", f"{losses} boots lost: {reason}", attempt)
            if rules.own_kernel:
                return Finished("boot_failed", f"its own kernel did not boot: {reason}", attempt)
            avoid = tuple(dict.fromkeys([*attempt.avoid, attempt.box]))
            return _again(attrs.evolve(attempt, losses=losses, avoid=avoid), reason, "boot_failed")
        case Running():
            return _abnormal(attempt, reason, rules, health)
        case PostRun() | Held():
            return _close(_judged(attempt, "incomplete"), f"no verdict: {reason}")
    assert_never(state)


def _abnormal(attempt: Attempt, reason: str, rules: Rules, health: str) -> Queued | Finished:
    if not rules.retry or health != "abnormal":
        return Finished(health, reason, attempt)
    lost = attempt.runs_lost + 1
    if lost >= RUNS_LOST_MAX:
        return Finished(health, f"{lost} runs lost: {reason}", attempt)
    avoid = tuple(dict.fromkeys([*attempt.avoid, attempt.box]))
    return _again(attrs.evolve(attempt, runs_lost=lost, avoid=avoid), reason, health)


def _again(attempt: Attempt, reason: str, health: str) -> Queued | Finished:
    """Puts the job back into the queue, or ends it if too many boxes have lost it."""
    lost_by = tuple(dict.fromkeys([*attempt.lost_by, attempt.box]))
    if len(lost_by) < BOXES_MAX:
        return _queued(attrs.evolve(attempt, lost_by=lost_by))
    reason = f"quarantined: {len(lost_by)} testboxes lost it; the last: {reason}"
    return Finished(health, reason, attempt)


def _queued(attempt: Attempt) -> Queued:
    return Queued(attempt.number, attempt.losses, attempt.avoid, attempt.lost_by, attempt.runs_lost)


def _judged(attempt: Attempt, health: str) -> Attempt:
    """Sets the verdict; the first one stands, but `return` overrides it (docs/wire.md#reports)."""
    if attempt.health is not None and health != "return":
        return attempt
    return attrs.evolve(attempt, health=SUCCESS if health == "finished" else health)


def _close(attempt: Attempt, reason: str) -> Finished:
    health = attempt.health or "incomplete"
    if health == SUCCESS and attempt.refused is not None:
        return Finished("incomplete", attempt.refused, attempt)
    return Finished(health, reason, attempt)


def stage(state: State) -> str:
    """Returns the field's word (docs/wire.md#stages-and-deadlines), or "offered", which is ours."""
    match state:
        case Queued():
            return "submit"
        case Offered():
            return "offered"
        case Booting():
            return "boot"
        case Running():
            return "running"
        case PostRun():
            return "post_run"
        case Held(word=word):
            return word
        case Finished():
            return "finish"
    assert_never(state)


def is_loading(state: State) -> bool:
    """Tells whether a box is fetching the job's files."""
    return isinstance(state, Offered) or (isinstance(state, Booting) and not state.loaded)


def is_loaded(state: State) -> bool:
    """Tells whether a box has all the job's files and has not reported yet."""
    return isinstance(state, Booting) and state.loaded


def attempt_of(state: State) -> Attempt | None:
    """Returns the state's attempt; None while queued, or if the job never had one."""
    return None if isinstance(state, Queued) else state.attempt
