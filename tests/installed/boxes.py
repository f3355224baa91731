"""Two testboxes on the wire of the installed server, while it is upgraded and goes back a version.

`waits` is parked when that happens; `works` runs a job, which ends when the server shows a file.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from appliance.install.units import DAEMONS
from lab.qemu import PATIENCE_S, Box, accelerator
from tests.end_to_end import osimage
from tests.scenery import add_tail

from .container import COMMAND_S, Container, Said

NAMES: Final = ("waits", "works")
IMAGE: Final = "debian/x86_64/12"
READS: Final = "usr/bin/perl"  # nothing else on the box does
OWN: Final = "/usr/lib/ipxe/snponly.efi"  # the iPXE that the hosts file of `works` names
GO: Final = "/srv/initrd/go"
OUTLASTS_S: Final = 4 * PATIENCE_S  # of the box: another's boot, its job and an upgrade pass

# In the order in which they are submitted, lab.1 and so on, each with `--wait`: OUTLASTS, HELLO,
# and a small one on each box.  The root of one comes by CIFS, that of the other by NFS.
HELLO: Final = """\
suite: installed
testbox: waits
os_mount: nfs
script: |
  echo "$id says hello from $testbox"
  cat /proc/mounts
"""
# What it reads at last, no cache of the box had before.
OUTLASTS: Final = f"""\
suite: installed
testbox: works
script: |
  echo "$id began"
  until curl -sf -o /dev/null "http://$LKP_SERVER:8800/initrd/{Path(GO).name}"; do sleep 1; done
  echo 3 >/proc/sys/vm/drop_caches
  echo "sum $(sha256sum </run/rootfs/image/{READS})"
  head -c 300000 /dev/urandom >"$RESULT_ROOT/random"
  echo "random $(sha256sum <"$RESULT_ROOT/random")"
"""
SMALL: Final = """\
suite: installed
testbox: {box}
os_mount: initramfs
script: |
  echo "$id runs on $testbox"
"""


@attrs.define
class Seen:
    """What was said and seen, in order."""

    serial: dict[str, list[str]] = attrs.field(factory=dict)  # the boxes' lines
    dnsmasq: str = ""  # its journal, with both boxes' first boot
    doctor: Said | None = None  # while `waits` was parked
    hello: Said | None = None  # `submit --wait`, and then the job's output
    hello_stdout: str = ""
    rechained: int = 0  # the serial line of `waits` that says so, behind the upgrade's begin
    next: Said | None = None  # what `waits` ran after that
    outlasts: Said | None = None  # `submit --wait`, begun before the upgrade
    outlasts_stdout: str = ""
    outlasts_files: dict[str, Any] = attrs.field(factory=dict)  # its results
    outlasts_history: list[dict[str, Any]] = attrs.field(factory=list)
    last: Said | None = None  # what `works` ran after that, of the version before


@attrs.define
class Boxes:
    """Both, and what happens to them."""

    on: Container
    seen: Seen
    waits: Box
    works: Box
    nursery: trio.Nursery

    async def before(self) -> None:
        """One is parked and has run a job, the other runs one."""
        for document in ("outlasts", "hello", *NAMES):
            text = {"outlasts": OUTLASTS, "hello": HELLO}.get(document) or SMALL
            self.on.write(f"/home/ann/{document}.yaml", text.replace("{box}", document))
        osimage.lay_out(self.on.path(f"/srv/initrd/osimage/{IMAGE}"))
        for box, more in ((self.waits, ()), (self.works, ("--ipxe", OWN))):
            await self.on.run("appliance", "host", "add", box.name, "--mac", box.mac, *more)
        self.nursery.start_soon(self._outlasts)
        for box in (self.waits, self.works):
            await box.power_on(self.nursery, self.on.inside)
        await self.until("waits", "parked")
        self.seen.dnsmasq = (await self.on.run("journalctl", "-q", "-u", DAEMONS["dnsmasq"])).out
        self.seen.doctor = await self.on.run("appliance", "doctor", "--json", check=False)
        self.seen.hello = await self._submit(self.waits, "hello")
        self.seen.hello_stdout = await self._asked("results", "lab.2", "cat", "stdout")
        await self.until("waits", "parked")
        await self.until("works", "running")

    async def after_upgrade(self, began: int) -> None:
        """Each goes on as if nothing had happened.  `began`: lines that `waits` had said before."""
        self.seen.rechained = await self.waits.line("No job now", after=began)
        self.on.path(GO).touch()
        self.seen.next = await self._submit(self.waits, "waits")
        with self.works.limit("the end of lab.1"):
            await self._asked("wait", "lab.1", allowed_s=inf)
        self.seen.outlasts_stdout = await self._asked("results", "lab.1", "cat", "stdout")
        self.seen.outlasts_files = json.loads(await self._asked("results", "lab.1", "--json"))
        shown = json.loads(await self._asked("show", "lab.1", "--json"))
        self.seen.outlasts_history = shown["history"]
        await self.until("works", "parked")

    async def after_rollback(self) -> None:
        """Now the other one is parked meanwhile."""
        self.seen.last = await self._submit(self.works, "works")

    async def until(self, name: str, *states: str) -> None:
        """Waits until the server says that of the box."""
        box = self.waits if name == "waits" else self.works
        with box.limit(f"the server to call it {' or '.join(states)}"):
            while True:
                rows = await self.on.json("appliance", "hosts")
                if any(row["name"] == name and row["state"] in states for row in rows):
                    return
                await trio.sleep(1)  # it's another kernel's process

    async def _asked(self, *words: str, allowed_s: float = COMMAND_S) -> str:
        return (await self._of_ann(*words, allowed_s=allowed_s)).out

    async def _submit(self, box: Box, document: str, allowed_s: float = PATIENCE_S) -> Said:
        """Until the job is over; it runs on `box`."""
        with box.limit(f"the job {document}", allowed_s):
            file = f"/home/ann/{document}.yaml"
            return await self._of_ann("submit", "--wait", file, allowed_s=inf)

    async def _of_ann(self, *words: str, allowed_s: float) -> Said:
        return await self.on.run("appliance", *words, user="ann", check=False, allowed_s=allowed_s)

    async def _outlasts(self) -> None:
        self.seen.outlasts = await self._submit(self.works, "outlasts", OUTLASTS_S)


@asynccontextmanager
async def two(on: Container, keep: Path, seen: Seen) -> AsyncIterator[Boxes]:
    """Both, off; at the end their plugs are pulled."""
    accel = await accelerator(keep)
    made = [
        Box(name, f"52:54:00:a1:00:0{number}", f"tap{number}", keep, accel=accel)
        for number, name in enumerate(NAMES)
    ]
    seen.serial = {box.name: box.lines for box in made}
    async with trio.open_nursery() as nursery:
        try:
            yield Boxes(on, seen, *made, nursery)
        except BaseException as error:
            for box in made:
                add_tail(error, f"the serial log of {box.name}", box.lines)
            raise
        for box in made:
            await box.power_off()
