"""release/debian_package.py: the files of the package, and what it says of itself."""

import subprocess

import pytest

from appliance.config import Paths
from appliance.install import state_copies
from appliance.install.site import PACKAGES, Places
from release import debian_package


@pytest.fixture
def tree(tmp_path):
    program = tmp_path / "program"
    (program / "_internal").mkdir(parents=True)
    (program / "launcher").write_text("program")
    (program / "_internal/library.so").write_text("")
    (tmp_path / "tree").mkdir()
    debian_package.lay_out(tmp_path / "tree", program, "1-aaa")
    return tmp_path / "tree"


def test_the_program_lies_where_an_install_would_unpack_it(tree):
    places = Places(tree)

    assert "program" == places.current.joinpath("appliance").read_text()
    assert places.current.joinpath("_internal/library.so").exists()
    assert "../lib/appliance/current/appliance" == str(places.command.readlink())
    assert 0o755 == places.current.joinpath("appliance").stat().st_mode & 0o777
    assert places.packaged.exists()  # or an install would unpack itself over it


def test_units_users_manual_and_completions_are_inside(tree):
    places = Places(tree)

    assert {"appliance.target", "appliance.service", "appliance.socket"} <= {
        path.name for path in places.units.iterdir()
    }
    assert "u appliance " in places.sysusers.read_text()
    manual = subprocess.run(
        ["gzip", "-dc", tree / "usr/share/man/man1/appliance.1.gz"], capture_output=True, text=True
    )
    assert manual.stdout.startswith(".TH APPLIANCE 1")
    assert (tree / "usr/share/bash-completion/completions/appliance").exists()


def test_the_daemons_are_no_dependencies_since_apt_would_start_them():
    text = debian_package.control("1+2.a", "amd64", 3, "2.36")
    depends = next(line for line in text.splitlines() if line.startswith("Depends: "))

    assert "libc6 (>= 2.36)" in depends
    for name in (name for part in PACKAGES.values() for name in part):
        assert name not in depends
        assert name in text


def test_a_later_commit_makes_a_greater_version():
    older, newer = (
        debian_package.version_of(c, m) for c, m in (("fff", "2026"), ("0-dirty", "2027"))
    )

    assert "0.1.0+2027.0.dirty" == newer
    done = subprocess.run(["dpkg", "--compare-versions", newer, "gt", older], check=False)
    assert 0 == done.returncode


@pytest.mark.parametrize("script", ["_POSTINST", "_PRERM", "_POSTRM"])
def test_each_script_is_one_of_the_shells(script, tmp_path):
    (tmp_path / "script").write_text(getattr(debian_package, script))
    done = subprocess.run(
        ["shellcheck", "-s", "sh", tmp_path / "script"], capture_output=True, text=True
    )

    assert (0, "") == (done.returncode, done.stdout)


def test_a_purge_of_the_package_removes_all_that_lies_beside_the_state():
    [removes] = [x for x in debian_package._POSTRM.splitlines() if x.startswith("rm -rf ")]
    _, _, *gone = removes.split()

    assert {"/etc/appliance", *map(str, state_copies.all_of(Paths().state))} == {*gone}
