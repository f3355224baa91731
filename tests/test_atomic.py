"""fs/atomic: what takes the place of something else is whole and durable, or nothing changes."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from appliance.fs import atomic
from tests.recorder import NAME, SYNC, recorded
from tests.test_tidy import ROOT, TREES

# Where else something gets a name: folders and state files, each with its reason.
RENAMES = {
    "boot/images/image_gc": "folders of images, out of sight and back",
    "boot/images/snapshot": "a folder in the making gets its name",
    "fs/atomic": "here",
    "fs/trees": "a folder that is too deep to be removed where it lies",
    "install/execute": "a program's folder, unpacked",
    "keep/repair/offline": "a second name of damaged files, which are kept",
    "keep/repair/restore": "files that are kept aside",
    "keep/results": "a job's folder, out of sight and back",
    "keep/state/disk": "state files, by system calls that the tests play",
}


@pytest.fixture
def target(tmp_path):
    (tmp_path / "target").write_bytes(b"somebody's")
    return tmp_path / "target"


def test_a_file_takes_the_place_of_a_link(tmp_path, target):
    (tmp_path / "file").symlink_to(target)
    (tmp_path / ".file.new").symlink_to(target)
    atomic.put(tmp_path / "file", [b"a", b"b"], 0o640)

    assert (b"ab", False) == ((tmp_path / "file").read_bytes(), (tmp_path / "file").is_symlink())
    assert 0o640 == (tmp_path / "file").stat().st_mode & 0o777
    assert b"somebody's" == target.read_bytes()
    assert {"file", "target"} == set(os.listdir(tmp_path))


def test_nobody_is_quick_enough_with_a_link(tmp_path, target, monkeypatch):
    """It appears between the removal of the old temporary file and the making of ours."""
    unlink = Path.unlink

    def and_plant(path, missing_ok=False):
        unlink(path, missing_ok)
        path.symlink_to(target)

    monkeypatch.setattr(Path, "unlink", and_plant)
    with pytest.raises(FileExistsError):
        atomic.put(tmp_path / "file", [b"x"])
    assert b"somebody's" == target.read_bytes()


def test_one_that_fails_half_way_leaves_the_old_one(tmp_path, target):
    def pieces():
        yield b"half"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        atomic.put(target, pieces())
    assert b"somebody's" == target.read_bytes()
    assert ["target"] == os.listdir(tmp_path)


def test_a_file_is_synced_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    atomic.put(tmp_path / "file", [b"x"])

    beside = str(tmp_path / ".file.new")
    assert [(SYNC, beside), (NAME, str(tmp_path / "file")), (SYNC, str(tmp_path))] == calls


def test_what_the_next_start_writes_again_waits_for_no_disk(tmp_path, monkeypatch):
    calls = recorded(monkeypatch)
    (tmp_path / "folder").mkdir()
    beside = tmp_path / ".elsewhere"
    atomic.put(tmp_path / "folder/file", [b"x"], beside=beside, durable=False)

    assert [(NAME, str(tmp_path / "folder/file"))] == calls
    assert b"x" == (tmp_path / "folder/file").read_bytes()
    assert not beside.exists()


@pytest.mark.parametrize("before", ["nothing", "a file", "a link"])
def test_a_link_is_there_at_every_moment(tmp_path, monkeypatch, before):
    path = tmp_path / "folder/link"
    path.parent.mkdir()
    if before == "a file":
        path.write_text("x")
    elif before == "a link":
        path.symlink_to("elsewhere")
    (tmp_path / "folder/.link.new").write_text("left by a kill")
    calls = recorded(monkeypatch)
    atomic.link(path, "target")

    assert "target" == os.readlink(path)
    assert ["link"] == os.listdir(path.parent)
    assert [(NAME, str(path)), (SYNC, str(path.parent))] == calls


def test_files_get_their_names_nowhere_else():
    renames = re.compile(r"\bos\.(rename|replace|link)\(|\.rename\(|\b\w+\.replace\(\w+(\.\w+)?\)")
    found = {
        name for name in TREES if renames.search((ROOT / f"{name}.py").read_text(encoding="utf-8"))
    }

    assert {*RENAMES} == found - {"scheduler/scheduler"}  # whose lobby renames a seat
