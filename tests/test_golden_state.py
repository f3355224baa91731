"""State files of every version that was ever written load today, and mean the same."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path

import cbor2
import pytest

from appliance.jobs.changes import Clocked
from appliance.keep import archive_file
from appliance.keep.archive import Archive, Wanted
from appliance.keep.repair import export
from appliance.keep.state import frames, heads, records, versions
from appliance.keep.state import journal as journals
from tests import golden_state
from tests.disks import MemoryDisk
from tests.golden_state import FOLDER

FILES = ("snapshot-000003", "journal-000003")
VERSIONS = sorted(FOLDER.glob("state-*"), key=lambda path: int(path.name[6:]))


def test_there_is_a_golden_state_for_every_version():
    assert [f"state-{n}" for n in range(1, versions.VERSION + 1)] == [
        path.name for path in VERSIONS
    ]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
async def test_a_golden_state_loads_and_means_the_same(autojump_clock, folder: Path):
    disk = MemoryDisk()
    disk.files = {name: (folder / name).read_bytes() for name in FILES}
    store, _ = await journals.restore(disk)
    expected = export.load((folder / "export.json").read_text(encoding="utf-8"), "export.json")

    assert records.dump_store(expected) == records.dump_store(store)
    assert expected.jobs == store.jobs
    assert expected.boxes == store.boxes


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
async def test_the_archive_of_a_golden_state_is_read_and_is_todays_from_then_on(tmp_path, folder):
    version = int(folder.name[6:])
    expected = export.load((folder / "export.json").read_text(encoding="utf-8"), "export.json")
    path = tmp_path / archive_file.NAME
    shutil.copy(folder / archive_file.NAME, path)
    assert version == heads.newest(tmp_path)

    with contextlib.closing(Archive.of_folder(tmp_path)) as archive:
        assert version == heads.newest(tmp_path)  # nothing is changed before the journal is read
        await archive.check(expected)
        await archive.say_version()
        assert versions.VERSION == heads.newest(tmp_path)
        filed = [job for job in expected.jobs.values() if job.document.body is None]
        assert filed
        for job in filed:
            body = await archive.body(job.number)
            assert body.script or body.job2sh
        over = await archive.search(Wanted(), 100)
        assert (expected.archived, "") == (len(over.jobs), over.lacks)


def test_the_golden_state_has_what_its_version_brought():
    folder = FOLDER / "state-2"
    journal = (folder / "journal-000003").read_bytes()
    changes = [
        change
        for part in frames.parts(journal, frames.check_header(journal, frames.JOURNAL, "golden"))
        for change in records.load_changes(part.payload, "golden")
    ]
    snapshot = (folder / "snapshot-000003").read_bytes()
    first = next(frames.parts(snapshot, frames.check_header(snapshot, frames.SNAPSHOT, "golden")))

    assert any(isinstance(change, Clocked) for change in changes)
    assert "clock" in cbor2.loads(first.payload)
    assert "clock" in json.loads((folder / "export.json").read_text(encoding="utf-8"))


def test_nothing_that_is_kept_changes_without_a_version_of_its_own():
    kept = (VERSIONS[-1] / golden_state.FIELDS).read_text(encoding="utf-8")

    assert kept.splitlines() == golden_state.fields().splitlines(), (
        "the state is another: keep/state/versions.py says what to do"
    )


def test_what_is_written_today_is_the_newest_golden_state():
    folder = VERSIONS[-1]
    text = (folder / "export.json").read_text(encoding="utf-8")
    store = export.load(text, "export.json")

    assert text == export.dump(store)
    written = (folder / "snapshot-000003").read_bytes()
    loading = records.Loading("golden")
    for part in frames.parts(written, frames.check_header(written, frames.SNAPSHOT, "golden")):
        loading.add(part.payload)
    image = records.image_of(loading.store(), loading.next)
    assert written == b"".join(records.snapshot(image))
