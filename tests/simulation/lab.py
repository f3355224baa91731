"""Storm, calm, and the demands at the end: `simulate(seed)`."""

from __future__ import annotations

import errno
import itertools
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final
from unittest import mock

import attrs
import trio

from appliance.config import Config, Limits, Network, Paths, Waits
from appliance.jobs.job import Finished
from appliance.jobs.store import Store
from tests import lab as labs
from tests.disks import MemoryCalls, MemoryDisk
from tests.simulation import determinism, network, people
from tests.simulation.box import RETRY_S, Box
from tests.simulation.determinism import sleep
from tests.simulation.oracle import Oracle, Violation, demand, jobs_of
from tests.simulation.server import Server
from tests.simulation.weather import CALM, FAULTS, Weather

BEGAN_UTC: Final = 1_800_000_000.0
HOUR: Final = 3600.0
# What a server's clock may be wrong by at a start; by the next it may be right.
CLOCKS_AHEAD: Final = (
    0.0, 0.0, -60.0, 60.0, -7200.0, 86400.0, -86400.0, 3e7, -3e7, -BEGAN_UTC,
)  # fmt: skip
ENDS_WITHIN: Final = 20  # times the storm and the calm: more than any run that ends takes


FINISHED_IN_MEMORY: Final = (0, 2, 1000)  # by the seed: all others are in the archive


@attrs.frozen
class Size:
    """How large a run is."""

    boxes: int = 4
    hours: float = 6.0  # of storm
    jobs: int = 8  # of each person
    people: int = 3
    http: bool = False
    drip: float = 100.0  # between comment lines; iPXE's watchdog bites after 120
    watchdog: float = network.WATCHDOG_S  # older iPXE has none
    often: float = 1.0  # how often boxes lose power, relative to the worst weather
    troubles: float = 1.0  # how often the server and its disk have trouble, likewise
    # By the seed: a longer journal becomes a snapshot while everything goes on.
    journal_bytes: tuple[int, ...] = (10_000, 50_000, 200_000)
    job_s: tuple[float, float] = (60.0, 2400.0)
    faults: frozenset[str] = FAULTS
    # The longest that a job can still take when the storm is over: a running limit, a few boots.
    calm_h: float = 9.0
    # From then on nothing of the storm is left in the lab: no lease, no back-off, no boot.
    settled_h: float = 4.0
    punctual: int = 6  # jobs that come on the very tick at which something else happens


# A whole lab: boxes of Debian 13's iPXE, which waits half an hour in silence
# (docs/firmware.md#waiting), so that the server says little; each loses power once a day at the
# worst.  The server and its disk have trouble up to three times an hour.
WORKING: Final = Size(
    boxes=300, hours=6.0, jobs=50, people=6, drip=900.0, watchdog=math.inf, often=0.02,
    troubles=0.3, journal_bytes=(200_000, 1_000_000, 4_000_000),
)  # fmt: skip
# As many as a large lab has; its faults are those after which all is well within the hour.
THOUSANDS: Final = attrs.evolve(
    WORKING, boxes=2000, hours=0.5, jobs=20, people=5, job_s=(30.0, 300.0), settled_h=0.75,
    calm_h=1.25, often=0.5, troubles=0.5, punctual=0,
    faults=frozenset(["power_cut", "no_fin", "fetch_breaks", "refetches", "told_twice", "cancels",
                      "answer_lost", "kill", "power_loss", "clock_jumps"]),
)  # fmt: skip


@attrs.frozen
class Report:
    """What a run did: equal seeds give equal reports."""

    seed: int
    sometimes: dict[str, int]
    box_hours: float
    digest: str  # of every change of every store and every byte on a disk, in order


class World:
    """What everybody in one lab shares."""

    def __init__(self, seed: int, size: Size) -> None:
        rng = random.Random(seed)
        self.size, self.weather = size, Weather.draw(rng, size.often, size.troubles, size.faults)
        self.rng = determinism.child(rng)
        nowhere = labs.config().paths
        waits = Waits(drip=size.drip)
        network_ = Network(check_neighbour=False)
        limits = Limits(finished_in_memory=FINISHED_IN_MEMORY[seed % len(FINISHED_IN_MEMORY)])
        self.config = Config(
            paths=Paths(*attrs.astuple(nowhere)), network=network_, waits=waits, limits=limits
        )
        self.journal_bytes = rng.choice(size.journal_bytes)
        self.oracle = Oracle()
        self.sometimes: Counter[str] = self.oracle.sometimes
        self.net: Any = network.Http() if size.http else network.Direct()
        self.server: Server | None = None
        self.boxes = [Box(self, n, determinism.child(rng)) for n in range(size.boxes)]
        self.boxes_off: set[str] = set()
        self.cut_off: list[Any] = []  # lines to a server whose machine lost power
        self.persons = [
            people.Person(self, f"person{n}", size.jobs, determinism.child(rng))
            for n in range(size.people)
        ]
        self.landlord = people.Landlord(self, determinism.child(rng))
        self._people_left = size.people
        self.all_submitted = trio.Event()
        self.restarting: set[str] = set()  # jobs that restart their box once
        self.disk = MemoryDisk(seed)
        self.nursery: trio.Nursery
        self.looks_until = 0.0  # how long the disk of the images takes for its look
        self.disk_well_since = 0.0
        self.image_is_gone = False
        self._utc_shift = 0.0
        self.boot, self._booted = "boot-0", 0.0  # of the server's machine
        self._tokens = itertools.count()
        self.trace = determinism.Trace()

    # ---- what its inhabitants use

    def token(self) -> str:
        """A fence; never the same twice, across restarts too."""
        return f"token{next(self._tokens)}"

    def wall(self) -> float:
        """What the server's clock says: UTC."""
        return BEGAN_UTC + trio.current_time() + self._utc_shift

    def uptime(self) -> float:
        """How long the server's machine has been on."""
        return trio.current_time() - self._booted

    def later(self, seconds: float, what: Callable[..., Awaitable[Any]], *args: Any) -> None:
        """Do this in a while; the one who asked need not live."""

        async def do() -> None:
            await sleep(seconds)
            await what(*args)

        self.nursery.start_soon(do)

    def loses_power(self, line: Any) -> None:
        """A box that waits is gone; the server learns of it soon or late."""
        line.silent = True
        no_fin = self.rng.random() < self.weather.no_fin
        self.sometimes["half-open" if no_fin else "hung up"] += 1

        async def tell() -> None:
            hang_up = line.hang_up()
            if hang_up is not None:
                await hang_up

        self.later(self.rng.uniform(1, network.SEEN_DEAD_S) if no_fin else 0.0, tell)

    def refuse_upload(self, job: str, number: int) -> None:
        """A result of that attempt did not fit."""
        from appliance.jobs import decisions

        if self.server is not None and job in self.server.scheduler.store.jobs:
            scheduler = self.server.scheduler
            refused = decisions.refused_upload(
                scheduler.store.jobs[job], number, "quota", scheduler.clock.now()
            )
            scheduler.change(refused)

    def person_is_done(self) -> None:
        """One more has submitted everything."""
        self._people_left -= 1
        if not self._people_left:
            self.all_submitted.set()

    def may_spare(self, box: Box) -> bool:
        """Whether a box may stay off for good; half of them are kept."""
        if len(self.boxes_off) >= len(self.boxes) // 2:
            return False
        self.boxes_off.add(box.name)
        self.sometimes["a box stayed off"] += 1
        return True

    def vanishes(self) -> bool:
        """Whether the server that dies now loses its power."""
        return self.rng.random() < self.weather.power_loss

    def server_is_up(self, server: Server) -> None:
        """Boxes and people find it; those that wait for an answer of a machine that lost power
        hear that it knows nothing of them."""
        self.server = server
        for line in self.cut_off:
            self.later(self.rng.uniform(0, network.KEEPALIVE_S), line.resets)
        self.cut_off.clear()

    def server_is_down(self, server: Server) -> None:
        """Nobody does."""
        if self.server is server:
            self.server = None

    def applied(self, store: Store, change: Any) -> None:
        """A change was made to a store; that of the server, or one that is read from disk."""
        self.trace.note(trio.current_time(), change)
        if self.server is not None and self.server.scheduler.store is store:
            self.oracle.applied(self.server.scheduler, change)

    # ---- its course

    async def run(self) -> Report:
        """The storm, the calm, the demands."""
        limit = ENDS_WITHIN * (self.size.hours + self.size.calm_h) * HOUR
        async with trio.open_nursery() as self.nursery:
            self.nursery.cancel_scope.deadline = limit
            self.nursery.start_soon(self._keep_serving)
            for box in self.boxes:
                self.nursery.start_soon(box.life)
            for person in self.persons:
                self.nursery.start_soon(person.life)
            self.nursery.start_soon(people.operator, self)
            storm = trio.CancelScope(deadline=self.size.hours * HOUR)
            with storm:
                async with trio.open_nursery() as trouble:
                    for box in self.boxes:
                        trouble.start_soon(self._cut_power_of, box)
                    trouble.start_soon(self._trouble_the_server)
                    trouble.start_soon(self.landlord.life)
            await self._calm()
            self._demand_peace()
            await self._demand_seats()
            self.nursery.cancel_scope.cancel()
        demand(trio.current_time() < limit, "it goes on for ever")
        box_hours = self.size.boxes * trio.current_time() / HOUR
        return Report(0, dict(sorted(self.sometimes.items())), box_hours, self.trace.digest)

    async def _calm(self) -> None:
        self.weather, self.image_is_gone = CALM, False
        self.disk.calls.broken = self.disk.calls.room = None
        await self.landlord.gives_all_back()
        await self.all_submitted.wait()
        await sleep(self.size.settled_h * HOUR)
        self.oracle.calm = True
        await people.punctual(self, self.size.punctual, self.rng)
        await sleep((self.size.calm_h - self.size.settled_h) * HOUR)

    def _demand_peace(self) -> None:
        demand(self.server is not None, "the server does not come up")
        assert self.server is not None
        scheduler = self.server.scheduler
        scheduler.store.check()
        jobs = self.size.people * self.size.jobs
        demand(len(self.oracle.acknowledged) == jobs, "a submit was never acknowledged")
        everything = jobs_of(scheduler)
        made = sum(job.submitter != "punctual" for job in everything.values())
        demand(made == jobs, f"{made} jobs, not {jobs}")
        waiting = [job.id for job in everything.values()
                   if not isinstance(job.state, Finished)]  # fmt: skip
        demand(not waiting, f"never over: {waiting}")

    async def _demand_seats(self) -> None:
        """Who waits sits, and nobody else, but for those that are being told just then."""
        there: set[str] = set()
        wrong = {box.name for box in self.boxes}
        for _ in range(3):
            await sleep(RETRY_S)
            assert self.server is not None
            seated = {seat.box for seat in self.server.scheduler.lobby}
            now = {box.name for box in self.boxes if box.waiting}
            there, wrong = there | now, wrong & (seated ^ now)
        demand(not wrong, f"seats of {wrong}")
        wanted = len(self.boxes) - len(self.boxes_off)
        demand(len(there) == wanted, f"{len(there)} boxes wait at the end, not {wanted}")

    async def _keep_serving(self) -> None:
        while True:
            server = Server(self, self.disk)
            await server.live()
            self.sometimes["the server died"] += 1
            if server.vanished or self.vanishes():
                self.disk = self.disk.after_kill()
                self.boot, self._booted = f"boot-{trio.current_time()}", trio.current_time()
                self.sometimes["it lost what was not synced"] += 1
            else:
                self.disk = self.disk.reopened()
            if self.rng.random() < self.weather.clock_jumps:
                before, self._utc_shift = self._utc_shift, self.rng.choice(CLOCKS_AHEAD)
                self.sometimes["the clock jumped"] += 1
                if self._utc_shift > before:
                    self.oracle.leapt()
            await sleep(self.rng.uniform(1, 300))

    async def _cut_power_of(self, box: Box) -> None:
        while self.weather.power_cut > 0.001:
            await sleep(box.rng.expovariate(self.weather.power_cut / HOUR))
            self.sometimes["a box lost power"] += 1
            box.cut_power()

    async def _trouble_the_server(self) -> None:
        weather = self.weather
        faults: dict[Callable[[], Awaitable[None]], float] = {
            self._kill: weather.kill,
            self._kill_in_disk: weather.kill_in_disk,
            self._fill_disk: weather.disk_full,
            self._break_disk: weather.disk_broken,
            self._fail_a_sync: weather.sync_fails,
            self._take_the_image: weather.image_gone,
            self._stop: weather.stop,
        }
        total = sum(faults.values())
        while total > 0.001:
            await sleep(self.rng.expovariate(total / HOUR))
            (fault,) = self.rng.choices(list(faults), list(faults.values()))
            if self.server is not None:
                await fault()

    async def _kill(self) -> None:
        assert self.server is not None
        self.server.kill_after(self.rng.choice([1, self.rng.randrange(1, 400)]))

    async def _stop(self) -> None:
        assert self.server is not None
        self.sometimes["the server stopped in good order"] += 1
        await self.server.stop()

    async def _kill_in_disk(self) -> None:
        self.disk.calls.kill_at(self.rng.randrange(1, 10))

    async def _fail_a_sync(self) -> None:
        self.disk.calls.fail_at(self.rng.randrange(1, 5), errno.EIO, syncs=True)

    async def _take_the_image(self) -> None:
        self.image_is_gone = True
        await sleep(self.rng.uniform(10, 900))
        self.image_is_gone = False

    async def _fill_disk(self) -> None:
        calls = self.disk.calls
        calls.room = sum(map(len, calls.files.values())) + self.rng.randrange(2000)
        self.sometimes["the disk was full"] += 1
        await self._trouble_lasts()
        calls.room = None

    async def _break_disk(self) -> None:
        calls = self.disk.calls
        calls.broken = self.rng.choice([errno.EIO, errno.EROFS])
        self.sometimes["the disk refused"] += 1
        await self._trouble_lasts()
        calls.broken = None

    async def _trouble_lasts(self) -> None:
        length = self.rng.uniform(10, 900)
        self.disk_well_since = trio.current_time() + length
        await sleep(length)


def simulate(seed: int, size: Size = Size()) -> Report:
    """One run.  Raises Violation, with the seed; whatever else escapes is a failure too."""
    world = World(seed, size)
    apply, write = Store.apply, MemoryCalls.write

    def watched(store: Store, change: Any) -> None:
        apply(store, change)
        world.applied(store, change)

    def written(calls: MemoryCalls, name: str, data: memoryview) -> int:
        world.trace.wrote(name, data)
        return write(calls, name, data)

    with (
        mock.patch.object(Store, "apply", watched),
        mock.patch.object(MemoryCalls, "write", written),
    ):
        try:
            report: Report = determinism.run(seed, world.run)
        except BaseException as error:
            found = error.subgroup(Violation) if isinstance(error, BaseExceptionGroup) else None
            first = error if found is None else _first(found)
            first.add_note(f"the last changes:\n{world.trace.tail}")
            if first is error:
                raise
            raise first from error
    return attrs.evolve(report, seed=seed)


def _first(group: BaseException) -> BaseException:
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group
