"""The process as one: what its doors have together, and what a start sets going."""

from __future__ import annotations

import contextlib
import socket
from contextlib import asynccontextmanager

import attrs
import cbor2
import trio

from appliance import log as logs
from appliance import run
from appliance.config import Network, Ports
from appliance.jobs import box as boxes
from appliance.scheduler import intake
from appliance.scheduler.intake import Paper
from appliance.web import connections
from appliance.web.sending import Owed
from tests import fakes
from tests import lab as labs
from tests.disks import MemoryDisk

DOORS = ("scheduler", "os", "initrd", "upload", "results", "monitor")


@attrs.frozen
class Server:
    config: object
    opened: run.Open

    async def get(self, door, path="/"):
        port = getattr(self.config.ports, door)
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            return await fakes.fetch(stream, "GET", path, {"connection": "close"})

    async def status(self):
        """By the command line's socket."""
        path = str(self.config.paths.control_socket)
        async with await trio.open_unix_socket(path) as stream:
            await stream.send_all(cbor2.dumps({"appliance": 1}) + cbor2.dumps({"verb": "status"}))
            await stream.send_eof()
            data = b""
            while more := await stream.receive_some(2**16):
                data += more
        return data


@asynccontextmanager
async def serving(tmp, disk=None):
    """`run.serve` on ports of its own, with its state in memory."""
    disk, about, is_known = disk or MemoryDisk(), logs._about[:], logs._floods.is_known
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in DOORS]
        for sock in sockets:
            sock.bind(("127.0.0.1", 0))
        numbers = [sock.getsockname()[1] for sock in sockets]
        config = attrs.evolve(
            labs.config(tmp),
            ports=Ports(**dict(zip(DOORS, numbers, strict=True))),
            network=Network(address="127.0.0.1", listen="127.0.0.1", check_neighbour=False),
        )
        parts = (config, disk, disk.archive, sockets, labs.FakeImages(), b"runner")
        try:
            with trio.fail_after(30):
                async with trio.open_nursery() as nursery:
                    opened = await nursery.start(run.serve, *parts)
                    yield Server(config, opened)
                    opened.close.set()
        finally:
            connections.guard()  # it is the process's
            logs._about[:], logs._floods.is_known = about, is_known


async def test_what_clients_have_not_taken_is_counted_for_all_doors_together(tmp_path, monkeypatch):
    """Sixteen MiB of each server's own would be three times as much."""
    counted, send = [], Owed.send

    async def noted(self, *args, **more):
        counted.append(self)
        await send(self, *args, **more)

    monkeypatch.setattr(Owed, "send", noted)
    async with serving(tmp_path) as server:
        for door in DOORS:
            before = len(counted)
            assert (await server.get(door)).status < 500
            assert len(counted) > before, door
        before = len(counted)
        assert b"result" in await server.status()
        assert len(counted) > before

    assert 1 == len(set(map(id, counted)))


async def test_a_start_removes_what_a_killed_server_left_half_written(tmp_path):
    """Of uploads to the jobs in memory; `results gc` looks everywhere."""
    disk = MemoryDisk()
    async with serving(tmp_path, disk) as server:
        scheduler = server.opened.scheduler
        facts = boxes.facts("box-1", {"mac": [labs.MAC]}, "default")
        await scheduler.register(facts, trio.lowlevel.checkpoint)
        (job,) = await intake.submit(scheduler, [Paper("x", "script: x\n")], "ann", labs.KEY)
        assert not logs._floods.is_known("10.0.0.99")
        assert logs._floods.is_known("127.0.0.1")  # of the lab: no stranger hides its lines
        assert job.id.encode() in (await server.get("scheduler", labs.ASK)).body
        root = server.config.paths.srv / job.result_root[1:]
    root.mkdir(parents=True)
    part, whole = root / ".appliance-part-1-2", root / "stdout"  # not a name of this process
    part.write_bytes(b"half")
    whole.write_bytes(b"whole")
    async with serving(tmp_path, disk):
        while part.exists():  # noqa: ASYNC110 - a thread does it
            await trio.sleep(0.01)

    assert whole.exists()
