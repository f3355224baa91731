"""State files of every version that was ever written load today, and mean the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from appliance.keep import export, frames, records
from appliance.keep import journal as journals
from tests.disks import MemoryDisk
from tests.golden_state import FOLDER

FILES = ("snapshot-000003", "journal-000003")
VERSIONS = sorted(FOLDER.glob("state-*"), key=lambda path: int(path.name[6:]))


def test_there_is_a_golden_state_for_every_version():
    assert [f"state-{n}" for n in range(1, frames.VERSION + 1)] == [path.name for path in VERSIONS]


@pytest.mark.parametrize("folder", VERSIONS, ids=lambda path: path.name)
async def test_a_golden_state_loads_and_means_the_same(autojump_clock, folder: Path):
    disk = MemoryDisk()
    disk.files = {name: (folder / name).read_bytes() for name in FILES}
    store, _ = await journals.restore(disk)
    expected = export.load((folder / "export.json").read_text(encoding="utf-8"), "export.json")

    assert records.dump_store(expected) == records.dump_store(store)
    assert expected.jobs == store.jobs
    assert expected.boxes == store.boxes


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
