"""The real folder of state files, in real threads."""

from __future__ import annotations

import errno
import fcntl
import os
import stat

import pytest

from appliance.errors import BadState
from appliance.jobs.changes import Drained
from appliance.keep.state import disk as disks
from appliance.keep.state import journal as journals
from appliance.keep.state.disk import StateFolder
from tests.disks import MemoryDisk
from tests.recorder import NAME, SYNC, recorded


@pytest.fixture
def folder(tmp_path):
    disk = StateFolder(tmp_path / "state")
    yield disk
    disk.close()


async def test_what_is_appended_and_replaced_is_there(folder, tmp_path):
    await folder.append("journal", b"one")
    await folder.append("journal", b"two")
    await folder.replace("snapshot", [b"first"])
    await folder.replace("snapshot", [b"second"])

    assert b"onetwo" == await folder.read("journal")
    assert b"second" == await folder.read("snapshot")
    assert ["journal", "lock", "snapshot"] == await folder.names()
    await folder.remove("journal")
    assert ["lock", "snapshot"] == await folder.names()


async def test_a_file_removed_and_made_again_is_empty(folder):
    await folder.append("journal", b"one")
    await folder.remove("journal")
    await folder.append("journal", b"two")

    assert b"two" == await folder.read("journal")


async def test_only_the_owner_reads_what_may_hold_secrets(folder, tmp_path):
    await folder.append("journal", b"x")
    await folder.replace("snapshot", [b"x"])

    modes = {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "state").iterdir()}
    assert {0o600} == modes


async def test_a_second_server_is_told_the_pid_of_the_first(folder, tmp_path):
    with pytest.raises(BadState, match=f"state: in use by another server, pid {os.getpid()}$"):
        StateFolder(tmp_path / "state")


@pytest.mark.parametrize("way", ["removed", "replaced", "all removed"])
async def test_a_second_server_is_refused_whatever_became_of_the_lock_file(folder, tmp_path, way):
    await folder.append("journal", b"x")
    for path in (tmp_path / "state").iterdir():
        if way == "all removed" or path.name == "lock":
            path.unlink()
    if way == "replaced":
        (tmp_path / "state/lock").write_text("1\n")
    with pytest.raises(BadState, match=f"state: in use by another server, pid {os.getpid()}$"):
        StateFolder(tmp_path / "state")


async def test_the_pid_is_that_of_the_lock_file_where_the_kernel_does_not_tell(
    folder, tmp_path, monkeypatch
):
    monkeypatch.setattr(disks, "_holder", lambda descriptor: "")
    with pytest.raises(BadState, match=f"pid {os.getpid()}$"):
        StateFolder(tmp_path / "state")
    (tmp_path / "state/lock").unlink()
    with pytest.raises(BadState, match=r"pid unknown$"):
        StateFolder(tmp_path / "state")


async def test_an_older_program_that_has_the_lock_file_alone_is_respected(tmp_path):
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(BadState, match=f"in use by another server, pid {os.getpid()}$"):
            StateFolder(tmp_path)
    StateFolder(tmp_path).close()


async def test_the_lock_is_free_after_the_first_server(tmp_path):
    StateFolder(tmp_path).close()
    StateFolder(tmp_path).close()


async def test_a_lock_file_that_was_left_behind_does_not_count(tmp_path):
    (tmp_path / "lock").write_text("99999999\n")
    disk = StateFolder(tmp_path)

    assert f"{os.getpid()}\n" == (tmp_path / "lock").read_text()
    disk.close()


async def test_a_replace_that_fails_leaves_the_file_as_it_was(folder, monkeypatch):
    await folder.replace("snapshot", [b"good"])

    def full(descriptor, data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space"):
            await folder.replace("snapshot", [b"bad"])

    assert b"good" == await folder.read("snapshot")


async def test_an_append_syncs_its_bytes_and_the_name_of_a_new_file(folder, tmp_path, monkeypatch):
    state = tmp_path / "state"
    calls = recorded(monkeypatch)
    await folder.append("journal", b"one")
    await folder.append("journal", b"two")

    bytes_, name = (SYNC, str(state / "journal")), (SYNC, str(state))
    assert [bytes_, name, bytes_] == calls


async def test_a_replace_syncs_its_bytes_before_the_name_and_the_name_after_it(
    folder, tmp_path, monkeypatch
):
    state = tmp_path / "state"
    calls = recorded(monkeypatch)
    await folder.replace("snapshot", [b"one", b"two"])

    assert [
        (SYNC, str(state / "snapshot.new")),
        (NAME, str(state / "snapshot")),
        (SYNC, str(state)),
    ] == calls


@pytest.mark.parametrize("seed", range(20))
async def test_what_was_replaced_is_there_after_any_kill(seed):
    disk = MemoryDisk(seed)
    await disk.replace("snapshot", [b"one"])
    await disk.replace("snapshot", [b"two"])

    assert b"two" == disk.after_kill().files["snapshot"]


@pytest.mark.parametrize("seed", range(20))
async def test_a_file_removed_and_made_again_has_its_name_after_any_kill(seed):
    disk = MemoryDisk(seed)
    await disk.append("journal", b"one")
    await disk.remove("journal")
    await disk.append("journal", b"two")

    assert b"two" == disk.after_kill().files["journal"]


async def test_a_write_the_kernel_cuts_short_is_continued(folder, monkeypatch):
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    await folder.append("journal", b"0123456789")

    assert b"0123456789" == await folder.read("journal")


async def test_a_folder_that_is_no_state_folder_is_made(tmp_path):
    disk = StateFolder(tmp_path / "a" / "b")

    assert ["lock"] == await disk.names()
    disk.close()


async def test_a_journal_on_a_real_disk_starts_and_restarts(tmp_path):
    """A start that finds nothing behind the snapshot writes nothing."""
    for start, (number, drained) in enumerate(((1, ""), (1, ""), (2, "root"), (2, "root"))):
        disk = StateFolder(tmp_path)
        store, journal = await journals.restore(disk)
        assert drained == store.drained
        assert [f"journal-{number:06}", "lock", f"snapshot-{number:06}"] == await disk.names()
        if start == 1:
            journal.append([Drained("root", 0.0)])
            await journal.write()
        disk.close()


async def test_a_file_that_is_not_there_is_an_os_error(folder):
    with pytest.raises(FileNotFoundError):
        await folder.read("nothing")
