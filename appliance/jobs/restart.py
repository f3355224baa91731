"""Pure: no clock, no socket, no await.

What a start makes of the attempts that it finds, whatever the wall clock did since the last one.

Deadlines are kept in UTC, so a clock that was moved between two runs would move them all.  Within
one boot of the kernel its own count of seconds says what has passed, exactly: deadlines move along
with the wall.  Over a reboot nothing says how long the machine was off but the clock in question:
that time is not counted, so what runs keeps what it had left when the journal last heard of
anything.  Offers and boots begin anew either way.
"""

from __future__ import annotations

from typing import Final

import attrs

from appliance.config import Waits
from appliance.jobs import job as jobs
from appliance.jobs.changes import RESTARTED, Change, Clocked, Job, Moved
from appliance.jobs.decisions import waits_of
from appliance.jobs.job import Booting, Held, Offered, PostRun, Running
from appliance.jobs.store import Store

# A box whose job's time was over while nobody listened may still say how it went: built-in clients
# ask again after thirty seconds.
GRACE_S: Final = 60.0
SAME_S: Final = 1.0  # clocks that differ by less are one: nobody's deadline moves
STEP_S: Final = 60.0  # a clock that was moved by more is told of: minutes mean another time of day


@attrs.frozen
class Gap:
    """What lies between the last that is known of a run and the next start."""

    step: float  # by how much the wall was moved, as far as that is known
    shift: float | None  # what the deadlines of what runs move by; None: nothing is known


def gap(store: Store, now: Clocked) -> Gap:
    """What the clocks of then and now say together."""
    last = store.clocked
    if last is None:
        return Gap(0.0, None)
    passed = now.uptime - last.uptime
    if now.boot and now.boot == last.boot and passed >= 0:
        step = now.at - (last.at + passed)
        step = step if abs(step) >= SAME_S else 0.0
        return Gap(step, step)
    off = now.at - store.moment
    return Gap(min(off, 0.0), off)


def restarted(store: Store, now: Clocked, waits: Waits) -> list[Change]:
    """What a start does to what it finds; `now` is what its clocks say."""
    found = gap(store, now)
    changes: list[Change] = [attrs.evolve(now, step=found.step)]
    for job in store.active():
        assert job.attempt is not None
        until, began = rearmed(job, now.at, waits, found.shift), job.attempt.began
        if isinstance(job.state, Offered | Booting):
            began = now.at  # by the wall of this run, with which bytes are compared
        if (until, began) != (_until(job), job.attempt.began):
            renew = jobs.Renew(until, began=began if began == now.at else None)
            changes.append(Moved(job.id, renew, now.at, RESTARTED))
    return changes


def rearmed(job: Job, now: float, waits: Waits, shift: float | None = None) -> float:
    """When the job's stage is over, after a restart: what it had left, and a moment at least."""
    state, waits = job.state, waits_of(job, waits)
    if isinstance(state, Offered):
        return now + waits.offer_lease
    if isinstance(state, Booting):
        return now + (waits.boot if state.loaded else waits.offer_lease)
    assert isinstance(state, Running | PostRun | Held)
    length = job.document.run_s if isinstance(state, Running) else waits.post_run
    if isinstance(state, Held):
        length = waits.manual_check
    length = length if state.length is None else state.length
    left = state.until + (shift or 0.0) - now
    if shift is None and left <= 0:  # of an earlier version: it may as well be the clock
        left = length
    return now + min(max(left, GRACE_S), length)


def _until(job: Job) -> float:
    assert isinstance(job.state, Offered | Booting | Running | PostRun | Held)
    return job.state.until


def told(seconds: float) -> str:
    """How far a clock was moved, for people; empty where that is nothing."""
    if abs(seconds) < STEP_S:
        return ""
    size, unit = next(
        (abs(seconds) / length, word)
        for length, word in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
        if abs(seconds) >= length
    )
    return f"the clock went {'forward' if seconds > 0 else 'back'} by {size:.0f} {unit}"


def wrong(store: Store, drift: float) -> list[str]:
    """What an operator should know of the clock: it was moved before this start, or since."""
    found = []
    if store.clocked is not None and (text := told(store.clocked.step)):
        found.append(f"{text} before this start: no deadline moved; see that it is right now")
    if text := told(drift):
        found.append(f"{text} since this start: times are shown by the old one until a restart")
    return found
