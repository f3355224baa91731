"""Backup and restore: one moment of a lab that goes on, and the same lab again."""

from __future__ import annotations

import contextlib
import json
import os
import tracemalloc
import zipfile

import attrs
import cbor2
import pytest
import trio

from appliance.config import Limits
from appliance.control.backup_verbs import Copies
from appliance.errors import BadConfig, BadState, Refused
from appliance.jobs.changes import Drained, Submitted
from appliance.jobs.store import Store
from appliance.keep import archive_file
from appliance.keep.archive import Archive, Wanted
from appliance.keep.repair import backup, restore
from appliance.keep.state import frames, records, replay, versions
from appliance.keep.state import journal as journals
from appliance.keep.state.disk import StateFolder
from appliance.scheduler import archiver, hosts_files
from tests import lab as labs
from tests.lab import open_lab

GATHER_S = 0.02  # these tests use threads, and so real time
CONFIG = b'lab = "lab"\n'


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(archiver, "GATHER_S", GATHER_S)


@contextlib.asynccontextmanager
async def loaded_lab(tmp_path):
    """Jobs that wait and one on a box; some over, in memory and in the archive; hosts files."""
    config = labs.config(tmp_path / "old", limits=attrs.evolve(Limits(), finished_in_memory=2))
    for path in (config.paths.state, config.paths.hosts):
        path.mkdir(parents=True)
    async with open_lab(config) as lab:
        hosts_files.write(config.paths.hosts, "box-1", {"mac": [labs.MAC]})
        (config.paths.state / backup.LEASES).write_text("1 52:54:00:00:00:01 10.0.0.5 * *\n")
        await lab.know()
        for n in range(8):
            job = await lab.submit(f"script: echo {n}\nsecrets:\n  k: v{n}\n", key=f"{n}" * 16)
            if n < 5:
                await lab.scheduler.cancel(job.id, "ann")
        await lab.ask()
        with trio.fail_after(10):
            store = lab.scheduler.store
            while store.archived < 3 or store.unfiled(1):  # noqa: ASYNC110 - filing's time is real
                await trio.sleep(0.01)
        yield lab


async def made(lab, file, meanwhile=None):
    """A backup of it, as the command line writes it."""
    files: dict[str, bytes] = {}

    async def event(what):
        if "file" in what:
            files[what["file"]] = b""
            if meanwhile is not None:
                await meanwhile()
        else:
            files[[*files][-1]] += what["data"]

    about = await Copies(lab.scheduler).send(event)
    with backup.Writer(file) as writer:
        for name, data in files.items():
            writer.add(name, [data])
        writer.add(backup.CONFIGURATION, [CONFIG])
        writer.finish({**about, "made": "now"})
    return about


async def found_in(config):
    """The store and the archive as a server would start with them."""
    async with contextlib.AsyncExitStack() as stack:
        disk = stack.enter_context(contextlib.closing(StateFolder(config.paths.state)))
        old = stack.enter_context(contextlib.closing(Archive.of_folder(config.paths.state)))
        store, _ = await journals.restore(disk)
        await old.check(store)
        return store, (await old.search(Wanted(), 100)).jobs, await old.body(1)


async def test_what_is_restored_is_the_lab_as_it_was(tmp_path):
    file, config = tmp_path / "lab.zip", labs.config(tmp_path / "new")
    async with loaded_lab(tmp_path) as lab:
        about = await made(lab, file)
        store = lab.scheduler.store
        jobs, boxes = dict(store.jobs), dict(store.boxes)
        over = (await lab.disk.archive.search(Wanted(), 100)).jobs

    with backup.opened(file) as found:
        assert restore.restore(config, found, tmp_path / "new.toml", replace=False) is None
    there, archived, body = await found_in(config)

    assert (about["jobs"], about["archived"]) == (len(jobs), there.archived)
    assert about["archived"] >= 3
    assert jobs == there.jobs
    assert boxes == there.boxes
    assert (store.counter, store.drained) == (there.counter, there.drained)
    assert over == archived
    assert {"k": "v0"} == body.secrets
    assert CONFIG == (tmp_path / "new.toml").read_bytes()
    assert [labs.MAC] == list(hosts_files.read(config.paths.hosts / "box-1.yaml", "default").macs)
    assert "10.0.0.5" in (config.paths.state / backup.LEASES).read_text()


async def test_a_lab_that_goes_on_meanwhile_is_saved_as_of_one_moment(tmp_path):
    """Jobs that come, end and are archived while the pieces go out are in none of them."""
    file, config, n = tmp_path / "lab.zip", labs.config(tmp_path / "new"), 0

    async with loaded_lab(tmp_path) as lab:
        before = dict(lab.scheduler.store.jobs)

        async def meanwhile():
            nonlocal n
            n += 1
            job = await lab.submit(key=f"m{n}" * 8)
            await lab.scheduler.cancel(job.id, "ann")
            await trio.sleep(5 * GATHER_S)  # so that filing has its turns

        await made(lab, file, meanwhile)
        assert n >= 4
        assert lab.scheduler.store.counter > max(job.number for job in before.values())

    with backup.opened(file) as found:
        restore.restore(config, found, tmp_path / "new.toml", replace=False)
    there, _, _ = await found_in(config)
    assert before.keys() == there.jobs.keys()


async def test_nothing_moves_into_the_archive_between_the_image_and_the_copy(tmp_path, monkeypatch):
    file, config, copy = tmp_path / "lab.zip", labs.config(tmp_path / "new"), Archive.copy_to

    async with loaded_lab(tmp_path) as lab:

        async def slowly(self, path):
            for n in range(4):
                job = await lab.submit(key=f"s{n}" * 8)
                await lab.scheduler.cancel(job.id, "ann")
            await trio.sleep(5 * GATHER_S)
            await copy(self, path)

        monkeypatch.setattr(Archive, "copy_to", slowly)
        counter = lab.scheduler.store.counter
        await made(lab, file)

    with backup.opened(file) as found:
        restore.restore(config, found, tmp_path / "new.toml", replace=False)
    there, archived, _ = await found_in(config)  # whose check would find a document too many
    assert counter == there.counter
    assert there.archived == len(archived)


async def test_nothing_is_left_of_the_copy(tmp_path):
    async with loaded_lab(tmp_path) as lab:
        await made(lab, tmp_path / "lab.zip")

        names = os.listdir(lab.config.paths.state)
    assert [backup.LEASES] == names


async def test_only_root_makes_one_and_only_its_owner_reads_it(tmp_path):
    async with loaded_lab(tmp_path) as lab:
        with pytest.raises(Refused, match="only root"):
            await lab.people.do("backup", {}, "ann", None)
        await made(lab, tmp_path / "lab.zip")

    assert 0o600 == (tmp_path / "lab.zip").stat().st_mode & 0o777


@pytest.fixture
async def file(tmp_path):
    async with loaded_lab(tmp_path) as lab:
        await made(lab, tmp_path / "lab.zip")
    return tmp_path / "lab.zip"


async def test_what_is_in_the_way_is_named_and_nothing_is_changed(tmp_path, file):
    config = labs.config(tmp_path / "new")
    config.paths.state.mkdir(parents=True)
    config.paths.hosts.mkdir(parents=True)
    (config.paths.state / replay.journal_name(7)).write_bytes(b"mine")
    (config.paths.hosts / "other.yaml").write_bytes(b"mac: x")
    toml = tmp_path / "new.toml"
    toml.write_bytes(b"# mine\n")

    with backup.opened(file) as found, pytest.raises(Refused) as caught:
        restore.restore(config, found, toml, replace=False)

    for name in ("journal-000007", "other.yaml", "new.toml", "--yes"):
        assert name in str(caught.value)
    assert {"journal-000007", "lock"} == {*os.listdir(config.paths.state)}
    assert b"# mine\n" == toml.read_bytes()

    with backup.opened(file) as found:
        aside = restore.restore(config, found, toml, replace=True)
    assert {"journal-000007", "hosts-other.yaml", "new-new.toml"} == {
        name.replace(tmp_path.name, "new") for name in os.listdir(aside)
    }
    there, _, _ = await found_in(config)
    assert there.jobs
    assert CONFIG == toml.read_bytes()


@pytest.mark.parametrize("left", ["state", "damaged state", "results", "swept results", "nothing"])
async def test_no_number_of_a_job_is_given_again_after_a_restore(tmp_path, file, left):
    """The lab went on after the backup, to lab.12; its jobs had results, or its state is there."""
    config = labs.config(tmp_path / "new")
    with backup.opened(file) as found:
        restore.restore(config, found, tmp_path / "new.toml", replace=False)
    if "state" in left:
        disk = StateFolder(config.paths.state)
        store, journal = await journals.restore(disk)
        for n in range(9, 13):
            job = attrs.evolve(store.job("lab.8"), id=f"lab.{n}", number=n, key=f"key{n}")
            store.apply(Submitted(job))
            journal.append([Submitted(job)])
            if n == 12:  # what comes behind the damage
                await journal.write()
                journal.append([Drained("ann", 0.0)])
        await journal.write()
        disk.close()
    if left == "damaged state":
        path = config.paths.state / replay.journal_name(1)
        data = bytearray(path.read_bytes())
        data[40] ^= 1
        path.write_bytes(data)
        with pytest.raises(BadState, match=path.name):
            await found_in(config)
    results = config.paths.srv / "result"
    if "results" in left:
        day = ".removed" if "swept" in left else "hello/2026-11-25/default/debian-12-x86_64/60-2"
        (results / day / "lab.12/attempt-2").mkdir(parents=True)
        (results / day / "other.99").mkdir()
        (results / day / "lab.12/lab.77").mkdir()
        (results / "lab.note").mkdir()

    with backup.opened(file) as found:
        restore.restore(config, found, tmp_path / "new.toml", replace=True)
    there, _, _ = await found_in(config)

    assert (8 if left == "nothing" else 12) == there.counter
    assert "lab.9" not in there.jobs


@pytest.mark.parametrize("writes", range(6))
async def test_a_restore_that_is_broken_off_starts_no_server_and_forgets_no_number(
    tmp_path, file, writes, monkeypatch
):
    """A kill after the old state was moved aside left an empty lab, which gave lab.1 again."""
    config, toml = labs.config(tmp_path / "new"), tmp_path / "new.toml"
    with backup.opened(file) as found:
        restore.restore(config, found, toml, replace=False)
    disk = StateFolder(config.paths.state)
    store, journal = await journals.restore(disk)
    job = attrs.evolve(store.job("lab.8"), id="lab.12", number=12, key="key12")
    journal.append([Submitted(job)])
    await journal.write()
    disk.close()
    put, left = restore._put, [writes]

    def put_or_die(path, *rest):
        if path.name != replay.RESTORING:
            if not left[0]:
                raise KeyboardInterrupt
            left[0] -= 1
        put(path, *rest)

    with monkeypatch.context() as during:
        during.setattr(restore, "_put", put_or_die)
        with backup.opened(file) as found, pytest.raises(KeyboardInterrupt):
            restore.restore(config, found, toml, replace=True)
    with pytest.raises(BadState, match="restore was broken off"):
        await found_in(config)

    with backup.opened(file) as found:
        restore.restore(config, found, toml, replace=True)
    there, _, _ = await found_in(config)
    assert 12 == there.counter


async def test_a_second_restore_of_the_same_changes_no_hosts_file(tmp_path, file):
    config = labs.config(tmp_path / "new")
    with backup.opened(file) as found:
        restore.restore(config, found, tmp_path / "new.toml", replace=False)

        there = restore.in_the_way(config, found, tmp_path / "new.toml")
    assert {config.paths.state} == {path.parent for path in there}


async def test_a_running_server_is_not_restored_under(tmp_path, file):
    config = labs.config(tmp_path / "new")
    with (
        contextlib.closing(StateFolder(config.paths.state)),
        backup.opened(file) as found,
        pytest.raises(BadState, match=f"in use by another server, pid {os.getpid()}"),
    ):
        restore.restore(config, found, tmp_path / "new.toml", replace=True)


async def test_one_that_is_cut_off_or_damaged_anywhere_is_refused(tmp_path, file):
    whole = file.read_bytes()
    for size in (0, 10, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:size])
        with pytest.raises(BadState), backup.opened(file):
            pass
    with zipfile.ZipFile(tmp_path / "lab.zip", "w"):
        pass
    with pytest.raises(BadState), backup.opened(file):
        pass
    entry = whole.index(archive_file.NAME.encode()) + 200
    file.write_bytes(whole[:entry] + bytes([whole[entry] ^ 1]) + whole[entry + 1 :])
    with pytest.raises(BadState), backup.opened(file):
        pass


@pytest.mark.parametrize(
    "name",
    [
        "state/../../evil",
        "hosts/a/b",
        "state/..",
        "/etc/passwd",
        "../x",
        "state/journal-000009",
        "state/lock",
        "hosts/a\x1bb",
        "other/x",
        "hosts/",
        "x",
    ],
)
async def test_no_name_in_it_leaves_its_folder(tmp_path, file, name):
    with zipfile.ZipFile(file, "a") as changed:
        changed.writestr(name, b"x")

    with pytest.raises(BadState, match="no file's name"), backup.opened(file):
        pass


ABOUT = {"version": 1, "jobs": 0, "archived": 0, "boxes": 0}


def changed(file, name, data, **more):
    """That backup with another file in the place of one."""
    whole = {}
    with zipfile.ZipFile(file) as old:
        whole = {each: old.read(each) for each in old.namelist()} | {name: data}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as new:
        for each, content in whole.items():
            new.writestr(each, content)
        for each, content in more.items():
            new.writestr(each, content)


@pytest.mark.parametrize(
    ("about", "word"),
    [
        (b"[" * 100_000, "no backup that can be read"),
        (b'{"a":' * 100_000, "no backup that can be read"),
        (b"[]", "says no version"),
        (json.dumps({**ABOUT, "version": 2}).encode(), "was written by a newer appliance"),
        (b"7" * 10_000, "no whole backup"),
        (b"\xff", "no whole backup"),
        (b" " * (2**20 + 1), "1048577 bytes, more than the 1048576"),
        (json.dumps({**ABOUT, "jobs": "x"}).encode(), "must have numbers for jobs, archived, box"),
        (json.dumps({"version": 1}).encode(), "must have numbers for jobs, archived, boxes"),
    ],
    ids=range(9),
)
async def test_a_list_of_contents_that_is_none_is_refused_in_a_line(file, about, word):
    changed(file, backup.ABOUT, about)

    with pytest.raises(BadState, match=word), backup.opened(file):
        pass


async def test_what_was_packed_to_fill_the_disk_is_refused_before_it_is_inflated(file):
    changed(file, f"state/{archive_file.NAME}", bytes(100 * 2**20))
    tracemalloc.start()
    with pytest.raises(BadState, match="no server wrote that"), backup.opened(file):
        pass
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


@pytest.mark.parametrize("name", [backup.ABOUT, f"state/{backup.SNAPSHOT}", "hosts/box-1.yaml"])
@pytest.mark.filterwarnings("ignore:Duplicate name")
async def test_a_name_that_is_there_twice_is_refused(file, name):
    with zipfile.ZipFile(file, "a") as twice:
        twice.writestr(name, b"x")

    with pytest.raises(BadState, match="is in it twice"), backup.opened(file):
        pass


async def test_one_that_is_encrypted_is_refused(file):
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1  # in the list at the end: this file is encrypted
    file.write_bytes(data)

    with pytest.raises(BadState, match="no backup that can be read"), backup.opened(file):
        pass


def test_one_that_was_broken_off_leaves_the_older_one(tmp_path):
    file = tmp_path / "lab.zip"
    file.write_bytes(b"older")

    def broken_off():
        yield b"1"
        raise RuntimeError

    with pytest.raises(RuntimeError), backup.Writer(file) as writer:
        writer.add("state/x", broken_off())

    assert b"older" == file.read_bytes()
    assert ["lab.zip"] == os.listdir(tmp_path)


# ---- what a restore finds out before it changes anything


def packed(path, *, configuration=None, head=None, hosts_files=(), about=None):
    """A backup of a lab without jobs; `head` is the snapshot's first record."""
    snapshot = b"".join(records.snapshot(records.image_of(Store(), 0)))
    if head is not None:
        snapshot = frames.SNAPSHOT % versions.VERSION + frames.frame(cbor2.dumps(head), 0)
    with backup.Writer(path) as writer:
        writer.add(f"state/{backup.SNAPSHOT}", [snapshot])
        if configuration is not None:
            writer.add(backup.CONFIGURATION, [configuration])
        for name in hosts_files:
            writer.add(f"hosts/{name}", [b"mac: []\n"])
        writer.finish({"jobs": 0, "archived": 0, "boxes": 0, **(about or {})})
    return path


def a_lab(tmp_path):
    """A server with a state, a configuration and a hosts file of its own, and all that is there."""
    config = labs.config(tmp_path / "there")
    for path in (config.paths.state, config.paths.hosts):
        path.mkdir(parents=True)
    (config.paths.state / "snapshot-000007").write_bytes(b"the state that is there")
    (config.paths.hosts / "box-1.yaml").write_text("mac: []\n")
    toml = tmp_path / "there/appliance.toml"
    toml.write_text("# mine\n")
    return config, toml


def lying(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def refused(config, toml, file):
    """Why a restore of it is refused; nothing is changed by it."""
    before = lying(toml.parent)
    with (
        pytest.raises((BadState, BadConfig, Refused)) as caught,
        backup.opened(file) as found,
    ):
        restore.restore(config, found, toml, replace=True)
    assert before == lying(toml.parent)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (b"a = [", "appliance.toml:1: Invalid value"),
        (b"lab = 'two words'", "must be one word of letters"),
        (b"colour = 1", "unknown key colour"),
        (b"a='\xff'", "is no UTF-8"),
        (b".".join([b"a"] * 20_000) + b"=1", "a key of more than 20 parts"),
    ],
    ids=range(5),
)
def test_a_configuration_that_no_server_would_start_with_is_refused_with_its_line(
    tmp_path, text, why
):
    config, toml = a_lab(tmp_path)
    said = refused(config, toml, packed(tmp_path / "lab.zip", configuration=text))

    assert why in said
    assert "lab.zip: appliance.toml" in said


HEAD = {"counter": 0, "drained": "", "archived": 0, "jobs": 0, "boxes": 0, "next": 0}


@pytest.mark.parametrize("key", ["counter", "archived", "jobs", "boxes", "next"])
@pytest.mark.parametrize("number", [2**70, 2**63, 10**15, -1])
def test_numbers_that_no_lab_reaches_are_no_state(tmp_path, key, number):
    config, toml = a_lab(tmp_path)
    said = refused(config, toml, packed(tmp_path / "lab.zip", head={**HEAD, key: number}))

    assert f"{key} = {number} is no number that a lab reaches" in said


def test_the_largest_number_that_a_lab_may_reach_is_restored(tmp_path):
    config, toml = a_lab(tmp_path)
    file = packed(tmp_path / "lab.zip", head={**HEAD, "counter": 10**12})
    with backup.opened(file) as found:
        restore.restore(config, found, toml, replace=True)
        assert 10**12 == found.store.counter


@pytest.mark.parametrize("key", ["jobs", "archived", "boxes"])
def test_a_backup_of_fewer_jobs_than_none_is_none(tmp_path, key):
    config, toml = a_lab(tmp_path)
    said = refused(config, toml, packed(tmp_path / "lab.zip", about={key: -3}))

    assert "must have numbers for jobs, archived, boxes" in said


@pytest.mark.parametrize("name", ["x" * 251, "x" * 300, "é" * 126])
def test_a_hosts_file_whose_name_no_disk_takes_is_refused_before_the_state_is_replaced(
    tmp_path, name
):
    config, toml = a_lab(tmp_path)
    said = refused(config, toml, packed(tmp_path / "lab.zip", hosts_files=[name]))

    assert "a name of more than 250 bytes" in said


def test_a_hosts_file_with_the_longest_name_is_restored(tmp_path):
    config, toml = a_lab(tmp_path)
    with backup.opened(packed(tmp_path / "lab.zip", hosts_files=["x" * 250])) as found:
        restore.restore(config, found, toml, replace=True)

    assert (config.paths.hosts / ("x" * 250)).is_file()


@pytest.mark.parametrize("where", ["hosts", "configuration"])
def test_a_folder_in_the_place_of_a_file_is_named_before_the_state_is_replaced(tmp_path, where):
    config, toml = a_lab(tmp_path)
    if where == "hosts":
        folder = config.paths.hosts / "box-9"
    else:
        toml.unlink()
        folder = toml
    folder.mkdir()
    file = packed(tmp_path / "lab.zip", configuration=CONFIG, hosts_files=["box-9"])
    said = refused(config, toml, file)

    assert f"nothing was changed; {folder}: is a folder" in said


def test_a_hosts_file_whose_name_has_no_room_aside_is_named_before_the_state_is_replaced(tmp_path):
    config, toml = a_lab(tmp_path)
    long = config.paths.hosts / ("y" * 250)
    long.write_text("mac: []\n")
    said = refused(config, toml, packed(tmp_path / "lab.zip"))

    assert f"nothing was changed; {long}: its name is too long to be kept aside" in said


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_root_restores_no_configuration_into_somebody_elses_folder(open_path):
    config, toml = a_lab(open_path)
    mine = open_path / "theirs/appliance.toml"
    mine.parent.mkdir()
    os.chown(mine.parent, 65534, 65534)
    file = packed(open_path / "lab.zip", configuration=CONFIG)
    before = lying(toml.parent)
    with pytest.raises(Refused, match="theirs: belongs to nobody"), backup.opened(file) as found:
        restore.restore(config, found, mine, replace=True)

    assert before == lying(toml.parent)
    assert not mine.exists()


@pytest.mark.parametrize("data", [b"", b"hello", b"SQLite format 3\0" + bytes(200)])
async def test_what_is_no_archive_is_refused_before_it_takes_the_place_of_one(file, data):
    changed(file, f"state/{archive_file.NAME}", data)

    with pytest.raises(BadState, match="in it is no archive of the appliance"), backup.opened(file):
        pass
