"""boot/images/apt_sources: where packages come from; apt's programs are stood in for."""

from __future__ import annotations

import os

import pytest

from appliance.boot.images import apt_sources
from appliance.errors import BadImage

DEB = "http://deb.test/debian/"
SECURITY = "http://deb.test/debian-security/"
KEY = "/usr/share/keyrings/debian-archive-keyring.gpg"


@pytest.fixture
def apt(tmp_path, monkeypatch):
    """Writes what apt's programs say; `has` are the files that a mirror has."""
    places = tmp_path / "bin"
    places.mkdir()
    monkeypatch.setenv("PATH", f"{places}:{os.environ['PATH']}")

    class Apt:
        def program(self, name, script):
            (places / name).write_text(f"#!/bin/sh\n{script}\n")
            (places / name).chmod(0o755)

        def knows(self, *rows):
            self.program("apt-get", "\n".join(f"echo '{row}'" for row in rows) or ":")

        def mirror(self, *has, otherwise="404  Not Found"):
            there = "|".join(f"*{word}*" for word in has) or "-"
            self.program("apt-helper", f'case $2 in {there}) : >"$3" ;; *) echo "{otherwise}"'
                         "; exit 100 ;; esac")  # fmt: skip

    made = Apt()
    made.knows()
    made.mirror()
    return made


@pytest.fixture
def listed(tmp_path, apt):
    """A system with Debian's sources in both of apt's styles."""
    sources, lines = tmp_path / "debian.sources", tmp_path / "more.list"
    sources.write_text(
        f"# ours\nTypes: deb\nURIs: {DEB}\nSuites: bookworm bookworm-updates\nSigned-By: {KEY}\n\n"
        f"Types: deb\nURIs: {SECURITY}\nSuites: bookworm-security\nSigned-By: /etc/other.gpg\n"
    )
    lines.write_text(f"# a comment\ndeb [arch=amd64 signed-by=/etc/k.gpg] {DEB} trixie main\n")
    apt.knows(
        f"{SECURITY} bookworm-security main {sources}:2",
        f"{DEB} bookworm-updates main {sources}:1",
        f"{DEB} bookworm main {sources}:1",
        f"{DEB} bookworm contrib {sources}:1",
        f"https://deb.test/node nodistro main {lines}:1",
        f"{DEB} trixie main {lines}:2",
    )
    return sources


def told(codename, mirror=None, say=lambda line: None):
    return [source.line for source in apt_sources.sources(codename, mirror, say)]


def test_the_systems_own_come_with_the_release_first_and_their_keys(listed):
    rest = "main non-free-firmware"
    assert [
        f"deb [signed-by={KEY}] {DEB} bookworm {rest}",
        f"deb [signed-by=/etc/other.gpg] {SECURITY} bookworm-security {rest}",
        f"deb [signed-by={KEY}] {DEB} bookworm-updates {rest}",
    ] == told("bookworm")
    assert [f"deb [signed-by=/etc/k.gpg] {DEB} trixie {rest}"] == told("trixie")


def test_the_real_apt_tells_all_its_sources_though_no_list_was_fetched(tmp_path, monkeypatch):
    """As on a cloud image, or where an update broke off: the image would lack security fixes."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts/debian.sources").write_text(
        f"Types: deb\nURIs: {DEB}\nSuites: bookworm bookworm-updates\nComponents: main\n\n"
        f"Types: deb\nURIs: {SECURITY}\nSuites: bookworm-security\nComponents: main\n"
    )
    (tmp_path / "apt.conf").write_text(
        f'Dir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "{tmp_path}/parts";\n'
        f'Dir::State::lists "{tmp_path}/lists";\n'
    )
    monkeypatch.setenv("APT_CONFIG", str(tmp_path / "apt.conf"))

    suites = {source.suite for source in apt_sources.sources("bookworm", None, print)}
    assert {"bookworm", "bookworm-updates", "bookworm-security"} == suites


@pytest.mark.parametrize("value", ["", "\n -----BEGIN PGP\n .", "0123ABCD", "/etc/$(id)", "/a /b"])
def test_a_key_that_is_no_path_is_left_to_apt(listed, value):
    text = listed.read_text().replace(
        f"Signed-By: {KEY}", f"Signed-By: {value}" if value else "X: y"
    )
    listed.write_text(text)

    assert told("bookworm")[0].startswith(f"deb {DEB} bookworm ")


def test_a_release_that_the_system_does_not_have_wants_a_mirror(listed):
    with pytest.raises(BadImage, match="--mirror"):
        told("bullseye")


@pytest.mark.parametrize(("has", "suites"), [
    ((), ["bookworm"]),
    (("-updates",), ["bookworm", "bookworm-updates"]),
    (("-security",), ["bookworm", "bookworm-security"]),
    (("-updates", "-security"), ["bookworm", "bookworm-updates", "bookworm-security"]),
])  # fmt: skip
def test_a_mirror_gives_what_it_has_and_the_rest_is_said(apt, has, suites):
    apt.mirror(*has)
    said = []
    lines = told("bookworm", "http://mirror.test/debian/", said.append)

    assert suites == [line.split()[2] for line in lines]
    assert 2 - len(has) == len(said)
    places = {line.split()[2]: line.split()[1] for line in lines}
    assert "http://mirror.test/debian" == places["bookworm"]
    assert places.get("bookworm-security") in (None, "http://mirror.test/debian-security")


def test_a_mirror_in_trouble_is_no_mirror_without_security(apt):
    """Else an image would lack its fixes because a name did not resolve for a second."""
    apt.mirror(otherwise="Could not resolve 'mirror.test'")

    with pytest.raises(BadImage, match="Could not resolve"):
        told("bookworm", "http://mirror.test/debian")


def test_a_mirror_is_trusted_by_the_key_that_the_system_has_for_that_release(listed, apt):
    apt.mirror("-updates")

    assert [f"[signed-by={KEY}]"] * 2 == [
        line.split()[1] for line in told("bookworm", "http://mirror.test/debian")
    ]
    assert "signed-by" not in told("bullseye", "http://mirror.test/debian")[0]


@pytest.mark.parametrize(
    "mirror", ["mirror", "http://m/debian bookworm", "http://m\nx", "-x:y", ""]
)
def test_what_is_no_uri_is_no_mirror(apt, mirror):
    with pytest.raises(BadImage, match="--mirror"):
        told("bookworm", mirror)
