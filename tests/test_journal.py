"""What survives: every cut, every flipped bit, every write that fails."""

from __future__ import annotations

import errno
import random

import cbor2
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.errors import BadState, NewerState, Unknown
from appliance.jobs.changes import Drained, Submitted
from appliance.jobs.store import Store
from appliance.keep.repair import survey
from appliance.keep.state import frames, records, versions
from appliance.keep.state import journal as journals
from tests import rich
from tests.disks import MemoryDisk
from tests.loop import STALL_S, rounds
from tests.test_decisions import a_job


def copy(files):
    disk = MemoryDisk()
    disk.files = dict(files)
    return disk


async def history(disk, seed=1, steps=40, told=None):
    """A store that grew on `disk`, and the stores it was after each durable batch."""
    _, made = rich.grow(seed, steps)
    store, journal = await journals.restore(disk)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.serve)
        for changes in made:
            for change in changes:
                store.apply(change)
            await journal.durable(journal.append(changes))
            if told is not None:
                told.append(records.dump_store(store))
        await wait_all_tasks_blocked()  # a snapshot under way is whole then
        nursery.cancel_scope.cancel()
    return store


async def as_kept(files):
    store, _ = await journals.restore(copy(files))
    return records.dump_store(store)


async def test_a_restart_finds_the_same_store(autojump_clock):
    disk = MemoryDisk()
    store = await history(disk, steps=120)

    assert records.dump_store(store) == await as_kept(disk.files)


async def test_restarts_in_the_middle_lose_nothing(autojump_clock):
    disk = MemoryDisk()
    _, made = rich.grow(3, 90)
    for part in (made[:30], made[30:60], made[60:]):
        store, journal = await journals.restore(disk)
        for changes in part:
            for change in changes:
                store.apply(change)
            journal.append(changes)
        await journal.write()

    grown, _ = rich.grow(3, 90)
    assert records.dump_store(grown) == await as_kept(disk.files)
    assert ["journal-000003", "snapshot-000003"] == await disk.names()


async def test_every_prefix_of_a_journal_is_a_store_that_was(autojump_clock):
    disk, told = MemoryDisk(), []
    await history(disk, steps=4, told=told)
    whole = disk.files["journal-000001"]
    stores = {records.dump_store(Store()), *told}
    furthest = -1
    for cut in range(len(whole) + 1):
        kept = await as_kept({**disk.files, "journal-000001": whole[:cut]})
        assert kept in stores
        place = told.index(kept) if kept in told else -1
        assert place >= furthest  # never less for a longer journal
        furthest = max(furthest, place)

    assert len(told) - 1 == furthest


FLIPS = 2000


@pytest.mark.slow
async def test_any_flipped_bit_stops_the_start_by_name(autojump_clock):
    disk = MemoryDisk()
    await history(disk, steps=12)
    rng = random.Random(7)
    for n in range(FLIPS):
        name = rng.choice(["journal-000001"] * 4 + ["snapshot-000001"])
        data = bytearray(disk.files[name])
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            with pytest.raises(BadState, match=rf"{name}: (damaged at byte \d+|not a|\w+ version)"):
                await as_kept({**disk.files, name: bytes(data)})
        except BaseException as error:
            error.add_note(f"seed 7, flip {n} in {name}")
            raise


async def test_damage_names_the_file_the_offset_and_the_command_that_helps(autojump_clock):
    disk = MemoryDisk()
    await history(disk, steps=10)
    data = disk.files["journal-000001"]
    flipped = data[:21] + bytes([data[21] ^ 4]) + data[22:]  # in the first record's length
    with pytest.raises(BadState) as caught:
        await as_kept({**disk.files, "journal-000001": flipped})

    assert (
        "journal-000001: damaged at byte 20: the checksum of a record's head does not fit;"
        " `appliance state repair` says what can be saved"
    ) == str(caught.value)


async def rolled(steps=60, bytes_max=2000, seed=1):
    """The files of a lab whose last snapshot never came: several journals count."""
    disk = MemoryDisk()
    _, made = rich.grow(seed, steps)
    store, journal = await journals.restore(disk)
    for n, changes in enumerate(made):
        for change in changes:
            store.apply(change)
        journal.append(changes)
        await journal.write()
        if n % 20 == 19:
            await journal.write()
            journal._writing = None
            journal._size = journals.JOURNAL_BYTES_MAX
    return disk, store


async def test_journals_without_their_snapshots_are_applied_one_after_the_other(autojump_clock):
    disk, store = await rolled()

    assert len(await disk.names()) > 3
    assert ["snapshot-000001"] == [name for name in await disk.names() if "snap" in name]
    assert records.dump_store(store) == await as_kept(disk.files)


async def test_no_record_and_no_file_can_be_missing_unnoticed(autojump_clock):
    disk, _ = await rolled()
    whole = disk.files
    first = whole["journal-000001"]
    ends = [part.end for part in frames.parts(first, 20)]
    cut_short = first[: ends[-2]]
    without_one = first[: ends[2]] + first[ends[3] :]
    twice = first[: ends[3]] + first[ends[2] :]
    for data, word in [(cut_short, "should stand"), (without_one, "should"), (twice, "should")]:
        with pytest.raises(BadState, match=rf"journal-00000\d: damaged at byte \d+: .*{word}"):
            await as_kept({**whole, "journal-000001": data})
    for name, word in [
        ("journal-000001", "journal-000001 is missing, but journal-000002 is there"),
        ("journal-000002", "journal-000002 is missing"),
        ("snapshot-000001", "journal-000001 is there, but no snapshot"),
    ]:
        with pytest.raises(BadState, match=word):
            await as_kept({key: data for key, data in whole.items() if key != name})


async def test_a_journal_that_is_not_there_is_told_of(autojump_clock, capsys):
    """A kill between the first snapshot and its journal leaves this; so does `rm`."""
    disk = MemoryDisk()
    await history(disk, steps=10)
    capsys.readouterr()
    await as_kept(disk.files)
    assert "warning" not in capsys.readouterr().out
    del disk.files["journal-000001"]
    await as_kept(disk.files)
    why = "journal-000001: lost power before it was made, or was removed: no record"

    assert why in capsys.readouterr().out
    assert why == survey.survey(disk.files, "lab").torn


async def test_a_torn_record_is_dropped_with_a_warning_that_says_where(autojump_clock, capsys):
    disk = MemoryDisk()
    await history(disk, steps=10)
    disk.files["journal-000001"] = disk.files["journal-000001"][:-3]
    await as_kept(disk.files)

    line = [line for line in capsys.readouterr().out.splitlines() if "torn" in line]
    assert 1 == len(line)
    assert "journal-000001" in line[0]


async def test_an_older_journal_that_is_torn_stops_the_start(autojump_clock):
    disk = MemoryDisk()
    await history(disk, steps=10)
    data = disk.files["journal-000001"]
    disk.files["journal-000002"] = data
    disk.files["journal-000001"] = data[:-3]
    with pytest.raises(BadState, match=r"journal-000001: damaged at byte .* a newer"):
        await as_kept(disk.files)


async def test_many_who_wait_share_one_write(nursery, autojump_clock):
    disk = MemoryDisk()
    _, journal = await journals.restore(disk)
    await nursery.start(journal.serve)
    writes, done = disk.writes, []

    async def keep(changes):
        await journal.durable(journal.append(changes))
        done.append(changes)

    for changes in rich.grow(2, 50)[1]:
        nursery.start_soon(keep, changes)
    await wait_all_tasks_blocked()

    assert 50 == len(done)
    assert disk.writes - writes <= 2


class GatedDisk(MemoryDisk):
    """Appends wait for the gate."""

    def __init__(self):
        super().__init__()
        self.gate = trio.Event()

    async def append(self, name, data):
        await self.gate.wait()
        await super().append(name, data)


async def test_nobody_is_told_before_the_disk_knows(nursery, autojump_clock):
    disk = GatedDisk()
    disk.gate.set()
    _, journal = await journals.restore(disk)
    disk.gate = trio.Event()
    await nursery.start(journal.serve)
    told = []

    async def keep(number):
        await journal.durable(journal.append(rich.grow(2, 5)[1][number]))
        told.append(number)

    nursery.start_soon(keep, 0)
    await wait_all_tasks_blocked()
    nursery.start_soon(keep, 1)  # while the first is being written
    await wait_all_tasks_blocked()
    assert [] == told
    disk.gate.set()
    await wait_all_tasks_blocked()

    assert [0, 1] == sorted(told)


async def test_a_journal_that_grew_too_long_becomes_a_snapshot(autojump_clock, monkeypatch):
    monkeypatch.setattr(journals, "JOURNAL_BYTES_MAX", 2000)
    disk = MemoryDisk()
    store = await history(disk, steps=60)

    [*journal, snapshot] = await disk.names()
    assert journal[-1] > "journal-000003"
    assert snapshot > "snapshot-000002"
    assert journal[0][-6:] == snapshot[-6:]
    assert records.dump_store(store) == await as_kept(disk.files)


class SlowSnapshots(MemoryDisk):
    """A snapshot takes an hour."""

    async def replace(self, name, pieces):
        if name > "snapshot-000001":
            await trio.sleep(3600)
        await super().replace(name, pieces)


async def test_nobody_waits_for_a_snapshot(autojump_clock, monkeypatch):
    monkeypatch.setattr(journals, "JOURNAL_BYTES_MAX", 2000)
    disk = SlowSnapshots()
    store = await history(disk, steps=60)

    assert 0 == trio.current_time()
    assert ["journal-000001", "journal-000002", "snapshot-000001"] == await disk.names()
    assert records.dump_store(store) == await as_kept(disk.files)


async def test_a_journal_without_its_whole_header_was_only_just_made(autojump_clock, capsys):
    disk = MemoryDisk()
    store = await history(disk, steps=10)
    headers = [frames.JOURNAL % version for version in (1, versions.VERSION)]
    for data in [*(whole[:cut] for whole in headers for cut in range(len(whole))), bytes(20)]:
        capsys.readouterr()
        files = {**disk.files, "journal-000002": data}
        assert records.dump_store(store) == await as_kept(files)
        assert "torn" in capsys.readouterr().out  # it may have been emptied: that is told
        assert "journal-000002" in survey.survey(files, "lab").torn


async def test_a_journal_of_zeros_longer_than_a_header_is_damaged(autojump_clock):
    disk = MemoryDisk()
    await history(disk, steps=10)
    disk.files["journal-000001"] = bytes(21)

    with pytest.raises(BadState, match="journal-000001: not a journal"):
        await journals.restore(disk)
    assert survey.survey(disk.files, "lab").damage


@pytest.mark.parametrize("torn", [b"", b"\x07" * 9])
async def test_a_start_on_a_full_disk_goes_on_behind_the_last_journal(autojump_clock, torn):
    disk = MemoryDisk()
    store = await history(disk, steps=10)
    newest = max(name for name in disk.files if name.startswith("journal"))
    disk.files[newest] += torn
    disk.calls.room = sum(len(data) for data in disk.files.values())
    before = records.dump_store(store)
    found, journal = await journals.restore(disk)
    assert before == records.dump_store(found)

    async with trio.open_nursery() as nursery:
        await nursery.start(journal.serve)
        change = Drained("ann", 1.0)
        found.apply(change)
        position = journal.append([change])
        with pytest.raises(Unknown):
            await journal.durable(position, 60)
        assert journal.gate.is_shut_by("disk")
        disk.calls.room = None
        await journal.durable(position, 60)
        assert not journal.gate.reasons
        nursery.cancel_scope.cancel()
    assert records.dump_store(found) == await as_kept(disk.calls.after_kill())


async def test_what_is_too_much_for_one_record_becomes_several(autojump_clock, monkeypatch):
    monkeypatch.setattr(journals, "BATCH_BYTES_MAX", 1000)
    disk = MemoryDisk()
    store, journal = await journals.restore(disk, 5000)
    _, made = rich.grow(5, 60)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.serve)
        for changes in made:
            for change in changes:
                store.apply(change)
            position = journal.append(changes)
        await journal.durable(position, 60)
        nursery.cancel_scope.cancel()

    assert 20 < disk.writes < len(made)
    assert records.dump_store(store) == await as_kept(disk.calls.after_kill())


@pytest.mark.slow
async def test_what_many_large_submits_brought_is_written_down_in_many_rounds():
    """Eight of fifty thousand values each wait for one fsync: they took 300 ms of one round."""
    disk = MemoryDisk()
    store, journal = await journals.restore(disk)
    text = "script: x\nx: [" + "[]," * 9_900 + "]\n"
    for first in range(1, 40, 5):
        submit = [Submitted(a_job(n, text=text)) for n in range(first, first + 5)]
        for change in submit:
            store.apply(change)
        journal.append(submit)
    before = disk.writes
    with rounds() as seen:
        await journal.write()

    assert before + 1 == disk.writes
    assert seen.longest < STALL_S / 2
    assert records.dump_store(store) == await as_kept(disk.calls.after_kill())


async def test_a_stop_while_changes_are_written_down_loses_none(autojump_clock, monkeypatch):
    monkeypatch.setattr(journals, "ROUND_BYTES", 100)
    disk = MemoryDisk()
    store, journal = await journals.restore(disk)
    _, made = rich.grow(4, 60)
    for changes in made:
        for change in changes:
            store.apply(change)
        journal.append(changes)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(journal.write)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    await journal.write()

    assert records.dump_store(store) == await as_kept(disk.calls.after_kill())


@pytest.mark.parametrize("count", [0, 1, 23, 24, 255, 256, 70_000])
def test_changes_that_were_dumped_one_by_one_are_an_array(count):
    whole = cbor2.loads(records.joined([cbor2.dumps(n) for n in range(count)]))

    assert list(range(count)) == whole


async def test_what_a_kill_left_of_a_snapshot_goes_with_the_next_start(autojump_clock):
    disk = MemoryDisk()
    store = await history(disk, steps=10)
    disk.files["snapshot-000009.new"] = b"half"
    disk.files["notes.new"] = b"somebody's own"
    found, _ = await journals.restore(disk)

    assert records.dump_store(store) == records.dump_store(found)
    assert "snapshot-000009.new" not in disk.files
    assert "notes.new" in disk.files


async def test_a_new_journals_name_is_durable_though_its_first_write_was_refused(autojump_clock):
    for seed in range(20):
        disk = MemoryDisk(seed)
        disk.calls.fail_at(1, errno.ENOSPC)
        with pytest.raises(OSError, match="No space"):
            await disk.append("journal-000002", b"header")
        await disk.append("journal-000002", b"header")
        assert "journal-000002" in disk.calls.after_kill(), seed


@pytest.mark.parametrize("name", ["journal-000001", "snapshot-000001"])
async def test_files_of_a_newer_program_are_refused(autojump_clock, name):
    disk = MemoryDisk()
    await history(disk, steps=5)
    disk.files[name] = disk.files[name].replace(b" 2\n", b" 3\n", 1)
    before = dict(disk.files)
    said = f"{name}: was written by a newer appliance: {name[:-7]} version 3"
    with pytest.raises(NewerState, match=said):
        await journals.restore(disk)

    assert before == disk.files  # and left as they were


async def test_a_snapshot_that_is_not_whole_stops_the_start(autojump_clock):
    disk = MemoryDisk()
    await history(disk, steps=5)
    for data in (b"", disk.files["snapshot-000001"][:-1], disk.files["snapshot-000001"] + b"x"):
        with pytest.raises(BadState, match="snapshot-000001"):
            await as_kept({**disk.files, "snapshot-000001": data})


async def test_other_files_in_the_folder_are_left_alone(autojump_clock):
    disk = MemoryDisk()
    for name in ("lock", "snapshot-9.new", "journal-1", "notes.txt"):
        disk.files[name] = b"mine"
    await history(disk, steps=5)
    await journals.restore(disk)

    assert {"lock", "snapshot-9.new", "journal-1", "notes.txt"} <= disk.files.keys()


async def test_changes_that_do_not_follow_from_each_other_are_refused(autojump_clock):
    disk = MemoryDisk()
    _, made = rich.grow(1, 40)
    _, journal = await journals.restore(disk)
    for changes in made[20:]:
        journal.append(changes)
    await journal.write()
    with pytest.raises(BadState, match=r"journal-000001: damaged at byte .* does not follow"):
        await as_kept(disk.files)
