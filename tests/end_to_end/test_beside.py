"""Beside another's DHCP server, and pointed at by one; see beside.py for what is played."""

import os
import re
from datetime import datetime

import pytest

from . import beside, scenes

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and taps need root"),
    pytest.mark.skipif(not scenes.IMAGES.exists(), reason="no image: make image"),
]
PARKED = r":3000/boot\.ipxe/mac/\S+ ok"


@pytest.fixture(params=["uefi", "bios"])
def proxied(played, request):
    """A box that is told what to boot by us, and its address by another."""
    return played.proxy.boxes[request.param]


@pytest.fixture
def pointed(played):
    """A box whose DHCP server points at us."""
    return played.pointed.boxes["uefi"]


def waits(evidence, box):
    """How long the box sat, each time, in seconds."""
    at = {"box parked": [], "box left the lobby": []}
    for line in evidence.logs["server"]:
        event = re.search(r'event="([^"]+)"', line)
        if event and event[1] in at and re.search(rf"\bbox={box}\b", line):
            text = re.search(r'timestamp="([^"]+)"', line)[1]
            at[event[1]].append(datetime.fromisoformat(text).timestamp())
    return [left - sat for sat, left in zip(*at.values(), strict=False)]


def test_a_box_beside_another_server_has_its_address_from_that_and_its_job_from_us(proxied):
    (row,) = proxied.jobs

    assert ("success", 1) == (row["health"], row["attempt"])
    assert f"{row['id']} runs on {row['box']}" in proxied.stdout.splitlines()
    assert re.search(r"inet 172\.28\.0\.1[0-2][0-9]/24", proxied.stdout)  # the other's range


@pytest.mark.parametrize("box", ["uefi", "bios"])
def test_it_waits_for_half_of_its_lease_and_renews_it_before_it_asks_again(played, box):
    seen = played.proxy.boxes[box]
    rechain = seen.index("No job now")
    renewed = seen.index(r"^Configuring .*\(net0 52:54:00:.* ok", rechain)

    assert beside.LEASE_S / 2 == pytest.approx(waits(played.proxy, box)[0], abs=3)
    assert seen.index(PARKED, renewed)


def test_our_server_gave_nobody_an_address(played):
    ours = played.proxy.logs["dnsmasq"]

    assert any("PXE(lab0)" in line for line in ours)
    assert not any("DHCPACK" in line or "DHCPOFFER" in line for line in ours)


def test_the_other_server_was_never_told_of_booting(played):
    theirs = played.proxy.logs["other"]

    assert any("DHCPACK(other)" in line for line in theirs)
    assert not any("sent " in line or "PXE(" in line for line in theirs)


def test_ipxe_finds_its_script_by_itself_where_the_other_server_names_one_file_for_all(pointed):
    firmware = pointed.index(r"NBP filename is ipxe/bin-x86_64-efi/snp\.efi")
    found = pointed.index(r"autoexec\.ipxe\.\.\. ok", firmware)
    script = pointed.index(r"tftp://172\.28\.0\.1/boot\.ipxe\.\.\. ok", found)
    asked = pointed.index(PARKED, script)
    (row,) = pointed.jobs

    assert pointed.index("Linux version", asked)
    assert ("success", 1) == (row["health"], row["attempt"])
    assert 1 == sum("iPXE initialising devices" in line for line in pointed.serial)


def test_where_it_is_pointed_at_our_server_speaks_no_dhcp(played):
    assert not any("dnsmasq-dhcp" in line for line in played.pointed.logs["dnsmasq"])
