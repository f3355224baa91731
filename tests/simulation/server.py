"""One life of the appliance on a disk in memory: the real scheduler, lobby, store and journal.

It dies at any await (`kill`, `kill_after` so many steps of its tasks), or in the middle of a call
of the disk; what it leaves is what the next one starts from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import trio

from appliance.doors import wiring
from appliance.doors.admission import Admission
from appliance.doors.boot_wait import Boots
from appliance.doors.neighbours import Kernel
from appliance.doors.seating import Usher
from appliance.errors import DiskTrouble, SyncFailed
from appliance.jobs import box as boxes
from appliance.keep.state import journal as journals
from appliance.scheduler import archiver, dispatch, reaper
from appliance.scheduler.boot_progress import Fetches
from appliance.scheduler.clock import Clock
from appliance.scheduler.reports import Reports
from appliance.scheduler.scheduler import Scheduler
from appliance.web.asgi import Doors
from tests import fakes
from tests.disks import Killed, MemoryDisk
from tests.lab import FakeImages
from tests.simulation.oracle import Violation

if TYPE_CHECKING:
    from tests.simulation.lab import World


class _Images(FakeImages):
    """A disk that may take until a certain moment for its look."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    async def missing(self, pinned: Any) -> list[str]:
        await trio.sleep_until(max(self._world.looks_until, trio.current_time()))
        if self._world.image_is_gone:
            self._world.sometimes["an image was gone"] += 1
            return [str(pinned.kernel)]
        return self.gone


class Server:
    """A running one, as long as its nursery is open."""

    scheduler: Scheduler
    fetches: Fetches
    reports: Reports
    boots: Boots
    wire: fakes.Wire

    def __init__(self, world: World, disk: MemoryDisk) -> None:
        self.world, self.disk = world, disk
        self.nursery: trio.Nursery | None = None
        self.dead = trio.Event()
        self.vanished = False  # it lost power: nobody gets a FIN
        self._stopping = False

    async def live(self) -> None:
        """Start, and serve until somebody kills it or the disk does."""
        try:
            async with trio.open_nursery() as self.nursery:
                await self._start(self.nursery)
                self.world.server_is_up(self)
                await trio.sleep_forever()
            if self._stopping:  # nobody can change the store any more
                self.scheduler.change([self.scheduler.clock.reading()])
                await self._journal.stop()
        except* (Killed, SyncFailed, DiskTrouble):
            self.world.sometimes["died of its disk"] += 1
        finally:
            self.dead.set()
            self.world.server_is_down(self)

    async def _start(self, nursery: trio.Nursery) -> None:
        world, config = self.world, self.world.config
        store, journal = await journals.restore(self.disk, world.journal_bytes)
        self._journal = journal
        await self.disk.archive.check(store)
        clock = Clock(trio.current_time(), world.wall(), world.boot, world.uptime())
        self.scheduler = Scheduler(
            config, store, journal, self.disk.archive, _Images(world),
            clock=clock, token=world.token,
        )  # fmt: skip
        world.oracle.started(self.scheduler)
        self._watch_disk()
        self.scheduler.restarted()
        for box in world.boxes:
            facts = boxes.facts(box.name, {"mac": [box.mac]}, config.defaults.queue)
            self.scheduler.change(self.scheduler.known(facts))
        await nursery.start(journal.serve)
        await nursery.start(dispatch.hand_over, self.scheduler)
        await nursery.start(reaper.reap, self.scheduler)
        await nursery.start(archiver.file, self.scheduler)
        admission = Admission(config.network, Kernel(), lambda card: None)
        self.fetches = Fetches(self.scheduler, admission.check, admission.acts)
        self.reports = Reports(self.scheduler, admission.check)
        self.boots = Boots(self.scheduler, Usher(self.scheduler, admission))
        if world.size.http:
            talking, giving = wiring.make_doors(self.scheduler, b"runner", Kernel())
            self.wire = fakes.Wire(nursery, Doors(talking | giving))

    def _watch_disk(self) -> None:
        append, oracle = self.disk.append, self.world.oracle

        async def watched(name: str, data: bytes) -> None:
            await append(name, data)
            oracle.wrote(name, data)

        self.disk.append = watched  # type: ignore[method-assign]

    # ---- its end

    async def stop(self) -> None:
        """In good order, as run.py does it: the lobby, the transfers, the doors, the journal."""
        self.world.server_is_down(self)  # for whoever comes from now on
        self.scheduler.lobby.dismiss()
        try:
            await trio.sleep(self.world.config.waits.shutdown_transfers)
        finally:  # the storm's end does not leave it half stopped
            if self.nursery is not None and not self.dead.is_set():
                self._stopping = True
                self.nursery.cancel_scope.cancel()

    def kill(self) -> None:
        """As `kill -9`, or a power cut: no task of it runs on but to be unwound."""
        assert self.nursery is not None
        self.vanished = self.world.vanishes()
        self.nursery.cancel_scope.cancel()

    def kill_after(self, steps: int) -> None:
        """At any await: when its tasks have made so many steps more."""
        trio.lowlevel.add_instrument(_Countdown(self, steps))

    async def call(self, verb: Any, *args: Any) -> Any:
        """Do this inside, as a request; ConnectionError if it dies before the answer is there."""
        answer: list[Any] = []
        done = trio.Event()

        async def request() -> None:
            try:
                answer.append(await verb(*args))
            except Violation:
                raise
            except Exception as error:
                answer.append(error)
            finally:
                done.set()

        if self.nursery is None or self.dead.is_set() or self.nursery.cancel_scope.cancel_called:
            raise ConnectionRefusedError
        self.nursery.start_soon(request)
        await done.wait()
        if not answer:
            raise ConnectionResetError
        if isinstance(answer[0], Exception):
            raise answer[0]
        return answer[0]


class _Countdown(trio.abc.Instrument):
    def __init__(self, server: Server, steps: int) -> None:
        self._server, self._steps = server, steps

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._steps -= 1
        if self._steps <= 0:
            trio.lowlevel.remove_instrument(self)
            if not self._server.dead.is_set():
                self._server.kill()
