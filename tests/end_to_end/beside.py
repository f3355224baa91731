"""The scenes of a network whose DHCP server is another's, a machine of its own on the wire.

Beside it the appliance answers as proxyDHCP, its testboxes alone; or the other server points at it.
Its leases are the shortest that there are, two minutes, so half of one is a wait to be seen.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from appliance.boot.daemons import dnsmasq
from appliance.config import Config, Waits
from lab.lab import Lab, lab
from lab.namespace import SERVER
from lab.qemu import Firmware
from tests.machines import machine
from tests.scenery import add_tail

from . import osimage, scenes

OTHER: Final = "172.28.0.2"
LEASE_S: Final = 120.0
# A whole DHCP server that knows nothing of booting.
DNSMASQ: Final = (
    *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--log-facility=-"),
    *("--port=0", "--interface=other", "--bind-interfaces", "--dhcp-authoritative", "--no-ping"),
    *("--pid-file=", "--dhcp-leasefile={keep}/other.leases", "--user=root"),
    f"--dhcp-range=172.28.0.100,172.28.0.120,255.255.255.0,{LEASE_S:.0f}",
)
SMALL: Final = """\
suite: beside
testbox: {box}
os_mount: initramfs
script: |
  echo "$id runs on $testbox"
  ip -4 -o address show scope global
"""


@attrs.define
class Evidence:
    """What the boxes left, by name, and the servers' logs."""

    boxes: dict[str, scenes.Evidence] = attrs.field(factory=dict)
    logs: dict[str, list[str]] = attrs.field(factory=dict)


# The simplest that can point here: one file for all, for firmware and iPXE alike.
POINTS_HERE: Final = (*DNSMASQ, f"--dhcp-boot=ipxe/bin-x86_64-efi/snp.efi,,{SERVER}")


async def as_a_proxy(keep: Path, evidence: Evidence) -> None:
    """A UEFI and a BIOS box wait for half their lease, ask again, and run a job."""
    async with _lab(keep, evidence, DNSMASQ) as made, trio.open_nursery() as nursery:
        kinds: dict[str, Firmware] = {"uefi": "uefi", "bios": "bios"}
        for name, firmware in kinds.items():
            nursery.start_soon(_one, made, evidence, name, firmware)


async def pointed_at(keep: Path, evidence: Evidence) -> None:
    """A UEFI box whose DHCP server does not know iPXE from firmware."""

    def tftp_only(config: Config) -> str:
        return dnsmasq.configuration(config, tftp_only=True)

    newer = [scenes.FIRMWARE / "trixie/usr/lib/ipxe"]
    async with _lab(
        keep, evidence, POINTS_HERE, ipxe=newer, dhcp=tftp_only, dhcp_ports=(69,)
    ) as made:
        await _one(made, evidence, "uefi", "uefi", waits=False)


@asynccontextmanager
async def _lab(
    keep: Path, evidence: Evidence, other: Sequence[str], **more: Any
) -> AsyncIterator[Lab]:
    """A lab whose addresses the command `other` leases, from the machine with that address."""

    def watch(who: str, line: str) -> None:
        evidence.logs.setdefault(who, []).append(line)

    def change(config: Config) -> Config:
        network = attrs.evolve(config.network, dhcp_range=None)
        return attrs.evolve(config, network=network, waits=Waits())

    async with lab(scenes.IMAGES, keep, change=change, watch=watch, **more) as made:
        osimage.lay_out(made.config.paths.srv / "initrd/osimage/debian/x86_64/12")
        command = [word.format(keep=keep) for word in other]
        await made.start("other", machine("other", "02:00:00:00:00:02", f"{OTHER}/24", command))
        yield made


async def _one(
    made: Lab, evidence: Evidence, name: str, firmware: Firmware, waits: bool = True
) -> None:
    box = made.box(name, firmware, memory_mib=1024)
    seen = evidence.boxes[name] = scenes.Evidence(serial=box.lines)
    try:
        await made.run("host", "add", name, "--mac", box.mac)
        await made.power_on(box)
        if waits:
            await box.line("No job now")
        file = made.keep / f"{name}.yaml"
        await trio.Path(file).write_text(SMALL.format(box=name))
        job = (await made.run("submit", str(file))).split()[0]
        await scenes.over(made, box, seen, job)
        seen.stdout = await made.run("results", job, "cat", "stdout", check=False)
        await box.power_off()
    except BaseException as error:
        add_tail(error, f"the serial log of {name}", box.lines)
        raise
