"""Beside another's DHCP server, and pointed at by one; see beside.py for what is played."""

import os

import pytest

from . import scenes

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and taps need root"),
    pytest.mark.skipif(not scenes.IMAGES.exists(), reason="no image: make image"),
]
PARKED = r":3000/boot\.ipxe/mac/\S+ ok"


@pytest.fixture
def pointed(played):
    """A box whose DHCP server points at us."""
    return played.pointed.boxes["uefi"]


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
