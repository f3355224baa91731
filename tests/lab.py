"""A lab in one process: the real scheduler, lobby, store and doors, on a disk in memory.

Nothing here takes a thread, so it runs in virtual time (DESIGN.md#virtual-time); what a test
fetches from /os or uploads does take threads, and such tests run on the real clock.
"""

from __future__ import annotations

import itertools
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Config, Network, Paths
from appliance.control.verbs import Verbs
from appliance.doors import wiring
from appliance.errors import BadImage
from appliance.jobs import box as boxes
from appliance.jobs.changes import Pinned
from appliance.keep.state import journal as journals
from appliance.scheduler import archiver, dispatch, intake, reaper
from appliance.scheduler.clock import Clock
from appliance.scheduler.intake import Paper
from appliance.scheduler.scheduler import Scheduler
from appliance.web.asgi import Doors
from tests import fakes
from tests.disks import MemoryDisk

MAC = "52:54:00:00:00:01"
HYPHENS = MAC.replace(":", "-")
SCHEDULER = ("10.0.0.1", 3000)
ASK = f"/boot.ipxe/mac/{HYPHENS}?arch=x86_64"
KEY = "0123456789abcdef"
IMAGE = "/os/debian/x86_64/12-2026-01-01-00-00-00"
PINNED = Pinned(
    f"{IMAGE}/boot/vmlinuz-6.1",
    (f"{IMAGE}/boot/initramfs.lkp-6.1.img", f"{IMAGE}/boot/modules-6.1.cgz"),
    IMAGE,
    "6.1",
)


class FakeImages:
    """One image; `gone` is what has vanished since."""

    def __init__(self) -> None:
        self.gone: list[str] = []

    async def pin(self, document: Any) -> Pinned:
        if document.os_mount == "container":
            return Pinned("", (), "", "")
        if document.os != "debian":
            raise BadImage(f"no image {document.os}; there is: debian 12 x86_64")
        initrds, kernel = PINNED.initrds, document.kernel_uri or PINNED.kernel
        if document.modules_uri:
            initrds = (initrds[0], *document.modules_uri)
        return attrs.evolve(PINNED, kernel=kernel, initrds=initrds)

    async def missing(self, pinned: Pinned) -> list[str]:
        return self.gone


@attrs.define
class Lab:
    """What a test needs of it."""

    config: Config
    scheduler: Scheduler
    people: Verbs
    wire: fakes.Wire
    images: FakeImages
    disk: MemoryDisk
    neighbours: fakes.FakeNeighbours

    async def submit(self, text: str = "script: echo hi\n", user: str = "ann", key: str = KEY):
        """One job."""
        return (await intake.submit(self.scheduler, [Paper("job.yaml", text)], user, key))[0]

    async def know(self, name: str = "box-1", mac: str | list[str] = MAC, **fields: Any):
        """Register a testbox; no hosts file is written."""
        facts = boxes.facts(name, {"mac": mac, **fields}, self.config.defaults.queue)

        async def write() -> None:
            await trio.lowlevel.checkpoint()

        return await self.scheduler.register(facts, write)

    async def ask(self, target: str = ASK, client: str = "10.0.0.5") -> fakes.Answer:
        """A box asks what to run; the answer has begun."""
        return await fakes.begin(self.wire, "GET", target, client=(client, 4000), server=SCHEDULER)

    async def get(self, target: str, client: str = "10.0.0.5", port: int = 3000) -> fakes.Response:
        """A short question."""
        return await fakes.fetch(
            self.wire, "GET", target, client=(client, 4000), server=("10.0.0.1", port)
        )

    async def report(self, job: Any, query: str, verb: str = "lkp-jobfile-append-var") -> str:
        """A report of the job's newest attempt, with its token."""
        token = self.scheduler.store.job(job.id).attempts[-1].token
        answer = await self.get(f"/~lkp/{token}/cgi-bin/{verb}?job_id={job.id}&{query}")
        assert 200 == answer.status
        return answer.body.decode()

    async def fetched_all(self, job: Any, client: str = "10.0.0.5") -> None:
        """The box at `client` fetches job.cgz; the image's files are told to have arrived."""
        answer = await self.get(f"/job_initrd_tmpfs/{job.id}/job.cgz", client)
        assert 200 == answer.status
        assert 200 == (await self.get("/runner.cgz", client)).status
        for path in [PINNED.kernel, *PINNED.initrds]:
            self.fetches.done(client, path, 1000, 1.0)
        await wait_all_tasks_blocked()  # the last byte arrives before it is accounted for

    @property
    def fetches(self) -> Any:
        """The one who follows fetches: the file door's progress."""
        return self.wire.app._by_port[self.config.ports.os]._progress

    def stage(self, job: Any) -> str:
        """The job's stage now."""
        from appliance.jobs.job import stage

        return stage(self.scheduler.store.job(job.id).state)

    def check(self) -> None:
        """Nothing escaped, and every invariant holds."""
        assert [] == self.wire.crashes
        self.scheduler.store.check()


async def no_disks(places: dict[str, Path]) -> list[dict[str, Any]]:
    """No look at a disk: it takes a thread."""
    await trio.lowlevel.checkpoint()
    return []


def config(tmp: Path = Path("/nonexistent"), **changes: Any) -> Config:
    """A Config for a lab in memory."""
    paths = Paths(tmp / "srv", tmp / "state", tmp / "run", tmp / "hosts", tmp / "tftp")
    return Config(paths=paths, network=Network(check_neighbour=False), **changes)


def _doors(scheduler: Scheduler, neighbours: fakes.FakeNeighbours) -> Doors:
    talking, giving = wiring.make_doors(scheduler, b"runner", neighbours)
    return Doors(talking | giving)


@asynccontextmanager
async def open_lab(
    chosen: Config | None = None,
    disk: MemoryDisk | None = None,
    *,
    restarted: bool = False,
    wall: float = 0.0,
    boot: str = "one",
):
    """A running lab; every service is cancelled at the end.

    `restarted`: it does to the attempts what a start does; `wall`: seconds its clock is ahead;
    `boot`: another one than before, and the server was rebooted.
    """
    chosen, disk = chosen or config(), disk or MemoryDisk()
    store, journal = await journals.restore(disk)
    images = FakeImages()
    numbers = itertools.count(len(store.jobs) * 100)
    scheduler = Scheduler(
        chosen,
        store,
        journal,
        disk.archive,
        images,
        clock=Clock(now := trio.current_time(), 1_800_000_000.0 + now + wall, boot, now),
        token=lambda: f"token{next(numbers)}",
    )
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.serve)
        if restarted:
            scheduler.restarted()
        await nursery.start(dispatch.hand_over, scheduler)
        await nursery.start(reaper.reap, scheduler)
        await nursery.start(archiver.file, scheduler)
        neighbours = fakes.FakeNeighbours()
        neighbours.cards["10.0.0.5"] = MAC
        wire = fakes.Wire(nursery, _doors(scheduler, neighbours))
        people = Verbs(scheduler, no_disks)
        lab = Lab(chosen, scheduler, people, wire, images, disk, neighbours)
        yield lab
        lab.check()
        nursery.cancel_scope.cancel()
