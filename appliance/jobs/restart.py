"""Pure: no clock, no socket, no await.

The deadlines of attempts under way after a restart of the server, even if the clock was moved.

Deadlines are kept in UTC, so a wall clock moved between two runs would shift them all.  Within
one boot of the kernel, its uptime tells exactly how much time has passed: deadlines are moved by
the same step as the wall clock.  After a reboot only the wall clock, which may be wrong, tells how
long the machine was off: that time is not counted, and a running attempt keeps the time that it had
left at the journal's last change.  Offers and boots start over either way.
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

# Extra time for a box whose deadline passed while the server was down, so that it can still report:
# built-in clients retry after thirty seconds.
GRACE_S: Final = 60.0
SAME_S: Final = 1.0  # a smaller difference between clocks is ignored: no deadline moves
STEP_S: Final = 60.0  # a larger step of the wall clock is shown to the operator


@attrs.frozen
class Gap:
    """How the wall clock moved between the last run's last reading and this start."""

    step: float  # seconds by which the wall clock was moved, as far as known
    shift: float | None  # seconds to add to the deadlines of running attempts; None: unknown


def gap(store: Store, now: Clocked) -> Gap:
    """Compares the last reading of the clocks with `now`."""
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
    """Returns the changes to make at a start; `now` is the reading of its clocks."""
    found = gap(store, now)
    changes: list[Change] = [attrs.evolve(now, step=found.step)]
    for job in store.active():
        assert job.attempt is not None
        until, began = rearmed(job, now.at, waits, found.shift), job.attempt.began
        if isinstance(job.state, Offered | Booting):
            began = now.at  # by this run's clock, which also times fetched bytes
        if (until, began) != (_until(job), job.attempt.began):
            renew = jobs.Renew(until, began=began if began == now.at else None)
            changes.append(Moved(job.id, renew, now.at, RESTARTED))
    return changes


def rearmed(job: Job, now: float, waits: Waits, shift: float | None = None) -> float:
    """Returns the end of the job's stage after a restart: its time left, but at least GRACE_S."""
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
    if shift is None and left <= 0:  # state of an earlier version: maybe just the clock moved
        left = length
    return now + min(max(left, GRACE_S), length)


def _until(job: Job) -> float:
    assert isinstance(job.state, Offered | Booting | Running | PostRun | Held)
    return job.state.until


def told(seconds: float) -> str:
    """Describes a step of the clock for people; empty below STEP_S."""
    if abs(seconds) < STEP_S:
        return ""
    size, unit = next(
        (abs(seconds) / length, word)
        for length, word in ((86400.0, "days"), (3600.0, "hours"), (60.0, "minutes"))
        if abs(seconds) >= length
    )
    return f"the clock went {'forward' if seconds > 0 else 'back'} by {size:.0f} {unit}"


def wrong(store: Store, drift: float) -> list[str]:
    """Returns the operator's warnings about the clock: moved before this start, or since."""
    found = []
    if store.clocked is not None and (text := told(store.clocked.step)):
        found.append(f"{text} before this start: no deadline moved; see that it is right now")
    if text := told(drift):
        found.append(f"{text} since this start: times are shown by the old one until a restart")
    return found
