"""boot/daemons/ganesha: the configuration, and a real ganesha that takes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner

from appliance.boot.daemons import ganesha
from appliance.boot.script import ipxe
from appliance.cli import group
from appliance.config import Config, Network, Paths
from appliance.errors import BadConfig
from lab.lab import toml
from lab.namespace import SERVER, Namespace, Overlay, namespace


def lab(directory: Path) -> Config:
    return Config(
        network=Network(interface="lab0", address=SERVER),
        paths=Paths(srv=directory / "srv", state=directory / "state", run=directory / "run"),
    )


def test_it_shows_what_the_kernel_line_asks_for(tmp_path):
    text = ganesha.configuration(lab(tmp_path))
    boot = ipxe.Boot("http://s/vmlinuz", (), "nfs", "x86_64", SERVER, "/os/debian/x86_64/12-1")

    assert f"root={SERVER}:/os/debian" in ipxe.kernel_arguments(boot)
    assert 'Pseudo = "/os";' in text
    assert f'Path = "{tmp_path}/srv/os";' in text
    assert f"Bind_addr = {SERVER};" in text


@pytest.mark.parametrize(
    ("said", "version"),
    [("NFS-Ganesha Release = V4.3\n", 4), ("NFS-Ganesha Release = V6.5\n", 6), ("", 4)],
)
def test_what_only_newer_ones_know_is_told_to_no_older_one(tmp_path, said, version):
    assert version == ganesha.version_of(said)
    text = ganesha.configuration(lab(tmp_path), version)

    assert (version > 4) == ("allow_set_io_flusher_fail = true;" in text)


def test_nobody_writes_and_root_reads(tmp_path):
    text = ganesha.configuration(lab(tmp_path))

    assert 1 == text.count("EXPORT {")
    assert 1 == text.count("Access_Type = RO;") == text.count("Access_Type")
    assert 1 == text.count("Squash = No_Root_Squash;")


def test_nothing_is_shared_with_the_machines_own(tmp_path):
    text = ganesha.configuration(lab(tmp_path))

    places = [line.split('"')[1] for line in text.splitlines() if '"/' in line]
    assert 3 == len(places)
    assert all(place.startswith(str(tmp_path)) for place in places if place != "/os")


@pytest.mark.parametrize("path", ['/srv/a";}', "/srv/a\nEXPORT {", "/srv/$HOME", "/srv/a\\", "srv"])
@pytest.mark.parametrize("key", ["run", "srv"])
def test_no_path_can_leave_its_string(key, path):
    config = Config(network=Network(address=SERVER), paths=Paths(**{key: Path(path)}))

    with pytest.raises(BadConfig, match="paths"):
        ganesha.configuration(config)


@pytest.mark.parametrize("address", ["", "lab.example", "1.2.3.4;", "1.2.3.4\n", "0.0.0.0.0"])
def test_it_listens_at_an_address_and_at_nothing_else(tmp_path, address):
    config = attrs.evolve(lab(tmp_path), network=Network(address=address))

    with pytest.raises(BadConfig, match=r"network\.address"):
        ganesha.configuration(config)


@pytest.mark.parametrize("options", [[], ["--directories"]])
def test_the_command_prints_it_and_makes_its_directories_when_asked(tmp_path, options):
    config = lab(tmp_path)
    file = tmp_path / "appliance.toml"
    file.write_text(toml(config))

    done = CliRunner().invoke(group, ["--config", str(file), "nfs-config", *options])

    assert (0, ganesha.configuration(config)) == (done.exit_code, done.stdout)
    assert {bool(options)} == {path.is_dir() for path in ganesha.directories(config)}


async def log_of(directory: Path, text: str, inside: Namespace) -> str:
    """What ganesha says until it serves, or until it gives up."""
    config = lab(directory)
    for path in ganesha.directories(config):
        path.mkdir(parents=True, exist_ok=True)
    file = directory / "ganesha.conf"
    file.write_text(text)
    process = await inside.start(
        ganesha.command(config, file), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = b""
    with trio.fail_after(30):
        async for chunk in process.stdout:
            said += chunk
            if b"NFS SERVER INITIALIZED" in said:
                break
    return said.decode()


@pytest.fixture
async def inside(tmp_path):
    """A namespace with an overlay of images in it, as the lab has one."""
    (tmp_path / "images/debian").mkdir(parents=True)
    async with namespace(0, [Overlay(tmp_path / "images", tmp_path / "srv/os")]) as made:
        yield made


needs_ganesha = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
]


@pytest.mark.parametrize("spoil", [
    pytest.param(None, marks=needs_ganesha, id="as-it-is"),
    pytest.param(("Squash", "Sqash"), marks=needs_ganesha, id="a-word-it-does-not-know"),
    pytest.param(("srv/os", "srv/nothing"), marks=needs_ganesha, id="no-such-folder"),
])  # fmt: skip
async def test_ganesha_itself_takes_it_without_a_complaint(tmp_path, inside, spoil):
    """The other two are the proof that it would complain."""
    text = ganesha.configuration(lab(tmp_path))
    said = await log_of(tmp_path, text.replace(*spoil) if spoil else text, inside)

    complaints = [
        line for line in said.splitlines()
        if any(word in line for word in (":CONFIG :CRIT", ":CONFIG :MAJ", "Lookup failed on path",
                                         "Unknown", "unknown"))
    ]  # fmt: skip
    assert bool(spoil) == bool(complaints), said


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
async def test_it_listens_on_its_port_and_no_other(tmp_path, inside):
    said = await log_of(tmp_path, ganesha.configuration(lab(tmp_path)), inside)

    assert inside.listening(ganesha.PORT), said
    assert not any(map(inside.listening, (111, 875, 20048, 32803)))
