"""What the kernel's NFS server is told, and that its own `exportfs` understands it.

That reads the file as the server would be told it, and says what it does not know; it needs no
server.  One that served these lines was tried by hand (BOOTING.md#what-was-tried): not every kernel
has it.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

from appliance.boot.daemons import nfsd
from appliance.cli import group
from appliance.config import Config, Network, Paths
from appliance.errors import BadConfig

LAB = Network(address="172.28.0.1", netmask="255.255.0.0")


def lines(network=LAB, **paths):
    told = nfsd.configuration(Config(network=network, paths=attrs.evolve(Paths(), **paths)))
    return [line for line in told.splitlines() if not line.startswith("#")], told


def test_the_images_are_shown_read_only_to_the_labs_network_alone():
    [line], told = lines()

    assert "/os 172.28.0.0/16(ro,no_subtree_check,no_root_squash,sec=sys)" == line
    assert "    /srv/os /os none bind,ro 0 0\n" in told


def test_an_address_of_ipv6_has_a_network_too():
    [line], _ = lines(Network(address="[fd00::1]"))

    assert line.startswith("/os fd00::/64(")


@pytest.mark.parametrize("srv", ["/srv x", "/srv\\040x", "/srv#", '/srv"', "/srv(rw)", "/sr\u00fc"])
def test_a_path_that_exports_would_read_otherwise_is_refused(srv, tmp_path):
    with pytest.raises(BadConfig, match=r"paths\.srv"):
        lines(srv=tmp_path.__class__(srv))


@pytest.mark.parametrize(
    "network", [Network(), Network(address="lab.example"), Network(address="10.0.0.1", netmask="x")]
)
def test_without_an_address_nobody_is_shown_anything(network):
    with pytest.raises(BadConfig, match=r"network\.address"):
        lines(network)


def test_the_command_prints_it(tmp_path):
    file = tmp_path / "a.toml"
    file.write_text('[network]\naddress = "10.0.0.1"\n')
    run = CliRunner().invoke(group, ["--config", str(file), "nfs-config", "--kernel"])

    assert (0, True) == (run.exit_code, "/os 10.0.0.0/24(ro" in run.stdout), run.output


EXPORTFS = Path(__file__).parents[1] / ".cache/firmware/nfs"  # release/firmware.sh
# $1 = a folder that becomes the root, with the exports in it; $2 = the programs.
READS = """\
set -e
cd "$1"
mkdir -p usr programs var/lib/nfs os
ln -s usr/lib lib
ln -s usr/lib64 lib64
mount --bind /usr usr
mount --bind "$2" programs
chroot . programs/usr/sbin/exportfs -r
cat var/lib/nfs/etab
"""


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil", [None, ("ro,", "readonly,"), ("/24(", "/24 ("), ("/os ", "/none ")]
)
def test_exportfs_itself_takes_it_without_a_complaint(tmp_path, spoil):
    """The others are the proof that it would complain."""
    _, told = lines(Network(address="172.28.0.1"))
    (tmp_path / "etc/exports.d").mkdir(parents=True)
    (tmp_path / "etc/exports").touch()
    (tmp_path / "etc/exports.d/appliance.exports").write_text(told.replace(*spoil or ("", "")))
    command = ["unshare", "--mount", "sh", "-c", READS, "sh", tmp_path, EXPORTFS]
    done = subprocess.run(command, capture_output=True, text=True)

    if spoil:
        assert done.stderr
    else:
        assert (0, "") == (done.returncode, done.stderr)
        [kept] = done.stdout.splitlines()
        path, _, options = kept.partition("\t172.28.0.0/24(")
        words = options.removesuffix(")").split(",")
        assert path == "/os"
        assert {"ro", "no_root_squash", "no_subtree_check", "sec=sys"} <= set(words)
        assert "rw" not in words
