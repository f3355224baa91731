"""images/rootfs: nothing in a root filesystem leads us out of it: those who make one are root.

`host` stands for the server: every test ends with a look whether anything in it changed, and
whether a byte of it came into the image.  depmod, modinfo and dracut are stood in for.
"""

from __future__ import annotations

import gzip
import os
import shutil
import subprocess

import pytest

from appliance.boot.images import image_import, rootfs, snapshot
from appliance.errors import BadImage

VERSION = "6.1"
SECRET = "the host's own"
MODULE = b"a module"


def state(folder):
    """Every name below it, with what it is and holds."""
    return {
        str(path.relative_to(folder)): (path.lstat().st_mode, path.lstat().st_mtime_ns,
                                        path.read_bytes() if path.is_file() else b"")
        for path in folder.rglob("*")
    }  # fmt: skip


@pytest.fixture
def host(tmp_path):
    """A folder that is not the root filesystem's: named as one is, and full of what is ours."""
    made = tmp_path / "host"
    for name in ("machine-id", "hostname", "resolv.conf", "ssh/ssh_host_rsa_key", "fstab",
                 "modules.dep", "kernel/lib/a.ko", f"{VERSION}/modules.dep", f"vmlinuz-{VERSION}",
                 "90appliance/file", "initramfs.lkp-6.1.img", "firmware.bin", "random-seed",
                 f"{VERSION}/kernel/lib/a.ko", f"modules/{VERSION}/modules.dep",
                 f"modules-{VERSION}.cgz"):  # fmt: skip
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text("kernel/lib/a.ko:" if name.endswith("dep") else SECRET)
    before = state(made)
    yield made
    assert before == state(made)


@pytest.fixture
def root(tmp_path, host):
    made = tmp_path / "root"
    for folder in ("boot", "etc/ssh", "usr/lib/dracut/modules.d", "usr/lib/firmware", "var/tmp",
                   "var/lib/dbus", "var/lib/systemd"):  # fmt: skip
        (made / folder).mkdir(parents=True)
    (made / "lib").symlink_to("usr/lib")
    (made / f"boot/vmlinuz-{VERSION}").write_bytes(b"kernel")
    tree = made / f"usr/lib/modules/{VERSION}"
    (tree / "kernel/lib").mkdir(parents=True)
    (tree / "kernel/lib/a.ko").write_bytes(MODULE)
    (tree / "modules.dep").write_text("kernel/lib/a.ko:\n")
    return made


@pytest.fixture(autouse=True)
def tools(monkeypatch, tmp_path):
    """What runs in the chroot: modinfo asks for firmware, dracut makes something of ours."""
    asked = ["firmware.bin"]
    initramfs = tmp_path / "initramfs"
    for name in ("usr/lib/appliance-lib.sh", "usr/sbin/appliance-root", "usr/sbin/dhclient"):
        (initramfs / name).parent.mkdir(parents=True, exist_ok=True)
        (initramfs / name).touch()

    def run_inside(root, argv, say, *, keep=(), environment=None):
        if argv[0] == "modinfo":
            for name in asked:
                say(name)
        if argv[0] == "dracut":
            packed = subprocess.run(
                ["sh", "-c", "find . | cpio --quiet -o -H newc | gzip"],
                cwd=initramfs, capture_output=True, check=True,
            ).stdout  # fmt: skip
            rootfs.chroot_paths.write(root, argv[-1], packed)

    monkeypatch.setattr(rootfs.sandbox, "run_inside", run_inside)
    return asked


def quiet(line):
    pass


def packed(root):
    return gzip.decompress((root / f"boot/modules-{VERSION}.cgz").read_bytes())


def test_a_root_filesystem_that_leads_nowhere_is_finished(root):
    assert VERSION == rootfs.finish(root, quiet, 0)

    assert MODULE in packed(root)
    assert f"./boot/initramfs.lkp-{VERSION}.img" == os.readlink(root / "initrd.lkp")
    assert not (root / ".appliance-modules").exists()


def test_absolute_links_are_those_of_the_box(root):
    """Some distributions link /lib to /usr/lib, and /etc/ssh somewhere else, from the top."""
    (root / "lib").unlink()
    (root / "lib").symlink_to("/usr/lib")
    (root / "etc/ssh").rmdir()
    (root / "etc/ssh").symlink_to("/usr/ssh")
    (root / "usr/ssh").mkdir()
    (root / "usr/ssh/ssh_host_rsa_key").write_text("a box's own")

    rootfs.finish(root, quiet, 0)

    assert MODULE in packed(root)
    assert [] == list((root / "usr/ssh").iterdir())


PLACES = [
    "etc", "boot", "lib", "lib/modules", f"lib/modules/{VERSION}", "usr/lib/modules", "usr/lib",
    "usr/lib/dracut/modules.d", "usr/lib/dracut", "lib/firmware", "usr", "var", "var/tmp",
    "etc/ssh", "var/lib", "var/lib/dbus", "var/lib/systemd",
]  # fmt: skip


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("how", ["absolute", "relative"])
def test_a_folder_that_leads_out_touches_nothing_of_the_host(root, host, place, how):
    folder = root / place
    if folder.is_symlink():
        folder.unlink()
    else:
        folder.rename(root / "moved")
    to = str(host) if how == "absolute" else "../" * (place.count("/") + 1) + "host"
    folder.symlink_to(to)

    try:
        rootfs.finish(root, quiet, 0)
    except (BadImage, FileNotFoundError):
        return  # refused; FileNotFoundError: a folder that no root filesystem lacks
    if (root / "boot").is_dir():
        assert SECRET.encode() not in packed(root)


FILES = [
    f"boot/modules-{VERSION}.cgz", f"boot/initramfs.lkp-{VERSION}.img", "initrd.lkp",
    "etc/machine-id", "etc/hostname", "etc/resolv.conf", "var/lib/dbus/machine-id",
    "var/lib/systemd/random-seed", "etc/ssh/ssh_host_rsa_key", ".appliance-modules",
    "usr/lib/dracut/modules.d/90appliance",
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("to", ["machine-id", "."])
def test_a_link_in_the_place_of_a_file_of_ours_is_replaced(root, host, name, to):
    (root / name).symlink_to(host / to)

    rootfs.finish(root, quiet, 0)

    assert SECRET.encode() not in packed(root)


@pytest.mark.parametrize("name", ["vmlinuz-..", "vmlinuz-../../../host", "vmlinuz-", "machine-id"])
def test_a_kernel_that_is_no_name_is_refused(root, host, name):
    (root / "boot/vmlinuz").symlink_to(name)

    with pytest.raises(BadImage):
        rootfs.finish(root, quiet, 0)


@pytest.mark.parametrize("line", [
    "kernel/lib/../../../../../../../host/kernel/lib/a.ko:", "/etc/passwd:", "kernel/lib/\0.ko:",
])  # fmt: skip
def test_a_module_named_outside_its_tree_is_refused(root, host, line):
    tree = root / f"usr/lib/modules/{VERSION}"
    (tree / "modules.dep").write_text(f"kernel/lib/a.ko: {line[:-1]}\n{line}\n")

    with pytest.raises(BadImage, match=r"modules\.dep names"):
        rootfs.finish(root, quiet, 0)


@pytest.mark.parametrize("name", ["kernel/lib/a.ko", "modules.dep", "modules.order"])
def test_a_file_of_the_modules_that_is_a_link_out_is_not_read(root, host, name):
    file = root / f"usr/lib/modules/{VERSION}" / name
    file.unlink(missing_ok=True)
    file.symlink_to(host / "kernel/lib/a.ko")

    try:
        rootfs.finish(root, quiet, 0)
    except BadImage:
        return
    assert SECRET.encode() not in packed(root)


@pytest.mark.parametrize("asked", [
    "firmware.bin", "../firmware.bin", "../../../host/firmware.bin", "*.bin", "/firmware.bin",
    "out/firmware.bin", "out/*",
])  # fmt: skip
def test_firmware_comes_from_inside_only(root, host, tools, asked):
    tools[:] = [asked, "real.bin"]
    firmware = root / "usr/lib/firmware"
    (firmware / "real.bin").write_bytes(b"real firmware")
    (firmware / "firmware.bin").symlink_to(host / "firmware.bin")
    (firmware / "out").symlink_to(host)

    rootfs.finish(root, quiet, 0)

    assert SECRET.encode() not in packed(root)
    assert b"real firmware" in packed(root)


def test_what_depmod_leaves_is_packed_only_where_it_is_a_file(root, host, monkeypatch):
    real = rootfs.sandbox.run_inside

    def run_inside(root, argv, say, **more):
        if argv[0] == "depmod":
            staged = root / ".appliance-modules/lib/modules" / VERSION
            (staged / "modules.alias").symlink_to(host / "machine-id")
            (staged / "more").symlink_to(host)
        real(root, argv, say, **more)

    monkeypatch.setattr(rootfs.sandbox, "run_inside", run_inside)
    rootfs.finish(root, quiet, 0)

    assert SECRET.encode() not in packed(root)


@pytest.mark.skipif(os.geteuid() != 0, reason="an import needs root")
@pytest.mark.root
@pytest.mark.parametrize("place", PLACES)
def test_an_import_from_end_to_end_touches_nothing_of_the_host(root, host, tmp_path, place):
    for name in ("dracut", "dhclient", "mount.nfs", "ip", "depmod"):
        (root / "usr/sbin").mkdir(exist_ok=True)
        (root / "usr/sbin" / name).touch()
    folder = root / place
    folder.unlink() if folder.is_symlink() else shutil.rmtree(folder)
    folder.symlink_to(host)

    try:
        made = image_import.import_(tmp_path / "srv", root, "ours", "1", os.uname().machine, quiet)
    except (BadImage, FileNotFoundError):
        assert not list(tmp_path.glob("srv/os/*"))
        return
    assert SECRET.encode() not in packed(made)


def test_nobody_else_enters_a_folder_in_the_making(tmp_path):
    """Its /var/tmp is everybody's: a link of theirs in there would be in our way."""
    with snapshot.new(tmp_path, "debian", "x86_64", "12") as making:
        assert 0o700 == making.root.parent.stat().st_mode & 0o777
        made = making.publish()

    assert 0o755 == made.stat().st_mode & 0o777


@pytest.mark.parametrize("kind", ["a pipe outside", "a file outside", "a folder of boot outside"])
def test_a_look_at_an_image_follows_no_link_out_of_it(root, tmp_path, kind):
    """`image check` and doctor, which root runs, waited for ever for what a pipe would say."""
    outside = tmp_path / "outside"
    outside.mkdir()
    if kind == "a pipe outside":
        os.mkfifo(outside / "it")
    else:
        (outside / "it").write_bytes(gzip.compress(b""))
    if kind == "a folder of boot outside":
        shutil.rmtree(root / "boot")
        (outside / "modules-0.cgz").write_bytes(b"")
        (root / "boot").symlink_to(outside)
        assert [] == rootfs.flaws(root)
    else:
        (root / "boot/modules-0.cgz").symlink_to(outside / "it")
        assert any("boot/modules-0.cgz" in flaw for flaw in rootfs.flaws(root))


def test_a_file_of_holes_is_no_file_of_an_image(root):
    """It ended an import with a MemoryError and its trace."""
    with (root / "lib/modules" / VERSION / "modules.dep").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(BadImage, match="larger than"):
        rootfs.chroot_paths.read(root, f"lib/modules/{VERSION}/modules.dep")
