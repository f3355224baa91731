"""The room for the state, and what a lab does while there is none."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Space
from appliance.errors import DiskTrouble, SyncFailed, Unknown
from appliance.keep.state import journal as journals
from appliance.keep.state import space
from appliance.keep.state.disk import RESERVE
from appliance.keep.state.gate import Gate
from tests.disks import MemoryDisk
from tests.lab import open_lab

KB = 1000
SPACE = Space(reserve=100 * KB, warn=1000 * KB, low=400 * KB)


async def a_room(room=2000 * KB):
    disk, gate = MemoryDisk(), Gate()
    disk.calls.room = room
    found = space.Room(disk, gate, SPACE)
    await found.set_aside()
    return disk, gate, found


def fill(disk, free):
    """Somebody else's files leave this much."""
    disk.calls.room += free - disk.calls.free()


def said(capsys):
    return [
        line.partition("] ")[2].partition(" free=")[0].strip()
        for line in capsys.readouterr().out.splitlines()
    ]


async def test_a_reserve_is_set_aside_at_the_start(autojump_clock):
    disk, gate, _ = await a_room()

    assert SPACE.reserve == len(disk.files[RESERVE])
    assert [] == gate.reasons


@pytest.mark.parametrize(
    ("free", "shut"), [(400 * KB, False), (400 * KB - 1, True), (0, True), (2**40, False)]
)
async def test_the_gate_is_shut_below_the_low_water_mark(autojump_clock, free, shut):
    disk, gate, room = await a_room()
    fill(disk, free)
    await room.look()

    assert shut == gate.is_shut_by("space")


async def test_the_gate_says_how_much_is_free_and_how_much_is_needed(autojump_clock):
    disk, gate, room = await a_room()
    fill(disk, 0)
    await room.look()
    with pytest.raises(DiskTrouble) as caught:
        gate.check()

    assert (
        "only 0.0 MiB are free where the state lies, and 0.4 MiB needed. Nothing was taken:"
        " submit again when there is room, and see `appliance status`"
    ) == str(caught.value)


async def test_the_gate_opens_again_when_there_is_a_little_more_than_needed(autojump_clock):
    disk, gate, room = await a_room()
    fill(disk, 100 * KB)
    await room.look()
    for free, shut in [(400, True), (449, True), (450, False), (420, False), (399, True)]:
        fill(disk, free * KB)
        await room.look()
        assert shut == gate.is_shut_by("space"), free


async def test_each_change_is_one_line_in_the_log(autojump_clock, capsys):
    disk, _, room = await a_room()
    for free in (3000, 999, 900, 399, 300, 200, 600, 700, 1000, 999):
        fill(disk, free * KB)
        await room.look()

    assert [
        "room for the state gets scarce",
        "no new jobs are taken: no room",
        "new jobs are taken again",
        "room for the state gets scarce",
    ] == said(capsys)


async def test_a_reserve_that_was_given_up_is_set_aside_again_before_the_gate_opens(
    autojump_clock,
):
    disk, gate, room = await a_room()
    await disk.release()
    gate.shut("space", "the journal took the reserve")
    fill(disk, 540 * KB)  # more than the mark, less than mark and reserve
    await room.look()
    assert gate.is_shut_by("space")
    fill(disk, 550 * KB)
    await room.look()

    assert not gate.is_shut_by("space")
    assert SPACE.reserve == len(disk.files[RESERVE])


async def test_a_disk_too_small_for_the_reserve_is_said_once(autojump_clock, capsys):
    disk, gate, room = await a_room(room=50 * KB)
    for _ in range(5):
        await room.look()

    assert gate.is_shut_by("space")
    assert RESERVE not in disk.files
    assert 1 == sum("are set aside" in line for line in said(capsys))


class BlindDisk(MemoryDisk):
    """Nobody can say how much room it has."""

    async def free(self):
        raise OSError(errno.EIO, "Input/output error")


async def test_a_disk_that_does_not_say_leaves_the_gate_as_it_is(autojump_clock, capsys):
    gate = Gate()
    room = space.Room(BlindDisk(), gate, SPACE)
    for _ in range(3):
        await room.look()

    assert [] == gate.reasons
    assert 1 == len(capsys.readouterr().out.splitlines())


# ---- a lab whose disk fills up


async def test_a_full_disk_takes_no_new_jobs_and_keeps_every_report(autojump_clock):
    disk = MemoryDisk()
    disk.calls.room = 2000 * KB
    async with open_lab(disk=disk) as lab, trio.open_nursery() as nursery:
        await nursery.start(space.watch, disk, lab.scheduler.gate, SPACE)
        job = await running(lab)
        fill(disk, 0)
        await lab.report(job, "loops=1")  # there was no room, but for the reserve
        assert RESERVE not in disk.files
        with pytest.raises(DiskTrouble, match="no room left for the state"):
            await lab.submit(key="another1")
        await lab.report(job, "job_state=post_run")
        await trio.sleep(60)
        with pytest.raises(DiskTrouble, match="only"):
            await lab.submit(key="another1")
        fill(disk, 1500 * KB)
        await trio.sleep(6)

        assert "post_run" == lab.stage(job)
        assert "lab.2" == (await lab.submit(key="another1")).id
        assert RESERVE in disk.files
        nursery.cancel_scope.cancel()


async def test_a_quota_that_is_used_up_takes_the_reserve_as_a_full_disk_does(autojump_clock):
    """The disk itself has room, and says so."""
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab, trio.open_nursery() as nursery:
        await nursery.start(space.watch, disk, lab.scheduler.gate, SPACE)
        job = await running(lab)
        disk.calls.quota = sum(map(len, disk.files.values()))
        with trio.fail_after(60):
            await lab.report(job, "loops=1")
        assert RESERVE not in disk.files
        with pytest.raises(DiskTrouble, match="no room left for the state"):
            await lab.submit(key="another1")
        await lab.report(job, "job_state=post_run")
        await trio.sleep(60)
        with pytest.raises(DiskTrouble, match="no room left for the state"):
            await lab.submit(key="another1")
        disk.calls.quota = None
        await trio.sleep(6)

        assert "lab.2" == (await lab.submit(key="another1")).id
        assert RESERVE in disk.files
        nursery.cancel_scope.cancel()


async def running(lab):
    """A job that runs on the known box."""
    await lab.know()
    box = await lab.ask()
    job = await lab.submit()
    await box.rest()
    await lab.fetched_all(job)
    await lab.report(job, "job_state=running")
    assert "running" == lab.stage(job)
    return job


async def test_while_the_disk_refuses_parked_boxes_stay_and_reports_wait(autojump_clock):
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab, trio.open_nursery() as nursery:
        job = await running(lab)
        await lab.know("box-2", "52:54:00:00:00:02")
        parked = await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02?arch=x86_64", "10.0.0.6")
        answered = []

        async def report():
            answered.append(await lab.report(job, "job_state=post_run"))

        disk.calls.broken = errno.EIO
        nursery.start_soon(report)
        await trio.sleep(2000)
        assert [] == answered
        assert b"No job now" in await parked.rest()  # its half hour is over, and it asks again
        with trio.fail_after(60):
            parked = await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02?arch=x86_64", "10.0.0.6")
        await trio.sleep(200)
        with pytest.raises(DiskTrouble):
            await lab.submit(key="another1")
        assert ["box-2"] == [seat.box for seat in seats(lab)]
        disk.calls.broken = None
        await trio.sleep(3)
        assert ["Done"] == answered
        second = await lab.submit(key="another1")
        await trio.sleep(1)
        assert "offered" == lab.stage(second)
        assert "initrd" in (await parked.rest()).decode()


def seats(lab):
    return [lab.scheduler.lobby.seat(name) for name in lab.scheduler.store.boxes
            if lab.scheduler.lobby.seat(name)]  # fmt: skip


async def test_no_script_goes_out_that_the_disk_does_not_know(autojump_clock):
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab:
        await lab.know()
        box = await lab.ask()
        disk.calls.broken = errno.EROFS
        with pytest.raises(Unknown):
            await lab.submit()
        got = []
        with trio.move_on_after(600):
            while True:
                got.append(await box.piece())
        assert not any(b"initrd" in piece for piece in got)
        disk.calls.broken = None
        assert b"initrd" in await box.rest()


async def test_a_failed_sync_ends_the_server(autojump_clock):
    disk = MemoryDisk()
    failed = []
    try:
        async with open_lab(disk=disk) as lab:
            disk.calls.fail_at(1, errno.EIO, syncs=True)
            await lab.submit()
    except* SyncFailed as group:
        failed.append(repr(group))

    assert "journal-000001: a sync of the state failed: Input/output error" in failed[0]
    async with open_lab(disk=disk.after_kill()) as lab:
        await lab.submit()

        assert ["lab.1"] == list(lab.scheduler.store.jobs)


async def test_what_waits_for_a_disk_that_refuses_has_an_end(autojump_clock, monkeypatch):
    """Rather a restart, which boxes and people survive, than all of the memory."""
    monkeypatch.setattr(journals, "PENDING_MAX", 20)
    disk, ended = MemoryDisk(), []
    try:
        async with open_lab(disk=disk) as lab, trio.open_nursery() as nursery:
            job = await running(lab)
            disk.calls.broken = errno.EIO
            nursery.start_soon(lab.report, job, "loops=1")
            await trio.sleep(1)  # it is the batch that is tried again and again
            for number in range(20):
                nursery.start_soon(lab.report, job, f"waits={number}")
            await trio.sleep(100)
            nursery.start_soon(lab.report, job, "waits=20")
            await trio.sleep(10)
            raise AssertionError("the server lives")
    except* DiskTrouble as group:
        ended.append(repr(group))

    assert "21 changes wait for a disk that refuses them" in ended[0]
    async with open_lab(disk=disk.after_kill()) as lab:
        assert "running" == lab.stage(job)


async def test_a_gate_that_is_shut_decides_nothing(autojump_clock):
    async with open_lab() as lab:
        lab.scheduler.gate.shut("test", "for a test")
        written = lab.disk.writes
        with pytest.raises(DiskTrouble):
            await lab.submit()
        await wait_all_tasks_blocked()

        assert {} == lab.scheduler.store.jobs
        assert 0 == lab.scheduler.store.counter
        assert written == lab.disk.writes
