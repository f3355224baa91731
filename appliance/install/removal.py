"""Pure: no clock, no socket, no await.

Makes the lists of steps of an uninstall and of a rollback.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from appliance.config import Config
from appliance.install import manifest, state_copies, units
from appliance.install.actions import All, Link, Remove, RemoveEmpty, Run, StateBack, Step, Write
from appliance.install.site import DHCP, SERVER, Found, Places, Program

_ALL: tuple[str, ...] = (
    units.TARGET, *units.SOCKETS, units.SERVER, *units.DAEMONS.values(),
)  # fmt: skip
_USERS = (SERVER.user, DHCP.user)
_SRV = ("result", "upload-files", "os", "initrd", "kernel")


def uninstall(config: Config, found: Found, places: Places, *, purge: bool) -> list[Step]:
    """Returns steps that remove what installs made; /srv, state and configuration need `purge`."""
    record = manifest.of(found.texts, places)
    steps = []

    def add(why: str, do: Any) -> None:
        steps.append(Step(why, do, None))

    if enabled := sorted({path.name for path in found.links if path.name in _ALL}):
        add("they no longer start at boot", Run(("systemctl", "disable", *enabled)))
    if found.active:
        add("boxes are told to come back, then all stops", Run(("systemctl", "stop", *_ALL)))
    for name in sorted(units.DROP_INS):
        if places.drop_ins / name in found.texts:
            add("its own", Remove(places.drop_ins / name))
            add("its own", RemoveEmpty((places.drop_ins / name).parent))
    add("what firmware loads", Run((str(places.command), "tftpboot", "--remove")))
    if places.packaged not in found.texts:
        for path in sorted(found.texts):
            if path in _program_files(found, places, config):
                add("its own", Remove(path))
    add("systemd forgets them", Run(("systemctl", "daemon-reload")))
    # A daemon that was killed when it was stopped would stay in the list of failed units.
    forgets = f"systemctl reset-failed {' '.join(_ALL)} 2>/dev/null || :"
    add("systemd forgets that one of them failed", Run(("sh", "-c", forgets)))
    if purge:
        _purge(add, config, record, found, places)
    elif (text := found.texts.get(places.record)) is not None:
        add("the record, for a later install or purge", Write(places.kept, text, 0o600))
    if places.packaged not in found.texts:
        add("the program", Remove(places.command))
        add("the program", Remove(places.lib))
    else:
        add("the record", Remove(places.record))
    return steps


def _program_files(found: Found, places: Places, config: Config) -> set[Path]:
    kept = {
        places.config, places.record, places.kept, places.unfinished,
        config.paths.state / "dnsmasq.leases",
    }  # fmt: skip
    return set(found.texts) - kept


def _purge(
    add: Any, config: Config, record: Mapping[str, Any], found: Found, places: Places
) -> None:
    """Adds steps that remove the state, the configuration, and what installs made in /srv."""
    made = {Path(path) for path in record.get("made", ())}
    paths = config.paths
    gone = [*state_copies.all_of(paths.state), paths.hosts]
    for state in state_copies.all_of(paths.state):
        add("--purge: the state", Remove(state))
    add("--purge: hosts files", Remove(paths.hosts))
    add("--purge: the configuration", Remove(places.config))
    add("--purge: the record", Remove(places.kept))
    add("--purge: the configuration", RemoveEmpty(places.config.parent))
    for name in _SRV:
        if paths.srv / name in made:
            add("--purge: images and results", Remove(paths.srv / name))
    if paths.srv in made:
        add("--purge: images and results", RemoveEmpty(paths.srv))
    for folder in manifest.opened(record):
        if folder.path in found.folders and not any(map(folder.path.is_relative_to, gone)):
            add("--purge: owner and mode from before any install", folder)
    for user in _USERS:
        # `userdel` keeps a group that has members: the people who might submit.
        both = f"userdel {user} && if getent group {user} >&2; then groupdel {user}; fi"
        add("--purge: users and groups", Run(("sh", "-c", both)))


def left(config: Config, record: Mapping[str, Any], places: Places, *, purge: bool) -> list[str]:
    """Returns what an uninstall leaves, as lines for people."""
    told = []
    if not purge:
        paths = config.paths
        told.append(f"{paths.srv}: images, files and results")
        told.append(f"{paths.state}: the state, and beside it its copies of upgrades")
        told.append(f"{places.config.parent}: the configuration and the hosts files")
        told.append(f"users and groups {' and '.join(_USERS)}, who own some of this")
    else:
        made = record.get("made", ())
        there = (config.paths.srv / name for name in _SRV)
        told += [f"{path}: was there before any install" for path in there if str(path) not in made]
    return [*told, *manifest.brought(record)]


def refusal(config: Config, found: Found, old: Program, *, state: bool) -> str:
    """Returns why `old` cannot read the state that a rollback would give it, or an empty text."""
    now, copy = config.paths.state, state_copies.copy_of(config.paths.state)
    what, version = (copy, found.copy) if state else (now, found.state)
    if version <= old.reads:
        return ""
    said = f"{what}: version {version} of the state, and {old.name} reads none above {old.reads}"
    if state:
        return f"{said}: it would not start; stay with the version that is installed"
    if not found.copy:
        return f"{said}: it would not start, and {copy} has no state from before the upgrade"
    return (
        f"{said}: it would not start; `appliance install --rollback --with-state` goes back to the"
        f" state as it was before the upgrade too, and keeps that of now, with all jobs since, as"
        f" {state_copies.after_of(now)}"
    )


def rollback(
    config: Config, found: Found, old: Program, places: Places, *, state: bool
) -> list[Step]:
    """Returns steps that restart the version before: on today's state, or (`state`) on its copy."""
    stop = Run(("systemctl", "stop", *units.SOCKETS, units.SERVER))
    start = Run(("systemctl", "start", units.TARGET))
    reload = Run(("systemctl", "daemon-reload"))
    # Undone last: by then the files of today's units are back, and are read again.
    steps = [Step("nobody may have the state open", stop, All((reload, start)))]
    now = found.links[places.current]
    if state:
        steps += state_steps(state_copies.back(config.paths.state, old.reads))
    for name, text in old.units.items():
        path = places.units / name
        before = found.texts.get(path)
        if before != text:
            undo = Remove(path) if before is None else Write(path, before)
            steps.append(Step("the units of that version", Write(path, text), undo))
    before_it = found.links[places.previous]
    links = All((Link(places.current, before_it), Link(places.previous, now)))
    undo_links = All((Link(places.current, now), Link(places.previous, before_it)))
    steps.append(Step("the version that runs", links, undo_links))
    steps.append(Step("systemd reads the units", reload, None))
    steps.append(Step("the lab is open", start, stop))
    return steps


def state_steps(back: StateBack) -> list[Step]:
    """Returns steps that replace the state by its copy, and keep the replaced state."""

    def shell(command: str) -> Run:
        return Run(("sh", "-c", command))

    return [
        Step("what one that was cut short has left", shell(back.tidy), None),
        Step("the state of then", shell(back.swap), shell(back.unswap)),
        Step(f"that of now is kept as {back.aside}", shell(back.keep), shell(back.unkeep)),
    ]
