"""The life of the Debian package, played once: the tests are about what it leaves.

A server that has the distribution's daemons already; the package, configured; a job for a box that
asks; the next version of the package; gone, and purged; and then the one file, without any package.
"""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import attrs
import trio

from lab.namespace import signal_program
from tests import scenery
from tests.machines import machine
from tests.scenery import Reached

from . import seen, tree
from .builds import NAMES
from .container import Container, Said, container
from .play import IMAGES

MAC = "52:54:00:a1:00:01"
ROGUE, ROGUE_MAC = "172.28.0.77", "52:54:00:77:77:77"  # another DHCP server
# As on a server whose operator wants to start such daemons himself.
DAEMONS = (
    "printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d && chmod 755 /usr/sbin/policy-rc.d"
    " && DEBIAN_FRONTEND=noninteractive"
    " apt-get -qq -y --no-install-recommends -o Dpkg::Use-Pty=0 install $*"
    " && rm /usr/sbin/policy-rc.d"
)
INSTALL = ("install", "--interface", "lab0")
UNITS = ("appliance.service", "appliance-dnsmasq.service", "appliance-cifs.service",
         "appliance-nfs.service")  # fmt: skip
SOCKETS = ("appliance.socket", "appliance-control.socket")
# What a shell does at the tab key: $1 is what was typed.
COMPLETES = """
. /usr/share/bash-completion/completions/appliance
COMP_WORDS=($1) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_appliance_completion appliance
echo "${COMPREPLY[@]}"
"""
HELLO = """\
suite: installed
testbox: box-1
script: |
  echo "hello from $testbox"
"""


@attrs.define
class Life:
    """What was said and seen, in order."""

    base: dict[str, str] = attrs.field(factory=dict)  # files before the package
    unpacked: Said | None = None
    before: str = ""  # which of its units run before it is configured
    manual: Said | None = None
    complaints: Said | None = None  # of groff's, about what stands in it
    completed: dict[str, str] = attrs.field(factory=dict)  # by what was typed
    shells: Said | None = None  # where other shells look for theirs
    one_file: Said | None = None  # its version
    refused: Said | None = None  # an install beside another DHCP server
    made: list[str] | None = None  # what that one changed all the same
    anyway: Said | None = None
    proxy: Said | None = None
    installed: Said | None = None
    doctor: Said | None = None
    first: dict[str, Any] = attrs.field(factory=dict)
    script: str = ""  # what the box was told
    journal: list[dict[str, Any]] = attrs.field(factory=list)  # of that job, as journald has it
    upgraded: Said | None = None
    second: dict[str, Any] = attrs.field(factory=dict)
    doctor_again: Said | None = None
    removed: Said | None = None
    running: str = ""  # which of its units are left then
    left: dict[str, str] = attrs.field(factory=dict)
    purged: Said | None = None
    gone: dict[str, str] = attrs.field(factory=dict)
    by_file: Said | None = None  # an install without the package
    doctor_by_file: Said | None = None


async def live(keep: Path, builds: Path, codename: str = tree.BUILT_ON) -> Reached:
    """All of it; what builds.py makes is in `builds`."""
    life = Life()

    async def scene() -> None:
        server = await trio.to_thread.run_sync(tree.ensure, codename)
        async with container(server, keep, 0, IMAGES, {builds: "/mnt"}) as on:
            await _act(on, life)

    return Reached(life, await scenery.play(f"the package on {codename}", scene))


async def _act(on: Container, life: Life) -> None:
    await _sh(on, DAEMONS, *tree.LATER)
    life.base = await seen.files(on)
    first, second = NAMES
    life.unpacked = await _apt(on, "install", f"/mnt/{first}/appliance_*.deb")
    life.before = (await on.run("systemctl", "is-active", *UNITS, *SOCKETS, check=False)).out
    await _documents(on, life)
    life.one_file = await on.run(f"/mnt/{first}/appliance", "--version")
    await _beside_another(on, life)
    life.installed = await on.run("appliance", *INSTALL, check=False)
    life.doctor = await on.run("appliance", "doctor", "--json", check=False)
    await on.run("usermod", "--append", "--groups", "appliance", "games")
    await _work(on, life)
    life.first = await _lab(on)
    life.upgraded = await _apt(on, "install", f"/mnt/{second}/appliance_*.deb")
    life.second = await _lab(on)
    life.doctor_again = await on.run("appliance", "doctor", "--json", check=False)
    life.removed = await _apt(on, "remove", "appliance")
    life.running = (await on.run("systemctl", "is-active", *UNITS, *SOCKETS, check=False)).out
    life.left = await seen.files(on)
    life.purged = await _apt(on, "purge", "appliance")
    life.gone = await seen.files(on)
    life.by_file = await on.run(f"/mnt/{first}/appliance", *INSTALL, check=False)
    life.doctor_by_file = await on.run("appliance", "doctor", "--json", check=False)


async def _documents(on: Container, life: Life) -> None:
    # First: what was once laid out is kept, and nobody looks at the page again.
    life.complaints = await _sh(on, "man --warnings appliance 2>&1 >/dev/null")
    life.manual = await on.run("man", "appliance")
    for typed in ("appliance ins", "appliance host ad"):
        said = await on.run("bash", "-c", COMPLETES, "bash", typed)
        life.completed[typed] = said.out.strip()
    zsh, fish = "zsh/vendor-completions/_appliance", "fish/vendor_completions.d/appliance.fish"
    life.shells = await on.run("cat", f"/usr/share/{zsh}", f"/usr/share/{fish}")


async def _beside_another(on: Container, life: Life) -> None:
    install = ("appliance", *INSTALL)
    leases = [
        *("dnsmasq", "--port=0", "--conf-file=/dev/null", "--bind-interfaces", "--interface=rogue"),
        *("--dhcp-range=172.28.0.200,172.28.0.210,1h", "--leasefile-ro", "--pid-file="),
        "--keep-in-foreground",
    ]
    rogue = machine("rogue", ROGUE_MAC, f"{ROGUE}/24", leases)
    there = await on.inside.start(rogue, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    life.refused = await on.run(*install, check=False)
    changes = ("/etc/appliance", "/usr/lib/appliance/installed.json", "/var/lib/appliance")
    life.made = [path for path in changes if on.path(path).exists()]
    life.anyway = await on.run(*install, "--lease-anyway", "--dry-run", check=False)
    life.proxy = await on.run(*install, "--proxy-dhcp", "--dry-run", check=False)
    signal_program(there, signal.SIGTERM)
    await there.wait()


async def _work(on: Container, life: Life) -> None:
    """A job, and a box that is offered it."""
    await on.run("appliance", "host", "add", "box-1", "--mac", MAC)
    on.path("/root/hello.yaml").write_text(HELLO)
    await on.run("appliance", "submit", "/root/hello.yaml")
    url = f"http://172.28.0.1:3000/boot.ipxe/mac/{MAC.replace(':', '-')}?arch=x86_64"
    asks = machine(
        "card", MAC, "172.28.0.9/24", ["curl", "--silent", "--show-error", "--max-time", "20", url]
    )
    box = await on.inside.start(asks, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    life.script = b"".join([bytes(chunk) async for chunk in box.stdout]).decode()
    said = await on.run("journalctl", "-q", "-u", "appliance", "-o", "json", "JOB=lab.1")
    life.journal = [json.loads(line) for line in said.out.splitlines()]


async def _lab(on: Container) -> dict[str, Any]:
    """With which processes serve beside the server, and since when sockets are open."""
    words = ("systemctl", "show", "--value", "-p")
    pids = await on.run(*words, "MainPID", *UNITS[1:])
    since = await on.run(*words, "ActiveEnterTimestampMonotonic", *SOCKETS)
    return {**await seen.lab(on), "daemons": pids.out.split(), "open": since.out.split()}


async def _apt(on: Container, verb: str, what: str) -> Said:
    quiet = "DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Dpkg::Use-Pty=0"
    return await _sh(on, f"{quiet} {verb} {what}")


async def _sh(on: Container, script: str, *words: str) -> Said:
    return await on.run("sh", "-ec", script, "sh", *words)
