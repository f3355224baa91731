"""What state files hold, and what a repair saves: nothing whole is lost, nothing lost unsaid."""

from __future__ import annotations

import random
import re

import pytest

from appliance.errors import BadState
from appliance.jobs.changes import Moved, Submitted
from appliance.keep.repair import survey as surveys
from appliance.keep.state import frames, records, replay
from appliance.keep.state import journal as journals
from tests import rich
from tests.disks import MemoryDisk
from tests.test_journal import copy, history, rolled

LAB = "lab"


def survey(files):
    return surveys.survey(files, LAB)


async def starts(files):
    """The store that a start finds; None where it refuses."""
    try:
        return (await journals.restore(copy(files)))[0]
    except BadState:
        return None


async def lab(seed=1, steps=60, snapshot=True):
    """The files of a lab with some jobs in its snapshot and some in its journal."""
    disk = MemoryDisk()
    _, made = rich.grow(seed, steps)
    store, journal = await journals.restore(disk)
    for n, changes in enumerate(made):
        for change in changes:
            store.apply(change)
        journal.append(changes)
        await journal.write()
        if snapshot and n == steps // 2:
            await journal.snapshot()
    return disk.files, made, store


async def test_whole_files_are_what_a_start_finds(autojump_clock):
    for seed in range(10):
        files, _, store = await lab(seed)
        found = survey(files)

        assert [] == found.damage
        assert "" == found.torn
        assert records.dump_store(store) == records.dump_store(found.store)
        kept = replay.load_snapshot(files["snapshot-000002"], "s").store
        pieces = sum(-(-len(what) // records.PIECE) for what in (kept.jobs, kept.boxes))
        assert [("journal-000002", 29, True), ("snapshot-000002", 1 + pieces, True)] == [
            (file.name, file.records, file.used) for file in found.files
        ]


async def test_the_files_of_a_start_that_failed_half_way_are_told_apart(autojump_clock):
    files, _ = await rolled()
    found = survey(files.files)

    assert [] == found.damage
    assert all(file.used for file in found.files)
    again = {**files.files, "snapshot-000003": b"".join(
        records.snapshot(records.image_of(found.store, found.next)))}  # fmt: skip
    used = {file.name: file.used for file in survey(again).files}
    assert {"snapshot-000003", "journal-000003"} == {name for name in used if used[name]}


@pytest.mark.slow
async def test_every_prefix_is_called_torn_where_a_start_drops_it_and_damaged_where_it_refuses(
    autojump_clock,
):
    files, _, _ = await lab(steps=6)
    for name in ("journal-000002", "snapshot-000002"):
        for cut in range(len(files[name])):
            cut_off = {**files, name: files[name][:cut]}
            store, found = await starts(cut_off), survey(cut_off)

            assert bool(found.damage) == (store is None), (name, cut)
            if store is not None:
                assert records.dump_store(store) == records.dump_store(found.store)


def survey_of(files):
    """None where a file says that a newer program wrote it."""
    if any(re.match(rb"appliance \w+ ([3-9]|[12]\d+)\n", data) for data in files.values()):
        with pytest.raises(BadState, match="was written by a newer appliance"):
            survey(files)
        return None
    return survey(files)


def flipped(files, rng):
    name = rng.choice(sorted(files))
    data = bytearray(files[name])
    at = rng.randrange(len(data))
    data[at] ^= 1 << rng.randrange(8)
    return {**files, name: bytes(data)}, name, at


def numbers(data):
    """The places of whole records in a journal."""
    return [(part.start, part.end, part.number) for part in frames.parts(data, 20)]


FLIPS = 200


@pytest.mark.slow
async def test_after_a_flipped_bit_all_but_its_record_is_saved_and_that_is_named(autojump_clock):
    files, made, _ = await lab(steps=40)
    journal = "journal-000002"
    in_journal = made[21:]
    places = numbers(files[journal])
    assert len(places) == len(in_journal)
    rng = random.Random(11)
    for n in range(FLIPS):
        broken, name, at = flipped(files, rng)
        found = survey_of(broken)
        if found is None:
            assert at < 21  # within the version in its header
            continue
        try:
            assert None is await starts(broken)
            assert name == found.damage[0].file
            if name == journal and at >= 20:
                hit = next(k for k, (start, end, _) in enumerate(places) if start <= at < end)
                check_saved(found, in_journal, hit)
            elif name == journal:
                assert [] == [damage for damage in found.losses if "record" in damage.lost]
            check_repairable(found)
        except BaseException as error:
            error.add_note(f"flip {n}: {name} at {at}")
            raise


def check_saved(found, made, hit):
    """Every job of every other record is there; what else went is named."""
    named = set(surveys.ids(found.damage))
    for k, changes in enumerate(made):
        for change in changes:
            if isinstance(change, Submitted) and k != hit:
                assert change.job.id in found.store.jobs
            if isinstance(change, Submitted) and k == hit:
                assert change.job.id in named
            if isinstance(change, Moved) and k == hit:
                assert found.losses


def check_repairable(found):
    """What is written back loads, and is what was found."""
    found.store.check()
    text = b"".join(records.snapshot(records.image_of(found.store, found.next)))
    again = replay.load_snapshot(text, "again")
    again.store.check()

    assert records.dump_store(found.store) == records.dump_store(again.store)
    assert found.next == again.next


@pytest.mark.parametrize("seed", range(5))
async def test_a_repair_is_possible_whatever_is_broken(autojump_clock, seed):
    rng = random.Random(seed)
    whole, _ = await rolled(seed=seed, steps=80)
    for n in range(40):
        files = dict(whole.files)
        try:
            for _ in range(rng.randrange(1, 6)):
                break_something(files, rng)
            found, store = survey_of(files), await starts(files)
            if found is None:
                continue
            check_repairable(found)
            assert (store is None) == bool(found.damage)
            if store is not None:
                assert records.dump_store(store) == records.dump_store(found.store)
        except BaseException as error:
            error.add_note(f"seed {seed}, round {n}")
            raise


def break_something(files, rng):
    if not files:
        return
    name = rng.choice(sorted(files))
    data = files[name]
    if not isinstance(data, bytes) or not data:
        return
    at = rng.randrange(len(data))
    roll = rng.random()
    if roll < 0.4:
        files[name] = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    elif roll < 0.55:
        files[name] = data[:at]
    elif roll < 0.7:
        files[name] = data[:at] + bytes(len(data[at : at + 512])) + data[at + 512 :]
    elif roll < 0.8:
        files[name] = data[:at] + data[at + rng.randrange(600) :]
    elif roll < 0.9:
        files[name] = data[:at] + rng.randbytes(rng.randrange(600)) + data[at:]
    else:
        del files[name]


async def test_a_flipped_bit_in_a_snapshot_costs_one_piece_at_the_most(autojump_clock):
    store, _ = rich.grow(2, 400)
    assert len(store.jobs) > 4 * records.PIECE
    whole = b"".join(records.snapshot(records.image_of(store, 0)))
    rng = random.Random(3)
    for _ in range(40):
        files, _, at = flipped({"snapshot-000001": whole}, rng)
        found = survey_of(files)
        if found is None:
            continue
        lost = store.jobs.keys() - found.store.jobs.keys()
        assert len(lost) <= records.PIECE, at
        assert lost <= set(surveys.ids(found.damage)), at
        assert found.damage
        check_repairable(found)


async def test_a_missing_journal_costs_its_records_and_no_more(autojump_clock):
    disk, _ = await rolled()
    first, last = (numbers(disk.files["journal-000002"])[n][2] for n in (0, -1))
    files = {name: data for name, data in disk.files.items() if name != "journal-000002"}
    found = survey(files)

    assert "journal-000002: is missing" == str(found.damage[0])
    assert f"records {first} to {last}" == found.damage[0].lost
    assert {"journal-000001", "journal-000003", "snapshot-000001"} <= {f.name for f in found.files}


async def test_a_file_that_cannot_be_read_is_named_with_the_reason(autojump_clock):
    files, _, _ = await lab()
    found = survey({**files, "journal-000002": OSError(5, "Input/output error")})

    assert "journal-000002: cannot be read: Input/output error" == str(found.damage[0])
    assert "record 31, and whatever stood behind it" == found.damage[0].lost


async def test_an_older_snapshot_saves_what_a_newer_one_lost(autojump_clock):
    disk, store = await rolled()
    newer = b"".join(records.snapshot(records.image_of(store, 60)))
    damaged = newer[:30] + b"?" + newer[31:]
    found = survey({**disk.files, "snapshot-000004": damaged})

    assert [] == found.losses
    assert ["snapshot-000004"] == [damage.file for damage in found.damage]
    assert records.dump_store(store) == records.dump_store(found.store)


async def test_what_looks_like_a_record_inside_a_document_is_none(autojump_clock):
    """A submitter can write what he likes into his document; a repair must not believe it."""
    disk = MemoryDisk()
    _, journal = await journals.restore(disk)
    victim = next(iter(rich.grow(1, 40)[0].jobs.values()))
    forged = frames.frame(records.dump_changes([Submitted(victim)]), 1)
    for payload in (b"x" * 100 + forged + b"y" * 100, records.dump_changes([])):
        await disk.append("journal-000001", frames.frame(payload, journal._next))
        journal._next += 1
    data = bytearray(disk.files["journal-000001"])
    data[60] ^= 1
    found = survey({**disk.files, "journal-000001": bytes(data)})

    assert ["record 0"] == [damage.lost for damage in found.damage]
    assert {} == found.store.jobs


async def test_files_of_a_newer_program_are_not_touched(autojump_clock):
    files, _, _ = await lab()
    for name in files:
        with pytest.raises(BadState, match=f"{name}: .* is newer"):
            survey({**files, name: files[name].replace(b" 2\n", b" 3\n", 1)})


async def test_an_empty_folder_holds_nothing_and_is_whole():
    found = survey({})

    assert ([], [], {}) == (found.files, found.damage, found.store.jobs)


async def test_the_golden_history_is_told_whole(autojump_clock):
    disk = MemoryDisk()
    store = await history(disk)

    assert records.dump_store(store) == records.dump_store(survey(disk.files).store)


async def test_a_number_far_beyond_the_others_costs_no_look_for_each_between(autojump_clock):
    files, _, _ = await lab(steps=6)
    far = f"journal-{10**12}"
    found = survey({**files, far: b""})
    missing = [damage.file for damage in found.damage if damage.why == "is missing"]

    assert [f"journal-{n:06}" for n in range(3, 13)] == missing
    assert [far] == [file.name for file in found.files if file.name == far and file.used]


async def test_files_are_used_by_their_whole_number(autojump_clock):
    files, _, _ = await lab(steps=6)
    moved = {name.replace("000002", "1000002"): data for name, data in files.items()}
    found = survey({**moved, "journal-000009": b""})
    used = {file.name for file in found.files if file.used}

    assert {"snapshot-1000002", "journal-1000002"} == used
