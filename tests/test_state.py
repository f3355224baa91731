"""`appliance state`: what an operator does with state files that no server uses."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import sqlite3
import stat
import sys

import attrs
import pytest
import trio

from appliance import cli
from appliance.errors import BadState
from appliance.jobs.changes import Archived, Filed, Submitted
from appliance.jobs.job import Booting, Offered, Queued
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file, sealed
from appliance.keep.archive import Archive
from appliance.keep.repair import export, offline, rescue, survey
from appliance.keep.state import journal as journals
from appliance.keep.state import records, replay
from appliance.keep.state.disk import StateFolder
from tests import rich
from tests.recorder import NAME, SYNC, recorded
from tests.spoiled import spoil


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """The program, on a state folder of its own: (exit code, stdout, stderr)."""
    config = tmp_path / "appliance.toml"
    config.write_text(f'[paths]\nstate = "{tmp_path}/state"\nsrv = "{tmp_path}/srv"\n')

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["appliance", "--config", str(config), "state", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capsys.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def state(tmp_path):
    """A folder with a snapshot and 29 records behind it."""
    return tmp_path / "state", written(tmp_path / "state", 1)


def written(folder, seed, steps=60):
    """Write the state that a random lab leaves; the store."""
    grown, made = rich.grow(seed, steps)

    async def write():
        with contextlib.ExitStack() as stack:
            disk = stack.enter_context(contextlib.closing(StateFolder(folder)))
            shelf = stack.enter_context(
                contextlib.closing(archive_file.connect(folder / archive_file.NAME))
            )
            store, journal = await journals.restore(disk)
            for n, changes in enumerate(made):
                for change in changes:
                    rich.shelve(shelf, store, change)
                    store.apply(change)
                journal.append(changes)
                await journal.write()
                if n == 30:
                    await journal.snapshot()

    trio.run(write)
    return grown


def has_an_archive(seed):
    store, _ = rich.grow(seed, 150)
    waiting = [job for job in store.jobs.values() if job.document.body is None]
    return store.archived > 1 and len(waiting) > 1


ARCHIVING = next(filter(has_an_archive, range(1000)))


def everything(seed):
    """The store of a lab that files nothing and archives nothing, by job."""
    store = Store()
    for changes in rich.grow(seed, 150)[1]:
        for change in changes:
            if not isinstance(change, Filed | Archived):
                store.apply(change)
    return store


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def restored(folder):
    """The store that a server would start with; BadState if it would not."""

    async def start():
        with contextlib.closing(StateFolder(folder)) as disk:
            return (await journals.restore(disk))[0]

    return trio.run(start)


def test_a_whole_state_is_counted_and_nothing_is_changed(run, state):
    folder, grown = state
    before = files(folder)
    code, out, _ = run("check")

    assert 0 == code
    assert f"{len(grown.jobs)} jobs (" in out
    assert f"{len(grown.boxes)} testboxes; the newest job was number {grown.counter}" in out
    assert "29 whole records" in out
    assert before == files(folder)


def test_programs_are_told_the_jobs_by_id(run, state):
    folder, grown = state
    code, out, _ = run("check", "--json")
    row = json.loads(out)

    assert 0 == code
    assert list(grown.jobs) == [job["id"] for job in row["jobs"]]
    assert list(grown.boxes) == row["boxes"]
    assert ["journal-000002", "snapshot-000002"] == [file["name"] for file in row["files"]]
    assert ([], "") == (row["damage"], row["torn"])
    assert run("check", str(folder), "--json")[1] == out


def test_a_torn_last_record_is_told_and_is_no_damage(run, state):
    folder, _ = state
    journal = folder / "journal-000002"
    journal.write_bytes(journal.read_bytes()[:-3])
    code, out, _ = run("check")

    assert 0 == code
    assert "journal-000002: torn at byte" in out


def test_a_repair_says_what_it_would_lose_and_does_it_only_when_told_to(run, state):
    folder, grown = state
    flip(folder / "journal-000002", 400)
    before = files(folder)
    for command in ("check", "repair"):
        code, out, _ = run(command)
        assert 1 == code
        assert "journal-000002: damaged at byte" in out
        assert "a repair loses record " in out
        assert before == files(folder)
    code, out, _ = run("repair", "--yes")

    assert 0 == code
    assert f"repaired; the files as they were are in {folder}/damaged-1" in out
    kept = files(folder / "damaged-1")
    assert {name: data for name, data in before.items() if "-" in name} == kept
    assert (0, "nothing to repair") == (run("repair")[0], run("repair")[1].splitlines()[-1])
    assert restored(folder).jobs.keys() <= grown.jobs.keys()


def test_a_second_repair_keeps_its_files_elsewhere(run, state):
    folder, _ = state
    for number in (1, 2, 3):
        flip(next(folder.glob("snapshot-*")), 40)
        assert 1 == run("check")[0]
        assert 0 == run("repair", "--yes")[0]
        assert (folder / f"damaged-{number}").is_dir()
        restored(folder)


def test_jobs_that_stand_in_what_is_lost_are_named(run, state):
    folder, _ = state
    _, made = rich.grow(1, 60)
    part = next(n for n, changes in enumerate(made[31:]) if hasattr(changes[0], "job")
                and not isinstance(changes[0].job, str) and changes[0].job)  # fmt: skip
    lost = made[31 + part][0].job.id
    data = (folder / "journal-000002").read_bytes()
    flip(folder / "journal-000002", data.index(lost.encode()) + 40)
    _, out, _ = run("repair")

    assert f"it names {lost}" in out
    assert f"jobs that a repair would not bring back: {lost}" in out


def test_the_state_goes_out_as_json_and_comes_back(run, tmp_path):
    grown = written(tmp_path / "state", ARCHIVING, 150)
    whole = everything(ARCHIVING)
    assert len(grown.jobs) < len(whole.jobs)  # the archive has the others
    code, text, _ = run("export")
    assert (0, by_number(export.dump(whole))) == (code, by_number(text))
    assert 0 == run("export", "--output", str(tmp_path / "out.json"))[0]
    assert 0o600 == stat.S_IMODE((tmp_path / "out.json").stat().st_mode)
    code, out, _ = run("import", str(tmp_path / "out.json"), str(tmp_path / "other"))

    assert 0 == code
    assert f"{len(whole.jobs)} jobs, {len(whole.boxes)} testboxes" in out
    again = restored(tmp_path / "other")
    assert (whole.jobs, whole.boxes) == (again.jobs, again.boxes)
    assert 0 == run("check", str(tmp_path / "other"))[0]


def by_number(text):
    """An export, its jobs in the order in which they came."""
    whole = json.loads(text)
    whole["jobs"].sort(key=lambda job: job["number"])
    return whole


def test_an_import_gives_no_number_again_that_results_are_there_of(run, tmp_path):
    folder = tmp_path / "state"
    written(folder, 1)
    assert 0 == run("export", "--output", str(tmp_path / "out.json"))[0]
    shutil.rmtree(folder)
    (tmp_path / "srv/result/hello/2026-11-25/box-1/debian-12-x86_64/lab.4711").mkdir(parents=True)
    assert 0 == run("import", str(tmp_path / "out.json"))[0]

    assert 4711 == restored(folder).counter


def test_an_archive_that_another_program_holds_is_no_reason_to_repair(run, tmp_path, monkeypatch):
    folder = tmp_path / "state"
    written(folder, ARCHIVING, 150)
    monkeypatch.setattr(archive_file, "BUSY_S", 0.0)
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        for words in (["check"], ["repair", "--yes"], ["export"]):
            assert (4, "", "appliance: archive.sqlite: database is locked\n") == run(*words)

    assert 0 == run("check")[0]


@pytest.mark.parametrize("value", ["text", None, 1.5, -1, 2**62, b"", b"\xff\xfe"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("job", "cbor"),
        ("job", "submitted"),
        ("job", "box"),
        ("body", "cbor"),
        ("attempt", "number"),
    ],
)
def test_a_value_of_the_wrong_type_in_the_archive_is_damage_named(
    run, tmp_path, table, column, value
):
    folder = tmp_path / "state"
    written(folder, ARCHIVING, 150)
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as shelf:
        number = next(job.number for job in archive.all_jobs(shelf) if job.attempts)
        body = archive.body_of(shelf, number)
        assert body is not None
    spoil(folder / archive_file.NAME, table, column, number, value)

    code, out, _ = run("check")
    assert (1, True) == (code, "archive.sqlite: " in out), out
    assert f"number {number} " in out or f"NULL value in {table}.{column}" in out
    code, _, err = run("export")
    assert (4, True) == (code, "`appliance state repair` comes first" in err), err
    assert 1 == run("repair")[0]
    assert 0 == run("repair", "--yes")[0]
    assert 0 == run("check")[0]


def test_a_repair_without_room_is_told_in_one_line(run, tmp_path, monkeypatch):
    folder = tmp_path / "state"
    written(folder, ARCHIVING, 150)
    for name in rescue.files(folder):
        (folder / name).unlink()

    def full(folder):
        error = sqlite3.OperationalError("database or disk is full")
        error.sqlite_errorcode = sqlite3.SQLITE_FULL
        raise error

    monkeypatch.setattr(rescue, "mend", full)
    code, _, err = run("repair", "--yes")

    assert (4, "appliance: archive.sqlite: database or disk is full\n") == (code, err)


def test_a_lost_archive_is_told_and_mended_only_when_told_to(run, tmp_path):
    folder = tmp_path / "state"
    grown = written(folder, ARCHIVING, 150)
    for name in rescue.files(folder):
        (folder / name).unlink()
    code, out, _ = run("check")
    waiting = [job.id for job in grown.jobs.values() if job.document.body is None]
    assert 1 == code
    assert "archive.sqlite: is missing" in out
    lost = f"{grown.archived} jobs that are over and the documents of {len(waiting)} jobs"
    assert f"a repair loses {lost}; it names {', '.join(waiting)}" in out
    assert [1, 4] == [run("repair")[0], run("export")[0]]

    assert 0 == run("repair", "--yes")[0]
    assert (0, 0) == (run("check")[0], run("export")[0])
    after = restored(folder)  # a server starts, and says what became of them
    trio.run(checked, folder, after)
    assert 0 == after.archived
    for name in waiting:
        job = after.jobs[name]
        if isinstance(grown.jobs[name].state, Queued | Offered | Booting):
            assert ("incomplete", "its document was lost") == (job.state.health, job.state.reason)
        else:
            assert grown.jobs[name].state == job.state


async def checked(folder, store):
    """Raises BadState where a server would not take the archive."""
    with contextlib.closing(Archive.of_folder(folder)) as shelf:
        await shelf.check(store)


def test_a_repair_of_the_archive_killed_anywhere_goes_on_where_it_was(tmp_path, monkeypatch):
    folder = tmp_path / "state"
    grown = written(folder, ARCHIVING, 150)
    path = folder / archive_file.NAME
    data = bytearray(path.read_bytes())
    data[-4096:] = bytes(4096)
    path.write_bytes(data)

    def look():
        with offline.reading(folder) as contents:
            found = survey.survey(contents, "lab")
        damage = rescue.damage(folder, found.store)
        found.damage += [damage] if damage else []
        return found

    twin = shutil.copytree(folder, tmp_path / "twin")
    with offline.reading(twin) as contents:
        found = survey.survey(contents, "lab")
    trio.run(offline.repair, twin, attrs.evolve(found, damage=[rescue.damage(twin, found.store)]))
    whole = restored(twin)
    number = 0
    while (found := look()).damage:
        number += 1
        with killed_at(monkeypatch, number), contextlib.suppress(Killed):
            trio.run(offline.repair, folder, found)
    after = restored(folder)
    trio.run(checked, folder, after)

    assert number > 6
    assert 0 < whole.archived == after.archived <= grown.archived
    assert whole.jobs.keys() == after.jobs.keys()
    assert [] == list(folder.glob(".archive*"))


def test_a_state_is_never_imported_over_another(run, state, tmp_path):
    folder, _ = state
    run("export", "--output", str(tmp_path / "out.json"))
    before = files(folder)
    code, _, err = run("import", str(tmp_path / "out.json"))

    assert 4 == code
    assert f"{folder}: there is a state already: archive.sqlite, journal-000002" in err
    assert before == files(folder)


def test_a_damaged_state_is_not_exported(run, state):
    folder, _ = state
    flip(folder / "snapshot-000002", 60)
    code, out, err = run("export")

    assert (4, "") == (code, out)
    assert "snapshot-000002: damaged at byte" in err
    assert "`appliance state repair` comes first" in err


def test_no_command_touches_the_state_of_a_running_server(run, state, tmp_path):
    folder, _ = state
    run("export", "--output", str(tmp_path / "out.json"))
    before = files(folder)
    with contextlib.closing(StateFolder(folder)):
        for words in (["check"], ["repair"], ["repair", "--yes"], ["export"],
                      ["import", str(tmp_path / "out.json")]):  # fmt: skip
            code, _, err = run(*words)
            assert 4 == code
            assert f"{folder}: in use by another server, pid {os.getpid()}" in err
    assert before == files(folder)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("check",), 3, "state: there is no state; see `[paths] state`"),
        (("repair", "--yes"), 3, "there is no state"),
        (("export",), 3, "there is no state"),
        (("import", "/nonexistent"), 2, "No such file"),
        (("import", "/"), 2, "Is a directory"),
        (("import", "/dev/null"), 4, "null: line 1, column 1: not JSON"),
        (("import",), 2, "Missing argument"),
        (("mend",), 2, "No such command"),
    ],
)
def test_a_wrong_command_is_one_line_and_an_exit_code(run, words, code, message):
    ended, _, err = run(*words)

    assert code == ended
    assert message in err
    assert "Traceback" not in err


def test_a_folder_of_rubbish_never_ends_in_a_traceback(run, tmp_path):
    rng = random.Random(5)
    folder = tmp_path / "state"
    folder.mkdir()
    for _ in range(40):
        for path in folder.glob("*-0*"):
            path.rmdir() if path.is_dir() else path.unlink()
        for _ in range(rng.randrange(4)):
            path = folder / f"{rng.choice(['snapshot', 'journal'])}-{rng.randrange(4):06}"
            head = rng.choice([b"", b"appliance journal 1\n", b"appliance snapshot 1\n"])
            if not path.exists() and rng.random() < 0.1:
                path.mkdir()
            elif not path.is_dir():
                path.write_bytes(head + rng.randbytes(rng.randrange(300)))
        code, out, err = run("check")
        assert code in (0, 1), err
        assert bool(code) == ("damaged" in out or "journal" in out or "snapshot" in out)


class Killed(BaseException):
    """The power went."""


@contextlib.contextmanager
def killed_at(monkeypatch, number):
    """The `number`-th call that changes something on the disk is not made any more."""
    left = [number]

    def dies(function):
        def call(*args, **kwargs):
            left[0] -= 1
            if left[0] <= 0:
                raise Killed
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("link", "mkdir", "rename", "replace", "unlink", "write", "fsync"):
            patch.setattr(os, name, dies(getattr(os, name)))
        yield


def test_damaged_files_have_a_second_name_for_good_before_anything_takes_their_place(
    state, monkeypatch
):
    folder, _ = state
    flip(folder / "journal-000002", 400)
    with offline.reading(folder) as contents:
        found = survey.survey(contents, "lab")
    calls = recorded(monkeypatch)
    kept = trio.run(offline.repair, folder, found)

    replaced = calls.index((NAME, next(path for what, path in calls if "snapshot" in path
                                       and what == NAME and str(kept) not in path)))  # fmt: skip
    before = calls[:replaced]
    assert {(SYNC, str(kept)), (SYNC, str(folder))} <= set(before)
    assert any(what == NAME and path.startswith(str(kept)) for what, path in before)


@pytest.mark.parametrize("name", ["journal-000009", archive_file.NAME])
def test_a_folder_in_the_way_is_named_and_nothing_is_changed(run, state, name):
    folder, _ = state
    (folder / name).unlink(missing_ok=True)
    (folder / name).mkdir()
    before = files(folder)
    code, _, err = run("repair", "--yes")

    assert 4 == code
    assert f"{folder / name}: a folder is in the way; move it away first" in err
    assert before == files(folder)
    assert [] == list(folder.glob("damaged-*"))


def test_a_repair_killed_anywhere_has_happened_or_not(state, monkeypatch):
    folder, _ = state
    flip(folder / "journal-000002", 400)
    before = {name: data for name, data in files(folder).items() if "-" in name}

    def look():
        with offline.reading(folder) as contents:
            return dict(contents), survey.survey(contents, "lab")

    _, found = look()
    wanted, number, done = records.dump_store(found.store), 0, False
    while not done:
        number += 1
        try:
            with killed_at(monkeypatch, number):
                trio.run(offline.repair, folder, found)
            done = True
        except Killed:
            pass
        contents, now = look()
        assert wanted == records.dump_store(now.store)
        assert any(before.items() <= files(kept).items() for kept in folder.glob("damaged-*")) or (
            before.items() <= contents.items()
        )
        if not now.damage:
            break

    assert number > 4
    assert wanted == records.dump_store(restored(folder))


@pytest.mark.root
@pytest.mark.parametrize("what", ["repair", "import"])
def test_what_root_makes_belongs_to_the_user_whose_server_starts_with_it(run, open_path, what):
    """Else the way out that a refused start names would end in "permission denied"."""
    folder, user = open_path / "state", 65534
    written(folder, ARCHIVING, 150)
    assert 0 == run("export", str(folder), "--output", str(open_path / "out.json"))[0]
    if what == "repair":
        flip(folder / "journal-000002", 60)
        (folder / archive_file.NAME).unlink()
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    for path in (folder, *folder.iterdir()):
        os.chown(path, user, user)
    words = ["repair", "--yes"] if what == "repair" else ["import", str(open_path / "out.json")]
    assert 0 == run(*words, str(folder))[0]

    made = {path.name: path.stat() for path in folder.iterdir() if path.is_file()}
    assert {"lock", "snapshot-000003" if what == "repair" else "snapshot-000001"} <= made.keys()
    assert {(user, user)} == {(facts.st_uid, facts.st_gid) for facts in made.values()}


def test_what_root_reads_of_a_state_has_a_limit_and_what_is_beyond_it_is_damage(
    run, state, monkeypatch
):
    folder, _ = state
    assert 0 == run("check")[0]
    size = sum(path.stat().st_size for path in folder.iterdir() if "-" in path.name)
    monkeypatch.setattr(offline, "STATE_BYTES_MAX", size)
    assert 0 == run("check")[0]
    with (folder / "journal-999999").open("wb") as sparse:
        sparse.truncate(2**40)
    monkeypatch.setattr(offline, "STATE_BYTES_MAX", 2**20)
    code, out, err = run("check")

    assert (1, "") == (code, err)
    left = 2**20 - (folder / "journal-000002").stat().st_size
    assert f"journal-999999: cannot be read: is larger than {left} bytes" in out


@pytest.mark.parametrize("number", [-1, 0, 10**15, 2**62])
def test_a_row_of_the_archive_with_a_number_that_no_job_has_is_damage(tmp_path, number):
    job = next(job for job in rich.grow(1, 60)[0].jobs.values())
    row = sealed.seal((number,), job.document.body, type(job.document.body))
    good = sealed.seal((1,), job.document.body, type(job.document.body))

    assert not sealed.is_whole(row)
    assert sealed.is_whole(good)


@pytest.mark.parametrize("number", [-3, 0, 10**15, 2**70])
def test_a_job_with_a_number_that_no_lab_reaches_is_none_of_ours(number):
    grown, _ = rich.grow(1, 60)
    job = attrs.evolve(next(iter(grown.jobs.values())), number=number)
    said = f"a job's number = {number} is no number that a lab reaches"
    with pytest.raises(BadState, match=said):
        records.load_changes(records.dump_changes([Submitted(job)]), "f")
    store = Store({job.id: job}, dict(grown.boxes), 0)
    data = b"".join(records.snapshot(records.image_of(store, 0)))
    with pytest.raises(BadState, match=said):
        replay.load_snapshot(data, "f")
