"""Installs the running program on this server, rolls it back by a version, or uninstalls it."""

from __future__ import annotations

import grp
import os
import pwd
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs

from appliance import build, names
from appliance import config as configs
from appliance.boot.daemons import dnsmasq, tftp
from appliance.config import Config, Network
from appliance.errors import BadRequest, NotFound, Refused
from appliance.install import (
    debian,
    execute,
    manifest,
    networks,
    plan,
    removal,
    rivals,
    server_facts,
    settings,
    state_copies,
    units,
)
from appliance.install.actions import Owner, Run, Settle, Step
from appliance.install.site import PACKAGES, SERVER, Found, Places, Program, Whose, Wish
from appliance.keep.state import versions
from appliance.web import listen

PLACES: Final = Places()
LAUNCHER: Final = "launcher"  # the name in binary.spec
# A program's folder of units; the second is an older program's, to which a rollback may go.
UNITS: Final = ("install/systemd", "setup/systemd")

Say = Callable[[str], None]
Pages = Callable[[str], Mapping[str, str]]  # version -> man page and completions, by path


@attrs.frozen
class Asked:
    """The options of the command line."""

    interfaces: tuple[str, ...] = ()
    ranges: tuple[str, ...] = ()
    proxy: bool = False
    without: frozenset[str] = frozenset()
    lease_anyway: bool = False


def install(asked: Asked, say: Say, pages: Pages, *, dry_run: bool) -> bool:
    """Installs or upgrades; returns whether there was anything to do.

    Raises BadRequest and Refused with all obstacles, before anything is changed.
    """
    _check_machine()
    wish = _wish(asked)
    program = _program(pages)
    found = _found(program, wish.config)
    _check(wish, found, program)
    if not asked.lease_anyway:
        _check_wires(wish, found, say)
    steps = plan.install(wish, found, program, PLACES)
    if PLACES.unfinished in found.texts:
        say("an earlier install was cut short; this one does again what it left undone")
    if dry_run:
        for step in steps:
            say(f"{step.do}\n    {step.why}")
    else:
        execute.carry_out(steps, say)
    return bool(steps)


def rollback(say: Say, pages: Pages, *, state: bool, dry_run: bool) -> None:
    """Goes back to the version before.

    Raises NotFound if there is none, Refused if it cannot read the state that it would get.
    """
    _check_machine()
    config = configs.load()
    links = server_facts.links(plan.links(PLACES))
    if PLACES.previous not in links:
        raise NotFound("no earlier version is kept here: nothing to go back to")
    old = _program_in(PLACES.lib / links[PLACES.previous], pages)
    found = _found(old, config)
    if why := removal.refusal(config, found, old, state=state):
        _refuse([why])
    steps = removal.rollback(config, found, old, PLACES, state=state)
    if dry_run:
        for step in steps:
            say(f"{step.do}\n    {step.why}")
        return
    if not state:
        # Between the stop and the new links, the version before checks that it can read the state.
        steps.insert(1, Step("the version before can read the state", _state_check(old), None))
    execute.carry_out([*steps, _settled()], say)


def uninstall(say: Say, pages: Pages, *, purge: bool, dry_run: bool) -> list[str]:
    """Removes what installs made; returns what is left, as lines for people."""
    _check_machine()
    if not PLACES.command.is_symlink() and not PLACES.packaged.exists():
        record = manifest.of(server_facts.texts([PLACES.kept]), PLACES)  # left by a failed install
        told = [f"{PLACES.command}: no appliance is installed here", *manifest.brought(record)]
        raise NotFound("\n".join(told))
    config = configs.load()
    program = _program_in(PLACES.current, pages) if PLACES.current.exists() else _program(pages)
    found = _found(program, config)
    record = manifest.of(found.texts, PLACES)
    steps = removal.uninstall(config, found, PLACES, purge=purge)
    for step in steps:
        say(f"{step.do}\n    {step.why}" if dry_run else str(step.do))
        if not dry_run:
            execute.do(step.do)
    return removal.left(config, record, PLACES, purge=purge)


def doctor(say: Say) -> int:
    """Runs `appliance doctor` of the installed program, and returns its exit code."""
    say("a look at the result: appliance doctor")
    return subprocess.run([PLACES.command, "doctor"], check=False).returncode


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise Refused("root is needed: sudo appliance install ...")
    if not server_facts.has_systemd():
        raise Refused("this machine's init is not systemd, which starts and watches the appliance")
    if not build.is_built() and not PLACES.packaged.exists():
        raise Refused("this is a checkout: `make binary` makes the program that installs itself")


def _wish(asked: Asked) -> Wish:
    """Returns what is wished for, with the existing configuration or a new one.

    Raises BadRequest and BadConfig.
    """
    chosen = bool(asked.interfaces or asked.ranges or asked.proxy)
    network = _network(asked) if chosen else None
    record = manifest.of(server_facts.texts([PLACES.record, PLACES.kept]), PLACES)
    if PLACES.config.exists():
        config, text = configs.load(PLACES.config), PLACES.config.read_text(encoding="utf-8")
        if network is not None and not networks.same(config.network, network):
            raise BadRequest(
                f"{PLACES.config} says something else about the network: change it there, then"
                " run `appliance install` without options"
            )
        without = asked.without or frozenset(record.get("without", ()))
    elif network is None:
        known = ", ".join(sorted(set(server_facts.interfaces()) - {"lo"})) or "none"
        raise BadRequest(f"--interface: which one are the testboxes on?  There are: {known}")
    else:
        text, without = settings.text(network), asked.without
        config = configs.parse(text, str(PLACES.config))
    dnsmasq.configuration(config)  # refuses a bad configuration before anything is changed
    return Wish(config, text, listen.ports_of(config), without)


def _network(asked: Asked) -> Network:
    ranges = [networks.range_of(text) for text in asked.ranges]
    there = server_facts.interfaces()
    if not asked.interfaces:
        raise BadRequest("--interface: which one are these addresses on?")
    return networks.network(asked.interfaces, ranges, there, proxy=asked.proxy)


def _program(pages: Pages) -> Program:
    """Returns the running program."""
    source = build.unpacked()
    name = build.facts().name
    reads = versions.VERSION
    return Program(name, source, LAUNCHER, _units_in(source), _documents(pages(name)), reads)


def _program_in(folder: Path, pages: Pages) -> Program:
    """Returns a program that was unpacked earlier to `folder`."""
    inside = folder / "_internal"
    name = folder.resolve().name
    reads = build.reads(inside) or versions.FIRST
    return Program(name, inside, LAUNCHER, _units_in(inside), _documents(pages(name)), reads)


def _documents(made: Mapping[str, str]) -> dict[str, str]:
    """Returns the documents whose folder exists: a missing shell has no folder for completions."""
    return {place: text for place, text in made.items() if (PLACES.root / place).parent.is_dir()}


def _units_in(source: Path) -> dict[str, str]:
    """Returns the unit files of an unpacked program, by name."""
    folders = [source / "appliance" / each for each in UNITS]
    folder = next((path for path in folders if path.is_dir()), folders[0])
    return {path.name: path.read_text(encoding="utf-8") for path in sorted(folder.iterdir())}


def _found(program: Program, config: Config) -> Found:
    folders = {
        path: (
            Owner(_name(path.stat().st_uid), _group(path.stat().st_gid)),
            path.stat().st_mode & 0o7777,
        )
        for path in plan.folders(program, config, PLACES)
        if path.is_dir()
    }
    wanted = [name for names in PACKAGES.values() for name in names]
    return Found(
        packages=frozenset(debian.installed(wanted)),
        texts=server_facts.texts(plan.files(program, config, PLACES)),
        links=server_facts.links(plan.links(PLACES)),
        folders=folders,
        active=frozenset(
            server_facts.active(
                [units.TARGET, *units.SOCKETS, units.SERVER, *units.DAEMONS.values()]
            )
        ),
        state=execute.state_version(config.paths.state),
        copy=execute.state_version(state_copies.copy_of(config.paths.state)),
        reads=build.reads(PLACES.current / "_internal") or versions.FIRST,
        tftp=tftp.is_laid_out(config),
    )


def _whose(found: os.stat_result) -> Whose:
    return Owner(_name(found.st_uid), _group(found.st_gid)), found.st_mode & 0o7777


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def _check(wish: Wish, found: Found, program: Program) -> None:
    """Raises Refused with all obstacles to the installation."""
    paths = wish.config.paths
    written = [PLACES.lib, PLACES.command.parent, PLACES.units, PLACES.drop_ins, PLACES.config]
    wrong = [
        f"{path}: on a file system that is mounted read-only; remount it first"
        for path in server_facts.read_only([*written, paths.state, paths.srv, paths.tftp])
    ]
    if found.links.get(PLACES.command, PLACES.command.name).rpartition("/")[2] != names.PROGRAM:
        wrong.append(f"{PLACES.command}: is there, and not ours; move it out of the way")
    if found.state > program.reads:
        wrong.append(
            f"{paths.state}: was written by a newer appliance: version {found.state} of the state,"
            f" and this program reads none above {program.reads}; install that one or a later one"
        )
    missing = [name for name in wish.packages if name not in found.packages]
    if missing and not server_facts.has_apt():
        wrong.append(
            f"no apt here to install what is missing (Debian's names): {' '.join(missing)}"
        )
    there = server_facts.interfaces()
    wrong += [
        f"{PLACES.config}: interface {name} is not there, or has no address"
        for name in wish.config.network.interfaces
        if name not in there or not there[name].addresses
    ]
    if not wrong:
        left_out = {unit for what, unit in units.DAEMONS.items() if what in wish.without}
        wrong += map(str, server_facts.taken(wish.config, there, set(found.active) | left_out))
    _refuse(wrong)


def _check_wires(wish: Wish, found: Found, say: Say) -> None:
    """Raises Refused if another server leases addresses where this one did not lease before."""
    before = None
    if units.DAEMONS["dnsmasq"] in found.active:
        text = manifest.of(found.texts, PLACES).get("config", "")
        before = configs.parse(text, str(PLACES.record)).network
    names = [] if "dnsmasq" in wish.without else rivals.to_ask(wish.config.network, before)
    own = {str(at.ip) for each in server_facts.interfaces().values() for at in each.addresses}
    offers = rivals.heard(names, own, say)
    _refuse(rivals.refusal(offers, PLACES.config, written=PLACES.config in found.texts))


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        raise Refused("nothing was changed:\n" + "\n".join(f"  {each}" for each in wrong))


def _state_check(old: Program) -> Run:
    """Checks the state as the server's user, who must own the files that the check creates."""
    program = str(PLACES.lib / "versions" / old.name / names.PROGRAM)
    return Run(("runuser", "-u", SERVER.user, "--", program, "state", "check"))


def _settled() -> Step:
    return Step("it runs", Settle((units.SERVER,)), None)
