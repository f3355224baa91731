"""One file, one command, a running lab server; see play.py for what is played."""

import json
import os
import re

import pytest

from . import boxes, play

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and containers need root"),
    pytest.mark.skipif(not play.IMAGES.exists(), reason="no image: make image"),
]
# What `uninstall` says it leaves, and what apt changed by installing packages.
LEFT = ("/srv/", "/var/lib/appliance", "/etc/appliance")
USERS = ("passwd", "group", "shadow", "gshadow", "subuid", "subgid")
OF_USERS = {f"/etc/{name}{dash}" for name in USERS for dash in ("", "-")} | {"/etc"}


# What an install that failed leaves: which packages it brought.
NOTE = {"/etc/appliance", "/etc/appliance/installed.json"}


def changed(before, after):
    """Paths that came, went or changed; the note of one that failed comes and goes as it should."""
    found = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    return found - NOTE


def test_the_version_names_the_commit_the_python_and_the_glibc(played):
    pattern = r"\(commit first, Python 3\.[0-9.]+, needs glibc 2\.\d+\)\n"

    assert re.search(pattern, played.version[0])
    assert "commit second" in played.version[1]


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("no such interface", "--interface lab7: there is no such interface; there are:"),
        ("no address", "--interface bare0: it has no IPv4 address"),
        ("no interface", "--interface: which one are the testboxes on?"),
        ("no network", "--dhcp-range 10.1.1.1-10.1.1.9: no interface is in that network: lab0 "),
        ("others", "tcp port 445 on 172.28.0.1 is taken by systemd-socket- (pid "),
        ("read-only", "/usr/lib/systemd/system: on a file system that is mounted read-only"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_changed(played, what, words):
    said = played.refused[what]

    assert said.status in (2, 4)
    assert words in said.out
    assert "Traceback" not in said.out
    assert set() == changed(played.bare, played.after_refusals) - {"/etc"}


def test_an_install_that_fails_half_way_says_so_and_takes_back_what_it_did(played):
    assert 4 == played.failed.status
    assert "could not run systemctl enable appliance.target" in played.failed.out
    assert "what was done before it has been taken back" in played.failed.out
    assert "stays: packages: ipxe cpio mmdebstrap dnsmasq-base samba" in played.failed.out
    assert "; to remove them: apt-get purge ipxe cpio mmdebstrap" in played.failed.out
    assert "stays: /etc/appliance/installed.json: what was installed" in played.failed.out
    ours = {path for path in changed(played.bare, played.after_failure) if "appliance" in path}
    assert set() == ours
    assert played.after_failure.keys() >= NOTE


def test_the_packages_start_no_daemon_of_their_own_now_or_later(played):
    for unit in ("smbd", "nmbd", "nfs-ganesha", "rpcbind", "winbind"):
        assert not re.search(rf"^{unit}\.\S+ +enabled", played.enabled, re.MULTILINE)
    assert re.search(r"^appliance\.target +enabled", played.enabled, re.MULTILINE)


def test_a_dry_run_says_every_change_and_makes_none(played):
    changes = [line for line in played.dry.out.splitlines() if not line.startswith(" ")]
    said = played.installed.out.splitlines()

    assert changes == said[: len(changes)]
    assert any("/usr/lib/appliance/versions/" in line for line in changes)


def test_an_install_ends_with_a_doctor_who_finds_nothing_wrong(played):
    assert 0 == played.installed.status
    assert 0 == played.doctor.status, played.doctor.out
    assert 0 == json.loads(played.doctor.out)["error"]


def test_a_second_install_finds_nothing_to_do(played):
    assert "all is as it should be: nothing to do" in played.again.out


def test_each_file_is_whose_it_should_be(played):
    modes = dict(line.split(" ", 1) for line in played.modes.splitlines())

    assert {
        "/run/appliance/control.sock": "srw-rw---- root:appliance",
        "/etc/appliance/appliance.toml": "-rw-r----- root:appliance",
        "/etc/appliance/hosts": "drwxr-xr-x appliance:appliance",
        "/var/lib/appliance": "drwx--x--x appliance:appliance",
        "/srv/result": "drwxr-xr-x appliance:appliance",
    } == modes


def test_one_who_is_no_member_is_told_so(played):
    assert 2 == played.outsider.status
    assert "only root and the group appliance" in played.outsider.out


def test_an_upgrade_runs_the_new_version_with_all_jobs(played):
    before, after = played.before_upgrade, played.after_upgrade

    assert "/versions/0.1.0-first/" in before["exe"]
    assert "/versions/0.1.0-second/" in after["exe"]
    assert before["jobs"].keys() == after["jobs"].keys() == {"lab.1", "lab.2"}
    assert before["hosts"].keys() == after["hosts"].keys() == {*boxes.NAMES}


def test_an_upgrade_leaves_the_root_filesystems_of_running_jobs_alone(played):
    before, after = played.before_upgrade["pids"], played.after_upgrade["pids"]

    assert {"appliance.service"} == changed(before, after)
    assert "run systemctl restart appliance.service" in played.upgraded.out


def test_a_rollback_runs_the_version_before_with_all_jobs(played):
    assert "/versions/0.1.0-first/" in played.after_rollback["exe"]
    assert "commit first" in played.after_rollback["version"]
    assert {"lab.1", "lab.2", "lab.3"} == played.after_rollback["jobs"].keys()


def test_a_rollback_with_the_state_takes_back_what_was_done_since_and_keeps_it_aside(played):
    before, after = played.before_with_state, played.after_with_state

    assert "/versions/0.1.0-second/" in before["exe"]
    assert "/versions/0.1.0-first/" in after["exe"]
    assert {"lab.5"} == changed(before["jobs"], after["jobs"])
    assert "lab.5" in before["jobs"]
    assert " appliance appliance " in played.set_aside


def test_an_uninstall_leaves_the_tree_as_it_was_but_for_what_it_says(played):
    found = changed(played.after_failure, played.gone)
    ours = {path for path in found if not path.startswith(LEFT)} - OF_USERS

    others = {path for path in ours if path.startswith(("/home", "/var/mail", "/var/spool"))}
    assert {"/srv", "/var/lib"} >= ours - others
    for what in ("/srv: ", "/var/lib/appliance: ", "/etc/appliance: ", "users and groups "):
        assert f"stays: {what}" in played.uninstalled.out


def test_an_install_after_an_uninstall_goes_on_with_all_jobs_and_boxes(played):
    assert played.after_with_state["jobs"] == played.after_install["jobs"]
    assert played.after_with_state["hosts"].keys() == played.after_install["hosts"].keys()


def test_a_purge_leaves_nothing(played):
    found = changed(played.after_failure, played.purge_left)

    homes = {path for path in found if path.startswith(("/home", "/var/mail", "/var/spool"))}
    assert {"/srv", "/var/lib"} >= found - homes - OF_USERS
    assert not played.purge_left.keys() & NOTE
    assert not re.search(r"appliance", played.accounts)
    assert "stays: /srv/os: was there before any install" in played.purged.out
