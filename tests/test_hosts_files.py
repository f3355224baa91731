"""The operator's hosts files, as people write them by hand."""

from __future__ import annotations

import pytest
import structlog

from appliance import run
from appliance.errors import BadConfig
from appliance.scheduler import hosts_files
from tests import lab as labs
from tests.recorder import NAME, SYNC, recorded

MAC = "52:54:00:12:34:56"  # QEMU's own; YAML 1.1 would take its digits for a count of seconds


def test_a_mac_of_digits_needs_no_quotes(tmp_path):
    (tmp_path / "box-1").write_text(f"mac: {MAC}\n")
    (tmp_path / "box-2.yaml").write_text("mac:\n- 52:54:00:12:34:57\nnr_node: 1\n")
    facts, wrong = hosts_files.read_all(tmp_path, "default")

    assert [] == wrong
    assert [("box-1", (MAC,)), ("box-2", ("52:54:00:12:34:57",))] == [
        (one.name, one.macs) for one in facts
    ]


def test_no_folder_is_no_boxes(tmp_path):
    assert ([], []) == hosts_files.read_all(tmp_path / "none", "default")


BROKEN = {
    "list": b"- a\n",
    "torn": b"mac: [\n",
    "latin": b"model: \xe4\n",
    "deep": b"mac: " + b"[" * 100_000,
    "wrong-and-no-mac": b"arch: pdp11\n",
    "two words": b"mac: 52:54:00:12:34:56\n",
    "alias": b"mac: *x\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_cannot_be_used_is_named_and_the_others_are_read(tmp_path, name):
    (tmp_path / name).write_bytes(BROKEN[name])
    (tmp_path / "zz-good").write_text(f"mac: {MAC}\n")
    facts, wrong = hosts_files.read_all(tmp_path, "default")

    assert ["zz-good"] == [one.name for one in facts]
    assert 1 == len(wrong)
    assert wrong[0].startswith(f"{tmp_path}/{name}: ")


def test_a_file_without_a_mac_describes_and_is_no_mistake(tmp_path):
    (tmp_path / "lkp-hsw-ep4").write_text(
        "model: Haswell-EP\nnr_node: 2\nnr_cpu: 72\nmemory: 128G\n"
        "ssd_partitions: /dev/nvme0n1p1\nswap_partitions:\nrootfs_partition:\n"
        "brand: Intel(R) Xeon(R) CPU E5-2699 v3 @ 2.30GHz\n"
    )
    (tmp_path / "empty").write_bytes(b"")

    assert ([], []) == hosts_files.read_all(tmp_path, "default")


def test_a_virtual_box_is_what_the_file_of_its_kind_says_and_what_its_own_does(tmp_path):
    (tmp_path / "vm-2p8g").write_text(
        "nr_cpu: 2\nmemory: 8g\nnr_nic: 2\nrootfs_disk:\n- /dev/vdb\nmac: 52:54:00:00:00:99\n"
    )
    (tmp_path / "vm-2p8g.rack-7-1.yaml").write_text(f"mac: {MAC}\nnr_nic: 3\n")
    (tmp_path / "dc-8g").write_text("memory: 8g\n")
    (tmp_path / "dc-8g.rack-7-1").write_text("arch: aarch64\n")
    (tmp_path / "rack.2p8g").write_text(f"mac: {MAC[:-1]}7\n")
    facts, wrong = hosts_files.read_all(tmp_path, "default")
    named = {one.name: one for one in facts}

    assert [] == wrong
    assert {"vm-2p8g", "vm-2p8g.rack-7-1", "dc-8g.rack-7-1", "rack.2p8g"} == named.keys()
    assert (8, 3, ("/dev/vdb",), (MAC,)) == (
        (one := named["vm-2p8g.rack-7-1"]).memory_gb, one.nr_nic, one.rootfs_disk, one.macs,
    )  # fmt: skip
    assert (8, "aarch64") == (named["dc-8g.rack-7-1"].memory_gb, named["dc-8g.rack-7-1"].arch)
    assert named["rack.2p8g"].memory_gb is None


def test_editors_leftovers_and_folders_are_not_read(tmp_path):
    for name in (".box-1.yaml.swp", "box-1~", ".box-1.yaml.new", "box-1.yaml.bak", "box-1.orig"):
        (tmp_path / name).write_text(f"mac: {MAC}\n")
    (tmp_path / "folder").mkdir()

    assert ([], []) == hosts_files.read_all(tmp_path, "default")


def test_what_was_written_reads_back(tmp_path):
    path = hosts_files.write(tmp_path / "new" / "hosts", "box-1", {"mac": [MAC], "queues": ["q"]})
    facts = hosts_files.read(path, "default")

    assert ("box-1", (MAC,), ("q",)) == (facts.name, facts.macs, facts.queues)
    assert [path] == list(path.parent.iterdir())


@pytest.mark.parametrize("name", ["box-1", "box-1.yaml"])
def test_writing_keeps_what_is_there_and_the_files_name(tmp_path, name):
    (tmp_path / name).write_text(f"mac: {MAC}\nmodel: Kunpeng\nmemory: 64G\n")
    path = hosts_files.write(tmp_path, "box-1", {"memory": "128G"})

    assert tmp_path / name == path
    assert f"mac: {MAC}" in path.read_text().replace("'", "")
    assert "model: Kunpeng" in path.read_text()
    assert 128 == hosts_files.read(path, "default").memory_gb


@pytest.mark.parametrize("content", [b"mac: [\n", b"\xff", b"[" * 100_000])
def test_a_file_that_cannot_be_read_is_not_written_over(tmp_path, content):
    (tmp_path / "box-1.yaml").write_bytes(content)
    with pytest.raises(BadConfig, match=r"box-1\.yaml"):
        hosts_files.write(tmp_path, "box-1", {"mac": [MAC]})

    assert content == (tmp_path / "box-1.yaml").read_bytes()


def test_what_is_written_of_a_box_is_there_after_a_power_cut(tmp_path, monkeypatch):
    folder = tmp_path / "hosts"
    calls = recorded(monkeypatch)
    path = hosts_files.write(folder, "box-1", {"mac": [MAC]})

    beside = folder / ".box-1.yaml.new"
    assert [
        (SYNC, str(tmp_path)),
        (SYNC, str(beside)),
        (NAME, str(path)),
        (SYNC, str(folder)),
    ] == calls
    del calls[:]
    hosts_files.remove(folder, "box-1")
    assert [(SYNC, str(folder))] == calls


async def test_a_mac_that_two_files_name_is_told_once_at_a_start(tmp_path):
    chosen = labs.config(tmp_path)
    for name in ("rack-7", "rack-8"):
        hosts_files.put(chosen.paths.hosts, name, {"mac": [labs.MAC]})
    async with labs.open_lab(chosen) as lab:  # files are read in a thread: real time
        with structlog.testing.capture_logs() as lines:
            await run._learn_hosts(lab.scheduler)

    told = [line["why"] for line in lines if line["log_level"] in ("error", "warning")]
    assert [f"rack-8: {labs.MAC} belongs to rack-7 already"] == told


BY_HAND = """\
# the one by the window; ask ann first
mac: 52:54:00:00:00:01  # left port
memory: 4G
"""


def test_a_change_of_a_hosts_file_leaves_what_a_person_wrote_beside_it(tmp_path):
    (tmp_path / "rack-7").write_text(BY_HAND)

    path = hosts_files.write(tmp_path, "rack-7", {"memory": "8G", "tags": ["ssd"]})

    assert tmp_path / "rack-7" == path
    assert BY_HAND.replace("4G", "8G") + "tags:\n- ssd\n" == path.read_text()


def test_a_hosts_file_that_cannot_be_changed_in_place_is_written_anew_and_it_is_said(tmp_path):
    (tmp_path / "rack-7").write_text("<<: {memory: 4G}  # a merge\nmac: 52:54:00:00:00:01\n")

    with structlog.testing.capture_logs() as log:
        path = hosts_files.put(tmp_path, "rack-7", {"mac": "52:54:00:00:00:01"})

    assert "mac: '52:54:00:00:00:01'\n" == path.read_text()
    assert ["rack-7"] == [line["host"] for line in log if "comments" in line["event"]]
