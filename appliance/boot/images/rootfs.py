"""Makes a root filesystem boot over the network: packs modules, builds an initramfs, cleans up.

The initramfs contains no kernel module: `modules-<kernel version>.cgz` is the second initrd of
every boot and has the modules that a box needs before it has its root (cards, CIFS, NFS, overlay)
with their firmware.  So one initramfs works with every kernel that a document may name.
"""

from __future__ import annotations

import contextlib
import fnmatch
import os
import shutil
import signal
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from appliance.boot.images import catalogue, chroot_paths, sandbox, special_files
from appliance.boot.images.sandbox import Say
from appliance.boot.script.cgz import Entry, pack
from appliance.errors import BadImage

_MODULE: Final = Path(__file__).parents[1] / "dracut" / "90appliance"
_DRACUT_MODULES: Final = ("usr/lib/dracut/modules.d", "lib/dracut/modules.d")
# Under /lib/modules/<version>/kernel: modules that may be needed before the root is mounted.
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
# Of a boot file that is looked into: ours have 6,000 paths, and are unpacked in three seconds.
NAMES_MAX: Final = 200_000
PATH_BYTES_MAX: Final = 2**12
LISTING_S: Final = 120.0
_STAGING: Final = ".appliance-modules"  # at the top, so its path crosses no symlink of the image
_SUFFIXES: Final = (".ko", ".ko.xz", ".ko.zst", ".ko.gz")


def finish(root: Path, say: Say, lock: int) -> str:
    """Adds everything that a boot needs; returns the kernel version.  Raises BadImage."""
    special_files.strip(root, say)
    version = kernel_version(root)
    check_boot_folder(root)
    say("packing the kernel's modules")
    chroot_paths.write(root, f"boot/modules-{version}.cgz", modules(root, version, say, lock))
    say("building the initramfs")
    initramfs(root, version, say, lock)
    chroot_paths.link(root, "boot/vmlinuz", f"vmlinuz-{version}")
    chroot_paths.link(root, "initrd.lkp", f"./boot/initramfs.lkp-{version}.img")
    tidy(root)
    # Counted once, here, while it is all cached: `image list` must not walk the tree.
    chroot_paths.write(root, catalogue.SIZE, f"{size(root)}\n".encode())
    return version


def size(root: Path) -> int:
    """Returns the tree's bytes on disk; a hard-linked file counts once."""
    counted: dict[int, int] = {}
    for place, folders, names in os.walk(root):
        for name in (*folders, *names):
            found = os.lstat(os.path.join(place, name))
            counted[found.st_ino] = found.st_blocks * 512
    return sum(counted.values())


def check_boot_folder(root: Path) -> None:
    """Raises BadImage if /boot means different folders to a box and to this server.

    The server sees the image from outside, where an absolute symlink leads out of the image.
    """
    if (root / "boot").resolve() != chroot_paths.resolve(root.resolve(), "boot"):
        raise BadImage("/boot leads out of this root filesystem: make it a relative link")


def kernel_version(root: Path) -> str:
    """Returns boot/vmlinuz's version, or the newest with modules.  Raises BadImage."""
    named = chroot_paths.entry(root, "boot/vmlinuz")
    if named.is_symlink():
        files = [Path(os.readlink(named)).name]
    else:
        files = [path.name for path in chroot_paths.resolve(root, "boot").glob("vmlinuz-*")]
    versions = [name.removeprefix("vmlinuz-") for name in files if name.startswith("vmlinuz-")]
    if not versions:
        raise BadImage("boot/vmlinuz-<kernel version> is missing: install a kernel in it")
    for name in versions:
        catalogue.check_word("the kernel's version", name)  # it becomes a part of paths and URLs
    whole = [name for name in versions if chroot_paths.has(root, f"lib/modules/{name}/modules.dep")]
    if not whole:
        raise BadImage(f"lib/modules/{versions[0]}/modules.dep is missing: the kernel's modules")
    return max(whole, key=_natural)


def modules(root: Path, version: str, say: Say, lock: int) -> bytes:
    """Returns the bytes of modules-<version>.cgz.  Raises BadImage."""
    tree = f"lib/modules/{version}"
    try:
        chroot_paths.remove(root, _STAGING)
        for path in sorted(_needed(root, tree)):
            _stage(root, f"{tree}/{path}")
        for name in ("modules.order", "modules.builtin", "modules.builtin.modinfo"):
            if chroot_paths.has(root, f"{tree}/{name}"):
                _stage(root, f"{tree}/{name}")
        sandbox.run_inside(root, ("depmod", "-b", f"/{_STAGING}", version), say, keep=(lock,))
        _stage_firmware(root, lock)
        return pack(_entries(root / _STAGING, "usr/" if (root / "lib").is_symlink() else ""))
    finally:
        chroot_paths.remove(root, _STAGING)


def initramfs(root: Path, version: str, say: Say, lock: int) -> None:
    """Makes boot/initramfs.lkp-<version>.img with the root filesystem's own dracut."""
    homes = [home for home in _DRACUT_MODULES if chroot_paths.resolve(root, home).is_dir()]
    if not homes:
        raise BadImage("dracut is missing: install dracut and its network modules in it")
    ours = f"{homes[0]}/{_MODULE.name}"
    name = f"boot/initramfs.lkp-{version}.img"
    chroot_paths.remove(root, name)
    chroot_paths.remove(root, ours)
    try:
        shutil.copytree(_MODULE, chroot_paths.entry(root, ours))
        for script in chroot_paths.entry(root, ours).iterdir():
            script.chmod(0o755)
        sandbox.run_inside(root, _dracut(f"/{name}", version), say, keep=(lock,))
    finally:
        chroot_paths.remove(root, ours)
    if not chroot_paths.has(root, name):
        raise BadImage(f"dracut made no /{name}")
    problem = without_our_module(root, name)
    if problem is not None:
        raise BadImage(f"dracut made a broken initramfs: {problem}")


def tidy(root: Path) -> None:
    """Removes secrets and identities: many boxes share the root filesystem."""
    for key in chroot_paths.resolve(root, "etc/ssh").glob("ssh_host_*"):
        chroot_paths.remove(root, f"etc/ssh/{key.name}")
    chroot_paths.write(root, "etc/machine-id", b"")
    for name in (
        "var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "etc/resolv.conf", "etc/hostname",
    ):  # fmt: skip
        chroot_paths.remove(root, name)
    boot = chroot_paths.resolve(root, "boot")
    for path in (root, boot):
        path.chmod(0o755)
    for path in boot.iterdir():
        if path.is_file() and not path.is_symlink():
            path.chmod(0o644)


def _dracut(target: str, version: str) -> list[str]:
    return [
        "dracut", "--force", "--no-kernel", "--no-hostonly", "--no-hostonly-cmdline",
        "--no-early-microcode", "--reproducible",
        # gzip, since a box that uses kexec reads the initramfs with gzip and cpio
        "--compress", "gzip -n -6",
        # only our module and its dependencies, no configuration of the distribution (/run is empty)
        "--conf", "/dev/null", "--confdir", "/run", "--modules", "appliance",
        "--kver", version, target,
    ]  # fmt: skip


def without_our_module(root: Path, image: str) -> str | None:
    """Returns why this initramfs of `root` is not one of ours; None if it is."""
    names = _names(root, image)
    for wanted in ("usr/lib/appliance-lib.sh", "usr/sbin/appliance-root", "usr/sbin/dhclient"):
        if wanted not in names and wanted.removeprefix("usr/") not in names:
            return f"{wanted} is not in {image.rpartition('/')[2]}"
    return None


def flaws(root: Path) -> list[str]:
    """Returns what is wrong inside the boot files of a finished image; slow, since it unpacks."""
    found: list[str] = []
    if chroot_paths.has(root, "initrd.lkp"):
        problem = without_our_module(root, "initrd.lkp")
        found += [problem] if problem is not None else []
    boot = chroot_paths.resolve(root, "boot")
    for name in sorted(os.listdir(boot)) if boot.is_dir() else []:
        if fnmatch.fnmatchcase(name, "modules-*.cgz"):
            version = name.removeprefix("modules-").removesuffix(".cgz")
            tree = f"lib/modules/{version}/"
            try:
                whole = any(tree in path for path in _names(root, f"boot/{name}"))
            except BadImage as error:
                found.append(str(error))
            else:
                found += [] if whole else [f"boot/{name} does not unpack to lib/modules/{version}"]
    return found


def _names(root: Path, archive: str) -> set[str]:
    """Returns the paths in a gzip-compressed cpio; empty if `archive` is not one.

    It may be anybody's: at most NAMES_MAX paths are looked at, for LISTING_S seconds.  Raises
    BadImage for what is no regular file inside of `root`.
    """
    names: set[str] = set()
    with open(chroot_paths.open_(root, archive), "rb") as file, subprocess.Popen(
        ("sh", "-c", "gzip -dc | cpio --quiet -t"),
        stdin=file,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as listing:  # fmt: skip
        assert listing.stdout is not None
        late = threading.Timer(LISTING_S, os.killpg, (listing.pid, signal.SIGKILL))
        late.start()
        try:
            while len(names) < NAMES_MAX and (line := listing.stdout.readline(PATH_BYTES_MAX)):
                names.add(line.decode(errors="replace").rstrip("\n"))
        finally:
            late.cancel()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(listing.pid, signal.SIGKILL)
    return names


def _needed(root: Path, tree: str) -> set[str]:
    """Returns the early modules and all modules that they depend on."""
    needs: dict[str, list[str]] = {}
    for line in (
        chroot_paths.read(root, f"{tree}/modules.dep").decode(errors="replace").splitlines()
    ):
        module, _, others = line.partition(":")
        needs[module] = others.split()
        for name in (module, *needs[module]):
            if name.startswith("/") or ".." in name.split("/") or not name.isprintable():
                raise BadImage(f"modules.dep names {name!r}, which is no place below its folder")
    wanted = {module for module in needs if _is_early(module)}
    waiting = list(wanted)
    while waiting:
        more = set(needs.get(waiting.pop(), ())) - wanted
        wanted |= more
        waiting += more
    return wanted


def _stage(root: Path, path: str) -> None:
    """Copies a file to the same path below the staging folder."""
    target = root / _STAGING / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(chroot_paths.read(root, path))


def _is_early(module: str) -> bool:
    name = module.removeprefix("kernel/")
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return any(name == early or name.startswith(f"{early}/") for early in _EARLY)


def _stage_firmware(root: Path, lock: int) -> None:
    """Stages the firmware that the staged modules name, if the root filesystem has it."""
    files = [
        f"/{path.relative_to(root)}"
        for path in _files(root / _STAGING)
        if path.name.endswith(_SUFFIXES)
    ]
    asked: list[str] = []
    if files:
        ask = ("modinfo", "-F", "firmware", *files)
        sandbox.run_inside(root, ask, asked.append, keep=(lock,))
    for pattern in sorted(set(asked) - {""}):
        for name in _matching(root, pattern):
            if chroot_paths.has(root, name):
                _stage(root, name)


def _matching(root: Path, pattern: str) -> list[str]:
    """Returns the firmware paths that match, as for `brcm/brcmfmac43430-sdio.*.txt`."""
    folder, _, last = f"lib/firmware/{pattern}".rpartition("/")
    if ".." in pattern.split("/") or not pattern.isprintable():
        return []
    there = chroot_paths.resolve(root, folder)
    names = sorted(os.listdir(there)) if there.is_dir() else []
    return [f"{folder}/{name}" for name in names if fnmatch.fnmatchcase(name, last)]


def _files(tree: Path) -> list[Path]:
    """Returns the regular files below `tree`; follows no symlink."""
    found = [Path(place, name) for place, _, names in os.walk(tree) for name in names]
    return sorted(path for path in found if stat.S_ISREG(path.lstat().st_mode))


def _entries(tree: Path, prefix: str) -> Iterator[Entry]:
    """Yields the archive's entries.

    `prefix` is usr/ where /usr is merged: a folder /lib would replace the initramfs's symlink.
    """
    for path in _files(tree):
        name = str(path.relative_to(tree))
        yield Entry(f"{prefix}{name}", chroot_paths.read(tree, name))


def _natural(version: str) -> tuple[tuple[int, str], ...]:
    """Returns a sort key that puts 6.1.0-9 before 6.1.0-10."""
    words = version.replace("-", ".").replace("+", ".").split(".")
    return tuple((int(word), "") if word.isdigit() else (-1, word) for word in words)
