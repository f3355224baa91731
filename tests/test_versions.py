"""keep/state/versions.py, keep/state/heads.py: states of other versions, earlier and later ones."""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import sys

import pytest
import trio

from appliance import cli
from appliance.errors import BadState, DiskTrouble, NewerState
from appliance.jobs.changes import Clocked, Drained
from appliance.keep import archive_file
from appliance.keep.archive import Archive
from appliance.keep.repair import backup, offline, rescue, survey
from appliance.keep.state import frames, heads, records, replay, versions
from appliance.keep.state import journal as journals
from appliance.keep.state.disk import StateFolder
from tests import rich
from tests.disks import MemoryDisk
from tests.golden_state import FOLDER

FIRST = FOLDER / "state-1"
ALL = ("snapshot-000003", "journal-000003", archive_file.NAME)


def version_of(data):
    return int(re.match(rb"appliance \w+ (\d+)\n", data)[1])


def without_anything_behind_the_snapshot():
    """A state of version 1 as a good stop leaves it: a journal that has only its header."""
    files = {name: (FIRST / name).read_bytes() for name in ("snapshot-000003", "journal-000003")}
    return {**files, "journal-000003": b"appliance journal 1\n"}


def misplaced(files):
    """The files that hold what their version does not know."""
    return [
        name
        for name, data in files.items()
        if name.startswith("journal") and version_of(data) < 2
        for part in frames.parts(data, frames.check_header(data, frames.JOURNAL, name))
        if part.payload is not None
        for change in records.load_changes(part.payload, name)
        if isinstance(change, Clocked)
    ]


async def run_on(disk):
    """A server starts there, writes what its clocks say, and is killed."""
    store, journal = await journals.restore(disk)
    async with trio.open_nursery() as nursery:
        await nursery.start(journal.serve)
        change = Clocked(1.0, "one", 1.0)
        store.apply(change)
        await journal.durable(journal.append([change]))
        nursery.cancel_scope.cancel()
    return store


async def test_what_an_earlier_version_wrote_is_read_and_never_written_to(autojump_clock):
    golden = {name: (FIRST / name).read_bytes() for name in ("snapshot-000003", "journal-000003")}
    for files in (golden, without_anything_behind_the_snapshot()):
        disk = MemoryDisk()
        disk.files = dict(files)
        store = await run_on(disk)

        assert {2} == {version_of(data) for data in disk.files.values()}
        again, _ = await journals.restore(disk)
        assert records.dump_store(store) == records.dump_store(again)


@pytest.mark.parametrize("torn", [b"", b"\x07" * 9])
async def test_on_a_full_disk_a_new_journal_follows_the_one_of_the_earlier_version(
    autojump_clock, torn
):
    golden = {name: (FIRST / name).read_bytes() for name in ("snapshot-000003", "journal-000003")}
    disk = MemoryDisk()
    disk.files = {**golden, "journal-000003": golden["journal-000003"] + torn}
    disk.calls.room = sum(map(len, disk.files.values())) + 1000
    store = await run_on(disk)

    assert ["journal-000003", "journal-000004", "snapshot-000003"] == sorted(disk.files)
    assert golden == {name: disk.files[name] for name in golden}
    assert [] == misplaced(disk.files)
    assert 2 == version_of(disk.files["journal-000004"])
    disk.calls.room = None
    again, _ = await journals.restore(disk)
    assert records.dump_store(store) == records.dump_store(again)
    assert {"snapshot-000005", "journal-000005"} == disk.files.keys()


async def test_a_disk_without_room_for_a_line_starts_nothing_and_keeps_the_state(autojump_clock):
    golden = {name: (FIRST / name).read_bytes() for name in ("snapshot-000003", "journal-000003")}
    disk = MemoryDisk()
    disk.files = dict(golden)
    disk.calls.room = sum(map(len, disk.files.values()))
    with pytest.raises(DiskTrouble, match="cannot be written"):
        await journals.restore(disk)

    assert golden == {name: disk.files[name] for name in golden}
    disk.calls.room = None
    await journals.restore(disk)


# ---- what a later program wrote


def newer(folder, name):
    """The file says that a later version wrote it."""
    path = folder / name
    if name == archive_file.NAME:
        with contextlib.closing(sqlite3.connect(path)) as later:
            later.execute(f"PRAGMA user_version = {versions.VERSION + 1}")
            later.execute("ALTER TABLE job ADD COLUMN colour TEXT")
        return
    now, then = (f" {number}\n".encode() for number in (versions.VERSION, versions.VERSION + 1))
    path.write_bytes(path.read_bytes().replace(now, then, 1))


@pytest.fixture
def state(tmp_path):
    """Today's golden state, in files of its own."""
    folder = tmp_path / "state"
    folder.mkdir()
    for name in ALL:
        shutil.copy(FOLDER / f"state-{versions.VERSION}" / name, folder / name)
    return folder


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    config = tmp_path / "appliance.toml"
    config.write_text(f'[paths]\nstate = "{tmp_path}/state"\nsrv = "{tmp_path}/srv"\n')

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["appliance", "--config", str(config), *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, capsys.readouterr().err

    return run


def contents(folder):
    """All that lies there, but for the lock, which says who looked."""
    return {
        path.name: (path.read_bytes(), path.stat().st_mode, path.stat().st_mtime_ns)
        for path in folder.iterdir()
        if path.name != "lock"
    }


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("words", [["check"], ["repair"], ["repair", "--yes"], ["export"]])
def test_state_files_of_a_later_program_are_named_and_not_touched(run, state, name, words):
    newer(state, name)
    before = contents(state)
    code, err = run("state", *words)

    kind = {"snapshot-000003": "snapshot", "journal-000003": "journal"}.get(name, "archive")
    said = f"appliance: {name}: was written by a newer appliance: {kind} version 3 is newer"
    assert 4 == code
    assert err.startswith(said)
    assert before == contents(state)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("with_archive", [True, False])
def test_a_start_on_the_state_of_a_later_program_touches_nothing(state, name, with_archive):
    newer(state, name)
    if not with_archive and name != archive_file.NAME:
        (state / archive_file.NAME).unlink()
    before = contents(state)
    with (
        contextlib.closing(StateFolder(state)),
        pytest.raises(NewerState, match=f"^{name}: was written by a newer appliance"),
    ):
        Archive.of_folder(state)  # as `run` does first

    assert before == contents(state)


def test_a_later_archive_is_told_by_sqlite_too_where_its_head_does_not_say_it_yet(state):
    path = state / archive_file.NAME
    connection = archive_file.connect(path)
    connection.execute(f"PRAGMA user_version = {versions.VERSION + 1}")  # in the log alone
    assert versions.VERSION == heads.newest(state)
    with pytest.raises(NewerState, match="archive version 3"):
        archive_file.connect(path)
    with offline.reading(state) as found, pytest.raises(NewerState, match="archive version 3"):
        rescue.damage(state, survey.survey(found, "lab").store)
    connection.close()


async def test_a_file_that_is_none_of_ours_has_no_version_and_is_damage_as_before(tmp_path):
    for name, data in [
        ("snapshot-000001", b"x"),
        ("journal-000001", b""),
        (archive_file.NAME, b"SQLite format 3\0" + b"\xff" * 100),
        ("notes", b"appliance journal 9\n"),
        ("journal-000002", b"appliance snapshot 9\n"),
    ]:
        (tmp_path / name).write_bytes(data)
    (tmp_path / "snapshot-000002").symlink_to("/etc/passwd")

    assert 0 == heads.newest(tmp_path)
    heads.check(tmp_path)
    assert 0 == heads.newest(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["snapshot-000001", archive_file.NAME])
def test_a_backup_of_a_later_program_is_refused_by_name_whatever_in_it_says_so(tmp_path, name):
    grown, _ = rich.grow(1, 20)
    snapshot = b"".join(records.snapshot(records.image_of(grown, 0)))
    (tmp_path / "snapshot-000001").write_bytes(snapshot)
    shutil.copy(FOLDER / "state-2" / archive_file.NAME, tmp_path / archive_file.NAME)
    newer(tmp_path, name)
    file = tmp_path / "lab.zip"
    with backup.Writer(file) as writer:
        for each in ("snapshot-000001", archive_file.NAME):
            writer.add(f"{backup.STATE}/{each}", [(tmp_path / each).read_bytes()])
        writer.finish({"jobs": 1, "archived": 0, "boxes": 1})

    with (
        pytest.raises(BadState, match=f"lab.zip: {name}: was written by a newer appliance"),
        backup.opened(file),
    ):
        pass


@pytest.mark.parametrize("number", range(2, 4))
async def test_journals_of_two_versions_are_one_state_for_a_repair_too(autojump_clock, number):
    disk = MemoryDisk()
    golden = {name: (FIRST / name).read_bytes() for name in ("snapshot-000003", "journal-000003")}
    disk.files = dict(golden)
    disk.calls.room = sum(map(len, disk.files.values())) + 1000
    store, journal = await journals.restore(disk)
    for n in range(number):
        change = Drained(f"ann {n}", 1.0)
        store.apply(change)
        journal.append([change])
        await journal.write()
    found = survey.survey(disk.files, "lab")
    assert [] == found.damage
    assert records.dump_store(store) == records.dump_store(found.store)
    assert replay.files_among(disk.files).journals == (3, 4)


async def test_a_start_that_refuses_leaves_the_state_as_it_was(autojump_clock, tmp_path):
    """One of version 1 without its archive was written anew, and then refused."""
    disk = MemoryDisk()
    disk.files = without_anything_behind_the_snapshot()
    before = dict(disk.files)

    async def refuse(store):
        raise BadState("archive.sqlite: is missing")

    with pytest.raises(BadState, match="is missing"):
        await journals.restore(disk, None, refuse)
    assert before == disk.files
