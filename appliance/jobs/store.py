"""Pure: no clock, no socket, no await.

All jobs and testboxes, in memory.  The store changes in one way only: `apply` takes a Change.
Changes are what the journal keeps, so applying them again in order rebuilds the store.

Who decides which change comes next: `decisions`.  Who waits for whom: `ready`, which the store
feeds with queued jobs; parked boxes are the scheduler's to add, since seats do not survive a
restart.
"""

from __future__ import annotations

import itertools

import attrs

from appliance.errors import NotFound
from appliance.jobs import job as jobs
from appliance.jobs import suspicion
from appliance.jobs.box import (
    BOOTS_KEPT,
    STRANGER,
    BootLog,
    Box,
    Facts,
    Identity,
    Step,
    inherit,
    is_there,
    remember,
)
from appliance.jobs.changes import (
    Archived,
    Change,
    Drained,
    Filed,
    Forgotten,
    Job,
    Kept,
    Known,
    Lacking,
    Missed,
    Moved,
    Quarantined,
    Reserved,
    Seen,
    Stepped,
    Submitted,
    Swept,
    Synced,
    Unregistered,
    marked,
    moved,
)
from appliance.jobs.document import is_container, line, platform
from appliance.jobs.job import Attempt, Finished, Queued, Running
from appliance.jobs.ready import Key, Ready, Serves
from appliance.jobs.suspicion import Evidence


@attrs.define
class Store:
    """Jobs by id, boxes by name, and every index that a question needs."""

    jobs: dict[str, Job] = attrs.Factory(dict)
    boxes: dict[str, Box] = attrs.Factory(dict)
    counter: int = 0  # the number of the newest job; never goes back
    drained: str = ""  # by whom: no job is given out until somebody resumes
    archived: int = 0  # jobs that only the archive has
    ready: Ready = attrs.field(init=False)
    _by_mac: dict[str, str] = attrs.field(factory=dict, init=False)
    _by_uuid: dict[str, str] = attrs.field(factory=dict, init=False)
    _by_address: dict[str, str] = attrs.field(factory=dict, init=False)
    _by_token: dict[str, str] = attrs.field(factory=dict, init=False)
    _by_key: dict[tuple[str, str], list[str]] = attrs.field(factory=dict, init=False)
    _active: dict[str, None] = attrs.field(factory=dict, init=False)  # jobs with an attempt
    _held: dict[str, dict[str, None]] = attrs.field(factory=dict, init=False)  # those, by address
    _unfiled: dict[str, None] = attrs.field(factory=dict, init=False)  # with a body in memory
    _over: dict[str, None] = attrs.field(factory=dict, init=False)  # finished, in that order
    _loading: set[str] = attrs.field(factory=set, init=False)  # of those, whose files are fetched
    _serving: dict[Key, dict[str, None]] = attrs.field(factory=dict, init=False)
    evidence: Evidence = attrs.field(factory=Evidence, init=False)

    def __attrs_post_init__(self) -> None:
        self.ready = Ready(self._fits)
        # An address belongs to who asked from it last, as it did before the restart.
        for box in sorted(self.boxes.values(), key=lambda box: box.asked):
            self._index_box(box)
        for job in self.jobs.values():
            self._index_job(job)
        self._over = dict.fromkeys(
            sorted(self._over, key=lambda name: self.jobs[name].finished or 0)
        )

    def __repr__(self) -> str:
        return f"<Store {len(self.jobs)} jobs, {len(self._active)} active, {len(self.boxes)} boxes>"

    # ---- questions

    def job(self, name: str) -> Job:
        """Raises NotFound."""
        try:
            return self.jobs[name]
        except KeyError:
            raise NotFound(f"no job {name[:80]}") from None

    def box(self, name: str) -> Box:
        """Raises NotFound."""
        try:
            return self.boxes[name]
        except KeyError:
            raise NotFound(f"no testbox {name[:80]}") from None

    def box_of(self, identity: Identity) -> Box | None:
        """The box that this is: by MAC, else by the UUID in its hosts file (PXE on another NIC).

        What a box says of itself is no proof: a UUID that only boot.ipxe sent names nobody.
        """
        name = self._by_mac.get(identity.mac)
        if name is None and identity.uuid is not None:
            name = self._by_uuid.get(identity.uuid)
        return self.boxes.get(name) if name else None

    def box_at(self, address: str) -> Box | None:
        """The box that asked from `address` last."""
        name = self._by_address.get(address)
        return self.boxes[name] if name else None

    def attempt_with(self, token: str) -> tuple[Job, Attempt] | None:
        """The job and the attempt that carry `token`."""
        name = self._by_token.get(token)
        if name is None:
            return None
        job = self.jobs[name]
        return job, next(attempt for attempt in job.attempts if attempt.token == token)

    def jobs_with_key(self, submitter: str, key: str) -> list[Job]:
        """The jobs that this submitter made with this key; empty for a new key."""
        return [self.jobs[name] for name in self._by_key.get((submitter, key), [])]

    def active(self) -> list[Job]:
        """The jobs that hold a box."""
        return [self.jobs[name] for name in self._active]

    def held_at(self, address: str) -> list[Job]:
        """The jobs whose boxes asked from `address`: several where it runs virtual boxes."""
        return [self.jobs[name] for name in self._held.get(address, ())]

    def unfiled(self, most: int) -> list[Job]:
        """Up to `most` jobs whose documents' bodies are in memory, oldest first."""
        return [self.jobs[name] for name in itertools.islice(self._unfiled, most)]

    def over(self, newest: int, most: int) -> list[Job]:
        """Up to `most` finished jobs that the archive may take, all but the `newest`.

        What a testbox is suspected for stays: its suspicion asks how the job fared elsewhere.
        """
        surplus = min(len(self._over) - newest, most)
        if surplus <= 0:
            return []
        asked = {name for box in self.boxes.values() for name in box.lost}
        found = (name for name in self._over if name not in asked and name not in self._unfiled)
        return [self.jobs[name] for name in itertools.islice(found, surplus)]

    def boots_in_flight(self) -> int:
        """How many boxes are loading files now."""
        return len(self._loading)

    def keys_of(self, box: Box) -> tuple[Key, ...]:
        """What a box works for; nothing while it is unknown or its arch is."""
        if box.facts is None or box.runs_arch is None:
            return ()
        kind = platform(box.runs_arch, container=is_container(box.name))
        served = (line(queue, box.runs_arch) for queue in box.facts.served)
        return tuple((queue, kind) for queue in dict.fromkeys(served))

    def serves(self, box: Box) -> Serves:
        """What it takes while it is parked."""
        tags = frozenset(box.facts.tags if box.facts else ())
        only = box.reservation.user if box.reservation is not None else None
        return Serves(self.keys_of(box), tags, only)

    def serving(self, key: Key) -> list[str]:
        """The known boxes that work for `key`."""
        return list(self._serving.get(key, {}))

    def next_for(self, box: Box) -> Job | None:
        """The queued job that `box` would be handed now; nothing is taken."""
        name = self.ready.best(box.name, self.serves(box))
        return self.jobs[name] if name else None

    def _fits(self, job_id: str, box_name: str) -> bool:
        """A box that lost the job's boot gets it again only where no other could take it."""
        state = self.jobs[job_id].state
        assert isinstance(state, Queued)
        return box_name not in state.avoid or not self._another(self.jobs[job_id], state, box_name)

    def _another(self, job: Job, state: Queued, box_name: str) -> bool:
        now = self.boxes[box_name].asked  # it sat down then; it asks every half hour
        return any(
            is_there(other, now) and other.takes_jobs and self.serves(other).take(job.needs)
            for name in self._serving.get(job.match_key, {})
            if name not in state.avoid
            for other in [self.boxes[name]]
        )

    # ---- changes

    def foresee(self, changes: list[Change]) -> None:
        """Whether all of `changes` can be made, one after the other.  Raises IllegalMove."""
        if len(changes) < 2:  # `apply` is all or nothing by itself
            return
        states: dict[str, tuple[jobs.State, jobs.Rules]] = {}
        for change in changes:
            if isinstance(change, Submitted):
                states[change.job.id] = (change.job.state, change.job.document.rules)
            elif isinstance(change, Moved):
                job = self.jobs.get(change.job)
                if change.job not in states and job is not None:
                    states[job.id] = (job.state, job.document.rules)
                state, rules = states[change.job]
                states[change.job] = (jobs.advance(state, change.event, rules), rules)

    def apply(self, change: Change) -> None:
        """Make one change.  Raises IllegalMove, with nothing changed, where the table says so."""
        match change:
            case Submitted(job):
                assert job.id not in self.jobs, f"{job.id} is there already"
                self.counter = max(self.counter, job.number)
                self.jobs[job.id] = job
                self._index_job(job)
            case Moved():
                self._move(change)
            case Known(facts, at):
                self._know(facts, at)
            case Seen():
                self._see(change)
            case Missed(name, until):
                box = self.boxes[name]
                box.misses = box.misses + 1 if until else 0
                box.backoff_until = until
            case Stepped(name, step, job_id, number):
                remember(self.boxes[name], step, job_id, number)
            case Quarantined(name, why, by, at):
                box = self.boxes[name]
                box.quarantine, box.lost, box.quick = why, (), ()
                remember(box, Step(at, "quarantined" if why else "released", why or by), None, None)
            case Reserved(name, reservation, by, at):
                self.boxes[name].reservation = reservation
                what = (
                    "let go" if reservation is None else "reserved" if reservation.user else "held"
                )
                remember(self.boxes[name], Step(at, what, by), None, None)
            case Unregistered(name, by, at):
                box = self.boxes[name]
                self._unindex_box(box)
                box.facts = box.reservation = None
                self._index_box(box)
                remember(box, Step(at, "removed", by), None, None)
            case Forgotten(name):
                assert self.boxes[name].job is None, f"{name} holds a job"
                self._unindex_box(self.boxes.pop(name))
            case Drained(by):
                self.drained = by
            case Kept(name) | Swept(name) | Lacking(name):
                self.jobs[name] = marked(self.jobs[name], change)  # fields that no index knows
            case Synced(name, node):
                self.jobs[name] = attrs.evolve(self.jobs[name], node=node)
            case Filed(names):
                for job in [self.jobs[name] for name in names]:
                    document = attrs.evolve(job.document, body=None)
                    self.jobs[job.id] = attrs.evolve(job, document=document)
                    self._unfiled.pop(job.id, None)
            case Archived(names):
                for job in [self.jobs[name] for name in names]:
                    self._forget(job)
                self.archived += len(names)

    def _forget(self, job: Job) -> None:
        """It is over, and the archive has it."""
        assert isinstance(job.state, Finished), f"{job.id} is not over"
        assert job.document.body is None, f"the body of {job.id} is not filed"
        self._unindex_job(job)
        del self.jobs[job.id], self._over[job.id]
        ids = self._by_key[job.submitter, job.key]
        ids.remove(job.id)
        if not ids:
            del self._by_key[job.submitter, job.key]

    def _move(self, change: Moved) -> None:
        old = self.jobs[change.job]
        new = moved(old, change)
        self._unindex_job(old)
        self.jobs[new.id] = new
        # What was lost while it ran waits behind the others: it has had a box.
        self._index_job(new, came_back=not isinstance(old.state, Queued | Running))
        attempt = jobs.attempt_of(new.state) or jobs.attempt_of(old.state)
        if attempt is not None:
            box = self.boxes[attempt.box]
            if jobs.stage(new.state) != jobs.stage(old.state):
                box.since = change.at
            suspicion.note(self.evidence, box, old, new, change.event, change.at)

    def _know(self, facts: Facts, at: float) -> None:
        """A stranger with one of its MACs gets the name; one that had a name keeps its past."""
        names = dict.fromkeys(self._by_mac[mac] for mac in facts.macs if mac in self._by_mac)
        before = [box for name in sorted(names) if not (box := self.boxes[name]).known]
        found = self.boxes.get(facts.name) or Box(facts.name, (), since=at)
        for box in before:
            if box is not found:
                self._unindex_box(box)
                inherit(found, box)
                if box.name.startswith(STRANGER):
                    found.macs = (*found.macs, *box.macs)
                    del self.boxes[box.name]
                else:  # jobs were on it
                    box.macs = tuple(mac for mac in box.macs if mac not in facts.macs)
                    box.address = None
                    self._index_box(box)
        self._unindex_box(found)
        extra = () if found.known else found.macs
        found.facts = facts
        found.macs = tuple(dict.fromkeys([*facts.macs, *extra]))
        found.uuid = facts.uuid or found.uuid
        self.boxes[facts.name] = found
        self._index_box(found)

    def _see(self, change: Seen) -> None:
        who = change.identity
        self.boxes[change.box] = box = self.boxes.get(change.box) or Box(change.box, (who.mac,))
        same = who.mac in box.macs and who.address == box.address and who.arch in (None, box.arch)
        if not same:  # an idle box asks twice an hour, always as before
            self._unindex_box(box)
        box.macs = tuple(dict.fromkeys([*box.macs, who.mac]))
        box.arch = who.arch or box.arch
        box.uuid = (box.facts and box.facts.uuid) or who.uuid or box.uuid
        box.serial, box.product = who.serial or box.serial, who.product or box.product
        box.address, box.since = who.address, change.at
        if box.boot is not None and box.boot.job is None and not box.boot.steps:
            box.boots.pop()  # it was parked and asks again: no boot to remember
        elif box.boot is not None and box.boot.ended is None:
            box.boot.ended = "asked again"
        box.boots = [*box.boots[-BOOTS_KEPT + 1 :], BootLog(change.at)]
        self._by_address[who.address] = box.name  # another may have asked from there since
        if not same:
            self._index_box(box)

    # ---- indexes: each is a function of jobs and boxes, and never kept on disk

    def _index_job(self, job: Job, *, came_back: bool = False) -> None:
        if isinstance(job.state, Queued):
            self.ready.queue(job.id, job.needs, front=came_back)
        for attempt in job.attempts:
            self._by_token[attempt.token] = job.id
        if job.attempt is not None and not isinstance(job.state, Finished):
            self._active[job.id] = None
            self._held.setdefault(job.attempt.address, {})[job.id] = None
            if jobs.is_loading(job.state):
                self._loading.add(job.id)
            self.boxes[job.attempt.box].job = job.id
        if job.document.body is not None:
            self._unfiled[job.id] = None
        if isinstance(job.state, Finished):
            self._over[job.id] = None
        ids = self._by_key.setdefault((job.submitter, job.key), [])
        if job.id not in ids:
            ids.append(job.id)

    def _unindex_job(self, job: Job) -> None:
        if job.id in self.ready:
            self.ready.unqueue(job.id)
        for attempt in job.attempts:
            self._by_token.pop(attempt.token, None)
        if job.id in self._active and job.attempt is not None:
            del self._active[job.id]
            held = self._held[job.attempt.address]
            del held[job.id]
            if not held:
                del self._held[job.attempt.address]
        self._loading.discard(job.id)
        if job.attempt is not None and self.boxes[job.attempt.box].job == job.id:
            self.boxes[job.attempt.box].job = None

    def _index_box(self, box: Box) -> None:
        self._by_mac.update(dict.fromkeys(box.macs, box.name))
        if box.facts is not None and box.facts.uuid is not None:
            self._by_uuid.setdefault(box.facts.uuid, box.name)
        if box.address is not None:
            self._by_address[box.address] = box.name
        for key in self.keys_of(box):
            self._serving.setdefault(key, {})[box.name] = None

    def _unindex_box(self, box: Box) -> None:
        for mac in box.macs:
            self._by_mac.pop(mac, None)
        uuid = box.facts.uuid if box.facts is not None else None
        if uuid is not None and self._by_uuid.get(uuid) == box.name:
            del self._by_uuid[uuid]
        if box.address is not None and self._by_address.get(box.address) == box.name:
            del self._by_address[box.address]
        for key in self.keys_of(box):
            self._serving.get(key, {}).pop(box.name, None)

    def check(self) -> None:
        """The invariants; a violation is our bug and raises AssertionError."""
        holders: dict[str, str] = {}
        for job in self.active():
            attempt = job.attempt
            assert attempt is not None, f"{job.id} is active without an attempt"
            assert attempt.box not in holders, f"{attempt.box} holds two jobs"
            holders[attempt.box] = job.id
        for box in self.boxes.values():
            assert box.job == holders.get(box.name), f"{box.name} thinks it holds {box.job}"
        held = {name for names in self._held.values() for name in names}
        assert held == {*self._active}, f"held, and not active: {held ^ {*self._active}}"
        for job in self.jobs.values():
            assert (job.id in self.ready) == isinstance(job.state, Queued), job.id
            assert (job.id in self._loading) == jobs.is_loading(job.state), job.id
            assert (job.id in self._over) == isinstance(job.state, Finished), job.id
            assert (job.id in self._unfiled) == (job.document.body is not None), job.id
