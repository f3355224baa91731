"""Bugs planted on purpose: with each of them the simulation must fail, or it proves nothing.

Each is a context in which the real code has the bug; nothing of it is in the code itself.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import attrs
import trio

from appliance.jobs import decisions, misses, operator, restart
from appliance.jobs.box import Box
from appliance.jobs.store import Store
from appliance.keep.state.journal import Journal
from appliance.keep.state.records import Loading
from appliance.scheduler import intake, lobby, reaper
from appliance.scheduler.lobby import Lobby, Seat
from appliance.scheduler.scheduler import Scheduler

_NEVER = 4e9  # UTC
MUTANTS: dict[str, Callable[[], contextlib.AbstractContextManager[Any]]] = {}


def _mutant(make: Callable[[], Iterator[Any]]) -> None:
    MUTANTS[make.__name__] = contextlib.contextmanager(make)


def _instead(where: Any, name: str, what: Any) -> contextlib.AbstractContextManager[Any]:
    return mock.patch.object(where, name, what)


@_mutant
def lease_not_lapsed() -> Iterator[Any]:
    """A silent box keeps its job for ever."""
    with _instead(decisions, "deadline", lambda job, heard, waits: _NEVER):
        yield


@_mutant
def act_before_fsync() -> Iterator[Any]:
    """Whoever waits for the disk does not."""

    async def durable(self: Journal, position: int, within: float = 0.0) -> None:
        await trio.lowlevel.checkpoint()

    with _instead(Journal, "durable", durable):
        yield


@_mutant
def mark_before_write() -> Iterator[Any]:
    """The journal tells those who wait before its bytes are durable."""
    write = Journal._append

    async def append(self: Journal, name: str, data: bytes) -> None:
        self._mark(self._appended)
        await write(self, name, data)

    with _instead(Journal, "_append", append):
        yield


@_mutant
def fence_ignored() -> Iterator[Any]:
    """What an older attempt says moves the job."""
    with _instead(decisions, "is_current", lambda job, attempt: True):
        yield


@_mutant
def seat_leaked() -> Iterator[Any]:
    """A box that is gone still sits in the lobby."""
    with _instead(Lobby, "leave", lambda self, seat: True):
        yield


@_mutant
def hand_over_during_a_send() -> Iterator[Any]:
    """What is handed over while a comment line goes out is not looked for afterwards."""

    async def wait(
        self: Seat, patience: float, drip: Any, every: float, until_gone: Any
    ) -> str | None:
        ends = trio.current_time() + patience
        while trio.current_time() < ends:
            with trio.CancelScope(deadline=min(ends, trio.current_time() + every)) as self._scope:
                await until_gone()
                self.hang_up()
            if not self.open and not self._scope.cancelled_caught:
                return self._script
            if self._script is not None and trio.current_time() < self._scope.deadline:
                return self._script
            if self._sent_away:
                return None
            if trio.current_time() < ends:
                await drip()
        self._sent_away = self._sent_away or lobby.WAITED
        return None

    with _instead(Seat, "wait", wait):
        yield


@_mutant
def wait_for_two_things() -> Iterator[Any]:
    """At its deadline the wait ends without looking whether a script came on the same tick."""
    real = Seat.wait

    async def wait(self: Seat, patience: float, *args: Any) -> str | None:
        ends = trio.current_time() + patience
        script = await real(self, patience, *args)
        return None if trio.current_time() >= ends else script

    with _instead(Seat, "wait", wait):
        yield


@_mutant
def report_answered_before_it_is_kept() -> Iterator[Any]:
    """A box has its answer while the disk does not know what it said."""

    async def durable(self: Any, position: int | None = None) -> None:
        await trio.lowlevel.checkpoint()

    with _instead(Scheduler, "durable", durable):
        yield


@_mutant
def cancel_answered_before_it_is_kept() -> Iterator[Any]:
    """A person is told that a job is cancelled, and the disk is not."""

    async def cancel(self: Any, job: str, by: str) -> Any:
        self.change(decisions.cancelled(await self.find(job), by, self.clock.now()))
        await trio.lowlevel.checkpoint()
        return await self.find(job)

    with _instead(Scheduler, "cancel", cancel):
        yield


@_mutant
def hold_answered_before_it_is_kept() -> Iterator[Any]:
    """A person is told that a box is theirs, and the disk is not."""

    async def reserve(self: Any, box: Box, *words: Any) -> None:
        self.change(operator.reserved(box, *words, self.clock.now()))
        await trio.lowlevel.checkpoint()

    with _instead(Scheduler, "reserve", reserve):
        yield


@_mutant
def renewal_answered_before_it_is_kept() -> Iterator[Any]:
    """A person is told that a job has more time, and the disk is not."""

    async def renew(self: Any, job: str, seconds: float) -> Any:
        self.change(decisions.renewed(await self.find(job), seconds, self.clock.now()))
        await trio.lowlevel.checkpoint()

    with _instead(Scheduler, "renew", renew):
        yield


@_mutant
def refused_upload_is_forgotten() -> Iterator[Any]:
    """A job whose results did not fit ends as if they had."""
    real = decisions.jobs._close

    def close(attempt: Any, reason: str) -> Any:
        return real(attrs.evolve(attempt, refused=None), reason)

    with _instead(decisions.jobs, "_close", close):
        yield


@_mutant
def hold_is_forgotten() -> Iterator[Any]:
    """After a restart nobody keeps a box."""
    real = Loading.store

    def store(self: Loading) -> Store:
        made = real(self)
        for box in made.boxes.values():
            box.reservation = None
        return made

    with _instead(Loading, "store", store):
        yield


@_mutant
def drain_is_forgotten() -> Iterator[Any]:
    """After a restart jobs are given out again."""
    real = Loading.store

    def store(self: Loading) -> Store:
        made = real(self)
        made.drained = ""
        return made

    with _instead(Loading, "store", store):
        yield


@_mutant
def held_box_is_given_jobs() -> Iterator[Any]:
    """Only a quarantine keeps jobs from a box."""
    with _instead(Box, "takes_jobs", property(lambda self: not self.quarantine)):
        yield


@_mutant
def drained_lab_gives_out_jobs() -> Iterator[Any]:
    """A drain is shown, and changes nothing."""
    real = Scheduler._match

    def match(self: Any) -> Any:
        by, self.store.drained = self.store.drained, ""
        try:
            return real(self)
        finally:
            self.store.drained = by

    with _instead(Scheduler, "_match", match):
        yield


@_mutant
def repeat_makes_another() -> Iterator[Any]:
    """The key of a submit is not looked for."""
    with _instead(Store, "jobs_with_key", lambda self, submitter, key: [
        job for job in self.jobs.values() if (job.submitter, job.key) == (submitter, key)
    ][-1:] if _called_late() else []):  # fmt: skip
        yield


def _called_late() -> bool:
    """Whether the caller is past its decision, and only reads what it made."""
    import sys

    frame = sys._getframe(2)
    return frame.f_code is intake.submit.__code__ and "changes" in frame.f_locals


@_mutant
def repeat_acknowledged_at_once() -> Iterator[Any]:
    """A repeat of a submit does not wait for the disk, though the first still does."""

    async def found(scheduler: Any, submitter: str, key: str) -> Any:
        await trio.lowlevel.checkpoint()
        return scheduler.store.jobs_with_key(submitter, key)

    with _instead(intake, "_found", found):
        yield


@_mutant
def a_loss_costs_nothing() -> Iterator[Any]:
    """A box that loses job after job is given the next one at once."""
    with _instead(misses, "_pause", lambda box, waits, at_once: 0.0):
        yield


@_mutant
def deadlines_stay_where_they_were() -> Iterator[Any]:
    """A start takes the wall's word for what has passed."""
    real = restart.gap
    with _instead(restart, "gap", lambda store, now: attrs.evolve(real(store, now), shift=0.0)):
        yield


@_mutant
def rests_for_ever() -> Iterator[Any]:
    """A box that backs off is never woken."""

    def wake(scheduler: Any, boxes: list[str], now: float) -> None:
        for box in boxes:
            if box in scheduler.resting:
                scheduler.resting[box] = _NEVER

    with _instead(reaper, "_wake_boxes", wake):
        yield


@_mutant
def counter_from_the_jobs() -> Iterator[Any]:
    """After a restart numbers begin at the number of jobs, less one."""
    real = Loading.store

    def store(self: Loading) -> Store:
        made = real(self)
        made.counter = max(0, made.counter - 1)
        return made

    with _instead(Loading, "store", store):
        yield


@_mutant
def asked_again_keeps_the_job() -> Iterator[Any]:
    """A box that reboots in its run is thought to run on."""
    real = decisions.lost

    def lost(store: Any, job: Any, event: Any, *args: Any) -> Any:
        if isinstance(event, decisions.jobs.Asked) and isinstance(job.state, decisions.Running):
            return []
        return real(store, job, event, *args)

    with _instead(decisions, "lost", lost):
        yield


@_mutant
def runs_again_without_leave() -> Iterator[Any]:
    """A job that was lost while it ran goes back to the queue, asked or not."""
    real = decisions.jobs.advance

    def advance(state: Any, event: Any, rules: Any) -> Any:
        again = decisions.jobs.Rules(True, rules.reboots, rules.own_kernel)
        return real(state, event, again)

    with _instead(decisions.jobs, "advance", advance):
        yield
