"""fs/owner: what root does in a folder that somebody else owns, it does as that owner."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from appliance.boot.images import image_gc, pinning  # noqa: F401
from appliance.control import lab_verbs  # noqa: F401
from appliance.errors import Refused
from appliance.fs import owner
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file
from appliance.keep.repair import backup
from appliance.keep.state import records
from tests import traps
from tests.test_state import ARCHIVING, flip, written
from tests.traps import KINDS, USER

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away, and acts as others"),
]

# Every name that a command could meet or make in the state folder.
NAMES = (
    "lock", "reserve", "snapshot-000001", "snapshot-000001.new", ".snapshot-000001.new",
    "journal-000001", ".journal-000001.new", "snapshot-000002", "journal-000002",
    "snapshot-000003", "snapshot-000003.new", "journal-000003", "damaged-1", "replaced-1",
    "dnsmasq.leases", ".dnsmasq.leases.new", "dhcp-hosts", *archive_file.FILES,
    archive.MENDED, f".{archive_file.NAME}.new", f".{archive_file.NAME}.new-wal",
)  # fmt: skip
COMMANDS = {
    "check": ("state", "check"),
    "repair": ("state", "repair", "--yes"),
    "export": ("state", "export"),
    "import": ("state", "import", "export.json"),
    "restore": ("restore", "lab.zip", "--yes"),
    "gc": ("image", "gc", "--dry-run"),
}


class Lab:
    """An installed lab's folders: root's, and in them the server's."""

    def __init__(self, place: Path) -> None:
        self.place, self.state, self.hosts = place, place / "state", place / "etc/hosts"
        self.config, self.tftp = place / "etc/appliance.toml", place / "tftp"
        self.victim = traps.make_victim(place / "root")
        for folder in (self.hosts, place / "srv/os", place / "srv/result", place / "run"):
            folder.mkdir(parents=True)
        self.tftp.mkdir()
        self.tftp.chmod(0o1775)
        os.chown(self.tftp, 0, USER)
        paths = {"state": self.state, "srv": place / "srv", "run": place / "run",
                 "hosts": self.hosts, "tftp": self.tftp}  # fmt: skip
        lines = [f'{key} = "{path}"' for key, path in paths.items()]
        self.config.write_text("\n".join(["[paths]", *lines, ""]))
        for folder in (self.hosts, place / "srv/result"):
            traps.give(folder)

    def run(self, *words):
        files = {"export.json", "lab.zip"}
        named = [self.place / word if word in files else word for word in words]
        return traps.run(self.config, *named, said=self.place / "said")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A state with an archive, which is copied for each test."""
    folder = tmp_path_factory.mktemp("whole") / "state"
    written(folder, ARCHIVING, 150)
    return folder


@pytest.fixture
def lab(open_path, whole):
    made = Lab(open_path)
    shutil.copytree(whole, made.state)
    traps.give(made.state)
    return made


def prepare(lab, command):
    """What a command wants to find, for it to do all that it does."""
    if command == "repair":
        flip(lab.state / "journal-000002", 400)
    if command == "import":
        assert 0 == lab.run("state", "export", "--output", str(lab.place / "export.json")).code
        shutil.rmtree(lab.state)
        lab.state.mkdir()
        traps.give(lab.state)
    if command == "restore":
        with backup.Writer(lab.place / "lab.zip") as writer:
            image = records.image_of(Store(), 0)
            writer.add(f"{backup.STATE}/{backup.SNAPSHOT}", records.snapshot(image))
            writer.add(f"{backup.STATE}/{backup.LEASES}", [b"1 52:54:00:00:00:01 10.0.0.5 * *\n"])
            writer.add(f"{backup.HOSTS}/box-1.yaml", [b"mac: [52:54:00:12:34:56]\n"])
            writer.add(backup.CONFIGURATION, [lab.config.read_bytes()])
            about = {"jobs": 0, "archived": 0, "boxes": 0, "lab": "lab", "made": "now"}
            writer.finish(about)


def names_it(name, said):
    """Whether a person is told what is in the way: the file, or what is made of it."""
    wanted = name.removesuffix("-wal").removesuffix(".new").lstrip(".")
    if name == archive.MENDED:
        return wanted in said or "its repair was broken off" in said
    return wanted in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_of_roots_walks_into_a_trap_in_the_state_folder(lab, whole, command, kind):
    prepare(lab, command)
    before, found = traps.facts(lab.victim), lab.place / "found"
    shutil.copytree(lab.state, found)
    traps.give(found)
    for name in NAMES:
        shutil.rmtree(lab.state)
        shutil.copytree(found, lab.state)
        traps.give(lab.state)
        traps.plant(kind, lab.state / name, lab.victim)
        ran = lab.run(*COMMANDS[command])
        what = f"{name}: exit code {ran.code}, said {ran.said!r}"

        assert before == traps.facts(lab.victim), what
        assert ran.code != 99, what
        assert "root-only-secret" not in ran.said, what
        assert ran.code == 0 or names_it(name, ran.said), what
        strangers = [
            path
            for path in lab.state.rglob("*")
            if path.lstat().st_uid == 0 and not path.samefile(lab.victim / "secret")
        ]
        assert [] == strangers, what


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_trap_each_command_does_its_work_as_the_owner(lab, command):
    """Else the tests above would hold for a program that does nothing."""
    prepare(lab, command)
    ran = lab.run(*COMMANDS[command])

    assert 0 == ran.code, ran.said
    assert {USER} == {path.lstat().st_uid for path in lab.state.rglob("*")}
    assert {USER} == {path.lstat().st_uid for path in (lab.hosts, *lab.hosts.iterdir())}
    if command == "restore":
        config = lab.config.stat()
        assert (0, USER, 0o640) == (config.st_uid, config.st_gid, config.st_mode & 0o7777)


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_state_folder_that_its_parents_owner_may_swap_is_refused(lab, command):
    """It was a folder when root looked, and is a link to one of root's when root writes."""
    prepare(lab, command)
    before = traps.facts(lab.victim)
    (lab.place / "theirs").mkdir()
    lab.state.rename(lab.place / "theirs/kept")
    (lab.place / "theirs/state").symlink_to(lab.victim / "folder")
    traps.give(lab.place / "theirs")
    text = lab.config.read_text()
    lab.config.write_text(text.replace(f'"{lab.state}"', f'"{lab.place}/theirs/state"'))
    ran = lab.run(*COMMANDS[command])

    assert 4 == ran.code, ran.said
    assert "something else in the place of" in ran.said
    assert before == traps.facts(lab.victim)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["box-1.yaml", ".box-1.yaml.new", "box-2.yaml"])
def test_a_restore_walks_into_no_trap_among_the_hosts_files(lab, name, kind):
    prepare(lab, "restore")
    traps.plant(kind, lab.hosts / name, lab.victim)
    before = traps.facts(lab.victim)
    ran = lab.run(*COMMANDS["restore"])

    assert before == traps.facts(lab.victim)
    assert ran.code == 0 or names_it(name, ran.said)
    copies = [path for path in lab.state.rglob("*") if path.is_file() and path.lstat().st_nlink < 2]
    assert not any(b"root-only-secret" in path.read_bytes() for path in copies)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_to_a_file_goes_through_no_link(lab, kind):
    output = lab.place / "theirs/out.json"
    output.parent.mkdir()
    for name in ("out.json", ".out.json.new"):
        traps.plant(kind, output.with_name(name), lab.victim)
    before = traps.facts(lab.victim)
    ran = lab.run("state", "export", "--output", output)

    assert before == traps.facts(lab.victim)
    assert ran.code == 0 or "out.json" in ran.said


def test_root_acts_as_the_owner_and_is_root_again(open_path):
    os.chown(open_path, USER, USER)
    groups = os.getgroups()
    with owner.acting(open_path):
        (open_path / "file").touch()
        with pytest.raises(PermissionError):
            Path("/etc/shadow").read_bytes()
        during = os.getresuid(), os.getegid(), os.getgroups()
    nobody = pwd.getpwuid(USER)

    assert ((0, USER, 0), nobody.pw_gid, [nobody.pw_gid]) == during
    assert (0, 0, groups) == (os.geteuid(), os.getegid(), os.getgroups())
    assert USER == (open_path / "file").stat().st_uid


def test_a_user_without_a_name_has_no_group_but_its_own(open_path):
    user = next(n for n in range(50_000, 60_000) if owner.name(n) == f"user {n}")
    os.chown(open_path, user, 0)
    with owner.acting(open_path):
        assert (user, user, []) == (os.geteuid(), os.getegid(), os.getgroups())


def test_an_error_makes_root_root_again(open_path):
    os.chown(open_path, USER, USER)
    with pytest.raises(ZeroDivisionError), owner.acting(open_path):
        raise ZeroDivisionError
    assert (0, 0) == (os.geteuid(), os.getegid())


def test_what_is_missing_is_made_by_whoever_has_the_folder_above(open_path):
    os.chown(open_path, USER, USER)
    with owner.acting(open_path / "a/b"):
        assert USER == os.geteuid()


def test_a_folder_that_its_owner_cannot_reach_is_refused(tmp_path):
    tmp_path.chmod(0o700)
    (tmp_path / "copy").mkdir()
    os.chown(tmp_path / "copy", USER, USER)
    with (
        pytest.raises(Refused, match="nobody, who owns it, cannot get there"),
        owner.acting(tmp_path / "copy"),
    ):
        pass
    assert 0 == os.geteuid()


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o777])
def test_a_folder_of_roots_that_others_may_change_is_refused(open_path, mode):
    (open_path / "shared").mkdir()
    (open_path / "shared/state").mkdir()
    os.chown(open_path / "shared", 0, USER)
    (open_path / "shared").chmod(mode)
    with pytest.raises(Refused, match="others than its owner may change"):
        owner.of(open_path / "shared/state")


def test_in_a_sticky_folder_only_what_others_made_is_theirs(open_path):
    (open_path / "shared").mkdir()
    (open_path / "shared").chmod(0o1777)
    (open_path / "shared/ours").mkdir()
    (open_path / "shared/theirs").symlink_to(open_path)
    os.chown(open_path / "shared/theirs", USER, USER, follow_symlinks=False)

    assert 0 == owner.of(open_path / "shared/ours")
    with pytest.raises(Refused, match="something else in the place of"):
        owner.of(open_path / "shared/theirs")


def test_a_link_of_roots_leads_on(open_path):
    (open_path / "big").mkdir()
    os.chown(open_path / "big", USER, USER)
    (open_path / "state").symlink_to("./x/../big")
    (open_path / "x").mkdir()

    assert USER == owner.of(open_path / "state")
    assert USER == owner.of(open_path / "x/../state")


def test_links_in_a_circle_end(open_path):
    (open_path / "a").symlink_to("b")
    (open_path / "b").symlink_to("a")
    with pytest.raises(OSError, match="symbolic links"):
        owner.of(open_path / "a")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_program_that_only_root_can_read_imports_nothing_as_the_owner(lab, command):
    """A checkout in root's home, or the one file, which unpacks itself for root alone."""
    prepare(lab, command)
    words = [lab.place / word if "." in word else word for word in COMMANDS[command]]
    hook = (
        "import os, sys\n"
        "class Refuses:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        assert os.geteuid() != {USER}, f'{{name}} is imported as the owner'\n"
        "sys.meta_path.insert(0, Refuses())\n"
        "from appliance.cli import main\n"
        "main()\n"
    )
    program = [sys.executable, "-c", hook, "--config", lab.config, *words]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == ran.returncode, ran.stderr
