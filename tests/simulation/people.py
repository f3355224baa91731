"""Who submit, ask again when an answer was lost, cancel, read how it ended, and release boxes."""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, Any, Final

import trio

from appliance.errors import ApplianceError
from appliance.jobs.job import Finished, Running
from appliance.scheduler import intake
from appliance.scheduler.intake import Paper
from tests.simulation.determinism import sleep

if TYPE_CHECKING:
    from tests.simulation.lab import World

RETRY_S: Final = 20.0
WEEK_S: Final = 7 * 86400.0  # longer than a run, whatever its clock does
LOOKS_S: Final = 600.0
PATIENCE_S: Final = 60.0  # for an answer; then they ask again with the same key


class Person:
    """Submits `jobs` jobs during the storm, each until it is acknowledged."""

    def __init__(self, world: World, name: str, jobs: int, rng: random.Random) -> None:
        self.world, self.name, self.jobs, self.rng = world, name, jobs, rng

    async def life(self) -> None:
        """All jobs, one after another."""
        for n in range(self.jobs):
            await sleep(self.rng.expovariate(self.jobs / self.world.size.hours / 3600))
            await self._submit(f"{self.name}key{n:06}")
        self.world.person_is_done()

    async def _submit(self, key: str) -> None:
        retry, reboots = self.rng.random() < 0.2, int(self.rng.random() < 0.2)
        text = f"script: x\npriority: {self.rng.choice([0, 0, 5])}\n"
        text += f"retry: {str(retry).lower()}\nreboots: {reboots}\n"
        while True:
            try:
                server = self.world.server
                if server is None:
                    raise ConnectionRefusedError
                with trio.fail_after(PATIENCE_S):
                    (job,) = await server.call(
                        intake.submit, server.scheduler, [Paper("job.yaml", text)], self.name, key
                    )
            except (ConnectionError, ApplianceError, trio.TooSlowError):
                await sleep(RETRY_S)
                continue
            if self.rng.random() < self.world.weather.answer_lost:
                self.world.sometimes["submitted again with the same key"] += 1
                await sleep(self.rng.uniform(0, 60))
                continue
            break
        self.world.oracle.submitted(key, job.id)
        if reboots:
            self.world.restarting.add(job.id)
        if self.rng.random() < self.world.weather.cancels:
            self.world.later(self.rng.uniform(0, 3600), self._cancel, job.id)

    async def _cancel(self, job: str) -> None:
        server = self.world.server
        if server is None:
            return
        try:
            await server.call(server.scheduler.cancel, job, self.name)
        except (ConnectionError, ApplianceError):
            return
        self.world.oracle.answered("Cancel", job)
        self.world.oracle.ended(job, "cancel")
        self.world.sometimes["a cancel was acknowledged"] += 1


async def punctual(world: World, tries: int, rng: random.Random) -> None:
    """In calm weather: has jobs handed over on the very tick of a comment line, or of a wait's end,
    or while the comment line is on its way."""
    for n in range(tries):
        await sleep(world.config.waits.park)  # all sit again
        server = world.server
        assert server is not None
        seats = [seat for seat in server.scheduler.lobby if seat._scope is not None]
        if not seats:
            continue
        seat = rng.choice(seats)
        moment = await _tick_of(world, server, seat, at_its_end=n % 2 == 0)
        if not seat.open or moment < trio.current_time() + 1 or math.isinf(moment):
            continue  # told already, or just then, or it waits for its turn and no longer for time
        world.looks_until = moment + rng.choice([0.0, 0.0, 0.25])
        await trio.sleep_until(moment - 1)
        paper = Paper("job.yaml", f"script: x\nqueue: {seat.box}\n")
        await server.call(intake.submit, server.scheduler, [paper], "punctual", f"punctual{n}")


async def _tick_of(world: World, server: Any, seat: Any, *, at_its_end: bool) -> float:
    """When the seat's sleep ends: the next one, or the last."""
    clock, waits = server.scheduler.clock, world.config.waits
    end = clock.trio_time(seat.since) + waits.park
    while at_its_end and seat.open and seat._scope.deadline < end:  # noqa: ASYNC110 - of a seat
        await trio.sleep_until(seat._scope.deadline + 1)
    moment: float = seat._scope.deadline
    return moment


class Landlord:
    """During the storm: keeps boxes from jobs, lets them go, drains the lab, gives jobs more time.

    What was answered holds until it is taken back; until then nothing is known of it.
    """

    def __init__(self, world: World, rng: random.Random) -> None:
        self.world, self.rng = world, rng

    async def life(self) -> None:
        """One thing after another, each at its time."""
        weather = self.world.weather
        verbs = {
            self._hold: weather.holds,
            self._drain: weather.drains,
            self._renew: weather.renews,
        }
        total = sum(verbs.values())
        while total > 0.001:
            await sleep(self.rng.expovariate(total / 3600))
            (verb,) = self.rng.choices(list(verbs), list(verbs.values()))
            await verb()

    async def _ask(self, name: str, *args: Any) -> bool:
        """Whether it was answered with yes."""
        server = self.world.server
        if server is None:
            return False
        try:
            with trio.fail_after(PATIENCE_S):
                await server.call(getattr(server.scheduler, name), *args)
        except (ConnectionError, ApplianceError, trio.TooSlowError):
            return False
        return True

    async def _hold(self) -> None:
        server, oracle = self.world.server, self.world.oracle
        if server is None:
            return
        name = self.rng.choice(self.world.boxes).name
        user = self.rng.choice([None, None, "person0"])
        box, until = server.scheduler.store.boxes[name], server.scheduler.clock.now() + WEEK_S
        if await self._ask("reserve", box, user, until, "landlord", ""):
            oracle.answered("Reserved", name)
            self.world.sometimes["a box was held" if user is None else "a box was reserved"] += 1
            if user is None:
                oracle.held.add(name)
            await sleep(self.rng.uniform(60, 3600))
            oracle.held.discard(name)
        await self._let_go(name)

    async def gives_all_back(self) -> None:
        """In calm weather: nothing is kept from anybody."""
        self.world.oracle.held.clear()
        self.world.oracle.drained = False
        for box in self.world.boxes:
            await self._let_go(box.name)
        await self._resume()

    async def _let_go(self, name: str) -> None:
        while True:
            server = self.world.server
            if server is not None:
                box = server.scheduler.store.boxes[name]
                if box.reservation is None or await self._ask("release", box, "landlord"):
                    return
            await sleep(RETRY_S)

    async def _resume(self) -> None:
        while True:
            server = self.world.server
            if server is not None and not server.scheduler.store.drained:
                return
            if not await self._ask("resume"):
                await sleep(RETRY_S)

    async def _drain(self) -> None:
        oracle = self.world.oracle
        if await self._ask("drain", "landlord"):
            oracle.answered("Drained", "")
            oracle.drained = True
            self.world.sometimes["the lab was drained"] += 1
            await sleep(self.rng.uniform(60, 3600))
            oracle.drained = False
        await self._resume()

    async def _renew(self) -> None:
        server = self.world.server
        running = [] if server is None else [
            job for job in server.scheduler.store.active() if isinstance(job.state, Running)
        ]  # fmt: skip
        if running:
            job = self.rng.choice(running).id
            if await self._ask("renew", job, self.rng.uniform(60, 3600)):
                self.world.oracle.answered("Renew", job)
                self.world.sometimes["a job was renewed"] += 1


async def operator(world: World) -> None:
    """Reads how jobs ended, and releases the boxes that were quarantined."""
    while True:
        await sleep(LOOKS_S)
        server = world.server
        if server is None:
            continue
        try:
            await server.call(_look, server)
        except (ConnectionError, ApplianceError):
            continue


async def _look(server: Any) -> None:
    scheduler, oracle = server.scheduler, server.world.oracle
    await scheduler._journal.durable(scheduler._journal.appended)
    oracle.looked_at_the_clock(scheduler)
    earlier = scheduler.clock.now() - LOOKS_S
    for job in scheduler.store.jobs.values():
        if isinstance(job.state, Finished) and job.finished < earlier:
            oracle.ended(job.id, job.state.health)
    archived = "SELECT id, health FROM job WHERE finished < ?"
    for name, health in scheduler.archive._mine.execute(archived, (earlier,)):
        oracle.ended(name, health)
    if trio.current_time() > server.world.disk_well_since + LOOKS_S:  # else boxes wait for it
        oracle.looked_into_the_lobby(scheduler, server.world.boxes)
    for box in scheduler.store.boxes.values():
        if box.quarantine:
            server.world.sometimes["a box was quarantined"] += 1
            oracle.held.discard(box.name)  # the same verb lets it go
            await scheduler.release(box, "root")
