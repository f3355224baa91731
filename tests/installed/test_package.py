"""The Debian package: installed, configured, upgraded, removed, purged; see package.py."""

import json
import os
import re

import pytest

from . import package

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and containers need root"),
    pytest.mark.skipif(not package.IMAGES.exists(), reason="no image: make image"),
]
# apt's own notes, and what `useradd` and `userdel` keep of the time before.
OF_APT = {"/var/cache/apt/pkgcache.bin", "/var/lib/dpkg/status-old"}
OF_USERS = {f"/etc/{name}-" for name in ("passwd", "group", "shadow", "gshadow")}
INACTIVE = ["inactive"] * len([*package.UNITS, *package.SOCKETS])


def changed(before, after):
    """Paths that came, went or changed."""
    return {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}


def test_a_package_that_is_not_configured_starts_nothing(life):
    assert INACTIVE == life.before.split()


def test_its_manual_is_found_and_well_formed(life):
    said = life.manual.out

    assert said.startswith("APPLIANCE(1) ")
    assert "appliance - takes testboxes from power-on to a finished job" in said
    for words in ("install [OPTIONS]", "host add [OPTIONS]", "image build [OPTIONS]"):
        assert f"\n   {words}" in said
    assert "" == life.complaints.out


def test_shells_complete_its_commands(life):
    assert {"appliance ins": "install", "appliance host ad": "add"} == life.completed
    assert life.shells.out.startswith("#compdef appliance\n")
    assert "complete --no-files --command appliance" in life.shells.out


def test_the_one_file_runs_on_this_release_too(life):
    assert "(commit first, Python 3." in life.one_file.out


def test_beside_another_dhcp_server_nothing_is_installed_that_leases(life):
    assert (4, []) == (life.refused.status, life.made)
    offer = f"lab0 has a DHCP server already: {package.ROGUE} ({package.ROGUE_MAC}) offers 172.28."
    assert f"nothing was changed:\n  {offer}" in life.refused.out
    assert "say --proxy-dhcp; else turn it off there, or say --lease-anyway" in life.refused.out


def test_beside_another_dhcp_server_an_operator_may_leave_the_leases_to_it_or_know_better(life):
    assert (0, 0) == (life.proxy.status, life.anyway.status)
    for said in (life.proxy.out, life.anyway.out):
        assert "write /etc/appliance/appliance.toml" in said
        assert "asking for other DHCP servers" not in said


def test_after_one_command_the_lab_is_open_and_doctor_finds_nothing_wrong(life):
    assert 0 == life.installed.status, life.installed.out
    assert 0 == life.doctor.status, life.doctor.out
    assert 0 == json.loads(life.doctor.out)["error"]
    assert "/versions/0.1.0-first/" in life.first["exe"]


def test_dpkg_has_its_files_and_an_install_unpacks_no_others(life):
    changes = re.findall(r"^(?:write|link|unpack)\D* (/usr/\S+)", life.installed.out, re.MULTILINE)

    assert {"/usr/lib/appliance/installed.json", "/usr/lib/appliance/unfinished"} == {*changes}


def test_a_job_and_a_box_are_named_on_each_line_of_the_journal_about_them(life):
    assert life.script.startswith("#!ipxe")
    assert "/job_initrd_tmpfs/lab.1/job.cgz" in life.script
    (handed,) = [line for line in life.journal if line.get("EVENT") == "script handed over"]
    assert ("lab.1", "box-1", package.MAC) == (handed["JOB"], handed["BOX"], handed["MAC"])
    assert ("6", "appliance", "journal") == (
        handed["PRIORITY"],
        handed["SYSLOG_IDENTIFIER"],
        handed["_TRANSPORT"],
    )
    assert "appliance.service" == handed["_SYSTEMD_UNIT"]


def test_an_upgrade_runs_the_new_version_with_the_state_of_the_old_one(life):
    first, second = life.first, life.second

    assert 0 == life.upgraded.status
    assert "/versions/0.1.0-second/" in second["exe"]
    assert "commit second" in second["version"]
    assert ["lab.1"] == [*first["jobs"]] == [*second["jobs"]]
    assert ["box-1"] == [*first["hosts"]] == [*second["hosts"]]
    assert 0 == life.doctor_again.status, life.doctor_again.out


def test_an_upgrade_keeps_sockets_open_and_root_filesystems_served(life):
    assert life.first["open"] == life.second["open"]
    assert life.first["daemons"] == life.second["daemons"]
    assert "0" not in life.first["daemons"]


def test_what_a_removal_leaves_is_what_it_says(life):
    assert INACTIVE == life.running.split()
    left = {path for path in changed(life.base, life.left) if not path.startswith("/var/lib/dpkg/")}
    said = set(re.findall(r"^stays: (/[^:]+): ", life.removed.out, re.MULTILINE))
    assert {"/srv", "/var/lib/appliance", "/etc/appliance"} == said
    assert "stays: users and groups appliance and appliance-dnsmasq" in life.removed.out
    users = {name.removesuffix("-") for name in OF_USERS} | OF_USERS
    others = {path for path in left if not path.startswith(tuple(said))}
    assert set() == others - users - OF_APT
    assert {"/etc/appliance/appliance.toml", "/etc/appliance/hosts/box-1.yaml"} <= left
    assert "/var/lib/appliance/archive.sqlite" in left


def test_a_purge_leaves_what_it_says(life):
    gone = changed(life.base, life.gone)

    assert "stays: /srv: " in life.purged.out
    assert set() == {path for path in gone if not path.startswith("/srv/")} - OF_APT - OF_USERS
    assert "/srv/result" in gone


def test_the_one_file_installs_itself_on_this_release_too(life):
    told = json.loads(life.doctor_by_file.out)

    assert 0 == life.by_file.status, life.by_file.out
    assert re.search("^unpack .* /usr/lib/appliance/", life.by_file.out, re.MULTILINE)
    assert (0, 0) == (life.doctor_by_file.status, told["error"]), life.doctor_by_file.out
