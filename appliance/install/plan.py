"""Pure: no clock, no socket, no await.

Makes the list of an installation's steps, from what is wished for and what this server is like now.
`--dry-run` prints the list, a failure undoes it in reverse order, and a second run has no steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs

from appliance import names
from appliance.config import Config
from appliance.install import manifest, state_copies, units
from appliance.install.actions import (
    Action,
    All,
    Folder,
    Install,
    Link,
    Owner,
    Remove,
    RemoveEmpty,
    Run,
    Settle,
    Step,
    Touch,
    Unpack,
    Write,
)
from appliance.install.site import DHCP, SERVER, Found, Places, Program, Wish

SYSUSERS: Final = """\
# The server, and the group whose members may submit; the DHCP and TFTP daemon.
u appliance - "Lab server of the appliance" /var/lib/appliance
u appliance-dnsmasq - "DHCP and TFTP of the appliance" /nonexistent
"""


@attrs.define
class _Plan:
    places: Places
    found: Found
    steps: list[Step] = attrs.field(factory=list)
    restart: set[str] = attrs.field(factory=set)  # units whose files or settings change
    reload: bool = False  # unit files change, so systemd must read them again

    def add(self, why: str, do: Action, undo: Action | None, stays: str = "") -> None:
        self.steps.append(Step(why, do, undo, stays))

    def write(self, why: str, file: Write) -> bool:
        """Adds a step that writes `file`, unless it has that text; returns whether it added one."""
        before = self.found.texts.get(file.path)
        if before == file.text:
            return False
        undo = Remove(file.path) if before is None else attrs.evolve(file, text=before)
        self.add(why, file, undo)
        return True

    def folder(self, why: str, folder: Folder) -> None:
        """Adds a step that makes `folder`, unless it exists with that owner and mode."""
        before = self.found.folders.get(folder.path)
        if before is None:
            self.add(why, folder, RemoveEmpty(folder.path))
        elif before != (folder.owner, folder.mode):
            owner, mode = before
            self.add(why, folder, Folder(folder.path, mode, owner))

    def link(self, why: str, path: Path, target: str) -> bool:
        """Adds a step that makes a symlink, unless it is the same; returns whether it added one."""
        before = self.found.links.get(path)
        if before == target:
            return False
        self.add(why, Link(path, target), Link(path, before) if before else Remove(path))
        return True


def files(program: Program, config: Config, places: Places) -> list[Path]:
    """Returns the files that may be written or are looked for; `Found.texts` has existing ones."""
    names = [*(places.units / name for name in program.units), places.sysusers, places.config]
    names += [places.drop_ins / name for name in units.DROP_INS]
    names += [places.root / name for name in program.documents]
    return [
        *names, places.record, places.kept, places.unfinished, places.packaged,
        config.paths.state / "dnsmasq.leases",
    ]  # fmt: skip


def links(places: Places) -> list[Path]:
    """Returns the symlinks that we or systemctl make."""
    wants = places.drop_ins / f"{units.TARGET}.wants"
    enabled = [wants / unit for unit in units.DAEMONS.values()]
    enabled.append(places.drop_ins / "multi-user.target.wants" / units.TARGET)
    return [places.current, places.previous, places.command, *enabled]


def folders(program: Program, config: Config, places: Places) -> list[Path]:
    """Returns the folders that are made, and that of the unpacked program."""
    made = [folder.path for folder, _ in _wanted_folders(config, places)]
    return [*made, places.lib / "versions" / program.name]


def install(wish: Wish, found: Found, program: Program, places: Places) -> list[Step]:
    """Returns the steps of an installation or upgrade, in order; none if nothing is to change."""
    plan = _Plan(places, found)
    before = manifest.of(found.texts, places)
    missing = [name for name in wish.packages if name not in found.packages]
    if missing:
        _packages(plan, before, missing)
    upgrades = _program(plan, program)
    _users(plan)
    _folders(plan, wish.config)
    _settings(plan, wish, changed=before.get("config", wish.text) != wish.text)
    if not found.tftp or upgrades:
        laid = Run((str(places.command), "tftpboot"))
        # A folder that was there keeps what others put there.
        is_new = wish.config.paths.tftp not in found.folders
        undo = Remove(wish.config.paths.tftp) if is_new else None
        plan.add("boxes load iPXE by TFTP, and iPXE loads boot.ipxe", laid, undo)
    _running(plan, wish, before, upgrades=upgrades, program=program)
    made = [str(step.undo.path) for step in plan.steps if isinstance(step.undo, RemoveEmpty)]
    if plan.steps and (note := manifest.note(found.texts, places, plan.steps)) is not None:
        plan.add("the record will have everything that the note has", Remove(note.path), note)
    made = sorted({*before.get("made", ()), *made})
    closed = {**manifest.closed(plan.steps), **before.get("closed", {})}
    after = {
        "version": program.name,
        "packages": sorted({*before.get("packages", ()), *missing}),
        "made": made,
        "closed": {path: whose for path, whose in closed.items() if path not in made},
        "without": sorted(wish.without),
        "config": wish.text,
    }
    record = manifest.written(places.record, after)
    plan.write("an uninstall removes what installs made, and nothing else", record)
    return _marked(plan) if plan.steps or places.unfinished in found.texts else []


def _marked(plan: _Plan) -> list[Step]:
    """Wraps the steps in an "unfinished" marker; undoing restarts what ran before."""
    mark = Write(plan.places.unfinished, "cut short, or still under way\n")
    undo: list[Action] = [Remove(mark.path), RemoveEmpty(mark.path.parent)]
    running = sorted(plan.restart & plan.found.active)
    if plan.reload:
        undo.append(Run(("systemctl", "daemon-reload")))
    if running:
        undo.append(Run(("systemctl", "restart", *running)))
    first = Step("lets the next install detect an interrupted one", mark, All(tuple(undo)))
    return [first, *plan.steps, Step("the install is complete", Remove(mark.path), None)]


def _packages(plan: _Plan, before: Mapping[str, Any], missing: Sequence[str]) -> None:
    """Adds the steps that install Debian's packages; these stay even if the rest is undone."""
    note = manifest.of_packages(plan.found.texts, plan.places, before, missing)
    why = "a later install or uninstall knows of the packages, even if this one fails"
    plan.add(why, note, None, f"{note.path}: what was installed, for a later install or uninstall")
    why = "DHCP, TFTP, CIFS and NFS are the distribution's own programs"
    stays = f"packages: {' '.join(missing)}; to remove them: {manifest.removes(missing)}"
    plan.add(why, Install(tuple(missing)), None, stays)


def _program(plan: _Plan, program: Program) -> bool:
    """Adds the steps for the program's files; returns whether they replace another version."""
    places, found = plan.places, plan.found
    if places.packaged in found.texts:
        return False  # dpkg has put them there
    target = places.lib / "versions" / program.name
    if target not in found.folders:
        unpack = Unpack(program.source, program.launcher, target, names.PROGRAM)
        undo = All((Remove(target), RemoveEmpty(target.parent), RemoveEmpty(places.lib)))
        plan.add("a command starts fast only from unpacked files", unpack, undo)
    before = found.links.get(places.current)
    changed = plan.link("the version that runs", places.current, f"versions/{program.name}")
    if changed and before:
        plan.link("the version before, for `appliance install --rollback`", places.previous, before)
        plan.restart.add(units.SERVER)
    plan.link("the command that people type", places.command, str(places.current / names.PROGRAM))
    _units(plan, program.units)
    for name, text in program.documents.items():
        plan.write("a manual, and completions for shells", Write(places.root / name, text))
    return changed and before is not None


def _units(plan: _Plan, texts: Mapping[str, str]) -> None:
    for name, text in texts.items():
        if plan.write("systemd starts and watches it", Write(plan.places.units / name, text)):
            plan.restart.add(name)
            plan.reload = True


def _users(plan: _Plan) -> None:
    file = Write(plan.places.sysusers, SYSUSERS)
    if plan.write("the server is not root, and a group may submit", file):
        made = Run(("systemd-sysusers", str(file.path)))
        plan.add("users and groups", made, None, "users appliance and appliance-dnsmasq")


def _wanted_folders(config: Config, places: Places) -> list[tuple[Folder, str]]:
    paths, etc = config.paths, places.config.parent
    served = "what boxes load; root fills it"
    return [
        (Folder(etc), "configuration"),
        (Folder(paths.hosts, owner=SERVER), "`appliance host add` writes there"),
        (Folder(paths.state, 0o711, SERVER), "the server's state"),
        (Folder(paths.dhcp_hosts, owner=SERVER), "known boxes, told to dnsmasq"),
        (Folder(paths.srv), "images, files and results"),
        # An image's `su` has the setuid bit here too: only root and the group may reach it.
        (Folder(paths.srv / "os", 0o750, Owner(group=SERVER.group)), served),
        (Folder(paths.srv / "initrd"), served),
        (Folder(paths.srv / "kernel"), served),
        (Folder(paths.srv / "upload-files", owner=SERVER), "what clients send with their jobs"),
        (Folder(paths.srv / "result", owner=SERVER), "results"),
        # Sticky: the server adds single boxes' iPXE here, but cannot remove root's files.
        (Folder(paths.tftp, 0o1775, Owner(group=SERVER.group)), "what firmware loads"),
    ]


def _folders(plan: _Plan, config: Config) -> None:
    for folder, why in _wanted_folders(config, plan.places):
        plan.folder(why, folder)
    leases = config.paths.state / "dnsmasq.leases"
    if leases not in plan.found.texts:
        plan.add("dnsmasq's leases", Touch(leases, 0o644, DHCP), Remove(leases))


def _settings(plan: _Plan, wish: Wish, *, changed: bool) -> None:
    owner = Owner("root", SERVER.group)
    file = Write(plan.places.config, wish.text, 0o640, owner)
    plan.write("the configuration that was chosen; the group may read it", file)
    if changed:
        plan.restart |= {units.SERVER, *wish.daemons}
    made = units.drop_ins(wish.config, wish.doors)
    for name, text in made.items():
        path = plan.places.drop_ins / name
        if plan.write("ports or paths that the configuration changes", Write(path, text)):
            plan.restart |= {*units.SOCKETS, units.SERVER}
            plan.reload = True
    for name in sorted(units.DROP_INS - made.keys()):
        path = plan.places.drop_ins / name
        if path in plan.found.texts:
            undo = Write(path, plan.found.texts[path])
            plan.add("ports and paths are the default ones again", Remove(path), undo)
            plan.restart |= {*units.SOCKETS, units.SERVER}
            plan.reload = True


def _running(
    plan: _Plan, wish: Wish, before: Mapping[str, Any], *, upgrades: bool, program: Program
) -> None:
    reload = Run(("systemctl", "daemon-reload"))
    if plan.reload:
        plan.add("systemd reads the units", reload, None)
    wanted = [units.TARGET, *wish.daemons]
    links = {units.TARGET: "multi-user.target.wants"}
    enabled = {
        unit
        for unit in (units.TARGET, *units.DAEMONS.values())
        if plan.places.drop_ins / links.get(unit, "appliance.target.wants") / unit
        in plan.found.links
    }
    if new := [unit for unit in wanted if unit not in enabled]:
        undo = Run(("systemctl", "disable", "--now", *new))
        plan.add("they start with the machine", Run(("systemctl", "enable", *new)), undo)
    if left := sorted(enabled - set(wanted)):
        again: list[Action] = [Run(("systemctl", "enable", *left))]
        if ran := sorted(plan.found.active & set(left)):
            again.append(Run(("systemctl", "start", *ran)))
        do = Run(("systemctl", "disable", "--now", *left))
        plan.add("left out: somebody else serves this", do, All(tuple(again)))
    if units.TARGET not in plan.found.active or new:
        stop = Run(("systemctl", "stop", units.TARGET, *units.SOCKETS))
        before_it = None if units.TARGET in plan.found.active else stop
        plan.add("the lab is open", Run(("systemctl", "start", units.TARGET)), before_it)
    due = plan.restart & plan.found.active
    if upgrades and units.SERVER in due:
        _copying(plan, wish.config, reload, program)
        due -= {units.SERVER}
    if due:
        plan.add("so that changes take effect", Run(("systemctl", "restart", *sorted(due))), None)
    if plan.steps:
        plan.add("all of them run", Settle((units.SERVER, *wish.daemons)), None)


def _copying(plan: _Plan, config: Config, reload: Run, program: Program) -> None:
    """Adds a restart of the server that copies its state while no process has the state open.

    If the new version fails after it has converted the state, the version before uses that copy.
    """
    state = config.paths.state
    path = plan.places.passing
    passing = Write(path, state_copies.drop_in(state, path))
    # An undo must reload, too: else the version before copies again, and may fail.
    plan.reload = True
    why = "a copy of the state as the version before left it"
    plan.add(why, passing, Remove(passing.path))
    plan.add(why, reload, None)
    restart = Run(("systemctl", "restart", units.SERVER))
    undo = None
    if plan.found.reads < program.reads:
        stop = Run(("systemctl", "stop", *units.SOCKETS, units.SERVER))
        undo = All((stop, state_copies.back(state, plan.found.reads)))
    plan.add("the new version; sockets stay open, and boxes ask again", restart, undo)
    plan.add("the next start copies nothing", Remove(passing.path), None)
    plan.add("the next start copies nothing", reload, None)
