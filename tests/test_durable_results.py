"""Results are as durable as jobs: what is synced, and in which order, seen by a recorder."""

from __future__ import annotations

import pytest

from appliance.keep import results
from tests.recorder import NAME, SYNC, recorded


@pytest.fixture
def calls(monkeypatch):
    return recorded(monkeypatch)


async def test_a_file_is_synced_before_it_has_its_name_and_its_folder_after_that(calls, tmp_path):
    path = tmp_path / "file"
    async with results.Upload(path) as upload:
        await upload.write(b"data")
        await upload.finish()

    [first, second, third] = calls
    assert SYNC == first[0]
    assert results.PART in first[1]
    assert [(NAME, str(path)), (SYNC, str(tmp_path))] == [second, third]


async def test_each_folder_on_the_way_to_a_file_is_synced_into_its_parent(calls, tmp_path):
    async with results.Upload(tmp_path / "a" / "b" / "file") as upload:
        await upload.finish()

    assert [(SYNC, str(tmp_path)), (SYNC, str(tmp_path / "a"))] == calls[:2]
    assert (SYNC, str(tmp_path / "a" / "b")) == calls[-1]


def test_results_that_go_out_of_sight_are_gone_from_one_folder_and_in_the_other(calls, tmp_path):
    root = tmp_path / "suite" / "lab.1"
    root.mkdir(parents=True)
    (root / "stdout").write_text("x")
    aside = results.set_aside(root, tmp_path)

    named = calls.index((NAME, str(aside)))
    synced = {path for what, path in calls[named:] if what == SYNC}
    assert {str(aside.parent), str(root.parent)} <= synced


def test_results_that_come_back_are_in_their_place_for_good(calls, tmp_path):
    root = tmp_path / "suite" / "lab.1"
    root.mkdir(parents=True)
    (root / "stdout").write_text("x")
    aside = results.set_aside(root, tmp_path)
    del calls[:]
    results.put_back(aside, root)

    assert (SYNC, str(root)) == calls[-1]
    assert "x" == (root / "stdout").read_text()
