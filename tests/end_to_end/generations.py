"""The scene of three boxes: iPXE of 2019, of 2025 (1.21.1), and the newest (2.0.0 or later).

Each waits longer than the 120 s after which the newest drops a transfer that brings no byte, then
asks again, and then a job finds it parked.  All three wait side by side, with the comment lines as
far apart as in a lab.  Their hosts files say which build each gets.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import attrs
import trio

from appliance.config import Config, Waits
from lab.lab import Lab, lab
from lab.patience import Clock
from tests.scenery import add_tail

from . import osimage, scenes

# Debian's releases, and Box's name for what they have; release/firmware.sh fetches them.
RELEASES: Final = {"ipxe-1.0": "bookworm", "ipxe-1.21": "trixie", "ipxe-newest": "sid"}
WAIT_S: Final = 130.0  # iPXE's watchdog ends a silent transfer after 120
SMALL: Final = """\
suite: generations
testbox: {box}
os_mount: initramfs
script: |
  echo "$id runs on $testbox"
"""


@attrs.define
class Waited(scenes.Evidence):
    """What one box left, and how much time of its own it had had when the server spoke of it."""

    clock: Clock | None = None
    spoken_of: list[tuple[float, str]] = attrs.field(factory=list)


@attrs.define
class Evidence:
    """What each box left, by its name."""

    boxes: dict[str, Waited] = attrs.field(factory=dict)
    dnsmasq: list[str] = attrs.field(factory=list)
    server: list[str] = attrs.field(factory=list)


async def three_of_them_wait(keep: Path, evidence: Evidence) -> None:
    """Power-on of all three, one long wait, one re-chain, one job."""
    logs = {"dnsmasq": evidence.dnsmasq, "server": evidence.server}

    def watch(who: str, line: str) -> None:
        logs.get(who, []).append(line)
        for name, seen in evidence.boxes.items():
            if who == "server" and seen.clock and re.search(rf"\bbox={name}\b", line):
                seen.spoken_of.append((seen.clock.spent.own_s, line))

    async with lab(scenes.IMAGES, keep, change=waits_long, watch=watch) as made:
        osimage.lay_out(made.config.paths.srv / "initrd/osimage/debian/x86_64/12")
        async with trio.open_nursery() as nursery:
            for name, release in RELEASES.items():
                seen = evidence.boxes[name] = Waited()
                nursery.start_soon(_one, made, name, release, seen)


def waits_long(config: Config) -> Config:
    """The lab's own half hour is cut short, and nothing else."""
    return attrs.evolve(config, waits=attrs.evolve(Waits(), park=WAIT_S))


async def _one(made: Lab, name: str, release: str, seen: Waited) -> None:
    box = made.box(name, memory_mib=1024, nice=5)
    seen.serial, seen.clock = box.lines, box.clock
    build = made.config.paths.tftp / f"ipxe/{release}.efi"
    shutil.copyfile(scenes.FIRMWARE / release / "usr/lib/ipxe/snponly.efi", build)
    try:
        await made.run("host", "add", name, "--mac", box.mac, "--ipxe", build.name)
        await made.power_on(box)
        await box.line("No job now")
        file = made.keep / f"{name}.yaml"
        await trio.Path(file).write_text(SMALL.format(box=name))
        job = (await made.run("submit", str(file))).split()[0]
        await scenes.over(made, box, seen, job)
        seen.stdout = await made.run("results", job, "cat", "stdout", check=False)
        await box.power_off()  # its place in the machine is for the others
    except BaseException as error:
        add_tail(error, f"the serial log of {name}", box.lines)
        raise
