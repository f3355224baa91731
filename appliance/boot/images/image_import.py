"""`image import`: makes an existing root filesystem ready to boot over the network.

The source is only read.  Paths in a tar archive cannot lead out: GNU tar drops leading slashes,
refuses "..", and creates symlinks that lead out only after unpacking everything else.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from appliance.boot.images import catalogue, chroot_paths, rootfs, sandbox, snapshot, special_files
from appliance.boot.images.sandbox import Say
from appliance.errors import BadImage
from appliance.fs import trees

_SBIN: Final = ("usr/sbin", "sbin", "usr/bin", "bin")
# What our dracut module needs in the image: (programs, any one of them is enough; their packages).
_NEEDED: Final = (
    (("dracut",), "dracut (packages dracut, dracut-network)"),
    (("dhclient",), "dhclient (package isc-dhcp-client, dhcp-client or dhclient)"),
    (("mount.cifs", "mount.nfs"), "mount.cifs or mount.nfs (packages cifs-utils, nfs-utils)"),
    (("ip",), "ip (package iproute2 or iproute)"),
    (("depmod",), "depmod (package kmod)"),
)
# Folders filled at each boot; device nodes of another machine must not be on a file server.
_EMPTY: Final = ("dev", "proc", "sys", "run", "tmp")


def import_(srv: Path, source: Path, os_name: str, version: str, arch: str, say: Say) -> Path:
    """Imports a folder or a tar; returns the snapshot's folder.  Raises BadImage."""
    for field, word in (("os", os_name), ("version", version), ("arch", arch)):
        catalogue.check_word(field, word)
    machine = os.uname().machine
    if arch != machine:
        raise BadImage(
            f"this machine is {machine}: it cannot run the dracut of an image for {arch}, import it"
            f" on such a machine"
        )
    if os.geteuid() != 0:
        raise BadImage("importing an image needs root: it keeps the owners of its files")
    if not source.exists():
        raise BadImage(f"{source} does not exist")
    with snapshot.new(srv, os_name, arch, version) as making:
        say(f"copying {source}")
        command = _copy(source, making.root) if source.is_dir() else _unpack(source, making.root)
        sandbox.run(command, say, keep=(making.lock,))
        special_files.check_depth(making.root)
        _lay_out(making.root)
        lacks = missing(making.root)
        if lacks:
            raise BadImage(f"{source} lacks {'; '.join(lacks)}")
        rootfs.finish(making.root, say, making.lock)
        return making.publish()


def missing(root: Path) -> list[str]:
    """Returns what `root` lacks for a boot over the network, with the packages to install."""
    lacks = [f"{name}/" for name in ("etc", "usr") if not chroot_paths.resolve(root, name).is_dir()]
    if not any(chroot_paths.resolve(root, "boot").glob("vmlinuz-*")):
        lacks.append("boot/vmlinuz-<kernel version> (a kernel package)")
    lacks += [
        help_
        for programs, help_ in _NEEDED
        if not any(
            os.path.lexists(chroot_paths.entry(root, f"{place}/{name}"))
            for place in _SBIN
            for name in programs
        )
    ]
    return lacks


def _copy(source: Path, root: Path) -> list[str]:
    return ["cp", "--archive", "--one-file-system", "--reflink=auto", f"{source}/.", str(root)]


def _unpack(archive: Path, root: Path) -> list[str]:
    return [
        "tar", "--extract", f"--file={archive}", f"--directory={root}", "--preserve-permissions",
        "--same-owner", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls",
        "--anchored", *(f"--exclude={dot}{name}/*" for dot in ("", "./") for name in _EMPTY),
    ]  # fmt: skip


def _lay_out(root: Path) -> None:
    """Makes or empties the folders that a boot mounts on.  Raises BadImage."""
    for name in _EMPTY:
        place = root / name
        if place.is_symlink() or (place.exists() and not place.is_dir()):
            raise BadImage(f"/{name} of this root filesystem is no folder")
        place.mkdir(exist_ok=True)
        for left in place.iterdir():
            if left.is_dir() and not left.is_symlink():
                trees.remove(left)
            else:
                left.unlink()
        place.chmod(0o1777 if name == "tmp" else 0o755)
