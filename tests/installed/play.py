"""The life of an installation, played once: the tests are about what it leaves.

A plain server, one file copied in, one command; boxes and jobs, through an upgrade and back to the
version before; gone again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import trio

from tests import scenery
from tests.scenery import Reached

from . import boxes, seen, tree
from .builds import REPOSITORY
from .container import Container, Said, container

IMAGES = REPOSITORY / ".cache/srv/os"
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
    outsider: Said | None = None  # as one who is no member of the group
    boxes: boxes.Seen = attrs.field(factory=boxes.Seen)
    before_upgrade: dict[str, Any] = attrs.field(factory=dict)
    upgraded: Said | None = None
    after_upgrade: dict[str, Any] = attrs.field(factory=dict)
    before_rollback: dict[str, Any] = attrs.field(factory=dict)
    rolled_back: Said | None = None
    after_rollback: dict[str, Any] = attrs.field(factory=dict)
    doctor_then: Said | None = None
    with_state: Said | None = None  # a rollback to the state as it was
    before_with_state: dict[str, Any] = attrs.field(factory=dict)
    after_with_state: dict[str, Any] = attrs.field(factory=dict)
    set_aside: str = ""  # what is kept of the state that a rollback replaced
    uninstalled: Said | None = None
    gone: dict[str, str] = attrs.field(factory=dict)
    installed_again: Said | None = None
    after_install: dict[str, Any] = attrs.field(factory=dict)
    purged: Said | None = None
    purge_left: dict[str, str] = attrs.field(factory=dict)
    accounts: str = ""  # users and groups then


async def play(keep: Path, builds: Path) -> Reached:
    """All of it; what builds.py makes is in `builds`."""
    played = Played()
    shown = {builds: "/mnt"}

    async def scene() -> None:
        server = await trio.to_thread.run_sync(tree.ensure)
        async with container(server, keep, len(boxes.NAMES), IMAGES, shown) as on:
            await _act(on, keep, played)

    return Reached(played, await scenery.play("an installation", scene))


async def _act(on: Container, keep: Path, played: Played) -> None:
    await on.run("mkdir", "/root/first", "/root/second")
    for name in ("first", "second"):
        await on.run("cp", f"/mnt/{name}/appliance", f"/root/{name}/")
        played.version.append((await on.run(f"/root/{name}/appliance", "--version")).out)
    await _bad_input(on, played)
    await _first_day(on, played)
    async with boxes.two(on, keep, played.boxes) as pair:
        await pair.before()
        await _upgrade(on, played, pair)
        played.before_rollback = await seen.lab(on)
        played.rolled_back = await on.run("appliance", "install", "--rollback")
        played.after_rollback = await seen.lab(on)
        await pair.after_rollback()
        played.doctor_then = await on.run("appliance", "doctor", "--json", check=False)
    await _with_state(on, played)
    played.uninstalled = await on.run("appliance", "uninstall")
    played.gone = await seen.files(on)
    played.installed_again = await on.run("/root/first/appliance", "install")
    played.after_install = await seen.lab(on)
    played.purged = await on.run("appliance", "uninstall", "--purge")
    played.purge_left = await seen.files(on)
    played.accounts = (await on.run("cat", "/etc/passwd", "/etc/group")).out


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
    played.outsider = await on.run("appliance", "status", user="bob", check=False)


async def _upgrade(on: Container, played: Played, pair: boxes.Boxes) -> None:
    played.before_upgrade = await seen.lab(on)
    began = len(pair.waits.lines)
    played.upgraded = await on.run("/root/second/appliance", "install")
    played.after_upgrade = await seen.lab(on)
    await pair.after_upgrade(began)


async def _with_state(on: Container, played: Played) -> None:
    """Upgraded once more, work is done, and then all of it is taken back."""
    await on.run("/root/second/appliance", "install")
    await on.run("appliance", "submit", "/home/ann/waits.yaml", user="ann")
    played.before_with_state = await seen.lab(on)
    played.with_state = await on.run("appliance", "install", "--rollback", "--with-state")
    played.after_with_state = await seen.lab(on)
    played.set_aside = (await on.run("ls", "-ld", "/var/lib/appliance-after/archive.sqlite")).out
