"""What turns a root filesystem into one that boots over the network: modules, initramfs, tidiness.

The initramfs carries no kernel module: `modules-<kernel version>.cgz` is the second initrd of
every boot and brings those that a box needs before it has its root (cards, CIFS, NFS, overlay)
with their firmware.  One initramfs so serves whichever kernel a document names.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.boot import contained
from appliance.boot.cgz import Entry, pack
from appliance.boot.contained import Say
from appliance.errors import BadImage

_MODULE: Final = Path(__file__).parent / "dracut" / "90appliance"
_DRACUT_MODULES: Final = ("usr/lib/dracut/modules.d", "lib/dracut/modules.d")
# Under /lib/modules/<version>/kernel: what may be needed before there is a root filesystem.
_EARLY: Final = (
    "arch/x86/crypto", "arch/arm64/crypto", "crypto", "lib",
    "drivers/net/ethernet", "drivers/net/phy", "drivers/net/mdio", "drivers/net/pcs",
    "drivers/net/usb", "drivers/net/bonding", "drivers/net/hyperv", "drivers/net/vmxnet3",
    "drivers/net/virtio_net", "drivers/net/net_failover", "drivers/net/xen-netfront",
    "drivers/virtio", "drivers/hv", "drivers/pci/controller", "drivers/usb/host", "drivers/bus",
    "drivers/char/hw_random",
    "fs/cifs", "fs/smb", "fs/smbfs_common", "fs/nfs", "fs/nfs_common", "fs/lockd", "fs/fscache",
    "fs/netfs", "fs/overlayfs", "fs/nls",
    "net/sunrpc", "net/dns_resolver", "net/core", "net/packet", "net/8021q", "net/802", "net/llc",
)  # fmt: skip
# Every folder that what follows writes to, deletes from, or reads from.
_TOUCHED: Final = (
    "etc", "etc/ssh", "boot", "usr", "lib", "lib/modules", "lib/firmware", *_DRACUT_MODULES,
    "var", "var/tmp", "var/tmp/appliance-modules", "var/lib/dbus", "var/lib/systemd",
)  # fmt: skip
_STAGING: Final = "var/tmp/appliance-modules"
_SUFFIXES: Final = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


def finish(root: Path, say: Say, lock: int) -> str:
    """Adds what is missing for a boot; returns the kernel version.  Raises BadImage."""
    version = kernel_version(root)
    check_closed(root, version)
    boot = root / "boot"
    say("packing the kernel's modules")
    write(boot / f"modules-{version}.cgz", modules(root, version, say, lock))
    say("building the initramfs")
    initramfs(root, version, say, lock)
    for name, target in (
        ("boot/vmlinuz", f"vmlinuz-{version}"),
        ("initrd.lkp", f"./boot/initramfs.lkp-{version}.img"),
    ):
        (root / name).unlink(missing_ok=True)
        (root / name).symlink_to(target)
    tidy(root)
    return version


def check_closed(root: Path, version: str) -> None:
    """Raises BadImage where a folder that we write to or read from lies outside of `root`.

    We are root on the server: through `etc -> /etc` we would delete the server's own machine-id.
    """
    for place in (*_TOUCHED, f"lib/modules/{version}"):
        _inside(root, root / place)


def write(path: Path, data: bytes) -> None:
    """A file of ours; a link that stands in its place is replaced, not followed."""
    path.unlink(missing_ok=True)
    path.write_bytes(data)


def _inside(root: Path, path: Path) -> Path:
    """`path`, if it lies in `root` with every symlink followed.  Raises BadImage."""
    if not path.resolve().is_relative_to(root.resolve()):
        raise BadImage(
            f"/{path.relative_to(root)} leads out of this root filesystem: make it a relative link"
            " or a folder"
        )
    return path


def kernel_version(root: Path) -> str:
    """That of boot/vmlinuz, else the newest kernel that has its modules.  Raises BadImage."""
    named = root / "boot/vmlinuz"
    if named.is_symlink():
        versions = [Path(os.readlink(named)).name.removeprefix("vmlinuz-")]
    else:
        versions = [path.name.removeprefix("vmlinuz-") for path in root.glob("boot/vmlinuz-*")]
    if not versions:
        raise BadImage("boot/vmlinuz-<kernel version> is missing: install a kernel in it")
    whole = [name for name in versions if (root / f"lib/modules/{name}/modules.dep").exists()]
    if not whole:
        raise BadImage(f"lib/modules/{versions[0]}/modules.dep is missing: the kernel's modules")
    return max(whole, key=_natural)


def modules(root: Path, version: str, say: Say, lock: int) -> bytes:
    """modules-<version>.cgz.  Raises BadImage."""
    tree = root / "lib/modules" / version
    staging = root / _STAGING
    try:
        target = staging / "lib/modules" / version
        target.mkdir(parents=True)
        for path in sorted(_needed(tree)):
            (target / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(_inside(root, tree / path), target / path)
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            if (tree / name).exists():
                shutil.copyfile(_inside(root, tree / name), target / name)
        contained.run_inside(root, ("depmod", "-b", f"/{_STAGING}", version), say, keep=(lock,))
        _copy_firmware(root, staging, lock)
        return pack(_entries(staging, "usr/" if (root / "lib").is_symlink() else ""))
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def initramfs(root: Path, version: str, say: Say, lock: int) -> None:
    """boot/initramfs.lkp-<version>.img, made by the dracut that is in the root filesystem."""
    homes = [root / home for home in _DRACUT_MODULES if (root / home).is_dir()]
    if not homes:
        raise BadImage("dracut is missing: install dracut and its network modules in it")
    ours = homes[0] / _MODULE.name
    shutil.rmtree(ours, ignore_errors=True)
    shutil.copytree(_MODULE, ours)
    for script in ours.iterdir():
        script.chmod(0o755)
    name = f"boot/initramfs.lkp-{version}.img"
    (root / name).unlink(missing_ok=True)
    try:
        contained.run_inside(root, _dracut(f"/{name}", version), say, keep=(lock,))
    finally:
        shutil.rmtree(ours)
    problem = without_our_module(root / name)
    if problem is not None:
        raise BadImage(f"dracut made a broken initramfs: {problem}")


def tidy(root: Path) -> None:
    """A root filesystem that many boxes share keeps no secret and no identity."""
    for key in root.glob("etc/ssh/ssh_host_*"):
        key.unlink()
    write(root / "etc/machine-id", b"")
    (root / "var/lib/dbus/machine-id").unlink(missing_ok=True)
    (root / "var/lib/systemd/random-seed").unlink(missing_ok=True)
    (root / "etc/resolv.conf").unlink(missing_ok=True)
    (root / "etc/hostname").unlink(missing_ok=True)
    for path in (root, root / "boot"):
        path.chmod(0o755)
    for path in (root / "boot").iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)


def _dracut(target: str, version: str) -> list[str]:
    return [
        "dracut", "--force", "--no-kernel", "--no-hostonly", "--no-hostonly-cmdline",
        "--no-early-microcode", "--reproducible",
        # gzip, since a box that goes on by kexec looks into it with gzip and cpio
        "--compress", "gzip -n -6",
        # ours and what it stands on, whatever this distribution would add (/run is empty)
        "--conf", "/dev/null", "--confdir", "/run", "--modules", "appliance",
        "--kver", version, target,
    ]  # fmt: skip


def without_our_module(image: Path) -> str | None:
    """Why this initramfs is not one of ours; None if it is."""
    names = _names(image)
    for wanted in ("usr/lib/appliance-lib.sh", "usr/sbin/appliance-root", "usr/sbin/dhclient"):
        if wanted not in names and wanted.removeprefix("usr/") not in names:
            return f"{wanted} is not in {image.name}"
    return None


def flaws(root: Path) -> list[str]:
    """What is wrong inside the boot files of a finished image; slow, it unpacks them."""
    found: list[str] = []
    image = root / "initrd.lkp"
    if image.exists():
        problem = without_our_module(image)
        found += [problem] if problem is not None else []
    for archive in sorted(root.glob("boot/modules-*.cgz")):
        names = _names(archive)
        version = archive.name.removeprefix("modules-").removesuffix(".cgz")
        if not any(f"lib/modules/{version}/" in name for name in names):
            found.append(f"boot/{archive.name} does not unpack to lib/modules/{version}")
    return found


def _names(archive: Path) -> set[str]:
    """The paths in a gzip-compressed cpio; empty if it is none."""
    listing = subprocess.run(
        ("sh", "-c", 'gzip -dc < "$1" | cpio --quiet -t', "sh", str(archive)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return set(listing.stdout.decode(errors="replace").splitlines())


def _needed(tree: Path) -> set[str]:
    """The early modules and, again and again, the modules that those need."""
    needs: dict[str, list[str]] = {}
    for line in (tree / "modules.dep").read_text().splitlines():
        module, _, others = line.partition(":")
        needs[module] = others.split()
        for name in (module, *needs[module]):
            if name.startswith("/") or ".." in name.split("/"):
                raise BadImage(f"modules.dep names {name!r}, which is no place below its folder")
    wanted = {module for module in needs if _is_early(module)}
    waiting = list(wanted)
    while waiting:
        more = set(needs.get(waiting.pop(), ())) - wanted
        wanted |= more
        waiting += more
    return wanted


def _is_early(module: str) -> bool:
    name = module.removeprefix("kernel/")
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return any(name == early or name.startswith(f"{early}/") for early in _EARLY)


def _copy_firmware(root: Path, staging: Path, lock: int) -> None:
    """What the packed modules ask for, as far as the root filesystem has it."""
    asked: list[str] = []
    files = [f"/{path.relative_to(root)}" for path in staging.rglob("*.ko*")]
    contained.run_inside(root, ("modinfo", "-F", "firmware", *files), asked.append, keep=(lock,))
    for name in sorted(set(asked) - {""}):
        for found in root.glob(f"lib/firmware/{name}"):
            if found.is_file() and ".." not in found.parts:
                _inside(root, found)
                target = staging / found.relative_to(root)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(found, target)


def _entries(tree: Path, prefix: str) -> Iterator[Entry]:
    """Of a merged /usr, `prefix` says so: a folder /lib would replace the initramfs's symlink."""
    for path in tree.rglob("*"):
        if path.is_file():
            yield Entry(f"{prefix}{path.relative_to(tree)}", path.read_bytes())


def _natural(version: str) -> tuple[tuple[int, str], ...]:
    """6.1.0-9 before 6.1.0-10."""
    words = version.replace("-", ".").replace("+", ".").split(".")
    return tuple((int(word), "") if word.isdigit() else (-1, word) for word in words)
