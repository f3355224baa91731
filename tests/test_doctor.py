"""`appliance doctor` against real parts in a namespace, with faults planted one beside the other.

A second DHCP server stands on the other end of a wire, in a namespace of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner

from appliance.boot.script import cgz
from appliance.boot.script.cgz import Entry
from appliance.cli import group
from appliance.config import Config, Network, Paths
from lab import lab as labs
from lab.namespace import BRIDGE, SERVER, namespace

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
KERNEL = "6.1.0-9-amd64"
IMAGE = "debian/x86_64/12"
ROGUE = "172.28.0.77"
# $1: where its leases go.  It has a card of its own at the lab's switch.
ANOTHER_SERVER = f"""\
set -e
ip link add rogue type veth peer name rogue0
ip link set rogue0 master {BRIDGE} up
unshare --net sh -ec '
    until ip link set rogue up 2>/dev/null; do sleep 0.05; done
    ip addr add {ROGUE}/24 dev rogue
    exec dnsmasq --port=0 --conf-file=/dev/null --interface=rogue --bind-interfaces \\
        --dhcp-range=172.28.0.200,172.28.0.210,255.255.255.0,1h \\
        --dhcp-leasefile="$1" --pid-file= --keep-in-foreground --log-facility=-
' sh "$1" &
here=$(readlink /proc/self/ns/net)
while [ "$(readlink /proc/$!/ns/net)" = "$here" ]; do sleep 0.05; done
ip link set rogue netns $!
wait
"""


@pytest.fixture
def keep(open_path):
    return open_path


def os_tree(keep: Path) -> Path:
    """An image that is whole, as far as one that nobody boots can be."""
    folder = keep / "images" / f"{IMAGE}-2026-01-02-03-04-05"
    (folder / "boot").mkdir(parents=True)
    ours = ("usr/lib/appliance-lib.sh", "usr/sbin/appliance-root", "usr/sbin/dhclient")
    modules = f"lib/modules/{KERNEL}/modules.dep"
    (folder / "boot" / f"vmlinuz-{KERNEL}").write_bytes(b"a kernel")
    (folder / "boot" / "initramfs").write_bytes(packed(*ours))
    (folder / "boot" / f"modules-{KERNEL}.cgz").write_bytes(packed(modules))
    (folder / "boot/vmlinuz").symlink_to(f"vmlinuz-{KERNEL}")
    (folder / "initrd.lkp").symlink_to("boot/initramfs")
    (folder.parent / "12").symlink_to(folder.name)
    return keep / "images"


def packed(*names: str) -> bytes:
    return cgz.pack([Entry(name, b"") for name in names])


@asynccontextmanager
async def running_lab(keep: Path):
    async with labs.lab(os_tree(keep), keep) as lab:
        yield lab


async def doctor(inside, config_file: Path) -> tuple[int, dict[str, dict]]:
    """Its exit code, and its findings by what was looked at."""
    process = await inside.start(
        [sys.executable, "-m", "appliance", "--config", str(config_file), "doctor", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    said = b"".join([bytes(chunk) async for chunk in process.stdout])
    rows = json.loads(said)["findings"]
    assert len(rows) == len({(row["looked_at"], row["found"]) for row in rows})
    return await process.wait(), {row["looked_at"]: row for row in rows}


def bad(found: dict[str, dict]) -> dict[str, str]:
    return {what: row["found"] for what, row in found.items() if row["level"] == "error"}


@pytest.mark.root
@pytest.mark.slow
@needs_root
async def test_a_lab_that_is_well_is_called_well(keep):
    async with running_lab(keep) as lab:
        code, found = await doctor(lab.inside, lab.config_file)

    assert {} == bad(found)
    assert 0 == code
    levels = {what: row["level"] for what, row in found.items()}
    for what in (
        "server",
        f"interface {BRIDGE}",
        f"DHCP servers on {BRIDGE}",
        f"boot of BIOS firmware on {BRIDGE}",
        f"boot of UEFI x86-64 firmware on {BRIDGE}",
        f"boot of iPXE on {BRIDGE}",
        "lease",
        "port 3000/tcp (appliance)",
        "port 67/udp (dnsmasq)",
        "port 69/udp (dnsmasq)",
        "port 445/tcp (smbd)",
        "tftp-max",
        "iPXE for BIOS",
        "boot.ipxe",
        "configuration of dnsmasq",
        "configuration of smbd",
        f"image {IMAGE}",
        "door scheduler",
        "door os",
        "door cifs",
    ):
        assert (what, "ok") == (what, levels.get(what))
    assert SERVER in found[f"DHCP servers on {BRIDGE}"]["found"]
    assert (
        "boot.ipxe from 172.28.0.1, first 512 bytes" in found[f"boot of iPXE on {BRIDGE}"]["found"]
    )
    assert "dnsmasq (pid " in found["port 67/udp (dnsmasq)"]["found"]


@pytest.mark.root
@pytest.mark.slow
@needs_root
async def test_every_fault_is_found_beside_the_others(keep):
    async with running_lab(keep) as lab:
        directory = lab.config_file.parent
        await lab.start("rogue", ["sh", "-c", ANOTHER_SERVER, "sh", str(keep / "leases")])
        (lab.config.paths.tftp / "ipxe/bin-x86_64-efi/snp.efi").unlink()
        smb = directory / "smb.conf"
        smb.write_text(smb.read_text().replace("wide links", "wyde links"))
        kernel = lab.config.paths.srv / f"os/{IMAGE}/boot/vmlinuz"
        lab.inside.path(kernel.resolve() if kernel.exists() else kernel).chmod(0o600)
        await lab.stop("server")
        nc = ["busybox", "nc", "-l", "-p", "3000"]
        await lab.start("nc", nc, 3000)
        code, found = await doctor(lab.inside, lab.config_file)

    wrong = bad(found)
    assert 1 == code
    assert f"{ROGUE} (" in wrong[f"DHCP servers on {BRIDGE}"]
    assert "for 3600 s" in wrong[f"DHCP servers on {BRIDGE}"]
    assert "snp.efi is missing" in wrong["iPXE for UEFI x86-64"]
    assert "not found" in wrong[f"boot of UEFI x86-64 firmware on {BRIDGE}"]
    assert "wyde links" in wrong["configuration of smbd"]
    assert "vmlinuz-6.1.0-9-amd64 is not readable by others" in wrong[f"image {IMAGE}"]
    assert (
        "busybox" in wrong["port 3000/tcp (appliance)"]
        or "nc" in wrong["port 3000/tcp (appliance)"]
    )
    assert "ok" == found["configuration of dnsmasq"]["level"]
    assert all(row["means"] and row["mend"] for row in found.values() if row["level"] == "error")


@pytest.mark.root
@pytest.mark.slow
@needs_root
async def test_before_an_install_nothing_is_wrong_but_what_is(keep):
    config = Config(
        network=Network(
            address=SERVER, interface=BRIDGE, dhcp_range=("172.28.0.10", "172.28.0.99")
        ),
        paths=Paths(*(keep / name for name in ("srv", "state", "run", "hosts", "tftp"))),
    )
    file = keep / "appliance.toml"
    file.write_text(labs.toml(config))

    async with namespace(1) as inside:
        code, found = await doctor(inside, file)

    assert {"iPXE for UEFI x86-64", "boot.ipxe"} == bad(found).keys()
    assert 1 == code
    assert "free" == found["port 67/udp (dnsmasq)"]["found"]
    assert "skipped" == found["server"]["level"]
    assert "nobody answers yet" == found[f"DHCP servers on {BRIDGE}"]["found"]


@pytest.mark.root
@pytest.mark.slow
@needs_root
async def test_in_proxy_mode_a_known_box_is_asked_for(keep):
    """dnsmasq then answers nobody else, so nobody else's boot can be tried."""

    def proxy(config: Config) -> Config:
        return attrs.evolve(config, network=attrs.evolve(config.network, dhcp_range=None))

    async with labs.lab(os_tree(keep), keep, change=proxy) as lab:
        _, before = await doctor(lab.inside, lab.config_file)
        await lab.run("host", "add", "box-1", "--mac", "52:54:00:12:34:56")
        await trio.sleep(1)  # dnsmasq reads a new hosts file when inotify tells it
        _, after = await doctor(lab.inside, lab.config_file)

    assert "skipped" == before[f"boot on {BRIDGE}"]["level"]
    assert "nobody leases addresses" == after[f"DHCP servers on {BRIDGE}"]["found"]
    assert "ok" == after[f"boot of UEFI x86-64 firmware on {BRIDGE}"]["level"]


def test_without_root_or_network_it_says_what_it_could_not_look_at(tmp_path, monkeypatch):
    file = tmp_path / "appliance.toml"
    paths = Paths(*(tmp_path / name for name in ("srv", "state", "run", "hosts", "tftp")))
    network = Network(interface="nosuch0", providers=("127.0.0.1",))
    file.write_text(labs.toml(Config(paths=paths, network=network)))

    done = CliRunner().invoke(group, ["--config", str(file), "doctor", "--json"])

    found = {row["looked_at"]: row for row in json.loads(done.stdout)["findings"]}
    assert 1 == done.exit_code
    assert ("error", "there is none") == (
        found["interface nosuch0"]["level"],
        found["interface nosuch0"]["found"],
    )
    assert "skipped" == found["DHCP servers on nosuch0"]["level"]
    assert found["DHCP servers on nosuch0"]["found"]
    assert "skipped" == found["doors"]["level"]
    assert "is this server itself" == found["provider 127.0.0.1"]["found"]


def test_a_configuration_that_cannot_be_read_is_exit_code_2(tmp_path):
    file = tmp_path / "appliance.toml"
    file.write_text("[netwrok]\n")
    command = [sys.executable, "-m", "appliance", "--config", str(file), "doctor"]

    done = subprocess.run(command, capture_output=True, text=True, check=False)

    assert 2 == done.returncode
    assert "did you mean network?" in done.stderr
