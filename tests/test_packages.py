"""release/packages.sh: with an apt that only writes down what it was asked."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "release/packages.sh"

# What stands in for the system's programs: each writes its name and arguments into $CALLS.
FAKES = {
    "id": "echo 0",
    "dpkg-query": 'for last; do :; done; grep -qxF "$last" "$INSTALLED" && echo installed',
    "apt-cache": '[ -z "${STALE:-}" ]',
    "apt-get": 'echo "apt-get $* policy=$(cat "$POLICY" 2>/dev/null | tail -n 1)" >>"$CALLS"\n'
    'case "$*" in *install*) [ -z "${BROKEN:-}" ] ;; esac',
}


class Machine:
    """A machine with some of the packages installed."""

    def __init__(self, directory: Path) -> None:
        self.policy = directory / "policy-rc.d"
        self.mtab = directory / "mtab"
        self.mtab.write_text("")
        self.calls = directory / "calls"
        self.installed = directory / "installed"
        self.bin = directory / "bin"
        self.bin.mkdir()
        for name, body in FAKES.items():
            (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
            (self.bin / name).chmod(0o755)
        self.installed.write_text(self.run("--list").stdout)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["sh", SCRIPT, *arguments],
            env={
                "PATH": f"{self.bin}:{os.environ['PATH']}",
                "POLICY": str(self.policy),
                "MTAB": str(self.mtab),
                "CALLS": str(self.calls),
                "INSTALLED": str(self.installed),
                **environment,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def lacks(self, *packages: str) -> None:
        kept = [p for p in self.installed.read_text().split() if p not in packages]
        self.installed.write_text("\n".join(kept))

    def asked(self) -> list[str]:
        return self.calls.read_text().splitlines() if self.calls.exists() else []


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_with_everything_there_it_does_and_says_nothing(machine):
    done = machine.run()

    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
    assert [] == machine.asked()


def test_only_what_is_missing_is_installed_and_no_daemon_starts_meanwhile(machine):
    machine.lacks("samba", "ovmf")

    done = machine.run()

    assert 0 == done.returncode
    (call,) = machine.asked()
    assert " install ovmf samba " in call
    assert call.endswith("policy=exit 101")
    assert not machine.policy.exists()


def test_lists_that_do_not_know_a_package_are_brought_up_to_date_first(machine):
    machine.lacks("samba")

    machine.run(STALE="yes")

    assert ["update", "install"] == [
        next(verb for verb in ("update", "install") if verb in call) for call in machine.asked()
    ]


def test_a_failed_installation_is_tried_once_more_and_leaves_no_policy(machine):
    machine.lacks("samba")

    done = machine.run(BROKEN="yes")

    assert 0 != done.returncode
    assert 3 == len(machine.asked())  # install, update, install
    assert not machine.policy.exists()


def test_somebody_elses_policy_stays_as_it_is(machine):
    machine.lacks("samba")
    machine.policy.write_text("#!/bin/sh\nexit 104\n")

    assert 0 == machine.run().returncode
    assert "#!/bin/sh\nexit 104\n" == machine.policy.read_text()


def test_a_policy_left_over_by_a_killed_run_is_taken_away(machine):
    machine.lacks("samba")
    machine.policy.write_text(
        "#!/bin/sh\n# written by packages.sh for the time of one installation"
    )

    assert 0 == machine.run().returncode
    assert not machine.policy.exists()


def test_without_root_and_sudo_it_says_what_is_missing(machine):
    machine.lacks("samba")
    (machine.bin / "id").write_text("#!/bin/sh\necho 1000\n")

    done = machine.run(PATH=f"{machine.bin}:{_without_sudo(machine)}")

    assert 1 == done.returncode
    assert "root is needed to install: samba" in done.stderr
    assert [] == machine.asked()


def _without_sudo(machine: Machine) -> str:
    """A folder with what the script uses, and no sudo."""
    folder = machine.bin.parent / "few"
    folder.mkdir()
    for name in ("sh", "grep", "cat", "tail"):
        (folder / name).symlink_to(
            f"/bin/{name}" if Path(f"/bin/{name}").exists() else f"/usr/bin/{name}"
        )
    return str(folder)


def test_a_root_that_was_never_booted_gets_the_list_of_mounts_that_ganesha_reads(machine):
    machine.lacks("nfs-ganesha")
    machine.mtab.unlink()
    assert 0 == machine.run().returncode

    assert "../proc/self/mounts" == os.readlink(machine.mtab)
