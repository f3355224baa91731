"""What must be true of a lab, from outside: what people and boxes were told and saw.

It reads what reached the disk by itself, from the bytes of the journal, and never asks the store
whether the store is right.
"""

from __future__ import annotations

import struct
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

import cbor2
import trio

from appliance.jobs import job as jobs
from appliance.jobs.changes import Drained, Job, Missed, Moved, Reserved
from appliance.jobs.job import Booting, Finished, Held, Offered, PostRun, Running
from appliance.keep import archive
from appliance.keep.state import frames

if TYPE_CHECKING:
    from appliance.scheduler.scheduler import Scheduler
    from tests.simulation.box import Box

# Health words that only a box can say; all others are the appliance's own.
SAID: Final = ("success", "failed")
LATE_S: Final = 1.0  # that an end may come late; in virtual time nothing does
EATS_MAX: Final = 6  # jobs offered to one box, for whatever reason, within
EATS_S: Final = 60.0  # so many seconds: one that loses them all asks twelve times
FREE_S: Final = 70.0  # a seat is free so long after its box lost power: a minute, and a send


class Violation(AssertionError):
    """What must not be."""


def demand(holds: object, what: str) -> None:
    """Raises Violation."""
    if not holds:
        raise Violation(what)


class Oracle:
    """Everything that outsiders know."""

    def __init__(self) -> None:
        self.acknowledged: dict[str, str] = {}  # the key of a submit -> its job
        self.durable_jobs: set[str] = set()
        self.durable_offers: set[tuple[str, int]] = set()
        self.told_ends: dict[str, str] = {}  # what a person heard of the end of a job
        self.attempts: dict[tuple[str, int], tuple[str, str]] = {}  # -> (box, token)
        self.runs_until: dict[tuple[str, int], float] = {}  # not before; in the run's own seconds
        self._numbers: dict[tuple[str, str], int] = {}  # (job, token) -> which attempt that is
        self.verdicts: dict[tuple[str, int], set[str]] = defaultdict(set)  # what its box said
        self.latest: dict[str, int] = {}  # the newest attempt of a job, as the disk knows it
        self.runs: dict[str, set[int]] = defaultdict(set)  # attempts that began to run, likewise
        self.retrying: set[str] = set()  # jobs that may run again
        # Which events moved which jobs' attempts (0: one of them), and what the disk knows of it.
        self.done: set[tuple[str, str, int]] = set()  # in this life of the server
        self.durable: set[tuple[str, str, int]] = set()
        self.drained = False  # as an operator was told
        self.held: set[str] = set()  # boxes, likewise
        # What was decided for people, and the moment of it that the journal does not have yet.
        self.unkept: dict[tuple[str, str], bytes] = {}
        self._offered: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=EATS_MAX))
        self.calm = False
        self.sometimes: Counter[str] = Counter()

    # ---- the disk

    def wrote(self, name: str, data: bytes) -> None:
        """These bytes are durable at the end of a journal."""
        if not name.startswith("journal-"):
            return
        self.unkept = {key: moment for key, moment in self.unkept.items() if moment not in data}
        start = data.index(b"\n") + 1 if data.startswith(b"appliance journal") else 0
        for part in frames.parts(data, start):
            assert part.payload is not None
            for change in cbor2.loads(part.payload):
                if change["is"] == "Submitted":
                    job = change["job"]
                    self._knows_job(job["id"], job["document"].get("rules", {}).get("retry", False))
                elif change["is"] == "Moved":
                    self._has_moved(change["job"], change["event"])

    def _has_moved(self, job: str, event: dict[str, Any]) -> None:
        if event["is"] == "Offer":
            number = event["attempt"]["number"]
            self.latest[job] = number
            self.durable_offers.add((job, number))
        elif event["is"] == "Begin":
            runs = self.runs[job]
            runs.add(self.latest[job])
            demand(len(runs) == 1 or job in self.retrying, f"{job} ran as {runs}")
        self.durable |= _words(event["is"], job, self.latest.get(job, 0))

    def _knows_job(self, job: str, retry: bool) -> None:
        self.durable_jobs.add(job)
        if retry:
            self.retrying.add(job)

    # ---- what leaves the appliance

    def submitted(self, key: str, job: str) -> None:
        """A person has the answer to a submit."""
        demand(job in self.durable_jobs, f"{job} was acknowledged and is not on disk")
        before = self.acknowledged.setdefault(key, job)
        demand(before == job, f"the key {key} made {before} and {job}")

    def answered(self, event: str, job: str, number: int = 0) -> None:
        """A report of that attempt was answered, or a person (0): the disk knows what it moved."""
        words = (event, job, number)
        demand(words not in self.done or words in self.durable, f"{words} answered, not kept")
        demand((event, job) not in self.unkept, f"{event} of {job} answered, not kept")
        self.sometimes["an answer was kept"] += words in self.done

    def scripted(self, job: str, number: int) -> None:
        """A box was sent a script."""
        demand((job, number) in self.durable_offers, f"{job} attempt {number} left unkept")

    def handed(self, job: str, number: int, box: str, token: str) -> None:
        """A box fetched job.cgz."""
        before = self.attempts.setdefault((job, number), (box, token))
        demand(before == (box, token), f"{job} attempt {number}: {before} and then {box}")
        self._numbers.setdefault((job, token), number)

    def number_of(self, job: str, token: str) -> int:
        """Which attempt of the job carries the token."""
        return self._numbers[job, token]

    def ended(self, job: str, health: str) -> None:
        """A person heard how a job ended."""
        before = self.told_ends.setdefault(job, health)
        demand(before == health, f"{job} ended as {before}, and then as {health}")

    def leapt(self) -> None:
        """The machine was off, and its clock went far forward: what people keep may be over."""
        self.held.clear()

    # ---- the store, after each change and each start

    def applied(self, scheduler: Scheduler, change: Any) -> None:
        """A change was made."""
        if self.calm and isinstance(change, Missed) and change.until > scheduler.clock.now():
            raise Violation(f"{change.box} backs off in calm weather")
        self._decided(change)
        if not isinstance(change, Moved):
            return
        job = scheduler.store.jobs[change.job]
        attempts = job.attempts
        self._times_out(job, change)
        self.done |= _words(
            type(change.event).__name__, job.id, attempts[-1].number if attempts else 0
        )
        if isinstance(change.event, jobs.Offer):
            box = change.event.attempt.box
            demand(not self.drained, f"{change.job} is given out while the lab is drained")
            demand(box not in self.held, f"{box} is held, and is given {change.job}")
            self._eats(box)
        self.sometimes[f"{type(change.event).__name__.lower()}"] += 1
        if self.calm and isinstance(change.event, jobs.Lapse):
            raise Violation(f"{job.id} lapsed in calm weather: {change.event.reason}")
        if isinstance(job.state, Finished):
            self._finished(job)

    def _times_out(self, job: Job, change: Moved) -> None:
        """A run has the seconds that it was promised, whatever clocks say meanwhile."""
        attempt, now = job.attempt, trio.current_time()
        match change.event:
            case jobs.Begin(until) if attempt is not None:
                self.runs_until.setdefault((job.id, attempt.number), now + until - change.at)
            case jobs.Lapse(reason) if job.attempts and "time to run" in reason:
                ends = self.runs_until.get((job.id, job.attempts[-1].number), 0.0)
                demand(now > ends - LATE_S, f"{job.id} timed out {ends - now:.0f} s too soon")

    def _eats(self, box: str) -> None:
        """A box is given a job; not one after the other as fast as it can lose them."""
        now, times = trio.current_time(), self._offered[box]
        times.append(now)
        eats = len(times) == EATS_MAX and now - times[0] < EATS_S
        demand(not eats, f"{box} is given {EATS_MAX} jobs within {EATS_S:.0f} s")

    def _decided(self, change: Any) -> None:
        match change:
            case Reserved(box, _, "landlord", at):
                self.unkept["Reserved", box] = struct.pack(">d", at)
            case Drained(by, at) if by:
                self.unkept["Drained", ""] = struct.pack(">d", at)
            case Moved(job, jobs.Renew(), at):
                self.unkept["Renew", job] = struct.pack(">d", at)

    def _finished(self, job: Any) -> None:
        health, attempt = job.state.health, job.state.attempt
        refused = attempt and ("RefuseUpload", job.id, attempt.number) in self.durable
        demand(not refused or health != "success", f"{job.id} lacks results, and is a success")
        self.sometimes[f"end {health}"] += 1
        if health in SAID:
            said = self.verdicts[job.id, attempt.number]
            demand(health in said, f"{job.id} ended as {health}, but its box said {said}")

    def looked_into_the_lobby(self, scheduler: Scheduler, boxes: Iterable[Box]) -> None:
        """Who sits there is there, and runs nothing: it has rebooted."""
        seated = {seat.box for seat in scheduler.lobby}
        for box in boxes:
            if box.name not in seated:
                continue
            gone = 0.0 if box.waiting else trio.current_time() - box.left
            demand(gone < FREE_S, f"the seat of {box.name}, which left {gone:.0f} s ago")
            job = scheduler.store.boxes[box.name].job
            state = scheduler.store.jobs[job].state if job else None
            demand(isinstance(state, Offered | None), f"{box.name} waits, and holds {job}")

    def looked_at_the_clock(self, scheduler: Scheduler) -> None:
        """No attempt outlasts its stage."""
        now = scheduler.clock.now()
        for job in scheduler.store.active():
            state = job.state
            assert isinstance(state, Offered | Booting | Running | PostRun | Held)
            ends = state.until
            if isinstance(state, Offered | Booting):  # each byte gives it more
                ends = state.attempt.began + scheduler.config.waits.boot_max
            demand(now < ends + LATE_S, f"{job.id} is {jobs.stage(state)} for {now - ends:.0f} s")

    def started(self, scheduler: Scheduler) -> None:
        """A server has read its disk: nothing that anybody was told is different."""
        store = scheduler.store
        store.check()
        self.done.clear()
        self.unkept.clear()
        demand(store.drained or not self.drained, "the drain was answered and is forgotten")
        for box in sorted(self.held):
            demand(store.boxes[box].reservation, f"the hold of {box} was answered and is lost")
        everything = jobs_of(scheduler)
        self.sometimes["jobs were archived"] += store.archived > 0
        for job in everything.values():  # of the last words of its forerunner we may not know
            self._knows_job(job.id, job.document.rules.retry)
            self.durable_offers |= {(job.id, attempt.number) for attempt in job.attempts}
            if job.attempts:
                self.latest[job.id] = job.attempts[-1].number
        for key, name in self.acknowledged.items():
            demand(name in everything, f"{name} was acknowledged and is lost")
            found = [job.id for job in everything.values() if job.key == key]
            demand(found == [name], f"the key {key} made {found}")
        for name, health in self.told_ends.items():
            state = everything[name].state
            demand(isinstance(state, Finished) and state.health == health, f"{name} is not over")
        for (name, number), (box, token) in self.attempts.items():
            known = {attempt.number: attempt for attempt in everything[name].attempts}
            if number in known:
                same = (known[number].box, known[number].token) == (box, token)
                demand(same, f"{name} attempt {number} is not what {box} fetched")


def _words(event: str, job: str, number: int) -> set[tuple[str, str, int]]:
    return {(event, job, number), (event, job, 0)}


def jobs_of(scheduler: Scheduler) -> dict[str, Job]:
    """All jobs, in memory or in the archive; memory knows better."""
    archived = {job.id: job for job in archive.all_jobs(scheduler.archive._mine)}
    return archived | scheduler.store.jobs
