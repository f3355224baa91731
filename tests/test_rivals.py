"""install/rivals.py: other DHCP servers where an install is to lease addresses."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from appliance.config import Network, Segment
from appliance.install import rivals
from lab.namespace import BRIDGE, SERVER, namespace
from tests.machines import machine

RANGE = ("10.0.0.2", "10.0.0.9")
TWO = Network(
    interface="eth1",
    dhcp_range=RANGE,
    more={
        "b": Segment(interface="eth2", dhcp_range=RANGE),
        "proxied": Segment(interface="eth3"),
        "relayed": Segment(dhcp_range=RANGE, router="10.9.0.1"),
    },
)
CONFIG = Path("/etc/appliance/appliance.toml")
ANOTHER, ITS_MAC = "172.28.0.77", "52:54:00:77:77:77"
# As an install does, on a wire without a cable too.
HEARD = f"""
import json
from appliance.install import rivals
print(json.dumps(rivals.heard(["{BRIDGE}", "nosuch0"], ["{SERVER}"], print)))
"""


def test_only_those_interfaces_are_asked_on_which_addresses_are_to_be_leased():
    assert ["eth1", "eth2"] == rivals.to_ask(TWO, None)
    assert [] == rivals.to_ask(Network(interface="eth1"), None)


def test_where_this_server_leased_before_its_upgrade_asks_nobody():
    assert [] == rivals.to_ask(TWO, TWO)
    assert ["eth2"] == rivals.to_ask(TWO, Network(interface="eth1", dhcp_range=RANGE))
    assert ["eth1", "eth2"] == rivals.to_ask(TWO, Network(interface="eth1"))  # it was a proxy


def test_a_refusal_names_every_offer_and_what_would_be_right():
    offers = {"eth1": ["10.0.0.7 offers a", "10.0.0.8 offers b"], "eth2": ["10.1.0.1 offers c"]}
    *named, right = rivals.refusal(offers, CONFIG, written=False)

    assert [
        "eth1 has a DHCP server already: 10.0.0.7 offers a",
        "eth1 has a DHCP server already: 10.0.0.8 offers b",
        "eth2 has a DHCP server already: 10.1.0.1 offers c",
    ] == named
    assert "say --proxy-dhcp; else turn it off there, or say --lease-anyway" in right
    assert [] == rivals.refusal({}, CONFIG, written=False)


def test_where_a_configuration_stands_already_it_is_to_be_changed_there():
    (_, right) = rivals.refusal({"eth1": ["10.0.0.7 offers a"]}, CONFIG, written=True)

    assert f"take dhcp_range out of {CONFIG}; else" in right
    assert "--proxy-dhcp" not in right


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
async def test_a_server_on_the_wire_is_heard_and_one_on_this_machine_is_no_other(open_path):
    with trio.fail_after(60):
        async with namespace(0) as inside:

            def serves(interface: str, first: str, last: str, *words: str) -> list[str]:
                leases = open_path / f"leases-{interface}"
                return [
                    *("dnsmasq", "--port=0", "--conf-file=/dev/null", "--bind-interfaces"),
                    *(f"--interface={interface}", f"--dhcp-range={first},{last},1h", *words),
                    *(f"--dhcp-leasefile={leases}", "--pid-file=", "--keep-in-foreground"),
                ]

            async def start(command: list[str]) -> None:
                await inside.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

            await start(serves(BRIDGE, "172.28.0.10", "172.28.0.20"))
            there = serves("rogue", "172.28.0.200", "172.28.0.210", "--dhcp-boot=pxelinux.0")
            await start(machine("rogue", ITS_MAC, f"{ANOTHER}/24", there))
            asks = await inside.start(
                [sys.executable, "-c", HEARD], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            said = b"".join([bytes(chunk) async for chunk in asks.stdout]).decode()

    *lines, found = said.splitlines()
    assert f"asking for other DHCP servers on {BRIDGE}, nosuch0, for 5 s" == lines[0]
    assert "nobody could be asked on nosuch0: there is no such interface" == lines[1]
    ((interface, (offer,)),) = json.loads(found).items()
    assert BRIDGE == interface
    assert offer.startswith(f"{ANOTHER} ({ITS_MAC}) offers 172.28.0.2")
    assert offer.endswith(" for 3600 s, boot file pxelinux.0")
