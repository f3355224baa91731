"""What Debian's packages are fetched by: with an apt that only writes down what it was asked."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FETCH = ROOT / "appliance/boot/daemons/fetch_packages.sh"
FIRMWARE = ROOT / "release/firmware.sh"

# What stands in for the system's programs: each writes its arguments into $CALLS.
APT_GET = """\
echo "$*" >>"$CALLS"
case "$*" in
    indextargets*) [ -n "${NO_MIRROR:-}" ] || echo "Debian http://mirror.example/debian" ;;
    *" update")
        for word; do case $word in Dir::Etc::sourcelist=*) cat "${word#*=}" >>"$CALLS" ;; esac; done
        [ -z "${NO_NETWORK:-}" ]
        ;;
    *" download "*) for last; do :; done; [ -z "${NO_PACKAGE:-}" ] && echo >"${last}_1_all.deb" ;;
esac
"""
FAKES = {
    "apt-get": APT_GET,
    "apt-cache": "echo 'Depends: linux-image-6.1.0-9-arm64 (= 1)'",
    "dpkg": 'mkdir -p "$3"; basename "$2" >>"$3/unpacked"',
}


class Machine:
    """One with these programs, and a folder to fetch into."""

    def __init__(self, directory: Path) -> None:
        self.calls, self.folder = directory / "calls", directory / "folder"
        self.bin, self.scratch = directory / "bin", directory / "scratch"
        for path in (self.bin, self.scratch):
            path.mkdir()
        for name, body in FAKES.items():
            (self.bin / name).write_text(f"#!/bin/sh\n{body}\n")
            (self.bin / name).chmod(0o755)

    def run(self, script: Path, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.bin}:{os.environ['PATH']}"
        return subprocess.run(
            ["sh", script, self.folder, *words],
            env={"PATH": path, "CALLS": str(self.calls), "TMPDIR": str(self.scratch), **more},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )

    def unpacked(self, name: str = "") -> list[str]:
        return (self.folder / name / "unpacked").read_text().split()


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_a_package_comes_from_the_systems_mirror_by_a_list_beside_its_sources(machine):
    done = machine.run(FETCH, "sid", "amd64", "ipxe")

    assert (0, "") == (done.returncode, done.stderr)
    assert ["ipxe_1_all.deb"] == machine.unpacked()
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    line = f"deb [arch=amd64 signed-by={keyring}] http://mirror.example/debian sid main"
    _, update, written, download = machine.calls.read_text().splitlines()
    assert line == written
    for call in (update, download):
        for option in ("Dir::Etc::sourceparts=-", "Dir::State::Lists=", "APT::Architecture=amd64"):
            assert option in call


def test_a_name_with_an_at_stands_for_what_it_depends_on(machine):
    assert 0 == machine.run(FETCH, "bookworm", "arm64", "linux-image-arm64@").returncode

    assert ["linux-image-6.1.0-9-arm64_1_all.deb"] == machine.unpacked()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ("NO_MIRROR", "no Debian mirror in the apt sources"),
        ("NO_NETWORK", "apt cannot read http://mirror.example/debian sid"),
        ("NO_PACKAGE", "apt cannot download it"),
    ],
)
def test_what_cannot_be_had_is_said_in_one_line_and_nothing_stays(machine, broken, why):
    done = machine.run(FETCH, "sid", "amd64", "ipxe", **{broken: "yes"})

    assert 1 == done.returncode
    assert f"fetch_packages.sh: no ipxe of Debian sid: {why}\n" == done.stderr
    assert not machine.folder.exists()
    assert [] == list(machine.scratch.iterdir())


def test_all_firmware_is_fetched_once(machine):
    assert 0 == machine.run(FIRMWARE).returncode
    calls = machine.calls.read_text()
    again = machine.run(FIRMWARE)

    assert (0, "", "") == (again.returncode, again.stdout, again.stderr)
    assert calls == machine.calls.read_text()
    assert ["arm64", "bookworm", "nfs", "sid", "trixie"] == sorted(os.listdir(machine.folder))
    assert ["busybox-static_1_all.deb", "linux-image-6.1.0-9-arm64_1_all.deb"] == sorted(
        machine.unpacked("arm64")
    )


def test_what_failed_is_fetched_again(machine):
    assert 0 != machine.run(FIRMWARE, NO_PACKAGE="yes").returncode
    assert [] == [name for name in os.listdir(machine.folder) if not name.startswith(".")]

    assert 0 == machine.run(FIRMWARE).returncode
    assert ["ipxe_1_all.deb"] == machine.unpacked("sid")
