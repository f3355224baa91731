"""Each system call of a run fails once, or is the last one before the power goes.

SQLite's trick: the Nth call goes wrong, for N = 1, 2, ... until a run passes untouched; after each
run a restart must find all that anybody was told, and nothing that never happened.
"""

from __future__ import annotations

import errno

import pytest
import trio

from appliance.errors import DiskTrouble, SyncFailed
from appliance.keep.state import journal as journals
from appliance.keep.state import records
from tests import rich
from tests.disks import Killed, MemoryDisk
from tests.test_journal import copy

STEPS = 14
BYTES_MAX = 2000  # of a journal: a run makes several snapshots
PATIENCE_S = 1000.0  # of virtual time


class Run:
    """One life of a small lab on a disk that goes wrong."""

    def __init__(self, disk, seed=1):
        self.disk = disk
        _, self.made = rich.grow(seed, STEPS)
        self.stores = []  # what the store was after each step, durable or not
        self.told = -1  # the newest step that was durable
        self._looked = False

    async def live(self):
        """Raises Killed, SyncFailed, DiskTrouble."""
        store, journal = await journals.restore(self.disk, BYTES_MAX)
        self.stores.append(records.dump_store(store))
        self.told = 0
        async with trio.open_nursery() as nursery:
            await nursery.start(journal.serve)
            for changes in self.made:
                for change in changes:
                    store.apply(change)
                self.stores.append(records.dump_store(store))
                position = journal.append(changes)
                with trio.fail_after(PATIENCE_S):
                    await journal.durable(position)
                self.told += 1
                await self._look()
            await trio.sleep(PATIENCE_S)  # the last snapshot
            nursery.cancel_scope.cancel()
        self._looked = False
        await self._look()
        await journal.stop()

    async def _look(self):
        """What a restart would find right after the fault, before a snapshot hides it."""
        if not self._looked and not self.disk.calls.untouched:
            self._looked = True
            await self.check(copy(self.disk.files))

    async def check(self, disk):
        """A restart on `disk` finds all that was told, and nothing that never happened."""
        store, _ = await journals.restore(disk, BYTES_MAX)
        store.check()
        found = records.dump_store(store)
        if not self.stores:
            assert {} == store.jobs == store.boxes
        else:
            assert found in self.stores[max(self.told, 0) :], "told, and gone"


def leaves(group):
    """The exceptions in a group, however deep."""
    for error in group.exceptions:
        yield from leaves(error) if isinstance(error, BaseExceptionGroup) else [error]


async def sweep(spoil, *, seed=1, ends=()):
    """How many runs it took: `spoil(calls, n)` makes the nth thing go wrong."""
    number = 0
    while True:
        number += 1
        disk = MemoryDisk(seed * 1000 + number)
        spoil(disk.calls, number)
        run = Run(disk, seed)
        died = []
        try:
            try:
                await run.live()
            except* ends as group:
                died += map(type, leaves(group))
            # A disk that refuses ends nothing but a start, and a stop is over anyway.
            assert DiskTrouble not in died or run.told in (-1, STEPS)
            untouched = disk.calls.untouched
            await run.check(disk.after_kill() if died else copy(disk.files))
        except BaseException as error:
            error.add_note(f"seed {seed}, call {number}")
            raise
        if untouched:
            return number


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS], ids=errno.errorcode.get)
async def test_any_call_that_is_refused_once_costs_nothing(autojump_clock, code):
    def refuse(calls, number):
        calls.fail_at(number, code)

    # At the start there is nobody to wait for the disk; a sync is another matter (below).
    assert await sweep(refuse, ends=(DiskTrouble, SyncFailed)) > 50


@pytest.mark.slow
async def test_writes_cut_short_are_continued_and_one_refused_within_leaves_nothing(
    autojump_clock,
):
    def refuse(calls, number):
        calls.short_writes = True
        calls.fail_at(number, errno.ENOSPC)

    assert await sweep(refuse, ends=(DiskTrouble, SyncFailed)) > 100


async def test_any_sync_that_fails_ends_the_process_and_a_restart_finds_all_that_was_told(
    autojump_clock,
):
    def fail(calls, number):
        calls.fail_at(number, errno.EIO, syncs=True)

    assert await sweep(fail, ends=(SyncFailed,)) > 20


@pytest.mark.parametrize("seed", range(1, 4))
async def test_a_kill_at_any_call_loses_nothing_that_was_told(autojump_clock, seed):
    def kill(calls, number):
        calls.kill_at(number)

    assert await sweep(kill, seed=seed, ends=(Killed,)) > 50


@pytest.mark.slow
async def test_a_kill_at_any_call_of_a_disk_with_short_writes_loses_nothing(autojump_clock):
    def kill(calls, number):
        calls.short_writes = True
        calls.kill_at(number)

    assert await sweep(kill, ends=(Killed,)) > 50


async def test_a_kill_at_any_call_of_the_start_after_a_kill_loses_nothing(autojump_clock):
    """The first kill in the middle of a run, the second anywhere in the start that follows."""
    first = MemoryDisk(3)
    first.calls.kill_at(40)
    run = Run(first)
    with pytest.raises(BaseExceptionGroup):
        await run.live()
    files = first.calls.after_kill()
    number = 0
    while True:
        number += 1
        disk = MemoryDisk(number)
        disk.files = dict(files)
        disk.calls.kill_at(number)
        try:
            await journals.restore(disk)
        except Killed:
            await run.check(disk.after_kill())
        else:
            break

    assert number > 5


async def test_a_disk_full_at_any_byte_goes_on_when_there_is_room(autojump_clock):
    whole = MemoryDisk()
    await Run(whole).live()
    at_most = sum(map(len, whole.files.values())) + BYTES_MAX
    for room in range(400, at_most, 151):
        disk = MemoryDisk(room)
        run = Run(disk)

        async def make_room(disk=disk, room=room):
            disk.calls.room = room
            await trio.sleep(100)
            disk.calls.room = None

        async with trio.open_nursery() as nursery:
            nursery.start_soon(make_room)
            await run.live()
        await run.check(disk)

        assert STEPS == run.told


async def test_a_disk_that_is_read_only_at_the_start_is_refused_by_name(autojump_clock):
    disk = MemoryDisk()
    disk.calls.broken = errno.EROFS
    with pytest.raises(DiskTrouble, match="the state cannot be written: Read-only file system"):
        await journals.restore(disk)
