"""`image import` of a real root filesystem: Debian's own dracut, depmod and kernel, for real."""

from __future__ import annotations

import os
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.boot.images import catalogue, image_import
from appliance.cli import group

CACHED = Path(__file__).parents[1] / ".cache/srv/os/debian/x86_64/12"
# What `image build` added: an import has to make all of it anew.
OURS = ("initrd.lkp", "boot/vmlinuz", "boot/initramfs.lkp-*", "boot/modules-*")
SETUID = "usr/bin/su"

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="an import needs root"),
    pytest.mark.skipif(os.uname().machine != "x86_64", reason="the cached image is for x86_64"),
    pytest.mark.skipif(not CACHED.exists(), reason="no image: make image"),
]


@pytest.fixture(scope="module")
def tar(tmp_path_factory):
    """The cached image as its distribution would have made it, with a box's identity in it."""
    place = tmp_path_factory.mktemp("rootfs")
    (place / "etc/ssh").mkdir(parents=True)
    (place / "etc/ssh/ssh_host_rsa_key").write_text("a key")
    (place / "etc/hostname").write_text("a-box")
    file = place / "rootfs.tar"
    without = [f"--exclude=./{name}" for name in (*OURS, "etc/hostname")]
    subprocess.run(
        ["tar", "--create", "--xattrs", "--acls", "--numeric-owner", "--anchored",
         f"--file={file}", *without, f"--directory={CACHED.resolve()}", "."],
        check=True,
    )  # fmt: skip
    subprocess.run(
        ["tar", "--append", f"--file={file}", f"--directory={place}", "./etc"], check=True
    )
    yield file
    file.unlink()


@pytest.fixture(scope="module")
def imported(tar, tmp_path_factory):
    srv = tmp_path_factory.mktemp("srv")
    made = image_import.import_(srv, tar, "ours", "1", "x86_64", lambda line: None)
    yield srv, made
    subprocess.run(["rm", "-rf", srv / "os"], check=True)  # 700 MB that nobody looks at again


def checked(srv, *names):
    return CliRunner().invoke(group, ["image", "check", *names, "--srv", str(srv)])


def test_the_check_finds_it_good(imported):
    srv, made = imported
    done = checked(srv, "ours/x86_64/1")

    assert (0, f"ours/x86_64/1: good (/os/ours/x86_64/{made.name})\n") == (
        done.exit_code, done.output,
    )  # fmt: skip


def test_a_document_resolves_to_files_that_a_box_can_read(imported):
    srv, made = imported
    boot = catalogue.resolve(srv, "ours", "x86_64", "1", "nfs")

    assert [] == catalogue.missing(srv, boot)
    assert f"/os/ours/x86_64/{made.name}" == boot.root
    for path in (boot.kernel, *boot.initrds):
        assert Path(f"{srv}{path}").stat().st_mode & stat.S_IROTH
        assert Path(f"{srv}{path}").stat().st_size > 2**20


def test_owners_modes_and_links_came_along(imported):
    _, made = imported
    for name in (SETUID, "etc/shadow", "var/tmp", "usr/bin"):
        there, here = (CACHED / name).stat(), (made / name).stat()
        assert (there.st_mode, there.st_uid, there.st_gid) == (
            here.st_mode,
            here.st_uid,
            here.st_gid,
        )
    assert (made / SETUID).stat().st_mode & stat.S_ISUID
    assert os.readlink(CACHED / "bin") == os.readlink(made / "bin")


def test_no_identity_of_the_box_it_was_taken_from_is_left(imported):
    _, made = imported
    assert [] == list((made / "etc/ssh").glob("ssh_host_*"))
    assert not (made / "etc/hostname").exists()
    assert b"" == (made / "etc/machine-id").read_bytes()


def test_nothing_but_the_image_is_left(imported):
    srv, made = imported
    assert {"1", made.name} == {path.name for path in (srv / "os/ours/x86_64").iterdir()}
    assert not (made / ".appliance-modules").exists()
    assert not list(made.glob("usr/lib/dracut/modules.d/90appliance"))
    for name in ("proc", "sys", "dev", "run", "tmp"):
        assert [] == list((made / name).iterdir())


def test_the_check_can_complain(imported):
    """Last: it spoils the image."""
    srv, made = imported
    (archive,) = made.glob("boot/modules-*.cgz")
    archive.write_bytes(archive.read_bytes()[:1000])

    done = checked(srv)

    assert 1 == done.exit_code
    assert "does not unpack to lib/modules/" in done.output
