"""What each kind of client is answered: by a real dnsmasq with our configuration, and by a real
dhcpd and a real Kea with our snippet in theirs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager

import pytest
import trio

from appliance.boot.daemons import dnsmasq, snippets
from appliance.config import Config, Network, Paths
from appliance.jobs import box as boxes
from appliance.scheduler import hosts_files
from lab.namespace import BRIDGE, SERVER, namespace
from tests import pxe
from tests.machines import machine

# The servers are of packages.sh: where one is missing these fail, and are not passed over.
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]
KNOWN = "52:54:00:12:34:56"
STRANGER = "52:54:00:12:34:99"
OWN = ("172.28.0.10", "172.28.0.60")


@asynccontextmanager
async def wire(directory, dhcp_range=OWN):
    """A bridge with our dnsmasq; gives a function that is a machine which asks."""
    config = Config(
        network=Network(interface=BRIDGE, address=SERVER, dhcp_range=dhcp_range),
        paths=Paths(tftp=directory / "root", state=directory / "state", run=directory / "run"),
    )
    for path in (config.paths.tftp, config.paths.dhcp_hosts, config.paths.run):
        path.mkdir(parents=True)
    config.paths.state.chmod(0o777)
    # It would look for three seconds whether a new address is anybody's.
    (directory / "conf").write_text(dnsmasq.configuration(config) + "no-ping\n")
    hosts_files.announce(config.paths, boxes.facts("rack-7", {"mac": KNOWN}, "default"))
    command = ["dnsmasq", f"--conf-file={directory}/conf", "--keep-in-foreground"]
    async with asking(command) as ask:
        yield ask


@asynccontextmanager
async def asking(server):
    """The bridge, `server` at work on it, and the function."""
    cards = iter(range(100))
    with trio.fail_after(180):
        async with namespace(0) as inside:

            async def ask(mac, arch, kind="PXEClient"):
                number = next(cards)
                card = f"card-{number}"
                words = [sys.executable, pxe.__file__, card, mac, str(arch), kind]
                command = machine(card, mac, f"172.28.0.{180 + number}/24", words)
                asks = await inside.start(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                said = b"".join([bytes(chunk) async for chunk in asks.stdout]).decode()
                *noise, answers = said.splitlines()  # ip may say that a list of cards has changed
                assert answers.startswith("["), said
                assert [] == [line for line in noise if "Dump was interrupted" not in line]
                return json.loads(answers)

            await inside.start(server, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while not inside.listening(67):  # noqa: ASYNC110
                await trio.sleep(0.02)
            yield ask


SNP = "ipxe/bin-{}-efi/snp.efi"
FILES = {
    0: "undionly.kpxe",
    7: SNP.format("x86_64"),
    9: SNP.format("x86_64"),
    11: SNP.format("arm64"),
}


def told(heard):
    """(message, server, file, option 60) of each answer."""
    return [(each["message"], each["server"], each["file"], each["vendor"]) for each in heard]


async def side_by_side(ask, questions):
    """What strangers, each another machine, are answered: by question."""
    found = {}

    async def one(number, question):
        found[question] = await ask(f"{STRANGER[:-2]}{number:02x}", *question)

    async with trio.open_nursery() as nursery:
        for number, question in enumerate(questions, 0xA0):
            nursery.start_soon(one, number, question)
    return found


BOTH = [(arch, kind) for arch in FILES for kind in ("PXEClient", "iPXE")]


async def test_firmware_is_told_of_the_ipxe_it_can_run_and_ipxe_of_its_script(open_path):
    async with wire(open_path) as ask:
        heard = await side_by_side(ask, BOTH)
    found = {question: told(answers) for question, answers in heard.items()}

    expected = {(arch, "PXEClient"): [("OFFER", SERVER, FILES[arch], "")] for arch in FILES}
    expected |= {(arch, "iPXE"): [("OFFER", SERVER, "boot.ipxe", "")] for arch in FILES}
    assert expected == found


async def test_firmware_that_boots_by_http_is_told_a_url_and_that_it_was_understood(open_path):
    async with wire(open_path) as ask:
        heard = await side_by_side(ask, [(16, "HTTPClient"), (19, "HTTPClient")])

    assert [
        [("OFFER", SERVER, f"http://{SERVER}:8800/ipxe/bin-{arch}-efi/snp.efi", "HTTPClient")]
        for arch in ("x86_64", "arm64")
    ] == [told(heard[arch, "HTTPClient"]) for arch in (16, 19)]


async def test_a_known_box_has_its_address_for_ever_and_others_for_a_week(open_path):
    async with wire(open_path) as ask:
        known, stranger = await ask(KNOWN, 7), await ask(STRANGER, 7)

    assert [[2**32 - 1], [604800]] == [[e["lease"] for e in heard] for heard in (known, stranger)]


async def test_beside_another_server_a_known_box_is_told_what_to_boot_and_given_no_address(
    open_path,
):
    async with wire(open_path, None) as ask:
        found = {question: told(await ask(KNOWN, *question)) for question in BOTH}

    for (arch, kind), (offer, ack) in found.items():
        file = FILES[arch] if kind == "PXEClient" else "boot.ipxe"
        # UEFI is sent to port 4011 for the name of the file; BIOS has it with the offer.
        later = kind == "PXEClient" and arch != 0
        assert ("OFFER", SERVER, "" if later else file, "PXEClient") == offer
        assert ("ACK", SERVER, file, "PXEClient") == ack


async def test_beside_another_server_nobody_else_is_answered(open_path):
    """Neither another's machine that boots by network, nor a known box that has booted."""
    async with wire(open_path, None) as ask:
        found = await side_by_side(ask, [*BOTH, (16, "HTTPClient"), (7, "Linux")])
        booted = await ask(KNOWN, 7, "Linux")
        control = await ask(KNOWN, 7)

    assert {question: [] for question in found} == found
    assert [] == booted
    assert control


DHCPD = """\
authoritative;
ping-check false;
subnet 172.28.0.0 netmask 255.255.255.0 { range 172.28.0.100 172.28.0.150; }
"""
KEA = """\
{{"Dhcp4": {{
    "interfaces-config": {{"interfaces": ["*"]}},
    "lease-database": {{"type": "memfile", "persist": false}},
    "subnet4": [{{"subnet": "172.28.0.0/24", "pools": [{{"pool": "172.28.0.100-172.28.0.150"}}]}}],
    "client-classes": <?include "{snippet}"?>
}}}}
"""


def others(kind, macs, directory):
    """The command of another's DHCP server with our snippet, after its own checker agreed."""
    config = Config(network=Network(interface=BRIDGE, address=SERVER))
    text = snippets.snippet(kind, config, macs)
    conf = directory / "conf"
    if kind == "isc":
        conf.write_text(DHCPD + text)
        (directory / "leases").touch()
        check = ["dhcpd", "-t", "-cf", str(conf)]
        command = ["dhcpd", "-f", "-4", "-cf", str(conf), "-lf", str(directory / "leases")]
        command += ["-pf", str(directory / "pid"), "--no-pid", BRIDGE]
    else:
        (directory / "snippet.json").write_text(text)
        conf.write_text(KEA.format(snippet=directory / "snippet.json"))
        places = [f"KEA_{word}_DIR={directory}" for word in ("PIDFILE", "LOCKFILE")]
        check = ["env", *places, "kea-dhcp4", "-t", str(conf)]
        command = ["env", *places, "kea-dhcp4", "-c", str(conf)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert 0 == done.returncode, done.stdout + done.stderr
    return command


@pytest.mark.parametrize("kind", ["isc", "kea"])
async def test_another_server_with_our_snippet_tells_testboxes_the_same(open_path, kind):
    asked = [*BOTH, (16, "HTTPClient"), (19, "HTTPClient")]
    async with asking(others(kind, [KNOWN], open_path)) as ask:
        found = {question: told(await ask(KNOWN, *question)) for question in asked}
        linux = await ask(KNOWN, 7, "Linux")
        strangers = await side_by_side(ask, BOTH)

    expected = {(arch, "PXEClient"): [("OFFER", SERVER, FILES[arch], "")] for arch in FILES}
    expected |= {(arch, "iPXE"): [("OFFER", SERVER, "boot.ipxe", "")] for arch in FILES}
    expected |= {
        (arch, "HTTPClient"): [
            ("OFFER", SERVER, f"http://{SERVER}:8800/{SNP.format(name)}", "HTTPClient")
        ]
        for arch, name in ((16, "x86_64"), (19, "arm64"))
    }
    assert expected == found
    for answers in [linux, *strangers.values()]:
        assert [""] == [answer["file"] for answer in answers]  # an address as ever, and no more


@pytest.mark.parametrize("kind", ["isc", "kea"])
async def test_another_server_can_be_told_about_every_machine(open_path, kind):
    async with asking(others(kind, None, open_path)) as ask:
        found = await side_by_side(ask, [(7, "PXEClient"), (7, "iPXE")])

    assert [SNP.format("x86_64")] == [each["file"] for each in found[7, "PXEClient"]]
    assert ["boot.ipxe"] == [each["file"] for each in found[7, "iPXE"]]
