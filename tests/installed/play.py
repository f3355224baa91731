"""The life of an installation, played once: the tests are about what it leaves.

A plain server, one file copied in, one command; a job; an upgrade; back to the version before; gone
again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import trio

from . import seen, tree
from .builds import REPOSITORY
from .container import Container, Said, container

IMAGES = REPOSITORY / ".cache/srv/os"
ALL_S = 600.0  # three and a half minutes on a busy machine with two cores

HELLO = """\
suite: installed
testbox: box-1
script: |
  echo "hello from $testbox"
"""
PLACES = (
    *("/run/appliance/control.sock", "/etc/appliance/appliance.toml", "/etc/appliance/hosts"),
    *("/var/lib/appliance", "/srv/result"),
)


@attrs.define
class Played:
    """What was said and seen, in order."""

    version: list[str] = attrs.field(factory=list)  # of the first and the second build
    bare: dict[str, str] = attrs.field(factory=dict)  # files before any install
    refused: dict[str, Said] = attrs.field(factory=dict)  # what bad input got
    after_refusals: dict[str, str] = attrs.field(factory=dict)
    failed: Said | None = None  # an install that fails half-way
    after_failure: dict[str, str] = attrs.field(factory=dict)
    dry: Said | None = None
    installed: Said | None = None
    again: Said | None = None
    doctor: Said | None = None
    enabled: str = ""  # units that start with the machine
    modes: str = ""
    submitted: Said | None = None  # as an ordinary user of the group
    outsider: Said | None = None  # as one who is not
    before_upgrade: dict[str, Any] = attrs.field(factory=dict)
    upgraded: Said | None = None
    after_upgrade: dict[str, Any] = attrs.field(factory=dict)
    rolled_back: Said | None = None
    after_rollback: dict[str, Any] = attrs.field(factory=dict)
    uninstalled: Said | None = None
    gone: dict[str, str] = attrs.field(factory=dict)


async def play(keep: Path, builds: Path) -> Played:
    """All of it; what builds.py makes is in `builds`."""
    played = Played()
    shown = {builds: "/mnt"}
    server = await trio.to_thread.run_sync(tree.ensure)
    with trio.fail_after(ALL_S):
        async with container(server, keep, 0, IMAGES, shown) as on:
            try:
                await _act(on, played)
            except BaseException as error:
                journal = await on.run("journalctl", "-q", "-n", "80", "-o", "short", check=False)
                error.add_note(f"the end of the server's journal:\n{journal.out}")
                raise
    return played


async def _act(on: Container, played: Played) -> None:
    await on.run("mkdir", "/root/first", "/root/second")
    for name in ("first", "second"):
        await on.run("cp", f"/mnt/{name}/appliance", f"/root/{name}/")
        played.version.append((await on.run(f"/root/{name}/appliance", "--version")).out)
    await _bad_input(on, played)
    await _first_day(on, played)
    await _upgrade(on, played)
    played.rolled_back = await on.run("appliance", "install", "--rollback")
    played.after_rollback = await seen.lab(on)
    played.uninstalled = await on.run("appliance", "uninstall")
    played.gone = await seen.files(on)


async def _bad_input(on: Container, played: Played) -> None:
    program = "/root/first/appliance"
    played.bare = await seen.files(on)
    await on.run("ip", "link", "add", "bare0", "type", "bridge")

    async def tried(name: str, *words: str) -> None:
        played.refused[name] = await on.run(program, "install", *words, check=False)

    await tried("no such interface", "--interface", "lab7")
    await tried("no address", "--interface", "bare0")
    await tried("no interface")
    await tried("no network", "--interface", "lab0", "--dhcp-range", "10.1.1.1-10.1.1.9")
    # What the machine runs for other purposes: here an SMB server, by its port.
    listens = ("systemd-run", "--quiet", "--unit=others", "--service-type=exec")
    await on.run(*listens, "systemd-socket-activate", "--listen=0.0.0.0:445", "/bin/true")
    await tried("others", "--interface", "lab0")
    await on.run("systemctl", "stop", "others")
    await on.run("mount", "-t", "tmpfs", "-o", "ro", "tmpfs", "/usr/lib/systemd/system")
    await tried("read-only", "--interface", "lab0")
    await on.run("umount", "/usr/lib/systemd/system")
    await on.run("ip", "link", "del", "bare0")
    played.after_refusals = await seen.files(on)
    # Half-way: the last but one thing that systemd is asked for.
    await on.run("systemctl", "mask", "appliance-nfs.service")
    played.failed = await on.run(program, "install", "--interface", "lab0", check=False)
    await on.run("systemctl", "unmask", "appliance-nfs.service")
    played.after_failure = await seen.files(on)


async def _first_day(on: Container, played: Played) -> None:
    program = "/root/first/appliance"
    played.dry = await on.run(program, "install", "--interface", "lab0", "--dry-run")
    played.installed = await on.run(program, "install", "--interface", "lab0")
    played.again = await on.run("appliance", "install")
    played.doctor = await on.run("appliance", "doctor", "--json", check=False)
    played.enabled = (await on.run("systemctl", "list-unit-files", "--state=enabled")).out
    played.modes = (await on.run("stat", "-c", "%n %A %U:%G", *PLACES)).out
    for user, groups in (("ann", ["-G", "appliance"]), ("bob", [])):
        await on.run("useradd", "-m", *groups, user)
    _put(on, "/home/ann/hello.yaml", HELLO)
    played.outsider = await on.run("appliance", "status", user="bob", check=False)


async def _upgrade(on: Container, played: Played) -> None:
    await on.run("appliance", "host", "add", "box-1", "--mac", "52:54:00:a1:00:01")
    played.submitted = await on.run("appliance", "submit", "/home/ann/hello.yaml", user="ann")
    played.before_upgrade = await seen.lab(on)
    played.upgraded = await on.run("/root/second/appliance", "install")
    played.after_upgrade = await seen.lab(on)


def _put(on: Container, path: str, text: str) -> None:
    on.path(path).write_text(text)
