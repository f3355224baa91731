"""install/plan.py and install/removal.py: what an install, an upgrade and an uninstall do."""

import json
import re
import subprocess
from pathlib import Path

import attrs
import pytest

from appliance.config import Config, Network, Paths, Ports
from appliance.install import manifest, plan, removal, settings, state_copies, units
from appliance.install.actions import (
    All,
    Folder,
    GiveBack,
    Install,
    Link,
    Owner,
    Remove,
    RemoveEmpty,
    Run,
    Touch,
    Unpack,
    Write,
)
from appliance.install.site import PACKAGES as BY_PART
from appliance.install.site import Found, Places, Program, Wish
from appliance.web import listen

PLACES = Places()
NETWORK = Network(interface="lab0", address="172.28.0.1", dhcp_range=("172.28.0.2", "172.28.0.9"))
UNITS = {name: f"[Unit] {name}\n" for name in ("appliance.service", "appliance-cifs.service")}
PACKAGES = frozenset(name for names in BY_PART.values() for name in names)
LIB = Path("/usr/lib/appliance")


def program(name="1-aaa", **changed):
    return Program(name, Path("/tmp/unpacked"), "launcher", {**UNITS, **changed}, {"usr/man": "x"})


def wish(config=None, without=()):
    config = config or Config(network=NETWORK)
    text = settings.text(config.network)
    return Wish(config, text, listen.ports_of(config), frozenset(without))


def after(found, steps):
    """What the server is like once the steps are done, as far as plans look at it."""
    texts, links, folders = dict(found.texts), dict(found.links), dict(found.folders)
    packages, active, tftp = set(found.packages), set(found.active), found.tftp
    wants = PLACES.drop_ins / "appliance.target.wants"
    for step in steps:
        match step.do:
            case Write(path, text):
                texts[path] = text
            case Touch(path):
                texts[path] = ""
            case Remove(path):
                texts.pop(path, None)
            case Link(path, target):
                links[path] = target
            case Folder(path, mode, owner):
                folders[path] = (owner, mode)
            case Unpack(_, _, target):
                folders[target] = (Owner(), 0o755)
            case Install(names):
                packages |= set(names)
            case Run(("systemctl", "enable", *names)):
                links |= {wants / name: "x" for name in names if name != units.TARGET}
                links[PLACES.drop_ins / "multi-user.target.wants" / units.TARGET] = "x"
            case Run(("systemctl", "disable", "--now", *names)):
                for name in names:
                    links.pop(wants / name)
            case Run(("systemctl", "start", units.TARGET)):
                active |= {units.TARGET, units.SERVER, *units.SOCKETS, *units.DAEMONS.values()}
            case Run((_, "tftpboot")):
                tftp = True
    return Found(frozenset(packages), texts, links, folders, frozenset(active), tftp)


BARE = Found(folders={Path("/srv"): (Owner(), 0o755), Path("/usr"): (Owner(), 0o755)})


def installed(asked=None, program_=None):
    return after(BARE, plan.install(asked or wish(), BARE, program_ or program(), PLACES))


def commands(steps):
    return [step.do.command for step in steps if isinstance(step.do, Run)]


def test_a_second_install_of_the_same_finds_nothing_to_do():
    assert [] == plan.install(wish(), installed(), program(), PLACES)


def test_everything_is_there_before_the_lab_opens():
    steps = plan.install(wish(), BARE, program(), PLACES)
    done = [step.do for step in steps]
    opened = done.index(Run(("systemctl", "start", units.TARGET)))

    def last(kind):
        return max(n for n, action in enumerate(done[:-2]) if isinstance(action, kind))

    assert last(Folder) < opened
    assert last(Write) < opened
    assert done.index(Run(("systemd-sysusers", str(PLACES.sysusers)))) < min(
        n for n, action in enumerate(done) if getattr(action, "owner", Owner()).user != "root"
    )


def test_a_step_that_makes_something_can_be_taken_back():
    kept = [step for step in plan.install(wish(), BARE, program(), PLACES) if step.undo is None]

    # What needs nothing, and what stays and says so.
    does = {type(step.do).__name__ for step in kept}
    assert {"Write", "Install", "Run", "Settle", "Remove"} == does
    stays = [step.stays for step in kept if step.stays]
    names = " ".join(name for names in BY_PART.values() for name in names)
    assert [
        f"{PLACES.kept}: what was installed, for a later install or uninstall",
        f"packages: {names}; to remove them: apt-get purge {names}",
        "users appliance and appliance-dnsmasq",
    ] == stays


def test_what_was_there_before_is_put_back_and_not_removed():
    texts = {PLACES.units / "appliance.service": "older\n"}
    found = attrs.evolve(BARE, texts=texts)
    undone = {step.do.path: step.undo for step in plan.install(wish(), found, program(), PLACES)
              if isinstance(step.do, Write)}  # fmt: skip

    assert "older\n" == undone[PLACES.units / "appliance.service"].text
    assert Remove(PLACES.config) == undone[PLACES.config]


def test_a_tftp_root_of_somebody_else_is_never_removed():
    others = attrs.evolve(BARE, folders={**BARE.folders, Path("/tftpboot"): (Owner(), 0o755)})
    for found, undo in ((others, None), (BARE, Remove(Path("/tftpboot")))):
        steps = plan.install(wish(), found, program(), PLACES)
        (laid,) = [step for step in steps if "tftpboot" in getattr(step.do, "command", ())]
        assert undo == laid.undo


def test_packages_are_those_that_are_missing_and_wanted():
    found = attrs.evolve(BARE, packages=frozenset({"ipxe", "cpio", "mmdebstrap", "samba"}))
    steps = plan.install(wish(without={"nfs"}), found, program(), PLACES)

    assert [("dnsmasq-base",)] == [s.do.names for s in steps if isinstance(s.do, Install)]


def failed(found, steps, at):
    """What the server is like after an install whose step number `at` fails."""
    *done, broken = steps[: at + 1]
    back = [step.undo for step in reversed([*done, broken]) if step.undo is not None]
    each = (a for undo in back for a in (undo.actions if isinstance(undo, All) else [undo]))
    undone = [attrs.evolve(broken, do=action) for action in each]
    return after(found, [*done, *undone])


def test_a_later_install_and_its_uninstall_know_of_packages_that_one_that_failed_brought():
    steps = plan.install(wish(), BARE, program(), PLACES)
    at = next(n for n, step in enumerate(steps) if isinstance(step.do, Run))
    left = failed(BARE, steps, at)
    assert {PLACES.kept} == left.texts.keys()
    assert PACKAGES == left.packages
    (said,) = manifest.brought(manifest.of(left.texts, PLACES))
    assert said == f"packages that an install brought: apt-get purge {' '.join(sorted(PACKAGES))}"

    later = after(left, plan.install(wish(), left, program(), PLACES))
    assert sorted(PACKAGES) == json.loads(later.texts[PLACES.record])["packages"]
    assert PLACES.kept not in later.texts
    assert [] == plan.install(wish(), later, program(), PLACES)


def test_an_upgrade_that_fails_has_its_new_packages_in_the_record_that_is_there():
    before = attrs.evolve(installed(), packages=PACKAGES - {"cpio"})
    record = json.loads(before.texts[PLACES.record])
    text = json.dumps({**record, "packages": ["samba"]})
    before = attrs.evolve(before, texts={**before.texts, PLACES.record: text})
    steps = plan.install(wish(), before, program("2-bbb"), PLACES)
    at = next(n for n, step in enumerate(steps) if isinstance(step.do, Run))
    found = json.loads(failed(before, steps, at).texts[PLACES.record])

    assert {**record, "packages": ["cpio", "samba"]} == found


def test_what_is_left_to_others_is_neither_enabled_nor_started():
    steps = plan.install(wish(without={"nfs", "dnsmasq"}), BARE, program(), PLACES)
    enable = next(c for c in commands(steps) if c[1] == "enable")

    assert ("systemctl", "enable", units.TARGET, "appliance-cifs.service") == enable
    assert not any("appliance-nfs" in str(step.do) for step in steps if step.do != enable)


def test_what_is_left_to_others_from_now_on_is_stopped():
    steps = plan.install(wish(without={"nfs"}), installed(), program(), PLACES)

    assert ("systemctl", "disable", "--now", "appliance-nfs.service") in commands(steps)


def test_an_upgrade_restarts_the_server_and_nothing_else():
    steps = plan.install(wish(), installed(), program("2-bbb"), PLACES)

    restarts = [command for command in commands(steps) if command[1] == "restart"]
    assert [("systemctl", "restart", units.SERVER)] == restarts
    assert not any("stop" in command for command in commands(steps))


def test_an_upgrade_copies_the_state_while_nobody_has_it_open():
    done = [s.do for s in plan.install(wish(), installed(), program("2-bbb"), PLACES)]
    restart = done.index(Run(("systemctl", "restart", units.SERVER)))
    (copying,) = [a for a in done if isinstance(a, Write) and a.path == PLACES.passing]

    assert "ExecStartPre=+" in copying.text
    assert "/var/lib/appliance-before" in copying.text
    assert done.index(copying) < restart < done.index(Remove(PLACES.passing))


def test_an_upgrade_that_fails_ends_with_the_version_before_running_again():
    steps = plan.install(wish(), installed(), program("2-bbb"), PLACES)
    links = {s.do.path: s.undo for s in steps if isinstance(s.do, Link)}

    assert Link(PLACES.current, "versions/1-aaa") == links[PLACES.current]
    # The first step is taken back last.
    assert isinstance(steps[0].undo, All)
    assert Run(("systemctl", "restart", units.SERVER)) == steps[0].undo.actions[-1]


def test_an_upgrade_keeps_the_version_before_and_the_configuration():
    found = after(installed(), plan.install(wish(), installed(), program("2-bbb"), PLACES))

    assert ("versions/2-bbb", "versions/1-aaa") == (
        found.links[PLACES.current], found.links[PLACES.previous],
    )  # fmt: skip
    assert {LIB / "versions/1-aaa", LIB / "versions/2-bbb"} <= found.folders.keys()
    assert settings.text(NETWORK) == found.texts[PLACES.config]


def test_a_unit_that_changed_is_restarted_with_what_is_new():
    changed = program("2-bbb", **{"appliance-cifs.service": "[Unit] new\n"})
    steps = plan.install(wish(), installed(), changed, PLACES)

    assert ("systemctl", "restart", "appliance-cifs.service") in commands(steps)
    assert ("systemctl", "daemon-reload") in commands(steps)


def test_a_configuration_that_changed_restarts_whoever_reads_it():
    moved = Config(network=attrs.evolve(NETWORK, dhcp_range=("172.28.0.3", "172.28.0.9")))
    found = attrs.evolve(installed(), texts={
        **installed().texts, PLACES.config: settings.text(moved.network)})  # fmt: skip
    steps = plan.install(wish(moved), found, program(), PLACES)

    everybody = ("systemctl", "restart", *sorted({units.SERVER, *units.DAEMONS.values()}))
    assert [everybody] == [c for c in commands(steps) if c[1] == "restart"]


def test_an_install_that_was_cut_short_is_gone_over_and_its_mark_removed():
    found = attrs.evolve(installed(), texts={**installed().texts, PLACES.unfinished: "x"})
    steps = plan.install(wish(), found, program(), PLACES)

    assert [Remove(PLACES.unfinished)] == [step.do for step in steps][-1:]


def test_ports_of_its_own_become_a_drop_in_and_usual_ones_take_it_away():
    other = Config(network=NETWORK, ports=Ports(scheduler=3333))
    found = installed(wish(other))
    drop_in = PLACES.drop_ins / "appliance.socket.d/ports.conf"

    streams = [x for x in found.texts[drop_in].splitlines() if x.startswith("ListenStream=")]
    assert ["ListenStream=", "ListenStream=0.0.0.0:3333"] == streams[:2]
    assert 1 + len(listen.ports_of(other)) == len(streams)
    steps = plan.install(wish(), found, program(), PLACES)
    assert Remove(drop_in) in [step.do for step in steps]
    assert [] == plan.install(wish(), after(found, steps), program(), PLACES)


def test_paths_of_its_own_may_be_written_by_who_writes_them():
    other = Config(network=NETWORK, paths=Paths(srv=Path("/data/srv"), state=Path("/data/state")))
    made = units.drop_ins(other, listen.ports_of(other))

    assert {"appliance.service.d/paths.conf", "appliance-dnsmasq.service.d/paths.conf"} == {*made}
    assert "/data/srv/result" in made["appliance.service.d/paths.conf"]
    assert {} == units.drop_ins(Config(), listen.ports_of(Config()))


def test_the_files_of_a_debian_package_are_dpkgs():
    found = attrs.evolve(BARE, texts={PLACES.packaged: ""})
    steps = plan.install(wish(), found, program(), PLACES)

    paths = [getattr(step.do, "path", None) for step in steps]
    assert not any(path in paths for path in (PLACES.command, PLACES.current))
    assert not any(isinstance(step.do, Unpack) for step in steps)
    assert PLACES.config in paths


def test_an_uninstall_removes_what_was_made_and_leaves_what_is_the_operators():
    found = installed()
    steps = removal.uninstall(wish().config, found, PLACES, purge=False)
    gone = {step.do.path for step in steps if isinstance(step.do, Remove)}

    assert {PLACES.command, PLACES.lib, PLACES.sysusers, Path("/usr/man")} <= gone
    assert {PLACES.units / name for name in UNITS} <= gone
    assert not any(path.is_relative_to("/srv") or path.is_relative_to("/etc/appliance")
                   or path.is_relative_to("/var/lib") for path in gone)  # fmt: skip
    assert ("systemctl", "stop", *removal._ALL) in commands(steps)
    assert any("systemctl reset-failed" in command[-1] for command in commands(steps))


@pytest.mark.parametrize("there", [None, (Owner(), 0o755)])
def test_no_local_user_but_those_of_the_group_reaches_an_images_own_su(there):
    """Programs of images are setuid, as boxes need them, and may be anybody's."""
    folders = BARE.folders if there is None else {**BARE.folders, Path("/srv/os"): there}
    steps = plan.install(wish(), attrs.evolve(BARE, folders=folders), program(), PLACES)
    [made] = [step.do for step in steps if getattr(step.do, "path", None) == Path("/srv/os")]

    assert isinstance(made, Folder)
    assert (0o750, "appliance") == (made.mode, made.owner.group)


def test_a_purge_removes_of_srv_only_what_an_install_made():
    there = {**BARE.folders, Path("/srv/os"): (Owner(), 0o755)}
    before = attrs.evolve(BARE, folders=there)
    found = after(before, plan.install(wish(), before, program(), PLACES))
    steps = removal.uninstall(wish().config, found, PLACES, purge=True)
    gone = {step.do.path for step in steps if isinstance(step.do, Remove | RemoveEmpty)}

    assert Path("/srv/os") not in gone
    assert [GiveBack(Path("/srv/os"), 0o755, Owner())] == [
        step.do for step in steps if isinstance(step.do, Folder | GiveBack)
    ]
    assert {Path("/srv/result"), Path("/var/lib/appliance"), PLACES.config} <= gone
    record = manifest.of(found.texts, PLACES)
    left = removal.left(wish().config, record, PLACES, purge=True)
    assert ["/srv/os: was there before any install"] == [each for each in left if "/srv" in each]


def test_a_purge_after_a_second_install_removes_what_the_first_one_made():
    first = installed()
    steps = removal.uninstall(wish().config, first, PLACES, purge=False)
    kept = after(first, steps).texts[PLACES.kept]
    left = attrs.evolve(BARE, texts={PLACES.kept: kept}, folders=first.folders)
    second = after(left, plan.install(wish(), left, program(), PLACES))
    steps = removal.uninstall(wish().config, second, PLACES, purge=True)
    gone = {step.do.path for step in steps if isinstance(step.do, Remove)}

    assert {Path("/srv/result"), PLACES.kept} <= gone


def test_a_purge_gives_a_folder_back_as_it_was_before_the_first_of_two_installs():
    before = attrs.evolve(BARE, folders={**BARE.folders, Path("/srv/os"): (Owner("ann"), 0o711)})
    first = after(before, plan.install(wish(), before, program(), PLACES))
    again = after(first, plan.install(wish(), first, program("second"), PLACES))
    steps = removal.uninstall(wish().config, again, PLACES, purge=True)

    assert GiveBack(Path("/srv/os"), 0o711, Owner("ann")) in [step.do for step in steps]


# Folders that purges remove; what an earlier version made with another mode, or a person changed.
REMOVED = ["/srv/os", "/srv/result", "/var/lib/appliance", "/etc/appliance/hosts", "/etc/appliance",
           "/var/lib/appliance/dhcp-hosts", "/srv"]  # fmt: skip


def changed_by_hand(found, path):
    return attrs.evolve(found, folders={**found.folders, Path(path): (Owner("ann"), 0o700)})


def purged(found):
    return [s.do for s in removal.uninstall(wish().config, found, PLACES, purge=True)]


@pytest.mark.parametrize("path", REMOVED)
def test_a_purge_makes_no_folder_again_that_an_install_made_and_another_one_changed(path):
    bare = attrs.evolve(BARE, folders={Path("/usr"): (Owner(), 0o755)})
    first = changed_by_hand(after(bare, plan.install(wish(), bare, program(), PLACES)), path)
    again = after(first, plan.install(wish(), first, program("second"), PLACES))
    record = manifest.of(again.texts, PLACES)

    assert path in record["made"]
    assert path not in record["closed"]
    both = {**record, "closed": {path: ["ann", "root", "700"]}}  # as it was kept until now
    text = manifest.written(PLACES.record, both).text
    for found in (again, attrs.evolve(again, texts={**again.texts, PLACES.record: text})):
        assert not [a for a in purged(found) if isinstance(a, Folder | GiveBack)]


@pytest.mark.parametrize("path", ["/var/lib/appliance", "/etc/appliance/hosts",
                                  "/var/lib/appliance/dhcp-hosts"])  # fmt: skip
def test_a_purge_gives_nothing_back_that_it_removes_whoever_made_it(path):
    before = changed_by_hand(BARE, path)
    found = after(before, plan.install(wish(), before, program(), PLACES))

    assert path in manifest.of(found.texts, PLACES)["closed"]
    assert not [a for a in purged(found) if isinstance(a, Folder | GiveBack)]


def test_a_purge_removes_all_that_lies_beside_the_state():
    gone = {str(a.path) for a in purged(installed()) if isinstance(a, Remove)}
    steps = plan.install(wish(), installed(), program("2-bbb"), PLACES)
    [copying] = [
        s.do.text for s in steps if isinstance(s.do, Write) and s.do.path == PLACES.passing
    ]
    back = state_copies.back(Path("/var/lib/appliance"), 1)
    shells = " ".join([copying, back.tidy, back.swap, back.unswap, back.keep, back.unkeep])
    named = set(re.findall(r"/var/lib/appliance[a-z.-]*", shells))

    assert 8 == len(named)
    assert named <= gone


def test_a_purge_removes_the_group_though_it_has_members():
    steps = removal.uninstall(wish().config, installed(), PLACES, purge=True)
    said = [command[2] for command in commands(steps) if "userdel" in command[-1]]

    assert ["groupdel appliance", "groupdel appliance-dnsmasq"] == [
        re.search(r"groupdel [a-z-]+", each)[0] for each in said
    ]


def test_an_uninstall_says_what_it_leaves():
    record = json.loads(installed().texts[PLACES.record])
    left = "\n".join(removal.left(wish().config, record, PLACES, purge=False))

    for what in ("/srv:", "/var/lib/appliance:", "/etc/appliance:", "users", "apt-get purge"):
        assert what in left
    purged = removal.left(wish().config, record, PLACES, purge=True)
    assert ["packages that an install brought: apt-get purge " + " ".join(sorted(PACKAGES))] == (
        purged
    )


@pytest.mark.parametrize("state", [False, True])
def test_a_rollback_goes_back_to_the_version_before_and_a_second_one_forward_again(state):
    found = after(installed(), plan.install(wish(), installed(), program("2-bbb"), PLACES))
    steps = removal.rollback(wish().config, found, program(), PLACES, state=state)
    links = next(step.do for step in steps if isinstance(step.do, All))

    assert All((Link(PLACES.current, "versions/1-aaa"),
                Link(PLACES.previous, "versions/2-bbb"))) == links  # fmt: skip
    first, *_, last = commands(steps)
    assert ("systemctl", "stop", *units.SOCKETS, units.SERVER) == first
    assert ("systemctl", "start", units.TARGET) == last
    assert state == any("appliance-before" in str(command) for command in commands(steps))


@pytest.mark.parametrize("state", [False, True])
def test_a_rollback_that_fails_swaps_back_while_nobody_runs_and_starts_what_systemd_has_read(state):
    found = after(installed(), plan.install(wish(), installed(), program("2-bbb"), PLACES))
    old = program(**{"appliance.service": "[Unit] older\n"})
    steps = removal.rollback(wish().config, found, old, PLACES, state=state)
    undone = going_back(steps)
    stop = undone.index(Run(("systemctl", "stop", *units.SOCKETS, units.SERVER)))
    reload = undone.index(Run(("systemctl", "daemon-reload")))
    units_back = [n for n, action in enumerate(undone) if isinstance(action, Write)]
    swapped = [n for n, action in enumerate(undone) if "appliance-leaving" in str(action)]

    assert 0 == stop
    assert units_back
    assert state == bool(swapped)
    assert max(units_back + swapped) < reload < len(undone) - 1
    assert Run(("systemctl", "start", units.TARGET)) == undone[-1]


def test_an_upgrade_that_fails_leaves_systemd_nothing_of_the_drop_in_that_copies():
    """What is gone from the disk would run once more, and stop the version before."""
    steps = plan.install(wish(), installed(), program("2-bbb"), PLACES)
    undone = going_back(steps)
    reload = undone.index(Run(("systemctl", "daemon-reload")))

    assert undone.index(Remove(PLACES.passing)) < reload
    assert reload < undone.index(Run(("systemctl", "restart", units.SERVER)))


def test_what_was_left_to_others_in_an_install_that_fails_runs_again():
    steps = plan.install(wish(without={"nfs"}), installed(), program(), PLACES)
    undone = going_back(steps)

    assert Run(("systemctl", "start", "appliance-nfs.service")) in undone
    idle = attrs.evolve(installed(), active=frozenset({units.TARGET}))
    steps = plan.install(wish(without={"nfs"}), idle, program(), PLACES)
    assert "start appliance-nfs" not in " ".join(map(str, going_back(steps)))


def going_back(steps):
    """The actions that take `steps` back, in order."""
    undone = [step.undo for step in reversed(steps) if step.undo is not None]
    return [a for undo in undone for a in (undo.actions if isinstance(undo, All) else [undo])]


def the_copying(folder):
    """What an upgrade's start does first, where the state is folder/lib/state: for a shell."""
    state = folder / "lib/state"
    state.mkdir(parents=True)
    (state / "file").write_text("of then")
    places, config = Places(folder), Config(network=NETWORK, paths=Paths(state=state))
    found = attrs.evolve(installed(), texts={}, links={places.current: "versions/1-aaa"})
    steps = plan.install(Wish(config, "", ()), found, program("2-bbb"), places)
    [drop_in] = [s.do for s in steps if isinstance(s.do, Write) and s.do.path == places.passing]
    places.passing.parent.mkdir(parents=True)
    places.passing.write_text(drop_in.text)
    return drop_in.text.partition("ExecStartPre=+")[2].replace("\\\n", "")


@pytest.mark.parametrize("earlier", [True, False])
def test_the_state_is_copied_by_the_first_start_of_an_upgrade_and_by_none_after_it(
    tmp_path, earlier
):
    """systemd starts a new version that fails again, by then with a state of its own."""
    line = the_copying(tmp_path)
    state, copy = tmp_path / "lib/state", tmp_path / "lib/state-before"
    if earlier:
        copy.mkdir()
        (copy / "of an upgrade before").write_text("")

    for text in ("of then", "of the new version"):
        (state / "file").write_text(text)
        subprocess.run(["sh", "-c", line], check=True)

    assert ["file"] == [path.name for path in copy.iterdir()]
    assert "of then" == (copy / "file").read_text()
    assert {"state", "state-before"} == {path.name for path in state.parent.iterdir()}


@pytest.mark.parametrize("broken", ["cp", "chmod", "mv"])
def test_a_copy_of_an_earlier_upgrade_is_there_until_the_new_one_is_whole(tmp_path, broken):
    line = the_copying(tmp_path)
    copy = tmp_path / "lib/state-before"
    copy.mkdir()
    (copy / "earlier").write_text("")
    (tmp_path / broken).write_text('#!/bin/sh\nfor to; do :; done; mkdir -p "$to"; exit 1\n')
    (tmp_path / broken).chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    done = subprocess.run(["sh", "-c", line], env={"PATH": path}, check=False)

    assert 0 != done.returncode
    assert ["earlier"] == [path.name for path in copy.iterdir()]
    if broken != "mv":
        assert {"state", "state-before"} == {path.name for path in (tmp_path / "lib").iterdir()}


# ---- versions of the state


def rolled_back(found_state, found_copy, reads, *, state=False):
    found = attrs.evolve(installed(), state=found_state, copy=found_copy)
    old = attrs.evolve(program(), reads=reads)
    return removal.refusal(wish().config, found, old, state=state)


@pytest.mark.parametrize(
    ("now", "copy", "reads", "state", "words"),
    [
        (1, 0, 1, False, ""),
        (2, 1, 2, False, ""),
        (1, 1, 2, False, ""),  # forward again
        (0, 0, 1, False, ""),  # no state, or none that says its version
        (2, 1, 1, True, ""),
        (2, 1, 1, False, "`appliance install --rollback --with-state` goes back to the state"),
        (3, 2, 1, True, "stay with the version that is installed"),
        (2, 0, 1, False, "/var/lib/appliance-before has no state from before the upgrade"),
    ],
)
def test_a_rollback_to_a_program_that_cannot_read_the_state_is_refused_with_what_to_do(
    now, copy, reads, state, words
):
    why = rolled_back(now, copy, reads, state=state)

    assert bool(words) == bool(why)
    assert words in why
    if words:
        where = "/var/lib/appliance-before" if state else "/var/lib/appliance"
        version = copy if state else now
        said = f"{where}: version {version} of the state, and 1-aaa reads none above {reads}"
        assert why.startswith(said)


@pytest.mark.parametrize(("before", "after_it"), [(1, 2), (2, 2), (2, 3)])
def test_an_upgrade_that_fails_gives_the_version_before_a_state_that_it_reads(before, after_it):
    found = attrs.evolve(installed(), reads=before)
    steps = plan.install(wish(), found, attrs.evolve(program("2-bbb"), reads=after_it), PLACES)
    (restart,) = [step for step in steps if step.do == Run(("systemctl", "restart", units.SERVER))]

    if before == after_it:
        assert restart.undo is None
        return
    stop, back = restart.undo.actions
    assert ("systemctl", "stop", *units.SOCKETS, units.SERVER) == stop.command
    assert before == back.reads
    assert ["/var/lib/appliance", "/var/lib/appliance-before", "/var/lib/appliance-after"] == [
        str(path) for path in (back.state, back.copy, back.aside)
    ]
    # The version before is started once its links stand again, and that is after this.
    undone = [step.undo for step in reversed(steps) if step.undo is not None]
    links = next(n for n, undo in enumerate(undone) if isinstance(undo, Link))
    assert undone.index(restart.undo) < links < len(undone) - 1
    assert Run(("systemctl", "restart", units.SERVER)) in undone[-1].actions
