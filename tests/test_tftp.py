"""boot/daemons/tftp: what lies in the tftp root, and a real dnsmasq that hands it out."""

import os
import shutil
import subprocess
from pathlib import Path

import attrs
import pytest
import trio
from click.testing import CliRunner

from appliance.boot.daemons import dnsmasq, own_ipxe, tftp
from appliance.cli import group
from appliance.config import Config, Network, Paths, Ports
from appliance.doctor import wire
from appliance.errors import NotFound, Refused
from lab.namespace import BRIDGE, SERVER, namespace


def lab(directory: Path) -> Config:
    return Config(
        network=Network(
            interface=BRIDGE, address=SERVER, dhcp_range=("172.28.0.10", "172.28.0.20")
        ),
        ports=Ports(scheduler=3001),
        paths=Paths(tftp=directory / "root", state=directory / "state", run=directory / "run"),
    )


@pytest.fixture
def package(tmp_path):
    """What Debian 12's ipxe package has; each file says its own name."""
    directory = tmp_path / "package"
    directory.mkdir()
    for name in ("undionly.kpxe", "snponly.efi", "ipxe.efi"):
        (directory / name).write_text(name)
    return directory


def test_each_firmware_finds_its_ipxe_under_the_seeds_name(tmp_path, package):
    (package / "ipxe-arm64.efi").write_text("ipxe-arm64.efi")

    tftp.lay_out(lab(tmp_path), [package])

    root = tmp_path / "root"
    assert "undionly.kpxe" == (root / "undionly.kpxe").read_text()
    assert "snponly.efi" == (root / "ipxe/bin-x86_64-efi/snp.efi").read_text()
    assert "ipxe-arm64.efi" == (root / "ipxe/bin-arm64-efi/snp.efi").read_text()
    assert "set scheduler 172.28.0.1\nset port 3001\n" in (root / "boot.ipxe").read_text()
    assert "chain tftp://172.28.0.1/boot.ipxe " in (root / "autoexec.ipxe").read_text()


def test_what_no_package_has_is_said_and_left_out(tmp_path, package):
    laid = {each.name: each.source for each in tftp.lay_out(lab(tmp_path), [package])}

    assert laid["ipxe/bin-arm64-efi/snp.efi"] is None
    assert package / "snponly.efi" == laid["ipxe/bin-x86_64-efi/snp.efi"]
    assert not (tmp_path / "root/ipxe/bin-arm64-efi").exists()


def test_without_any_ipxe_it_names_the_package_to_install(tmp_path):
    with pytest.raises(NotFound, match="package ipxe"):
        tftp.lay_out(lab(tmp_path), [tmp_path])


def test_laying_out_again_replaces_what_has_changed(tmp_path, package):
    tftp.lay_out(lab(tmp_path), [package])
    (package / "snponly.efi").write_text("newer")

    tftp.lay_out(lab(tmp_path), [package])

    assert "newer" == (tmp_path / "root/ipxe/bin-x86_64-efi/snp.efi").read_text()
    assert [] == list((tmp_path / "root").rglob("*.new"))


def test_the_packaged_templates_are_those_in_tftpboot():
    tftpboot = Path(__file__).parents[1] / "tftpboot"

    assert sorted(tftpboot.iterdir()) == sorted(path.resolve() for path in tftp.TEMPLATES)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
@pytest.mark.skipif(shutil.which("dnsmasq") is None, reason="dnsmasq-base is not installed")
@pytest.mark.parametrize(
    "name",
    [
        "ipxe/bin-x86_64-efi/snp.efi",
        "/ipxe/bin-x86_64-efi/snp.efi",
        "/tftpboot/ipxe/bin-x86_64-efi/snp.efi",
        "{root}/ipxe/bin-x86_64-efi/snp.efi",
    ],
)
async def test_names_are_served_relative_and_absolute(open_path, package, name):
    config = lab(open_path)
    for path in (config.paths.dhcp_hosts, config.paths.run):
        path.mkdir(parents=True)
    tftp.lay_out(config, [package])
    (open_path / "conf").write_text(dnsmasq.configuration(config))

    with trio.fail_after(20):
        async with namespace(0) as inside:
            await inside.start(
                ["dnsmasq", f"--conf-file={open_path}/conf", "--keep-in-foreground"],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            while not inside.listening(69):  # noqa: ASYNC110
                await trio.sleep(0.02)
            url = f"tftp://{SERVER}/" + name.format(root=config.paths.tftp).replace("/", "%2F")
            curl = await inside.start(
                ["curl", "-s", "--max-time", "10", url],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
            )
            got = b"".join([bytes(chunk) async for chunk in curl.stdout])

    assert b"snponly.efi" == got


def test_the_operators_own_directory_is_looked_at_first(tmp_path, package):
    own = tmp_path / "own"
    own.mkdir()
    (own / "snponly.efi").write_text("own")

    tftp.lay_out(attrs.evolve(lab(tmp_path)), [own, package])

    assert "own" == (tmp_path / "root/ipxe/bin-x86_64-efi/snp.efi").read_text()


def test_it_is_known_whether_laying_out_again_would_change_anything(tmp_path, package):
    config = lab(tmp_path)
    assert not tftp.is_laid_out(config, [package])
    tftp.lay_out(config, [package])
    assert tftp.is_laid_out(config, [package])

    (package / "snponly.efi").write_text("newer")
    assert not tftp.is_laid_out(config, [package])


def test_what_was_laid_out_goes_and_what_others_put_there_stays(tmp_path, package):
    config = lab(tmp_path)
    tftp.lay_out(config, [package])
    (tmp_path / "root/ipxe/own").write_text("")
    own_ipxe.give(tmp_path / "root", "rack-7", ["52:54:00:12:34:56"], tmp_path / "root/ipxe/own")
    tftp.remove(tmp_path / "root")

    assert ["ipxe/own"] == [
        str(path.relative_to(tmp_path / "root"))
        for path in (tmp_path / "root").rglob("*")
        if path.is_file()
    ]
    (tmp_path / "root/ipxe/own").unlink()
    tftp.remove(tmp_path / "root")
    assert not (tmp_path / "root").exists()


ARM64 = "ipxe/bin-arm64-efi/snp.efi"
MACHINE_ARM64 = bytes.fromhex("64aa")  # of a PE file; Microsoft's name is IMAGE_FILE_MACHINE_ARM64


@pytest.mark.slow
def test_what_doctor_says_of_a_missing_ipxe_for_arm64_brings_it(tmp_path, package, monkeypatch):
    """By the system's own mirror, as `make firmware` does."""
    monkeypatch.setattr(tftp, "PACKAGED", (package,))
    (tmp_path / "toml").write_text(f'[paths]\ntftp = "{tmp_path}/root"\n')
    assert "tftpboot" == wire.mend_of("efi-arm64").split()[1]
    done = CliRunner().invoke(
        group, ["--config", str(tmp_path / "toml"), *wire.mend_of("efi-arm64").split()[1:]]
    )

    assert 0 == done.exit_code, done.output
    assert f"{ARM64}  " in done.output
    assert "ipxe-arm64.efi of Debian trixie" in done.output
    found = (tmp_path / "root" / ARM64).read_bytes()
    at = int.from_bytes(found[0x3C:0x40], "little")
    assert (b"PE\0\0", MACHINE_ARM64) == (found[at : at + 4], found[at + 4 : at + 6])
    assert "undionly.kpxe" == (tmp_path / "root/undionly.kpxe").read_text()  # a package here has it


def test_a_newer_ipxe_that_cannot_be_had_is_told_with_the_reason(tmp_path, package, monkeypatch):
    (tmp_path / "apt-get").write_text("#!/bin/sh\n")  # a system without a Debian mirror
    (tmp_path / "dpkg").write_text("#!/bin/sh\necho amd64\n")
    for name in ("apt-get", "dpkg"):
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    with pytest.raises(Refused, match="no Debian mirror in the apt sources"), tftp.newer():
        pass
