"""Scenes on real firmware, each in a lab of its own; play.py plays them, once.

What happened is kept as evidence, and the tests are about the evidence.
"""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any

import attrs
import trio

from appliance.config import Config
from appliance.errors import ApplianceError
from lab.lab import Lab, lab
from lab.qemu import Box, Firmware
from tests.scenery import add_tail

from . import osimage

IMAGES = Path(__file__).parents[2] / ".cache/srv/os"
FIRMWARE = Path(__file__).parents[2] / ".cache/firmware"  # release/firmware.sh

RUNS = """\
suite: end-to-end
testbox: box
script: |
  echo "$id runs on $testbox"
  head -c 3000000 /dev/urandom >"$RESULT_ROOT/random"
  echo "sum $(sha256sum <"$RESULT_ROOT/random")"
  cat /proc/mounts
  stat -c '%A %U %n' /usr/bin/su /etc/shadow
"""
# Read-only is the server's doing: the box, which is root, tries to have it otherwise.  Its other
# card, which nobody registered, comes up as well, as an image's own network service may do it.
RUNS_ON_NFS = """\
suite: end-to-end
testbox: box
os_mount: nfs
script: |
  spare=$(grep -l 52:54:00:a1:01:01 /sys/class/net/*/address)
  spare=$(basename "$(dirname "$spare")")
  dhclient -1 -pf /run/spare.pid "$spare" >/dev/null 2>&1 </dev/null
  kill "$(cat /run/spare.pid)"
  echo "spare $(ip -4 -o address show "$spare")"
  echo "$id runs on $testbox"
  head -c 300000 /dev/urandom >"$RESULT_ROOT/random"
  echo "sum $(sha256sum <"$RESULT_ROOT/random")"
  cat /proc/mounts
  stat -c '%A %U %n' /usr/bin/su /etc/shadow
  image=/run/rootfs/image
  mount -o remount,rw "$image" && : >"$image/written" && echo written || echo refused
"""
RUNS_IN_AN_INITRAMFS = """\
suite: end-to-end
testbox: box
os_mount: initramfs
script: |
  echo "$id runs on $testbox, $(uname -m)"
  head -c 300000 /dev/urandom >"$RESULT_ROOT/random"
  echo "sum $(sha256sum <"$RESULT_ROOT/random")"
  cat /proc/mounts
"""
# The word that must never reach another job.
MARK = "mark-of-the-job-that-could-not-boot"
CANNOT_BOOT = f"""\
suite: end-to-end
testbox: box
name: {MARK}
script: |
  echo {MARK}
"""
LOOKS_AROUND = f"""\
suite: end-to-end
testbox: box
script: |
  find /lkp/scheduled -type f | sort
  grep '^id:' /lkp/scheduled/job.yaml
  half={MARK[:10]}  # in two halves, or this script would find itself
  if grep -rl "$half{MARK[10:]}" /lkp/scheduled; then echo leaked; else echo clean; fi
"""


@attrs.define
class Evidence:
    """What one scene left."""

    serial: list[str] = attrs.field(factory=list)  # the box's lines
    dnsmasq: list[str] = attrs.field(factory=list)
    jobs: list[dict] = attrs.field(factory=list)  # their rows, when they were over
    stdout: str = ""  # of the job that ran, as `appliance results` prints it
    results: Path = Path()  # where `appliance results fetch` put them
    uploaded: Path = Path()  # where the server keeps them
    host: dict = attrs.field(factory=dict)  # the box after the job, as `appliance hosts` says

    def index(self, pattern: str, after: int = 0) -> int:
        """The first line of the serial log from `after` that matches; fails if there is none."""
        for number, line in enumerate(self.serial[after:], after):
            if re.search(pattern, line):
                return number
        raise AssertionError(f"the serial log has no line that matches {pattern!r}")


@attrs.define
class Stage:
    """A lab with one testbox, and what to do at some lines of the server's log."""

    lab: Lab
    box: Box
    evidence: Evidence
    cues: dict[str, Callable[[], None]]

    async def submit(self, document: str) -> str:
        """The id of the new job."""
        file = self.lab.keep / "job.yaml"
        await trio.Path(file).write_text(document)
        return (await self.lab.run("submit", str(file))).split()[0]

    async def over(self, job: str, health: str = "success") -> dict:
        """The job's row, when it is over."""
        return await over(self.lab, self.box, self.evidence, job, health)


async def over(made: Lab, box: Box, evidence: Evidence, job: str, health: str = "success") -> dict:
    """The row of a job that runs on `box`, when it is over; another end than `health` fails."""
    with box.limit(f"the end of {job}"):
        said = await made.run("wait", job, "--json", check=False, allowed_s=inf)
    (row,) = json.loads(said)
    evidence.jobs.append(row)
    if row["health"] != health:
        raise ApplianceError(
            f"{job} on {box.name} ended as {row['health']}, not as {health}: {row['reason']}"
        )
    return row


@asynccontextmanager
async def stage(
    keep: Path,
    evidence: Evidence,
    park: float = 3.0,
    *,
    firmware: Firmware = "uefi",
    two_cards: bool = False,
    more: Sequence[str] = (),
    **of_lab: Any,
) -> AsyncIterator[Stage]:
    """A lab that parks for `park` seconds; a failure in it shows how the logs end."""
    cues: dict[str, Callable[[], None]] = {}

    def watch(who: str, line: str) -> None:
        if who == "dnsmasq":
            evidence.dnsmasq.append(line)
        elif who == "server":
            for words in [words for words in cues if words in line]:
                cues.pop(words)()

    def impatient(config: Config) -> Config:
        return attrs.evolve(config, waits=attrs.evolve(config.waits, park=park, drip=1.0))

    async with lab(IMAGES, keep, change=impatient, watch=watch, **of_lab) as made:
        box = made.box("box", firmware, two_cards=two_cards, more=more)
        evidence.serial = box.lines
        try:
            await made.run("host", "add", box.name, "--mac", box.mac)
            yield Stage(made, box, evidence, cues)
        except BaseException as error:
            add_tail(error, f"the serial log of {box.name}", box.lines)
            raise


async def a_job_runs(keep: Path, evidence: Evidence) -> None:
    """From power-on through a re-chain to the results, and back to the lobby."""
    async with stage(keep, evidence) as on:
        await on.lab.power_on(on.box)
        await on.box.line("No job now")
        job = await on.submit(RUNS)
        row = await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)
        evidence.results = keep / "fetched"
        await on.lab.run("results", job, "fetch", "--to", str(evidence.results), check=False)
        evidence.uploaded = Path(row["result_root"])
        again = len(on.box.lines)
        await on.box.line("No job now", after=again)
        (evidence.host,) = json.loads(await on.lab.run("hosts", "--json"))


async def a_box_boots_by_http(keep: Path, evidence: Evidence) -> None:
    """UEFI x86-64 that fetches iPXE by HTTP: no PXE is left to it; then a re-chain, a small job."""
    more = [*("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n")]
    more += [*("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n")]
    async with stage(keep, evidence, more=more) as on:
        osimage.lay_out(on.lab.config.paths.srv / "initrd/osimage/debian/x86_64/12")
        await on.lab.power_on(on.box)
        await on.box.line("No job now")
        job = await on.submit(RUNS_IN_AN_INITRAMFS)
        await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)


async def a_job_runs_on_nfs(keep: Path, evidence: Evidence) -> None:
    """From power-on to the results, with the root filesystem from ganesha."""
    async with stage(keep, evidence, two_cards=True, nfs=True) as on:
        job = await on.submit(RUNS_ON_NFS)
        await on.lab.power_on(on.box)
        row = await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)
        evidence.uploaded = Path(row["result_root"])


async def a_job_runs_in_an_initramfs(keep: Path, evidence: Evidence) -> None:
    """From power-on to the results, and the root filesystem is what the initrds unpacked."""
    async with stage(keep, evidence) as on:
        osimage.lay_out(on.lab.config.paths.srv / "initrd/osimage/debian/x86_64/12")
        job = await on.submit(RUNS_IN_AN_INITRAMFS)
        await on.lab.power_on(on.box)
        row = await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)
        evidence.uploaded = Path(row["result_root"])


async def a_job_runs_on_bios(keep: Path, evidence: Evidence) -> None:
    """Legacy BIOS, whose card's own ROM is an iPXE: a re-chain, then a small job."""
    async with stage(keep, evidence, firmware="bios") as on:
        osimage.lay_out(on.lab.config.paths.srv / "initrd/osimage/debian/x86_64/12")
        await on.lab.power_on(on.box)
        await on.box.line("No job now")
        job = await on.submit(RUNS_IN_AN_INITRAMFS)
        await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)


async def a_job_runs_on_arm64(keep: Path, evidence: Evidence) -> None:
    """UEFI arm64: a re-chain, then a small job."""
    async with stage(
        keep, evidence, firmware="uefi-arm64", ipxe=[FIRMWARE / "trixie/usr/lib/ipxe"]
    ) as on:
        srv = on.lab.config.paths.srv
        osimage.lay_out_arm64(
            srv / "initrd/osimage/debian/aarch64/12",
            on.lab.inside.path(srv / "os/debian/aarch64/12"),
        )
        await on.lab.power_on(on.box)
        await on.box.line("No job now")
        job = await on.submit(RUNS_IN_AN_INITRAMFS + "arch: aarch64\n")
        row = await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)
        evidence.uploaded = Path(row["result_root"])


async def files_are_gone(keep: Path, evidence: Evidence) -> None:
    """Two jobs whose files vanish after dispatch, and one that boots after them.

    The first misses its second initrd.  The second misses its kernel: by then iPXE holds its
    job.cgz, which only `imgfree` keeps out of the third job's boot.
    """
    async with stage(keep, evidence) as on:
        boot = next(on.lab.inside.path(on.lab.config.paths.srv / "os").glob("*/*/*-*/boot"))
        failures = 0
        await on.lab.power_on(on.box)
        # One after the other: a box that comes back while a file is away would lose the next one.
        for number, pattern in enumerate(("modules-*.cgz", "vmlinuz-*"), 1):
            file = next(boot.glob(pattern))
            handed_over = f'event="script handed over" job=lab.{number} '
            on.cues[handed_over] = lambda file=file: file.rename(file.with_name("away"))
            job = await on.submit(CANNOT_BOOT)
            failures = 1 + await on.box.line("No script from .* asking again", after=failures)
            await on.over(job, "incomplete")
            (boot / "away").rename(on_disk(boot, pattern))
        job = await on.submit(LOOKS_AROUND)
        await on.over(job)
        evidence.stdout = await on.lab.run("results", job, "cat", "stdout", check=False)


def on_disk(boot: Path, pattern: str) -> Path:
    """The name that `pattern` has in the image as it was built."""
    snapshot = boot.parent.name
    (found,) = IMAGES.glob(f"*/*/{snapshot}/boot/{pattern}")
    return boot / found.name
