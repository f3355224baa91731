"""doors/neighbours: who is at an address."""

import os
import subprocess

import pytest

from appliance.doors import neighbours
from appliance.jobs.box import Box, facts

MAC, OTHER, FOREIGN = "52:54:00:00:00:05", "52:54:00:00:00:06", "52:54:00:00:00:07"
HEAD = "IP address       HW type     Flags       HW address            Mask     Device\n"


def table(mac: str) -> str:
    return f"{HEAD}10.0.0.9         0x1         0x2         {mac}     *        br0\n"


def test_an_incomplete_neighbour_entry_says_nothing():
    assert neighbours.neighbour(table("00:00:00:00:00:00"), "10.0.0.9") is None


def test_a_neighbour_is_found_by_its_whole_address():
    assert MAC == neighbours.neighbour(table(MAC.upper()), "10.0.0.9")
    assert neighbours.neighbour(table(MAC), "10.0.0.90") is None


@pytest.mark.parametrize(
    ("mac", "is_its_card"),
    [(MAC, True), (OTHER, True), (FOREIGN, False), ("00:00:00:00:00:00", False)],
)
def test_a_card_is_a_boxes_own_where_its_hosts_file_names_it(mac, is_its_card):
    known = Box("box-1", (MAC, OTHER), facts("box-1", {"mac": [MAC, OTHER]}, "q"))

    assert is_its_card == neighbours.is_card_of(known, table(mac), "10.0.0.9")


def test_what_a_box_says_of_its_own_macs_makes_no_card_its_own():
    known = Box("box-1", (MAC, OTHER), facts("box-1", {"mac": MAC}, "q"))

    assert not neighbours.is_card_of(known, table(OTHER), "10.0.0.9")
    assert not neighbours.is_card_of(Box("unknown-x", (OTHER,)), table(OTHER), "10.0.0.9")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_the_table_is_there_for_a_server_that_sees_of_proc_the_processes_alone():
    """As systemd's ProcSubset=pid shows it to our unit."""
    script = f"mount -t proc -o subset=pid proc /proc && cat {neighbours.ARP_TABLE}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True
    )

    assert (0, HEAD.split()) == (done.returncode, done.stdout.splitlines()[0].split())
