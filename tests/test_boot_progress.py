"""What a box fetches, or fails to, counts at the door that its script names, and nowhere else.

Files lie on a real disk here and are opened in threads, so these run on the real clock.
"""

from __future__ import annotations

import itertools
import os

import attrs
import pytest
from trio.testing import wait_all_tasks_blocked

from appliance.jobs import served
from appliance.jobs.job import Finished
from tests import fakes
from tests import lab as labs
from tests.disks import MemoryDisk
from tests.lab import PINNED, open_lab

BOX, PORTS = "10.0.0.5", labs.config().ports
NAMED_AT = {
    PINNED.kernel: PORTS.os,
    **dict.fromkeys(PINNED.initrds, PORTS.os),
    served.RUNNER: PORTS.scheduler,
    "/job_initrd_tmpfs/lab.1/job.cgz": PORTS.scheduler,
}
DOORS = [PORTS.os, PORTS.initrd, PORTS.results, PORTS.upload, PORTS.monitor, PORTS.scheduler]


@pytest.fixture
def srv(tmp_path):
    """The lab's /srv, with the image's files."""
    for path in (PINNED.kernel, *PINNED.initrds):
        file = tmp_path / "srv" / path[1:]
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * 1000)
    return tmp_path / "srv"


def of_files(srv):
    return open_lab(labs.config(srv.parent))


async def offered(lab):
    """A job that its box was told of."""
    await lab.know()
    job = await lab.submit()
    await (await lab.ask()).rest()
    return job


async def ask(lab, method, path, port, client=BOX):
    answer = await fakes.fetch(
        lab.wire, method, path, client=(client, 4000), server=("10.0.0.1", port)
    )
    await wait_all_tasks_blocked()  # its account included
    return answer.status


@pytest.mark.parametrize("path", NAMED_AT)
async def test_a_404_at_a_door_that_the_script_does_not_name_ends_nothing(srv, path):
    async with of_files(srv) as lab:
        job = await offered(lab)
        for port, method in itertools.product(DOORS, ("GET", "HEAD")):
            if port != NAMED_AT[path]:
                assert 200 != await ask(lab, method, path, port), port
        assert "offered" == lab.stage(job)


SPOILED = {
    "a folder": lambda file: (file.unlink(), file.mkdir()),
    "leads out of the roots": lambda file: (file.unlink(), file.symlink_to("/etc/hostname")),
    "a FIFO": lambda file: (file.unlink(), os.mkfifo(file)),
    "leads to itself": lambda file: (file.unlink(), file.symlink_to(file.name)),
}


@pytest.mark.parametrize("how", SPOILED)
async def test_a_file_that_is_there_and_is_not_served_is_not_gone(srv, how):
    async with of_files(srv) as lab:
        job = await offered(lab)
        SPOILED[how](srv / PINNED.kernel[1:])
        assert 404 == await ask(lab, "GET", PINNED.kernel, PORTS.os)
        assert "offered" == lab.stage(job)


@pytest.mark.parametrize("tail", ["/", "/.", "/x", "%00", "?x=1", "%"])
async def test_another_path_than_the_one_that_the_script_names_ends_nothing(srv, tail):
    async with of_files(srv) as lab:
        job = await offered(lab)
        await ask(lab, "GET", PINNED.kernel + tail, PORTS.os)
        assert "offered" == lab.stage(job)


async def test_only_its_own_box_and_only_a_get_says_that_a_file_is_gone(srv):
    async with of_files(srv) as lab:
        job = await offered(lab)
        (srv / PINNED.kernel[1:]).unlink()
        assert 404 == await ask(lab, "GET", PINNED.kernel, PORTS.os, "10.0.0.66")
        assert 404 == await ask(lab, "HEAD", PINNED.kernel, PORTS.os)
        assert "offered" == lab.stage(job)
        assert 404 == await ask(lab, "GET", PINNED.kernel, PORTS.os)
        state = lab.scheduler.store.job(job.id).state

    assert isinstance(state, Finished)
    assert ("incomplete", f"{PINNED.kernel} is gone (404)") == (state.health, state.reason)


@pytest.mark.parametrize(("host", "ends"), [("10.0.0.1", True), ("10.9.9.9", False)])
async def test_a_kernel_that_lies_on_another_server_is_not_ours_to_miss(srv, host, ends):
    async with of_files(srv) as lab:
        await lab.know()
        job = await lab.submit(f"script: x\nkernel_uri: http://{host}:{PORTS.os}/os/a/b/mine\n")
        await (await lab.ask()).rest()
        assert 404 == await ask(lab, "GET", "/os/a/b/mine", PORTS.os)
        assert ("finish" if ends else "offered") == lab.stage(job)


async def test_bytes_from_a_door_that_the_script_does_not_name_are_none_of_its_files(srv):
    uploads = srv / "upload-files"
    async with of_files(srv) as lab:
        job = await offered(lab)
        assert 200 == (await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")).status
        assert 200 == (await lab.get(served.RUNNER)).status
        uploads.mkdir()
        (uploads / "x").write_bytes(b"x")
        heard = lab.scheduler.heard["box-1"]
        door = lab.wire.app._by_port[PORTS.initrd]._progress
        for path in (PINNED.kernel, *PINNED.initrds):  # the same names, behind another door
            door.moved(BOX, path, 1000)
            door.done(BOX, path, 1000, 1.0)
        assert 200 == await ask(lab, "GET", "/upload-files/x", PORTS.initrd)
        assert heard == lab.scheduler.heard["box-1"]
        assert not lab.scheduler.store.job(job.id).state.loaded
        for path in (PINNED.kernel, *PINNED.initrds):
            assert 200 == await ask(lab, "GET", path, PORTS.os)
        assert lab.scheduler.store.job(job.id).state.loaded


async def test_a_restart_knows_what_was_fetched_by_however_long_a_path(autojump_clock, monkeypatch):
    """What is kept of a path is cut; the whole of it is what the box asks for."""
    deep = f"/os/debian/{'x' * 250}/vmlinuz"
    monkeypatch.setattr(labs, "PINNED", attrs.evolve(PINNED, kernel=deep))
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab:
        job = await offered(lab)
        lab.fetches.done(BOX, deep, 1000, 1.0)
        await wait_all_tasks_blocked()
    async with open_lab(disk=disk, restarted=True) as lab:
        assert 200 == await ask(lab, "GET", f"/job_initrd_tmpfs/{job.id}/job.cgz", PORTS.scheduler)
        assert 200 == await ask(lab, "GET", served.RUNNER, PORTS.scheduler)
        for path in PINNED.initrds:
            lab.fetches.done(BOX, path, 1000, 1.0)

        assert lab.scheduler.store.job(job.id).state.loaded
