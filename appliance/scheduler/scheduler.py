"""Joins store, journal and lobby: the verbs of the appliance.

Every change goes one way (DESIGN.md#decide-keep-act): a plain function decides, the store applies
the change at once, the journal keeps it, and only then does anything leave the process.  The first
two happen in `change`, which never awaits; what follows is left to `dispatch`, or to the caller
after `journal.durable`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog
import trio

from appliance import addresses
from appliance.boot.images.pinning import Images
from appliance.boot.script import boot_plan
from appliance.config import Config
from appliance.errors import BadState, NotFound, Refused
from appliance.jobs import cluster, decisions, operator, registry, restart
from appliance.jobs.box import Box, Facts, Identity
from appliance.jobs.changes import (
    Change,
    Job,
    Mark,
    Missed,
    Moved,
    Quarantined,
    Reserved,
    Submitted,
    Synced,
    Unregistered,
)
from appliance.jobs.documents.document import Body
from appliance.jobs.dues import JOB, KEPT, REST, Dues
from appliance.jobs.job import Attempt, Finished, Offered, Queued
from appliance.jobs.packed import Packed
from appliance.jobs.shown import measures, news
from appliance.jobs.store import Store
from appliance.keep.archive import Archive
from appliance.keep.sealed import CHECK_HELP
from appliance.keep.state.gate import Gate
from appliance.keep.state.journal import Journal
from appliance.scheduler.alarm import Alarm
from appliance.scheduler.clock import Clock
from appliance.scheduler.lobby import Lobby, Seat
from appliance.scheduler.outbox import HandOver, Outbox
from appliance.scheduler.watching import Watchers

log = structlog.get_logger()


class Scheduler:
    """One lab's scheduler."""

    def __init__(
        self,
        config: Config,
        store: Store,
        journal: Journal,
        archive: Archive,
        images: Images,
        *,
        clock: Clock,
        token: Callable[[], str],
        link_gbits: float = 1.0,
    ) -> None:
        self.config, self.store, self.images, self.clock = config, store, images, clock
        store.park = config.waits.park
        self.lobby, self.watchers = Lobby(), Watchers()
        self.measures = measures.Measures(journal.syncs)
        self._journal = journal
        self.archive = archive
        self.paperwork = trio.Event()  # set: there may be something to archive
        self.paperwork.set()
        self._token = token
        self._boots_max = max(1, int(config.limits.boots_in_flight * link_gbits))
        self.outbox, self.packed = Outbox(), Packed()
        self.resting: dict[str, float] = {}  # until when boxes back off
        self.dues = Dues()
        self.alarm = Alarm()
        self._changed: dict[str, trio.Event] = {}  # per watched job or cluster
        self.heard: dict[str, float] = {}  # when a box was last heard

    # ---- the one way in

    def change(self, changes: list[Change]) -> int:
        """Applies changes, matches, notes all; returns the journal's position.  Sends nothing.

        All or nothing: raises IllegalMove before anything is done.
        """
        return self._follow(self._make(changes))

    def _make(self, changes: list[Change]) -> list[Change]:
        """Applies changes, and those that a suspicion adds; updates which boxes may get a job."""
        touched: dict[str, None] = {}
        self.store.foresee(changes)
        for change in changes:
            self._apply(change)
            if isinstance(change, Moved):
                newest = self.store.jobs[change.job].attempts[-1:]
                touched.update((attempt.box, None) for attempt in newest)
            elif isinstance(change, Missed | Quarantined | Reserved | Unregistered):
                touched[change.box] = None
                self._note_pause(change)
        suspects = operator.suspects(self.store, touched, self.clock.now())
        for suspect in suspects:
            self._apply(suspect)
        if any(isinstance(change, Quarantined | Reserved | Unregistered) for change in changes):
            # other boxes may get that box's jobs now
            touched |= dict.fromkeys(seat.box for seat in self.lobby)
        for box in touched:
            self.repark(box)
        return [*changes, *suspects]

    def _follow(self, made: list[Change]) -> int:
        """Matches, and notes all changes; returns the journal's position."""
        made = [*made, *(offers := self._match())]
        position = self._journal.append(made) if made else self._journal.appended
        for offer in offers:
            attempt = self.store.jobs[offer.job].attempt
            assert attempt is not None
            seat = self.lobby.seat(attempt.box)
            self.outbox.offer(HandOver(attempt.box, offer.job, attempt.number, position, seat))
        for change in made:
            if isinstance(change, Moved | Synced):
                self._tell_watchers(self.store.jobs[change.job])
            if isinstance(change, Moved):
                self.watch(change.job)
                self.packed.follow(self.store.jobs[change.job])
            if isinstance(change, Moved | Submitted):
                self.paperwork.set()
        return position

    def restarted(self) -> None:
        """Makes the changes of a start to the store that it found, before any request."""
        changes = restart.restarted(self.store, self.clock.reading(), self.config.waits)
        self.change(changes)
        clocked = self.store.clocked
        if clocked is not None and (told := restart.told(clocked.step)):
            why = f"{told}; what runs keeps the time that it had left"
            log.warning("the clock was moved between two starts", seconds=clocked.step, why=why)

    async def durable(self, position: int | None = None) -> None:
        """Waits until all that was decided so far, or up to `position`, is on disk.

        Without a time limit: for boxes, which have time, and for tasks that nobody waits for.
        """
        await self._journal.durable(self._journal.appended if position is None else position)

    async def durable_in_time(self, decide: Callable[[], list[Change]] | None = None) -> None:
        """Makes the changes of `decide`, and waits until all that was decided so far is on disk.

        For at most `waits.answer` seconds, since a person waits: raises Unknown then.  If `decide`
        raises Refused it waits as well, since a refusal tells of earlier decisions.
        """
        within = self.config.waits.answer
        try:
            position = self.change(decide()) if decide is not None else self._journal.appended
        except Refused:
            await self._journal.durable(self._journal.appended, within)
            raise
        await self._journal.durable(position, within)

    async def caught_up(self) -> None:
        """Waits until all that was decided so far is on disk, or the disk refuses it.

        For at most `waits.answer` seconds, and without an error: the caller has only read.
        """
        await self._journal.caught_up(self.config.waits.answer)

    @property
    def gate(self) -> Gate:
        """Whether new work is taken."""
        return self._journal.gate

    def _note_pause(self, change: Missed | Quarantined | Reserved | Unregistered) -> None:
        if isinstance(change, Reserved) and change.reservation is not None:
            self.look(KEPT, change.box, change.reservation.until)
        elif isinstance(change, Missed) and change.until > self.clock.now():
            self.resting[change.box] = change.until
            self.look(REST, change.box, change.until)
        elif isinstance(change, Missed):
            self.resting.pop(change.box, None)

    def look(self, kind: str, name: str, moment: float) -> None:
        """Makes the reaper look at this job or box at `moment` (UTC) at the latest."""
        self.dues.by(kind, name, moment)
        self.alarm.by(self.clock.trio_time(moment))

    def watch(self, job_id: str) -> None:
        """Makes the reaper look at the job when its stage is over, if it has an attempt."""
        job = self.store.jobs[job_id]
        if job.attempt is not None and not isinstance(job.state, Finished | Queued):
            self.look(JOB, job_id, decisions.deadline(job, self.heard, self.config.waits))
        else:
            self.dues.forget(JOB, job_id)

    def _match(self) -> list[Moved]:
        if self.store.drained:
            return []
        room = self._boots_max - self.store.boots_in_flight()
        pairs = self.store.ready.pairs(max(room, 0))
        waits = self.config.waits
        offers = decisions.offers(self.store, pairs, self.clock.now(), waits, self._token)
        for offer in offers:
            self._apply(offer)
        return offers

    def _apply(self, change: Change) -> None:
        self.store.apply(change)
        self.measures.note(change, self.store)
        if self.watchers and (message := news.of(change, self.store)) is not None:
            self.watchers.tell(message)

    def repark(self, name: str) -> None:
        """Updates whether the box may be handed a job."""
        box = self.store.boxes.get(name)
        idle = (
            box is not None
            and box.job is None
            and self.lobby.seat(name) is not None
            and box.name not in self.resting
            and box.takes_jobs
        )
        if box is not None and idle and (serves := registry.serves(box)).keys:
            self.store.ready.park(name, serves)
        else:
            self.store.ready.unpark(name)

    # ---- testboxes

    def sit(self, who: Identity, reached: str, ipxe: str | None = None) -> Seat:
        """Returns a seat for the box that asks.  Raises Refused if the box may not wait here.

        Does not wait for the disk: the box is only told to wait.  Its job comes by `dispatch`, once
        the offer is on disk.
        """
        now = self.clock.now()
        limit = self.config.limits.unknown_boxes
        untold, looking = self._untold(who), self._looking(who)
        excused = looking.tried if looking is not None else untold is not None and untold.sent_back
        changes = decisions.asked(
            self.store, who, now, self.config.waits, limit,
            untold=untold is not None or looking is not None, excused=excused,
        )  # fmt: skip
        made = self._make(changes)
        box = self.store.box_of(who)
        assert box is not None
        seat = self.lobby.sit(box.name, now, reached, ipxe)
        self.repark(box.name)
        again = self.store.jobs[box.job] if box.job else None  # the job restarted its box
        position = self._follow(made)
        if again is not None and isinstance(again.state, Offered):
            number = again.state.attempt.number
            self.outbox.put(HandOver(box.name, again.id, number, position))
        return seat

    def _untold(self, who: Identity) -> HandOver | None:
        """Returns the hand-over that the box has not been told yet."""
        box = self.store.box_of(who)
        job = self.store.jobs[box.job] if box is not None and box.job else None
        if job is None or job.attempt is None:
            return None
        return self.outbox.untold(job.id, job.attempt.number)

    def _looking(self, who: Identity) -> Seat | None:
        """Returns the seat where the box was handed its job, if its host still looks for memory."""
        box = self.store.box_of(who)
        job = self.store.jobs[box.job] if box is not None and box.job else None
        if box is None or job is None or job.attempt is None:
            return None
        return self.lobby.looking(box.name, (job.id, job.attempt.number))

    def leave(self, seat: Seat) -> None:
        """Ends the seat of a box that was told, or is gone."""
        if self.lobby.leave(seat):
            self.store.ready.unpark(seat.box)
            self.store.boxes[seat.box].since = self.clock.now()

    def undelivered(self, seat: Seat) -> None:
        """Handles a hang-up of the box before it had the whole script."""
        if seat.handed is not None:
            now, waits = self.clock.now(), self.config.waits
            handed, excused = seat.handed, seat.tried
            self.change(decisions.undelivered(self.store, *handed, now, waits, excused=excused))

    def script(self, job: Job, box: Box, reached: str) -> str:
        """Returns the script by which `box` boots `job`.  Raises Refused if it would not fit."""
        return boot_plan.script(self.config, job, box.facts, self.host(reached))

    def host(self, reached: str) -> str:
        """Returns the host in a box's URLs."""
        return addresses.in_url(self.config.network.address or reached)

    # ---- people

    async def register(self, facts: Facts, write: Callable[[], Awaitable[None]]) -> Box:
        """Makes a box known, seated or not; first calls `write`, which keeps its hosts file.

        Raises Refused if one of its MACs is another known box's.
        """
        decisions.registered(self.store, facts, self.clock.now())
        await write()
        before = [self.store.box_of(Identity(mac, "")) for mac in facts.macs]
        names = {box.name for box in before if box is not None}
        position = self.change(self.known(facts))
        for name in sorted(names):
            self.lobby.rename(name, facts.name)
        self.repark(facts.name)
        self.change([])
        await self._journal.durable(position, self.config.waits.answer)
        return self.store.boxes[facts.name]

    async def unregister(self, box: Box, by: str) -> None:
        """Makes a box unknown, seated or not.  Raises Refused while it holds a job."""
        await self.durable_in_time(lambda: operator.unregistered(box, by, self.clock.now()))

    def known(self, facts: Facts) -> list[Change]:
        """Returns the changes that a hosts file makes.  Raises Refused."""
        return decisions.registered(self.store, facts, self.clock.now())

    async def reserve(self, box: Box, user: str | None, until: float, by: str, why: str) -> None:
        """Keeps a box for one submitter's jobs, or from all (None).  Raises Refused, BadRequest."""
        now = self.clock.now()
        await self.durable_in_time(lambda: operator.reserved(box, user, until, by, why, now))

    async def release(self, box: Box, by: str) -> None:
        """Lets a box get jobs again.  Raises Refused if nothing keeps jobs from it."""
        await self.durable_in_time(lambda: operator.released(box, by, self.clock.now()))

    async def drain(self, by: str) -> None:
        """Stops giving out jobs."""
        await self.durable_in_time(lambda: operator.drained(self.store, by, self.clock.now()))

    async def resume(self) -> None:
        """Gives out jobs again.  Raises Refused."""
        await self.durable_in_time(lambda: operator.resumed(self.store, self.clock.now()))

    async def find(self, job_id: str) -> Job:
        """Returns a job from memory or archive.  Raises NotFound; BadState if that is damaged.

        A job that is not over is in memory, and found there without a checkpoint.
        """
        if job_id in self.store.jobs:
            return self.store.jobs[job_id]
        found = await self.archive.job(job_id) if self.store.archived else None
        if found is not None:
            return found
        if job_id in self.store.jobs or not self._was_given(job_id):
            return self.store.job(job_id)
        if self.store.lost and (self.archive.is_sound or not self.store.archived):
            raise NotFound(f"no job {job_id} any more: it was lost with an older state")
        raise BadState(f"{job_id} was archived and is not found there; {CHECK_HELP}")

    def _was_given(self, job_id: str) -> bool:
        """Returns whether there was once a job with this id."""
        lab, _, number = job_id.rpartition(".")
        given = lab == self.config.lab and number.isascii() and number.isdigit()
        return given and number[0] != "0" and len(number) < 16 and int(number) <= self.store.counter

    async def jobs_with_key(self, submitter: str, key: str) -> list[Job]:
        """Returns the submitter's jobs with this key, oldest first; empty for a new key."""
        old = await self.archive.with_key(submitter, key) if self.store.archived else []
        jobs = {job.id: job for job in [*old, *self.store.jobs_with_key(submitter, key)]}
        return sorted(jobs.values(), key=lambda job: job.number)

    async def attempt_with(self, token: str) -> tuple[Job, Attempt] | None:
        """Returns the job and the attempt with this `token`."""
        found = self.store.attempt_with(token)
        if found is not None or not self.store.archived:
            return found
        job = await self.archive.with_token(token)
        if job is None:
            return None
        return job, next(attempt for attempt in job.attempts if attempt.token == token)

    async def body(self, job: Job) -> Body:
        """Returns the body of the job's document.  Raises DiskTrouble, BadState."""
        return job.document.body or await self.archive.body(job.number)

    async def mark(self, job: Job, change: Mark | Moved) -> None:
        """Changes a job in memory or in the archive; on disk after `durable_in_time()`."""
        if job.id in self.store.jobs:
            self.change([change])
        else:
            assert not isinstance(change, Moved), f"{job.id} is over"
            await self.archive.mark(job.id, change)

    async def renew(self, job_id: str, seconds: float) -> Job:
        """Gives a running job more time.  Raises NotFound, Refused."""
        job = await self.find(job_id)
        await self.durable_in_time(lambda: decisions.renewed(job, seconds, self.clock.now()))
        return await self.find(job_id)

    async def cancel(self, job_id: str, by: str) -> Job:
        """Cancels a job.  Raises NotFound, and Refused for a job that is over."""
        job = await self.find(job_id)
        await self.durable_in_time(lambda: decisions.cancelled(job, by, self.clock.now()))
        return await self.find(job_id)

    def _tell_watchers(self, job: Job) -> None:
        for name in (job.id, cluster.name(job)):
            if name in self._changed:
                self._changed.pop(name).set()

    def stirring(self, job: Job) -> trio.Event:
        """Returns an event that is set once a job of the cluster of `job` changes."""
        return self._changed.setdefault(cluster.name(job), trio.Event())

    async def changes_of(self, job_id: str, seen: int) -> Job:
        """Returns the job once it has had more than `seen` moments and those are on disk."""
        while True:
            job = await self.find(job_id)
            if job.moments > seen:
                await self.durable()
                return job  # as found: later changes may not be on disk yet
            await self._changed.setdefault(job_id, trio.Event()).wait()
