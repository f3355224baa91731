"""Pure: no clock, no socket, no await.

All jobs and testboxes, in memory.  The store changes in one way only: `apply` takes a Change.
The journal keeps the Changes, so applying them again in order rebuilds the store.

`decisions` makes the changes, `registry` identifies testboxes, and `ready` matches queued jobs with
parked boxes.  The store adds the queued jobs to `ready`; the scheduler adds the parked boxes, since
seats do not survive a restart.
"""

from __future__ import annotations

import itertools

import attrs

from appliance.config import Waits
from appliance.errors import NotFound
from appliance.jobs import job as jobs
from appliance.jobs import registry, suspicion
from appliance.jobs.box import Box, Identity, is_there
from appliance.jobs.changes import (
    Archived,
    Change,
    Clocked,
    Drained,
    Filed,
    Job,
    Kept,
    Lacking,
    Moved,
    Submitted,
    Swept,
    Synced,
    marked,
    moment_of,
    moved,
)
from appliance.jobs.job import Attempt, Finished, Queued, Running
from appliance.jobs.ready import Key, Ready
from appliance.jobs.registry import Registry
from appliance.jobs.suspicion import Evidence


@attrs.define
class Store:
    """Jobs by id, boxes by name, and the indexes for every other lookup."""

    jobs: dict[str, Job] = attrs.Factory(dict)
    boxes: dict[str, Box] = attrs.Factory(dict)
    counter: int = 0  # the number of the newest job; never goes back
    drained: str = ""  # who drained the lab: no job is given out until somebody resumes
    archived: int = 0  # number of jobs that are in the archive alone
    clocked: Clocked | None = None  # the last reading of a run's clocks
    moment: float = 0.0  # time of the newest change, by the clock of its run
    park: float = attrs.field(default=Waits().park, init=False)  # seconds of an idle box's wait
    ready: Ready = attrs.field(init=False)
    _registry: Registry = attrs.field(init=False)
    _by_token: dict[str, str] = attrs.field(factory=dict, init=False)
    _by_key: dict[tuple[str, str], list[str]] = attrs.field(factory=dict, init=False)
    _active: dict[str, None] = attrs.field(factory=dict, init=False)  # jobs with an attempt
    _held: dict[str, dict[str, None]] = attrs.field(factory=dict, init=False)  # _active by address
    _unfiled: dict[str, None] = attrs.field(factory=dict, init=False)  # with a body in memory
    _over: dict[str, None] = attrs.field(factory=dict, init=False)  # finished, oldest end first
    _loading: set[str] = attrs.field(factory=set, init=False)  # active, files being fetched
    evidence: Evidence = attrs.field(factory=Evidence, init=False)

    def __attrs_post_init__(self) -> None:
        self.ready = Ready(self._fits)
        self._registry = Registry(self.boxes)
        for job in self.jobs.values():
            self._index_job(job)
        self._over = dict.fromkeys(
            sorted(self._over, key=lambda name: self.jobs[name].finished or 0)
        )

    def __repr__(self) -> str:
        return f"<Store {len(self.jobs)} jobs, {len(self._active)} active, {len(self.boxes)} boxes>"

    # ---- questions

    def job(self, name: str) -> Job:
        """Returns a job.  Raises NotFound."""
        try:
            return self.jobs[name]
        except KeyError:
            raise NotFound(f"no job {name[:80]}") from None

    def box(self, name: str) -> Box:
        """Returns a testbox.  Raises NotFound."""
        try:
            return self.boxes[name]
        except KeyError:
            raise NotFound(f"no testbox {name[:80]}") from None

    def box_of(self, identity: Identity) -> Box | None:
        """Finds the box with this identity."""
        return self._registry.of(identity)

    def registered(self, card: str) -> str | None:
        """Returns the name of the known box that has this network card."""
        box = self._registry.of(Identity(card, ""))
        return box.name if box is not None and box.known else None

    def said_to_be(self, box: Box) -> Box | None:
        """Finds the known box that an unknown one claims to be, by its UUID."""
        return self._registry.said_to_be(box)

    def box_at(self, address: str) -> Box | None:
        """Finds the box that asked from `address` last."""
        return self._registry.at(address)

    def serving(self, key: Key) -> list[str]:
        """Returns the known boxes that serve `key`."""
        return self._registry.serving(key)

    def attempt_with(self, token: str) -> tuple[Job, Attempt] | None:
        """Finds the attempt with `token`, and its job."""
        name = self._by_token.get(token)
        if name is None:
            return None
        job = self.jobs[name]
        return job, next(attempt for attempt in job.attempts if attempt.token == token)

    def jobs_with_key(self, submitter: str, key: str) -> list[Job]:
        """Returns the jobs that this submitter made with this key; empty for a new key."""
        return [self.jobs[name] for name in self._by_key.get((submitter, key), [])]

    @property
    def lost(self) -> int:
        """The number of jobs missing from memory and archive, after a repair or a restore."""
        return self.counter - len(self.jobs) - self.archived

    def active(self) -> list[Job]:
        """Returns the jobs that hold a box."""
        return [self.jobs[name] for name in self._active]

    def held_at(self, address: str) -> list[Job]:
        """Returns the jobs of the boxes at `address`: several on a host of virtual boxes."""
        return [self.jobs[name] for name in self._held.get(address, ())]

    def unfiled(self, most: int) -> list[Job]:
        """Returns up to `most` jobs whose document bodies are in memory, oldest first."""
        return [self.jobs[name] for name in itertools.islice(self._unfiled, most)]

    def over(self, newest: int, most: int) -> list[Job]:
        """Returns up to `most` finished jobs to archive; the `newest` ones stay.

        Jobs that a testbox is suspected for also stay: suspicion looks up which boxes lost them.
        """
        surplus = min(len(self._over) - newest, most)
        if surplus <= 0:
            return []
        asked = {name for box in self.boxes.values() for name in box.lost}
        found = (name for name in self._over if name not in asked and name not in self._unfiled)
        return [self.jobs[name] for name in itertools.islice(found, surplus)]

    def boots_in_flight(self) -> int:
        """Returns the number of boxes that are loading files."""
        return len(self._loading)

    def next_for(self, box: Box) -> Job | None:
        """Returns the queued job that `box` would get now; the job stays queued."""
        name = self.ready.best(box.name, registry.serves(box))
        return self.jobs[name] if name else None

    def _fits(self, job_id: str, box_name: str) -> bool:
        """Tells whether the box may have the job: one that lost it only if no other can take it."""
        state = self.jobs[job_id].state
        assert isinstance(state, Queued)
        return box_name not in state.avoid or not self._another(self.jobs[job_id], state, box_name)

    def _another(self, job: Job, state: Queued, box_name: str) -> bool:
        now = self.boxes[box_name].asked  # when it took its seat; it asks once in each wait
        return any(
            is_there(other, now, self.park)
            and other.takes_jobs
            and registry.serves(other).take(job.needs)
            for name in self.serving(job.match_key)
            if name not in state.avoid
            for other in [self.boxes[name]]
        )

    # ---- changes

    def foresee(self, changes: list[Change]) -> None:
        """Checks that all of `changes` can be made in order.  Raises IllegalMove."""
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
        """Makes one change.  Raises IllegalMove, with nothing changed, for an illegal move."""
        self._apply(change)
        moment = moment_of(change)
        self.moment = self.moment if moment is None else moment

    def _apply(self, change: Change) -> None:
        match change:
            case Submitted(job):
                assert job.id not in self.jobs, f"{job.id} is there already"
                self.counter = max(self.counter, job.number)
                self.jobs[job.id] = job
                self._index_job(job)
            case Moved():
                self._move(change)
            case Clocked(_, boot, _, step):
                same_boot = self.clocked is not None and boot == self.clocked.boot
                self.clocked = change
                self._registry.shift(step, exactly=same_boot)
            case Drained(by):
                self.drained = by
            case Kept(name) | Swept(name) | Lacking(name):
                self.jobs[name] = marked(self.jobs[name], change)  # changes no indexed field
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
            case _:
                self._registry.apply(change)

    def _forget(self, job: Job) -> None:
        """Removes a job from memory: it is over, and the archive has it."""
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
        # A job lost while running waits behind the others, since it has had its turn on a box.
        self._index_job(new, came_back=not isinstance(old.state, Queued | Running))
        attempt = jobs.attempt_of(new.state) or jobs.attempt_of(old.state)
        if attempt is not None:
            box = self.boxes[attempt.box]
            if jobs.stage(new.state) != jobs.stage(old.state):
                box.since = change.at
            suspicion.note(self.evidence, box, old, new, change.event, change.at)

    # ---- indexes: each is computed from jobs and boxes, and never stored on disk

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

    def check(self) -> None:
        """Checks the invariants.  A violation is our bug and raises AssertionError."""
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
