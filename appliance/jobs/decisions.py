"""Pure: no clock, no socket, no await.

What follows from an event: each function looks at the store and returns the changes to make.
Nothing is changed here.  `now` is UTC in seconds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final

import attrs

from appliance.config import Waits
from appliance.errors import BadRequest, Refused
from appliance.jobs import job as jobs
from appliance.jobs import misses, places
from appliance.jobs.box import DETAIL_MAX, STRANGER, Box, Facts, Identity, Step, present_for
from appliance.jobs.changes import (
    Change,
    Forgotten,
    Job,
    Known,
    Lacking,
    Moved,
    Seen,
    Stepped,
)
from appliance.jobs.documents.document import LOCAL, Document
from appliance.jobs.job import Attempt, Booting, Finished, Held, Offered, PostRun, Running
from appliance.jobs.store import Store

# Reports whose word is a stage; any other word is a verdict (docs/wire.md#reports).
HOLD_WORDS: Final = ("manual_check", "renew")
# The root is copied to the box's own disk first (docs/wire.md#stages-and-deadlines).
LOCAL_BOOT_S: Final = 3600.0
HOLD_SECONDS: Final = 3600.0  # length of a stage with the job's own word, such as on_fail
# The longest loan of a box (docs/wire.md#stages-and-deadlines).
BORROW_MAX_S: Final = 30 * 86400.0
PP_CHARACTERS_MAX: Final = 40  # of program parameters in a result root (docs/wire.md#uploads)


def asked(
    store: Store,
    who: Identity,
    now: float,
    waits: Waits,
    unknown_max: int,
    *,
    untold: bool = False,
    excused: bool = False,
) -> list[Change]:
    """Handles a box's request for work: it has rebooted and lost its job (DESIGN.md#a-jobs-life).

    `untold`: the box never got the script of the job offered to it, so the job is not lost but goes
    back to its queue.  `excused`: that was not the box's fault: we had sent it back by then, or its
    host lacks memory.

    If the box is unknown and there are `unknown_max` unknown boxes already, the one silent for
    longest is dropped; raises Refused if that one, too, asked lately.
    """
    box = store.box_of(who)
    changes: list[Change] = []
    if box is None:
        strangers = [other for other in store.boxes.values() if other.name.startswith(STRANGER)]
        if len(strangers) >= unknown_max:
            oldest = min(strangers, key=lambda other: other.asked)
            if oldest.asked > now - present_for(waits.park):
                raise Refused(f"{unknown_max} unknown boxes are waiting already; see `hosts`")
            changes.append(Forgotten(oldest.name))
        return [*changes, Seen(STRANGER + who.mac.replace(":", "-"), who, now)]
    job = store.job(box.job) if box.job is not None else None
    if job is not None and untold and isinstance(job.state, Offered):
        number = job.state.attempt.number
        changes += undelivered(store, job.id, number, now, waits, excused=excused)
    elif job is not None:
        event = jobs.Asked(now + waits_of(job, waits).return_to_lobby, now)
        changes += lost(store, job, event, now, waits)
    return [*changes, Seen(box.name, who, now)]


def lost(
    store: Store, job: Job, event: jobs.Asked | jobs.Lapse, now: float, waits: Waits
) -> list[Change]:
    """Ends an attempt that the box never closed."""
    missed = misses.after(store, job, event, now, waits)
    return [Moved(job.id, event, now, _why(event)), *missed]


def _why(event: jobs.Asked | jobs.Lapse) -> str:
    return event.reason if isinstance(event, jobs.Lapse) else "its testbox asked again"


def is_offered(store: Store, job_id: str, number: int) -> bool:
    """Tells whether attempt `number` of the job is still only an offer."""
    state = store.jobs[job_id].state if job_id in store.jobs else None
    return isinstance(state, Offered) and state.attempt.number == number


def undelivered(
    store: Store, job_id: str, number: int, now: float, waits: Waits, *, excused: bool = False
) -> list[Change]:
    """Puts the job back into its queue: the box left before its script was sent.

    `excused`: that was not the box's fault: we had ended its wait, or its host lacks memory.
    """
    if not is_offered(store, job_id, number):
        return []
    event = jobs.Undelivered()
    moved = Moved(job_id, event, now, "the box left before it was told")
    if excused:
        return [moved]
    return [moved, *misses.after(store, store.jobs[job_id], event, now, waits)]


def offers(
    store: Store,
    pairs: Iterable[tuple[str, str]],
    now: float,
    waits: Waits,
    token: Callable[[], str],
) -> list[Moved]:
    """Offers each pair's job to its box, as a lease."""
    return [
        Moved(
            job_id,
            jobs.Offer(_attempt(store, box, job_id, now, token()), now + waits.offer_lease),
            now,
        )
        for box, job_id in pairs
    ]


def _attempt(store: Store, box_name: str, job_id: str, now: float, token: str) -> Attempt:
    job, box = store.job(job_id), store.box(box_name)
    assert isinstance(job.state, jobs.Queued)
    assert box.address is not None
    queued = job.state
    usual = {"boot": LOCAL_BOOT_S} if job.document.os_mount == LOCAL else {}
    own = box.facts.deadlines if box.facts is not None else {}
    return Attempt(
        queued.tries + 1,
        token,
        box_name,
        box.address,
        now,
        queued.losses,
        queued.avoid,
        queued.lost_by,
        runs_lost=queued.runs_lost,
        deadlines={**usual, **own, **job.document.deadlines},
    )


def waits_of(job: Job, waits: Waits) -> Waits:
    """Returns the lab's waits, overridden by the attempt's host and document."""
    own = job.attempt.deadlines if job.attempt is not None else None
    return attrs.evolve(waits, **own) if own else waits


def fetched_job(store: Store, job: Job, now: float, waits: Waits) -> list[Change]:
    """Turns the offer into a boot: the box has fetched job.cgz."""
    if isinstance(job.state, Offered | Booting) and not jobs.is_loaded(job.state):
        return [Moved(job.id, jobs.Fetch(_boot_until(job, now, waits.offer_lease, waits)), now)]
    return []


def loaded(store: Store, job: Job, now: float, waits: Waits) -> list[Change]:
    """Notes that the box has every file of its script."""
    if not isinstance(job.state, Booting) or job.state.loaded:
        return []
    until = _boot_until(job, now, waits_of(job, waits).boot, waits)
    return [Moved(job.id, jobs.Load(until), now)]


def _boot_until(job: Job, now: float, stage_s: float, waits: Waits) -> float:
    assert job.attempt is not None
    return min(now + stage_s, job.attempt.began + waits_of(job, waits).boot_max)


def due(
    store: Store, names: Iterable[str], moved: Mapping[str, float], now: float, waits: Waits
) -> list[Change]:
    """Ends the attempts of the named jobs whose time is up; each job must have one under way.

    `moved` maps a box to when it last fetched a byte, which renews the lease while files load.
    """
    changes: list[Change] = []
    for job in [store.jobs[name] for name in names]:
        if deadline(job, moved, waits) <= now:
            reason = f"nothing heard in stage {jobs.stage(job.state)}"
            if isinstance(job.state, Running):
                reason = "its time to run was over"
            changes += lost(store, job, jobs.Lapse(reason), now, waits)
    return changes


def deadline(job: Job, moved: Mapping[str, float], waits: Waits) -> float:
    """Returns when the job's stage ends; bytes fetched meanwhile extend it (see `due`)."""
    state = job.state
    assert isinstance(state, Offered | Booting | Running | PostRun | Held)
    attempt = state.attempt
    heard = moved.get(attempt.box, 0.0)
    if isinstance(state, Offered | Booting) and heard > attempt.began:
        waits = waits_of(job, waits)
        quiet = waits.boot if jobs.is_loaded(job.state) else waits.offer_lease
        return min(max(state.until, heard + quiet), attempt.began + waits.boot_max)
    return state.until


def reported(job: Job, word: str, now: float, waits: Waits) -> list[Change]:
    """Handles `job_state=<word>` from the job's current attempt.  Raises IllegalMove if late."""
    waits = waits_of(job, waits)
    event: jobs.Event
    if word == "running":
        event = jobs.Begin(now + job.document.run_s)
    elif word == "post_run":
        event = jobs.Wrap(now + waits.post_run)
    elif word in HOLD_WORDS:
        event = jobs.Hold(now + waits.manual_check, word)
    elif word in ("submit", "boot", "finish"):
        return []
    else:
        event = jobs.Verdict(word)
    return [_legal(job, Moved(job.id, event, now))]


def staged(job: Job, word: str, seconds: float, now: float, waits: Waits) -> list[Change]:
    """Handles set-job-stage: the stage `word` for `seconds` (0: as long as it usually may last).

    Raises IllegalMove.
    """
    waits, length = waits_of(job, waits), seconds or None
    event: jobs.Event
    if word == "running":
        event = jobs.Begin(now + (seconds or job.document.run_s), length)
    elif word == "post_run":
        event = jobs.Wrap(now + (seconds or waits.post_run), length)
    elif word in ("submit", "offered", "boot", "finish"):  # a box may not set these
        return []
    else:
        usual = waits.manual_check if word in HOLD_WORDS else HOLD_SECONDS
        event = jobs.Hold(now + (seconds or usual), word, seconds or usual)
    return [_legal(job, Moved(job.id, event, now))]


def closed(store: Store, job: Job, health: str | None, now: float, waits: Waits) -> list[Change]:
    """Handles lkp-post-run, which closes the job.  Raises IllegalMove if it is over already."""
    event = jobs.Close(health)
    moved = _legal(job, Moved(job.id, event, now))
    return [moved, *misses.after(store, job, event, now, waits)]


def refused_upload(job: Job, number: int, reason: str, now: float) -> list[Moved | Lacking]:
    """Records, once per attempt, that an upload of attempt `number` was refused.

    An attempt under way can no longer end as success; a finished one keeps its health, and the
    refusal is noted with it.
    """
    attempt = next((past for past in job.attempts if past.number == number), None)
    if attempt is None or attempt.refused is not None:
        return []
    if not is_current(job, attempt):
        return [Lacking(job.id, number, reason, now)]
    return [Moved(job.id, jobs.RefuseUpload(reason), now, f"upload refused: {reason}")]


def may_upload(store: Store, job: Job, attempt: Attempt, *, host: bool = False) -> bool:
    """Tells whether the attempt's box holds `attempt`, or held it last and has not asked since.

    Late results of an older attempt are accepted, but not from a box that runs something else by
    now, even another attempt of the same job.  A `host` of virtual boxes may upload for both.
    """
    box = store.box(attempt.box)
    if box.job == job.id and (host or is_current(job, attempt)):
        return True
    boot = box.boot
    return boot is not None and boot.job == job.id and boot.attempt == attempt.number


def failed(job: Job, health: str, reason: str, now: float) -> list[Moved]:
    """Ends a job that no box can boot."""
    if isinstance(job.state, jobs.Queued | Offered | Booting):
        return [Moved(job.id, jobs.Fail(health, reason), now)]
    return []


def unbootable(store: Store, job: Job, reason: str, now: float, waits: Waits) -> list[Change]:
    """Like failed(), but also counts against the box that holds the job.

    So the box backs off before it meets another such job.
    """
    changes = failed(job, "incomplete", reason, now)
    missed = [misses.after(store, job, change.event, now, waits) for change in changes]
    return [*changes, *itertools.chain(*missed)]


def cancelled(job: Job, by: str, now: float) -> list[Change]:
    """Cancels a job.  Raises Refused if it is over."""
    if isinstance(job.state, Finished):
        raise Refused(f"{job.id} is over already: {job.state.health}")
    return [Moved(job.id, jobs.Cancel(by), now)]


def _legal(job: Job, moved: Moved) -> Moved:
    """Returns `moved`.  Raises IllegalMove if the job cannot take it."""
    jobs.advance(job.state, moved.event, job.document.rules)
    return moved


def registered(store: Store, facts: Facts, now: float) -> list[Change]:
    """Registers a box by its hosts file.  Raises Refused if another known box has a MAC of it."""
    for mac in facts.macs:
        other = store.box_of(Identity(mac, ""))
        if other is not None and other.known and other.name != facts.name:
            raise Refused(f"{facts.name}: {mac} belongs to {other.name} already")
    return [Known(facts, now)]


def step(
    box: Box,
    now: float,
    what: str,
    detail: str = "",
    size: int | None = None,
    seconds: float | None = None,
    job: Job | None = None,
) -> Stepped:
    """Returns a step to record in the box's current boot."""
    number = job.attempt.number if job and job.attempt else None
    moment = Step(round(now, 3), what, detail[:DETAIL_MAX], size, seconds)
    return Stepped(box.name, moment, job.id if job else None, number)


def told(box: Box, now: float, what: str, detail: str, job: Job, attempt: Attempt) -> Stepped:
    """Returns a report of `attempt` as a step of the current boot; a late one without its job."""
    return step(box, now, what, detail, job=job if is_current(job, attempt) else None)


def is_current(job: Job, attempt: Attempt) -> bool:
    """Tells whether `attempt` is the job's attempt under way."""
    if isinstance(job.state, Finished) or job.attempt is None:
        return False
    return job.attempt.number == attempt.number


def iso(moment: float) -> str:
    """Formats a moment as the field does, in UTC with +0000 (docs/wire.md#ids-and-times)."""
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")


def result_root(document: Document, job_id: str, now: float) -> str:
    """Returns the path of a job's results (docs/wire.md#uploads); on disk it lies under srv."""
    day = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%d")
    system = f"{document.os}-{document.os_version}-{document.arch}"
    parameters = _parameters(document.body.fields.get("pp") if document.body else None)
    parameters = places.no_job(parameters, job_id)
    parts = [document.suite, day, document.group, system, parameters, job_id]
    return "/result/" + "/".join(part for part in parts if part)


def _parameters(pp: Any) -> str:
    if not isinstance(pp, dict):
        return ""
    flat: dict[str, str] = {}
    for program, options in pp.items():
        for option, value in (options if isinstance(options, dict) else {"": options}).items():
            flat[f"{program}.{option}"] = _sane(value)
    text = ""
    for _, value in sorted(flat.items()):
        if value:
            text += ("-" if text else "") + value[: PP_CHARACTERS_MAX - len(text.replace("-", ""))]
    return text[: 2 * PP_CHARACTERS_MAX].strip(".")


def _sane(value: Any) -> str:
    text = "" if value is None else str(value).replace("/", "-")
    return "".join(c for c in text if c.isascii() and (c.isalnum() or c in "_-."))


def attempt_root(job: Job, number: int) -> str:
    """Returns the path of the results of attempt `number` (docs/wire.md#uploads)."""
    return places.attempt_root(job.result_root, number)


def renewed(job: Job, seconds: float, now: float) -> list[Change]:
    """Gives a running job more time (docs/wire.md#stages-and-deadlines).

    Raises Refused if the job does not run, or would exceed the longest loan of a box; BadRequest
    if `seconds` is not a positive number.
    """
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadRequest("seconds: must be a number of seconds, more than 0")
    if not isinstance(job.state, Running | Held):
        raise Refused(f"Only running job can renew, your job stage is: {jobs.stage(job.state)}")
    until = job.state.until + seconds
    if until > now + BORROW_MAX_S:
        raise Refused(f"nobody borrows for longer than {BORROW_MAX_S / 86400:.0f} days")
    renew = jobs.Renew(until, length=until - now)
    return [Moved(job.id, renew, now, f"renewed by {seconds:.0f} s")]
