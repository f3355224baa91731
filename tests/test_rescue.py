"""A damaged archive: told by name, and every row that can be read is saved."""

from __future__ import annotations

import contextlib
import os
import random

import attrs
import pytest

from appliance.errors import BadState, DiskTrouble
from appliance.jobs import job as jobs
from appliance.jobs.documents.document import Body
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file
from appliance.keep.repair import rescue
from appliance.keep.state import records
from tests import rich
from tests.recorder import NAME, SYNC, recorded

NOW = 1_800_000_000.0
OVER, WAITING = 300, 60  # enough for a tree of several pages


def filed(job):
    return attrs.evolve(job, document=attrs.evolve(job.document, body=None))


def numbered(job, number, **fields):
    return attrs.evolve(job, id=f"lab.{number}", number=number, key=f"key{number}", **fields)


def write(folder):
    """An archive with jobs that are over and the documents of others; the store beside it."""
    folder.mkdir()
    store, _ = rich.grow(1, 40)
    job = filed(next(iter(store.jobs.values())))
    over = jobs.Finished("success", "", None)
    text = {"text": "x" * 500}
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as connection:
        archive.take(
            connection,
            [numbered(job, n, state=over, finished=1.0, attempts=()) for n in range(1, OVER + 1)],
        )
        numbers = range(1, OVER + WAITING + 1)
        archive.file_bodies(connection, [(n, Body(fields={**text, "n": n})) for n in numbers])
    waiting = [numbered(job, n, state=jobs.Queued(), attempts=()) for n in numbers[OVER:]]
    return Store({job.id: job for job in waiting}, {}, numbers[-1], "", OVER)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "state"


def test_a_whole_archive_has_no_damage(folder):
    store = write(folder)

    assert rescue.damage(folder, store) is None
    whole = rescue.whole(folder, store)
    assert OVER + WAITING == len(whole.jobs)
    assert 0 == whole.archived
    assert [job.number for job in whole.jobs.values()] == [
        job.document.body.fields["n"] for job in whole.jobs.values()
    ]


def test_a_lab_that_never_archived_needs_no_archive(folder):
    folder.mkdir()
    store, _ = rich.grow(1, 5)

    assert rescue.damage(folder, store) is None
    assert rescue.whole(folder, store) is store


def test_what_is_no_archive_of_ours_is_named(folder):
    store = write(folder)
    (folder / archive_file.NAME).write_bytes(
        b"SQLite format 3\0" + random.Random(1).randbytes(4096)
    )

    damage = rescue.damage(folder, store)
    assert archive_file.NAME == damage.file
    assert f"{OVER} jobs that are over and the documents of {WAITING} jobs" == damage.lost
    with pytest.raises(BadState, match="repair"):
        rescue.whole(folder, store)


def test_an_archive_that_another_program_holds_is_locked_and_not_damaged(folder, monkeypatch):
    monkeypatch.setattr(archive_file, "BUSY_S", 0.0)
    store = write(folder)
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        other.execute("UPDATE job SET stays = 0")
        for look in (rescue.damage, rescue.agreed, rescue.whole):
            with pytest.raises(DiskTrouble, match=r"^archive\.sqlite: database is locked$"):
                look(folder, store, *[NOW][: look is rescue.agreed])
        with pytest.raises(DiskTrouble, match="locked"):
            rescue.mend(folder)
        with pytest.raises(DiskTrouble, match="locked"):
            archive.Archive.of_folder(folder)
        other.execute("ROLLBACK")

    assert rescue.damage(folder, store) is None


async def test_a_start_without_its_archive_says_so_and_makes_none(folder):
    store = write(folder)
    (folder / archive_file.NAME).unlink()
    shelf = archive.Archive.of_folder(folder)
    with contextlib.closing(shelf), pytest.raises(BadState, match=r"archive\.sqlite: is missing;"):
        await shelf.check(store)

    assert [] == rescue.files(folder)


def test_an_archive_in_a_folder_that_is_read_only_is_read_with_its_log(
    folder, tmp_path, monkeypatch
):
    store = write(folder)
    late = Body(script="#!/bin/sh\n")
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as server:
        archive.file_bodies(server, [(OVER + 1, late)])
        assert f"{archive_file.NAME}-wal" in rescue.files(folder)
        monkeypatch.setattr(os, "access", lambda path, mode, **effective: False)
        whole = rescue.whole(folder, store)

    assert late == whole.jobs[f"lab.{OVER + 1}"].document.body


@pytest.mark.parametrize("seed", range(15))
def test_a_page_of_garbage_costs_at_most_what_stood_in_it(folder, seed):
    store, rng = write(folder), random.Random(seed)
    data = bytearray((folder / archive_file.NAME).read_bytes())
    page = rng.randrange(1, len(data) // 4096) * 4096
    data[page : page + 4096] = rng.randbytes(4096)
    (folder / archive_file.NAME).write_bytes(data)

    damage = rescue.damage(folder, store)
    assert damage is not None, seed
    rescue.mend(folder)
    mended = rescue.agreed(folder, store, NOW)
    after = rescue.damage(folder, mended)
    assert after is None or set(after.jobs) <= set(damage.jobs), seed
    assert after is None or "the documents of" in after.lost, seed
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as connection:
        assert mended.archived == len(archive.all_jobs(connection)), seed


def test_most_rows_survive_a_page_of_garbage(folder):
    saved = []
    for seed in range(6):
        folder = folder.parent / f"{seed}"
        store, rng = write(folder), random.Random(seed)
        data = bytearray((folder / archive_file.NAME).read_bytes())
        page = rng.randrange(1, len(data) // 4096) * 4096
        data[page : page + 4096] = rng.randbytes(4096)
        (folder / archive_file.NAME).write_bytes(data)
        rescue.mend(folder)
        saved.append(rescue.agreed(folder, store, NOW).archived)

    assert OVER * 0.9 < sorted(saved)[3]


@pytest.mark.parametrize(
    ("column", "value"),
    [("health", "failed"), ("submitter", "nobody"), ("finished", 2.0), ("stays", 1), ("id", "x.1")],
)
def test_a_column_that_says_something_else_is_damage(folder, column, value):
    store = write(folder)
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as connection:
        connection.execute(f"UPDATE job SET {column} = ? WHERE number = 7", (value,))

    assert "the job number 7 is damaged" == rescue.damage(folder, store).why


def test_lost_documents_of_jobs_that_are_over_are_counted_and_replaced(folder):
    store = write(folder)
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as connection:
        connection.execute("DELETE FROM body WHERE number IN (3, 5)")

    assert "the documents of 2 jobs that are over" == rescue.damage(folder, store).lost
    after = rescue.agreed(folder, store, NOW)
    assert rescue.damage(folder, after) is None
    assert "was lost" in rescue.whole(folder, after).jobs["lab.3"].document.body.script


def test_a_new_archive_has_a_name_of_its_own_for_good_before_the_old_one_goes(folder, monkeypatch):
    write(folder)
    calls = recorded(monkeypatch)
    rescue.mend(folder)

    assert [
        (NAME, str(folder / archive.MENDED)), (SYNC, str(folder)),
        (NAME, str(folder / archive_file.NAME)), (SYNC, str(folder)),
    ] == calls  # fmt: skip


def test_a_whole_copy_that_has_not_its_name_yet_is_told_of_and_taken_as_it_is(folder):
    store = write(folder)
    (folder / archive_file.NAME).rename(folder / archive.MENDED)

    assert "its repair was broken off" == rescue.damage(folder, store).why
    with pytest.raises(BadState, match="its repair was broken off"):
        archive.Archive.of_folder(folder)
    rescue.mend(folder)
    assert rescue.damage(folder, store) is None


def test_a_job_whose_end_only_the_archive_knows_is_over_after_a_repair(folder):
    before = write(folder)
    ended, waiting = next(iter(before.jobs.values())), OVER + WAITING
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as connection:
        over = jobs.Finished("success", "", None)
        archive.take(connection, [attrs.evolve(ended, state=over, finished=1.0)])

    after = rescue.agreed(folder, before, NOW)

    assert {*before.jobs} - {ended.id} == {*after.jobs}
    assert OVER + 1 == after.archived
    assert waiting == after.counter
    assert rescue.damage(folder, after) is None


def test_a_box_is_free_when_the_archive_knows_that_its_job_is_over(folder):
    write(folder)
    store, _ = rich.grow(3, 40)
    held = next(job for job in store.active())
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as connection:
        over = jobs.Finished("success", "", None)
        archive.take(connection, [attrs.evolve(filed(held), state=over, finished=1.0)])

    after = rescue.agreed(folder, store, NOW)

    assert held.id not in after.jobs
    assert after.boxes[held.attempt.box].job is None
    after.check()


def test_a_number_that_the_archive_has_is_given_to_no_new_job_after_a_repair(folder):
    write(folder)

    assert OVER + WAITING == rescue.agreed(folder, Store({}, {}, 7), NOW).counter


@pytest.mark.parametrize("seed", range(15))
def test_any_flipped_bit_is_found_or_harmless(folder, seed):
    store, rng = write(folder), random.Random(seed)
    expected = records.dump_store(rescue.whole(folder, store))
    data = bytearray((folder / archive_file.NAME).read_bytes())
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    (folder / archive_file.NAME).write_bytes(data)

    if rescue.damage(folder, store) is None:
        assert expected == records.dump_store(rescue.whole(folder, store)), seed
