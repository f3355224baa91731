"""What root lays out, installs and looks at beside the state, where others have a hand in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from appliance.boot.daemons import tftp
from appliance.config import Config, Paths
from appliance.doctor import facts, host
from appliance.errors import Refused
from appliance.install import execute, server_facts
from appliance.install.actions import Folder, Owner, Touch
from tests import traps
from tests.test_owner import Lab
from tests.traps import KINDS, USER

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="gives folders away, and acts as others"),
]
NOBODY = Owner("nobody", "nogroup")
LAID = ("undionly.kpxe", "boot.ipxe", "ipxe/bin-x86_64-efi/snp.efi")


@pytest.fixture
def lab(open_path):
    made = Lab(open_path)
    made.state.mkdir()
    traps.give(made.state)
    (open_path / "package").mkdir()
    for name in ("undionly.kpxe", "snponly.efi"):
        (open_path / "package" / name).write_text(name)
    return made


def lay_out(lab):
    return lab.run("tftpboot", "--ipxe", lab.place / "package")


def test_the_tftp_root_is_laid_out_and_taken_away(lab):
    """Else the tests below would hold for a program that does nothing."""
    assert 0 == lay_out(lab).code
    assert {0} == {(lab.tftp / name).stat().st_uid for name in LAID}
    (lab.tftp / "hosts/box-1").mkdir(parents=True)
    traps.give(lab.tftp / "hosts")
    (lab.tftp / "52-54-00-12-34-56").symlink_to("hosts/box-1")
    os.chown(lab.tftp / "52-54-00-12-34-56", USER, USER, follow_symlinks=False)

    assert 0 == lab.run("tftpboot", "--remove").code
    assert not lab.tftp.exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "name",
    [
        "undionly.kpxe.new", ".undionly.kpxe.new", "boot.ipxe.new", ".boot.ipxe.new",
        "undionly.kpxe", "boot.ipxe", "tftpboot", "ipxe",
    ],
)  # fmt: skip
def test_what_the_server_adds_to_the_tftp_root_leads_root_nowhere(lab, name, kind):
    """The server may add to it, since boxes have iPXE of their own."""
    traps.plant(kind, lab.tftp / name, lab.victim)
    before = traps.facts(lab.victim)
    ran = lay_out(lab)

    assert before == traps.facts(lab.victim)
    assert ran.code != 99, ran.said
    assert ran.code == 0 or name.removesuffix(".new").lstrip(".") in ran.said
    ran = lab.run("tftpboot", "--remove")

    assert before == traps.facts(lab.victim)
    assert ran.code == 0 or name in ran.said


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_server_gives_its_boxes_is_taken_away_as_the_server(lab, kind):
    """`hosts` in the tftp root was a link to /etc, and all of /etc went."""
    traps.plant(kind, lab.tftp / "hosts", lab.victim)
    before = traps.facts(lab.victim)
    ran = lab.run("tftpboot", "--remove")

    assert before == traps.facts(lab.victim)
    assert ran.code == 0 or "hosts" in ran.said


@pytest.mark.parametrize("kind", KINDS)
def test_an_install_gives_away_no_file_that_lies_there_already(lab, kind):
    leases = lab.state / "dnsmasq.leases"
    traps.plant(kind, leases, lab.victim)
    before = traps.facts(lab.victim)
    with pytest.raises(Refused, match=r"leases: a .* of user .* is in the way"):
        execute.do(Touch(leases, 0o644, Owner("daemon", "daemon")))
    assert before == traps.facts(lab.victim)


def test_an_install_makes_a_file_for_its_owner_and_may_do_so_again(lab):
    leases = lab.state / "dnsmasq.leases"
    for _ in range(2):
        execute.do(Touch(leases, 0o644, NOBODY))
        leases.write_text("kept" if leases.read_text() else "")
    found = leases.stat()
    assert (USER, 0o100644) == (found.st_uid, found.st_mode)


@pytest.mark.parametrize("kind", ["symlink", "to a folder", "dangling", "pipe"])
def test_an_install_changes_no_folder_behind_a_link(lab, kind):
    traps.plant(kind, lab.state / "dhcp-hosts", lab.victim)
    before = traps.facts(lab.victim)
    with contextlib.suppress(FileExistsError):  # a link that leads to a folder is left alone
        execute.do(Folder(lab.state / "dhcp-hosts", 0o777, NOBODY))
    assert before == traps.facts(lab.victim)


@pytest.mark.parametrize("kind", KINDS)
def test_an_install_reads_no_file_of_another_users(lab, kind):
    leases = lab.state / "dnsmasq.leases"
    traps.plant(kind, leases, lab.victim)
    mine = lab.place / "mine"
    mine.write_text("mine")

    assert {mine: "mine"} == {
        path: text for path, text in server_facts.texts([leases, mine]).items() if text
    }
    leases.unlink() if kind != "folder" else leases.rmdir()
    leases.write_bytes(b"\xff")
    os.chown(leases, USER, USER)
    assert {leases: ""} == server_facts.texts([leases, lab.state / "none"])


@pytest.mark.parametrize("kind", KINDS)
def test_hosts_files_are_read_with_the_rights_of_their_folder(lab, kind):
    traps.plant(kind, lab.hosts / "box-1", lab.victim)
    before = traps.facts(lab.victim)
    ran = lab.run("dhcp-snippet", "isc")

    assert "root-only-secret" not in ran.said
    assert before == traps.facts(lab.victim)


def test_a_hosts_file_without_an_end_is_refused(lab):
    with (lab.hosts / "box-1").open("wb") as file:
        file.truncate(2**40)
    ran = lab.run("dhcp-snippet", "isc")
    assert "box-1: " in ran.said
    assert "is larger than 1048576 bytes" in ran.said


@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="no dnsmasq")
def test_doctor_asks_no_checker_about_a_configuration_that_others_wrote(lab, monkeypatch):
    """Whoever calls a process dnsmasq named a file whose `conf-script` root's dnsmasq ran."""
    made, script, conf = (lab.place / "theirs" / name for name in ("made", "script", "conf"))
    made.parent.mkdir()
    script.write_text(f"#!/bin/sh\ntouch {made}\n")
    script.chmod(0o755)
    conf.write_text(f"# Written by `appliance dnsmasq-config`.\nconf-script={script}\n")
    traps.give(made.parent)
    program = made.with_name("dnsmasq")
    shutil.copy("/bin/dash", program)
    command = [program, "-c", "read x", f"--conf-file={conf}"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, user=USER) as theirs:
        monkeypatch.setattr(facts.os, "listdir", lambda folder: [str(theirs.pid)])
        paths = Paths(lab.place / "srv", lab.state, lab.place / "run", lab.hosts, lab.tftp)
        confs = facts._confs(Config(paths=paths))
        if "dnsmasq" in confs:
            host._checked("dnsmasq", ("dnsmasq", "--test", "--conf-file={}"), confs["dnsmasq"])
        assert theirs.stdin is not None
        theirs.stdin.close()

    assert conf not in confs.values()
    assert not made.exists()


def test_doctor_knows_a_configuration_that_root_wrote(lab, monkeypatch):
    monkeypatch.setattr(facts.os, "listdir", lambda folder: [])  # no process
    conf = lab.place / "run/dnsmasq.conf"
    conf.write_text("# Written by `appliance dnsmasq-config`.\n")
    paths = Paths(lab.place / "srv", lab.state, lab.place / "run", lab.hosts, lab.tftp)
    assert {"dnsmasq": conf} == facts._confs(Config(paths=paths))


@pytest.mark.parametrize("whose", ["os", "os/debian", "os/debian/x86_64"])
@pytest.mark.parametrize("command", ["build", "import", "gc"])
def test_images_are_made_and_removed_where_only_root_may_change_names(lab, command, whose):
    folder = lab.place / "srv/os/debian/x86_64"
    folder.mkdir(parents=True)
    os.chown(lab.place / "srv" / whose, USER, USER)
    words = {
        "build": ("debian", "12", "x86_64", "--mirror", "file:///nonexistent"),
        "import": (lab.victim, "--os", "debian", "--version", "12", "--arch", "x86_64"),
        "gc": (),
    }
    ran = lab.run("image", command, *words[command])

    assert 4 == ran.code, ran.said
    assert f"{lab.place}/srv/{whose}" in ran.said
    assert [] == list(folder.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_configuration_is_written_through_no_link(lab, kind):
    lab.config.write_text(lab.config.read_text() + '[network]\ninterface = "lo"\n')
    output = lab.place / "theirs/smb.conf"
    output.parent.mkdir()
    for name in ("smb.conf.new", ".smb.conf.new", "smb.conf"):
        traps.plant(kind, output.with_name(name), lab.victim)
    before = traps.facts(lab.victim)
    ran = lab.run("smb-config", "--output", output)

    assert before == traps.facts(lab.victim)
    assert ran.code == 0 or "smb.conf" in ran.said


def test_a_server_that_root_starts_does_nothing_in_anothers_folder(lab):
    ran = lab.run("serve")

    assert 4 == ran.code, ran.said
    assert "belongs to nobody" in ran.said
    assert "runuser -u nobody" in ran.said
    assert [] == list(Path(lab.state).iterdir())


@pytest.mark.parametrize("moment", range(1, 8))
def test_the_server_is_not_quick_enough_to_have_root_make_a_folder_elsewhere(
    open_path, monkeypatch, moment
):
    """What it puts in the way lies there between one look of root's and what follows it."""
    root, victim = open_path / "tftp", open_path / "victim"
    root.mkdir()
    victim.mkdir()
    root.chmod(0o1777)
    looks, planted = [], []
    look = tftp.owner.check_roots

    def and_then(folder):
        look(folder)
        looks.append(folder)
        if len(looks) == moment and not os.path.lexists(root / "ipxe"):
            (root / "ipxe").symlink_to(victim)
            os.chown(root / "ipxe", USER, USER, follow_symlinks=False)
            planted.append(folder)

    monkeypatch.setattr(tftp.owner, "check_roots", and_then)
    with contextlib.suppress(Refused):
        tftp._replace(root / "ipxe/bin-x86_64-efi/snp.efi", b"iPXE")

    assert [] == list(victim.iterdir())
    assert planted or (root / "ipxe/bin-x86_64-efi/snp.efi").is_file()
