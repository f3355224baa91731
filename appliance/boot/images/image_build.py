"""`image build debian`: a root filesystem from Debian's packages, ready to boot over the network.

mmdebstrap (or debootstrap) installs the packages, dracut (run inside) makes the initramfs, and
`Snapshot` gives the folder its final name.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from appliance.boot.images import (
    apt_sources,
    catalogue,
    chroot_paths,
    emulation,
    rootfs,
    sandbox,
    snapshot,
)
from appliance.boot.images.apt_sources import Source
from appliance.boot.images.sandbox import Say
from appliance.boot.images.snapshot import Snapshot
from appliance.errors import BadImage

_CODENAMES: Final = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_KERNELS: Final = {"x86_64": "linux-image-amd64", "aarch64": "linux-image-arm64"}

_PACKAGES: Final = (
    # the initramfs
    "dracut", "dracut-network", "cifs-utils", "nfs-common", "systemd-sysv", "udev", "dbus",
    "procps", "iputils-arping", "isc-dhcp-client", "iproute2", "kmod",
    # needed by the runner and by jobs
    "curl", "ca-certificates", "efibootmgr", "gzip", "cpio", "iputils-ping", "less",
)  # fmt: skip
# For network cards that do not work without firmware.  Missing if the mirror lacks
# non-free-firmware.
_FIRMWARE: Final = (
    "firmware-bnx2", "firmware-bnx2x", "firmware-cavium", "firmware-misc-nonfree",
    "firmware-myricom", "firmware-netxen", "firmware-qlogic", "firmware-realtek",
)  # fmt: skip
# A script for sh; $1 is the root filesystem.
_FIRMWARE_HOOK: Final = """\
root=$1; shift
for name in {names}; do
    if {chroot} apt-cache show "$name" >/dev/null 2>&1; then set -- "$@" "$name"
    else echo "I: firmware not to be had from this mirror: $name"; fi
done
[ $# -eq 0 ] || {chroot} apt-get -qq -y --no-install-recommends install "$@"
"""
# Run in the chroot after debootstrap.  policy-rc.d prevents daemons from starting: nothing would
# stop them.
_INSTALL: Final = """\
set -e
printf '#!/bin/sh\\nexit 101\\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
trap 'rm -f /usr/sbin/policy-rc.d' EXIT
apt-get -qq update
apt-get -qq -y --no-install-recommends dist-upgrade
apt-get -qq -y --no-install-recommends install {packages}
apt-get clean
"""
# Units that a box without a disk, a keyboard or a user does not need to wait for.
_MASKED: Final = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "fstrim.timer", "e2scrub_reap.service", "systemd-random-seed.service", "rpcbind.service",
    "rpcbind.socket", "nfs-client.target", "rpc-gssd.service", "systemd-pstore.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "systemd-journal-flush.service", "networking.service", "logrotate.timer",
    "man-db.timer", "remote-fs.target", "ldconfig.service", "systemd-machine-id-commit.service",
    "run-rpc_pipefs.mount", "rpc_pipefs.target", "nfs-blkmap.service", "dracut-shutdown.service",
    "proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service",
    # These load modules before other units may start: six concurrent modprobes over the network
    # root delayed an emulated box by 20 s and a busy one by minutes.  The kernel loads each module
    # when its device is opened or its file system mounted.
    "modprobe@configfs.service", "modprobe@dm_mod.service", "modprobe@drm.service",
    "modprobe@efi_pstore.service", "modprobe@fuse.service", "modprobe@loop.service",
    "sys-kernel-config.mount", "sys-fs-fuse-connections.mount", "systemd-repart.service",
    # Nobody logs in at a console; this and D-Bus competed with the job in its first seconds.
    "systemd-logind.service",
)  # fmt: skip
# Not started at boot, but by its socket on the first use.
_ON_DEMAND: Final = ("usr/lib/systemd/system/multi-user.target.wants/dbus.service",)
_DPKG_OPTIONS: Final = (
    "path-exclude=/usr/share/doc/*",
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/doc/*/copyright",
)


def build(srv: Path, version: str, arch: str, say: Say, mirror: str | None = None) -> Path:
    """Builds `debian/<arch>/<version>` and returns the snapshot's folder.  Raises BadImage."""
    catalogue.check_word("os_version", version)
    codename = _CODENAMES.get(version, version if version in _CODENAMES.values() else None)
    if codename is None:
        known = ", ".join(_CODENAMES)
        raise BadImage(f"Debian {version} is not one that `image build` knows ({known})")
    if (lacks := emulation.lacks(arch)) is not None:
        raise BadImage(
            f"{lacks}; or build the image on such a machine, or import one with `image import`"
        )
    if arch != os.uname().machine:
        if sandbox.program("mmdebstrap") and not sandbox.program("arch-test"):
            raise BadImage(f"arch-test is not installed: mmdebstrap wants it for {arch}")
        say(f"programs of {arch} run under qemu-user here: this takes longer")
    if os.geteuid() != 0:
        raise BadImage("building an image needs root: it makes files of other owners")
    with snapshot.new(srv, "debian", arch, version) as making:
        from_ = apt_sources.sources(codename, mirror, say)
        say(f"installing Debian {version} ({codename})")
        _bootstrap(codename, arch, making, from_, say)
        _fit_for_network(making.root)
        rootfs.finish(making.root, say, making.lock)
        return making.publish()


def _bootstrap(codename: str, arch: str, making: Snapshot, from_: list[Source], say: Say) -> None:
    """Installs the packages with mmdebstrap, or with debootstrap if only that is installed."""
    if sandbox.program("mmdebstrap"):
        command = _mmdebstrap(codename, arch, making.root, from_)
        rubbish = making.root.with_name("tmp")  # left behind when mmdebstrap is stopped
        rubbish.mkdir()
        environment = {"INITRD": "No", "TMPDIR": str(rubbish)}
        sandbox.run(command, say, keep=(making.lock,), environment=environment)
        _bring_keyrings(making.root, from_)
    elif sandbox.program("debootstrap"):
        say("mmdebstrap is not installed; debootstrap takes longer")
        _debootstrap(codename, arch, making, from_, say)
    else:
        raise BadImage("mmdebstrap is not installed, nor is debootstrap: install one of them")


def _mmdebstrap(codename: str, arch: str, root: Path, from_: list[Source]) -> list[str]:
    hook = _firmware('chroot "$root"')
    return [
        "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory",
        f"--architectures={_ARCHITECTURES[arch]}",
        f"--include={','.join((*_PACKAGES, _KERNELS[arch]))}",
        *(f"--dpkgopt={option}" for option in _DPKG_OPTIONS),
        *(f"--aptopt={option}" for option in apt_sources.apt_options()),
        f"--customize-hook={hook}",
        # mmdebstrap requires an empty folder; ours is empty
        codename, str(root), *(source.line for source in from_),
    ]  # fmt: skip


def _debootstrap(codename: str, arch: str, making: Snapshot, from_: list[Source], say: Say) -> None:
    """Installs in three steps: debootstrap handles only one suite, and none of our packages."""
    root, keep = making.root, (making.lock,)
    first = from_[0]
    keyring = [f"--keyring={first.signed_by}"] if first.signed_by else []
    command = [
        "debootstrap", "--variant=minbase", f"--arch={_ARCHITECTURES[arch]}",
        "--include=ca-certificates", *keyring, codename, str(root), first.uri,
    ]  # fmt: skip
    sandbox.run(command, say, keep=keep)
    lines = "".join(f"{source.line}\n" for source in from_)
    chroot_paths.write(root, "etc/apt/sources.list", lines.encode())
    options = "".join(f"{option}\n" for option in _DPKG_OPTIONS)
    chroot_paths.write(root, "etc/dpkg/dpkg.cfg.d/99appliance", options.encode())
    options = "".join(f"{option}\n" for option in apt_sources.apt_options())
    chroot_paths.write(root, "etc/apt/apt.conf.d/99appliance", options.encode())
    _bring_keyrings(root, from_)
    packages = " ".join((*_PACKAGES, _KERNELS[arch]))
    script = _INSTALL.format(packages=packages) + _firmware("")
    sandbox.run_inside(
        root, ("sh", "-c", script, "sh", "/"), say, keep=keep,
        environment={"INITRD": "No", "DEBIAN_FRONTEND": "noninteractive"},
    )  # fmt: skip


def _firmware(chroot: str) -> str:
    return _FIRMWARE_HOOK.format(names=" ".join(_FIRMWARE), chroot=chroot)


def _bring_keyrings(root: Path, from_: list[Source]) -> None:
    """Copies the sources' keyrings into the root filesystem: without them its apt trusts nobody."""
    for key in {source.signed_by for source in from_ if source.signed_by}:
        if not chroot_paths.has(root, key) and Path(key).is_file():
            chroot_paths.resolve(root, os.path.dirname(key)).mkdir(parents=True, exist_ok=True)
            chroot_paths.write(root, key, Path(key).read_bytes())
            chroot_paths.resolve(root, key).chmod(0o644)


def _fit_for_network(root: Path) -> None:
    """Disables what a box without a disk of its own must not or need not do at boot."""
    units = "etc/systemd/system"
    for name in _MASKED:
        chroot_paths.link(root, f"{units}/{name}", "/dev/null")
    for name in _ON_DEMAND:
        chroot_paths.remove(root, name)
    chroot_paths.link(root, f"{units}/default.target", "/usr/lib/systemd/system/multi-user.target")
    # Debian's list is empty; without any list systemd-modules-load does not run.
    chroot_paths.remove(root, "etc/modules-load.d/modules.conf")
    chroot_paths.write(root, "etc/fstab", b"# The root filesystem comes over the network.\n")
    for name in ("vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"):
        chroot_paths.remove(root, name)
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        for left in os.listdir(chroot_paths.resolve(root, folder)):
            chroot_paths.remove(root, f"{folder}/{left}")
    # Marks both as up to date with /usr: else every boot would run the update units again.
    for folder in ("etc", "var"):
        chroot_paths.write(root, f"{folder}/.updated", b"")
