"""Joins store, journal and lobby: the verbs of the appliance.

Every change goes one way (DESIGN.md#decide-keep-act): a plain function decides, the store applies
at once, the journal keeps, and only then does anything leave the process.  The first two happen in
`_change`, which never awaits; what follows from them is left to `dispatch` or to the caller, after
`journal.durable`.
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
        self.paperwork = trio.Event()  # the archive may take something
        self.paperwork.set()
        self._token = token
        self._boots_max = max(1, int(config.limits.boots_in_flight * link_gbits))
        self.outbox, self.packed = Outbox(), Packed()
        self.resting: dict[str, float] = {}  # boxes that back off, and until when
        self.dues = Dues()
        self.alarm = Alarm()
        self._changed: dict[str, trio.Event] = {}  # per watched job or cluster
        self.heard: dict[str, float] = {}  # when a box last fetched a byte

    # ---- the one way in

    def change(self, changes: list[Change]) -> int:
        """Apply, match, note.  Returns the journal's position; nothing has left us yet.

        All or nothing: raises IllegalMove before anything is done.
        """
        return self._follow(self._make(changes))

    def _make(self, changes: list[Change]) -> list[Change]:
        """Make changes, and those that a suspicion adds; who may be handed a job is known then."""
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
            # another box's jobs are theirs
            touched |= dict.fromkeys(seat.box for seat in self.lobby)
        for box in touched:
            self.repark(box)
        return [*changes, *suspects]

    def _follow(self, made: list[Change]) -> int:
        """Match, and note what was made; the journal's position."""
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
        """What a start does to what it finds, before anybody comes in."""
        changes = restart.restarted(self.store, self.clock.reading(), self.config.waits)
        self.change(changes)
        clocked = self.store.clocked
        if clocked is not None and (told := restart.told(clocked.step)):
            why = f"{told}; what runs keeps the time that it had left"
            log.warning("the clock was moved between two starts", seconds=clocked.step, why=why)

    async def durable(self, position: int | None = None) -> None:
        """Waits until the disk has all that was decided so far, or up to `position`.

        For as long as that takes: for boxes, which have time, and for what follows by itself.
        """
        await self._journal.durable(self._journal.appended if position is None else position)

    async def durable_in_time(self, decide: Callable[[], list[Change]] | None = None) -> None:
        """Makes the changes of `decide`, and waits until the disk has all that was decided so far.

        For at most `waits.answer` seconds, since a person is waiting: raises Unknown then.  Where
        `decide` raises Refused it waits as well, for a refusal tells what was decided before.
        """
        within = self.config.waits.answer
        try:
            position = self.change(decide()) if decide is not None else self._journal.appended
        except Refused:
            await self._journal.durable(self._journal.appended, within)
            raise
        await self._journal.durable(position, within)

    async def caught_up(self) -> None:
        """Waits until the disk has what was read until now, or refuses what comes.

        For at most `waits.answer` seconds, and without an error: it was only read.
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
        """The reaper must look at it by then, UTC."""
        self.dues.by(kind, name, moment)
        self.alarm.by(self.clock.trio_time(moment))

    def watch(self, job_id: str) -> None:
        """The reaper must look at the job when its stage is over, if it has an attempt."""
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
        """The box may be handed a job, or may no longer."""
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
        """A seat for the box that asks.  Raises Refused where it may not wait here.

        It is told to wait whether the disk takes that or not: what it is told to do comes by
        `dispatch`, once the disk knows it.
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
        again = self.store.jobs[box.job] if box.job else None  # it restarted its own box
        position = self._follow(made)
        if again is not None and isinstance(again.state, Offered):
            number = again.state.attempt.number
            self.outbox.put(HandOver(box.name, again.id, number, position))
        return seat

    def _untold(self, who: Identity) -> HandOver | None:
        """What the box was to be told, and has not been."""
        box = self.store.box_of(who)
        job = self.store.jobs[box.job] if box is not None and box.job else None
        if job is None or job.attempt is None:
            return None
        return self.outbox.untold(job.id, job.attempt.number)

    def _looking(self, who: Identity) -> Seat | None:
        """Where the box was handed what it holds, if its host still looks for memory."""
        box = self.store.box_of(who)
        job = self.store.jobs[box.job] if box is not None and box.job else None
        if box is None or job is None or job.attempt is None:
            return None
        return self.lobby.looking(box.name, (job.id, job.attempt.number))

    def leave(self, seat: Seat) -> None:
        """The box is told, or gone."""
        if self.lobby.leave(seat):
            self.store.ready.unpark(seat.box)
            self.store.boxes[seat.box].since = self.clock.now()

    def undelivered(self, seat: Seat) -> None:
        """The box hung up before what it was handed was whole."""
        if seat.handed is not None:
            now, waits = self.clock.now(), self.config.waits
            handed, excused = seat.handed, seat.tried
            self.change(decisions.undelivered(self.store, *handed, now, waits, excused=excused))

    def script(self, job: Job, box: Box, reached: str) -> str:
        """What `box` is told to boot `job`.  Raises Refused where it would not fit."""
        return boot_plan.script(self.config, job, box.facts, self.host(reached))

    def host(self, reached: str) -> str:
        """The host in a box's URLs."""
        return addresses.in_url(self.config.network.address or reached)

    # ---- people

    async def register(self, facts: Facts, write: Callable[[], Awaitable[None]]) -> Box:
        """A box becomes known, seated or not.  `write` keeps its hosts file, before anything else.

        Raises Refused where one of its MACs is another known box's.
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
        """It is unknown from now on, seated or not.  Raises Refused while it holds a job."""
        await self.durable_in_time(lambda: operator.unregistered(box, by, self.clock.now()))

    def known(self, facts: Facts) -> list[Change]:
        """The change that a hosts file makes.  Raises Refused."""
        return decisions.registered(self.store, facts, self.clock.now())

    async def reserve(self, box: Box, user: str | None, until: float, by: str, why: str) -> None:
        """Keep a box for one submitter's jobs, or from all (None).  Raises Refused, BadRequest."""
        now = self.clock.now()
        await self.durable_in_time(lambda: operator.reserved(box, user, until, by, why, now))

    async def release(self, box: Box, by: str) -> None:
        """It gets jobs again.  Raises Refused where nothing keeps them from it."""
        await self.durable_in_time(lambda: operator.released(box, by, self.clock.now()))

    async def drain(self, by: str) -> None:
        """Give out no more jobs."""
        await self.durable_in_time(lambda: operator.drained(self.store, by, self.clock.now()))

    async def resume(self) -> None:
        """Give out jobs again.  Raises Refused."""
        await self.durable_in_time(lambda: operator.resumed(self.store, self.clock.now()))

    async def find(self, job_id: str) -> Job:
        """The job, in memory or in the archive.  Raises NotFound; BadState where it is damaged.

        One that is not over is in memory, and found there without a checkpoint.
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
        """Whether there was once a job with this id."""
        lab, _, number = job_id.rpartition(".")
        given = lab == self.config.lab and number.isascii() and number.isdigit()
        return given and number[0] != "0" and len(number) < 16 and int(number) <= self.store.counter

    async def jobs_with_key(self, submitter: str, key: str) -> list[Job]:
        """The jobs that this submitter made with this key, oldest first; empty for a new key."""
        old = await self.archive.with_key(submitter, key) if self.store.archived else []
        jobs = {job.id: job for job in [*old, *self.store.jobs_with_key(submitter, key)]}
        return sorted(jobs.values(), key=lambda job: job.number)

    async def attempt_with(self, token: str) -> tuple[Job, Attempt] | None:
        """The job and the attempt that carry `token`."""
        found = self.store.attempt_with(token)
        if found is not None or not self.store.archived:
            return found
        job = await self.archive.with_token(token)
        if job is None:
            return None
        return job, next(attempt for attempt in job.attempts if attempt.token == token)

    async def body(self, job: Job) -> Body:
        """What its document says to the job itself.  Raises DiskTrouble, BadState."""
        return job.document.body or await self.archive.body(job.number)

    async def mark(self, job: Job, change: Mark | Moved) -> None:
        """Change a job, wherever it is; the disk knows it after `durable_in_time()`."""
        if job.id in self.store.jobs:
            self.change([change])
        else:
            assert not isinstance(change, Moved), f"{job.id} is over"
            await self.archive.mark(job.id, change)

    async def renew(self, job_id: str, seconds: float) -> Job:
        """More time for a running job.  Raises NotFound, Refused."""
        job = await self.find(job_id)
        await self.durable_in_time(lambda: decisions.renewed(job, seconds, self.clock.now()))
        return await self.find(job_id)

    async def cancel(self, job_id: str, by: str) -> Job:
        """Raises NotFound, and Refused for a job that is over."""
        job = await self.find(job_id)
        await self.durable_in_time(lambda: decisions.cancelled(job, by, self.clock.now()))
        return await self.find(job_id)

    def _tell_watchers(self, job: Job) -> None:
        for name in (job.id, cluster.name(job)):
            if name in self._changed:
                self._changed.pop(name).set()

    def stirring(self, job: Job) -> trio.Event:
        """Set when something happens to a job of the cluster of `job`."""
        return self._changed.setdefault(cluster.name(job), trio.Event())

    async def changes_of(self, job_id: str, seen: int) -> Job:
        """The job, once it has had more than `seen` moments and the disk knows it."""
        while True:
            job = await self.find(job_id)
            if job.moments > seen:
                await self.durable()
                return job  # as it was: what has happened since, the disk may not know
            await self._changed.setdefault(job_id, trio.Event()).wait()
