"""`image build debian`: a root filesystem from Debian's packages, ready to boot over the network.

mmdebstrap unpacks, dracut (inside) makes the initramfs, `Snapshot` gives it its name at the end.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Final

from appliance.boot import contained, images, inside, rootfs, snapshot
from appliance.boot.contained import Say
from appliance.errors import BadImage

_CODENAMES: Final = {"11": "bullseye", "12": "bookworm", "13": "trixie"}
_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_KERNELS: Final = {"x86_64": "linux-image-amd64", "aarch64": "linux-image-arm64"}

_PACKAGES: Final = (
    # the initramfs
    "dracut", "dracut-network", "cifs-utils", "nfs-common", "systemd-sysv", "udev", "dbus",
    "procps", "iputils-arping", "isc-dhcp-client", "iproute2", "kmod",
    # what the runner and people's jobs count on
    "curl", "ca-certificates", "efibootmgr", "gzip", "cpio", "iputils-ping", "less",
)  # fmt: skip
# Cards that are deaf without it.  Not to be had where the mirror lacks non-free-firmware.
_FIRMWARE: Final = (
    "firmware-bnx2", "firmware-bnx2x", "firmware-cavium", "firmware-misc-nonfree",
    "firmware-myricom", "firmware-netxen", "firmware-qlogic", "firmware-realtek",
)  # fmt: skip
_FIRMWARE_HOOK: Final = """\
for name in {names}; do
    if chroot "$1" apt-cache show "$name" >/dev/null 2>&1; then set -- "$@" "$name"
    else echo "I: firmware not to be had from this mirror: $name"; fi
done
root=$1; shift
[ $# -eq 0 ] || chroot "$root" apt-get -qq -y --no-install-recommends install "$@"
"""
# A box without a disk, a keyboard or a user waits for none of these.
_MASKED: Final = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer",
    "fstrim.timer", "e2scrub_reap.service", "systemd-random-seed.service", "rpcbind.service",
    "rpcbind.socket", "nfs-client.target", "rpc-gssd.service", "systemd-pstore.service",
    "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "systemd-journal-flush.service", "networking.service", "logrotate.timer",
    "man-db.timer", "remote-fs.target", "ldconfig.service", "systemd-machine-id-commit.service",
    "run-rpc_pipefs.mount", "rpc_pipefs.target", "nfs-blkmap.service", "dracut-shutdown.service",
    "proc-sys-fs-binfmt_misc.automount", "systemd-binfmt.service",
)  # fmt: skip
_EXCLUDED: Final = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
)


def build(srv: Path, version: str, arch: str, say: Say, mirror: str | None = None) -> Path:
    """Builds `debian/<arch>/<version>`; returns the snapshot's folder.  Raises BadImage."""
    images.check_word("os_version", version)
    codename = _CODENAMES.get(version, version if version in _CODENAMES.values() else None)
    if codename is None:
        known = ", ".join(_CODENAMES)
        raise BadImage(f"Debian {version} is not one that `image build` knows ({known})")
    machine = os.uname().machine
    if arch != machine:
        raise BadImage(
            f"this machine is {machine} and builds images for {machine} only; build the {arch} one"
            f" on such a machine, or import a root filesystem with `image import`"
        )
    if os.geteuid() != 0:
        raise BadImage("building an image needs root: it makes files of other owners")
    with snapshot.new(srv, "debian", arch, version) as making:
        say(f"installing Debian {version} ({codename})")
        command = _mmdebstrap(codename, arch, making.root, _sources(codename, mirror))
        contained.run(command, say, keep=(making.lock,), environment={"INITRD": "No"})
        _fit_for_network(making.root)
        rootfs.finish(making.root, say, making.lock)
        return making.publish()


def _mmdebstrap(codename: str, arch: str, root: Path, sources: list[str]) -> list[str]:
    hook = _FIRMWARE_HOOK.format(names=" ".join(_FIRMWARE))
    return [
        "mmdebstrap", "--mode=root", "--variant=apt", "--format=directory",
        f"--architectures={_ARCHITECTURES[arch]}",
        f"--include={','.join((*_PACKAGES, _KERNELS[arch]))}",
        *(f"--dpkgopt=path-exclude={path}" for path in _EXCLUDED),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        *(f"--aptopt={option}" for option in _apt_options()),
        f"--customize-hook={hook}",
        # mmdebstrap wants an empty folder, and ours is
        codename, str(root), *sources,
    ]  # fmt: skip


def _sources(codename: str, mirror: str | None) -> list[str]:
    """One-line sources: the mirror's, else this system's own for that release."""
    components = "main non-free-firmware" if codename != "bullseye" else "main"
    if mirror is not None:
        if not re.fullmatch(r"[a-z]+:[!-~]+", mirror):
            raise BadImage(f"--mirror {mirror!r} should be a URI such as http://mirror/debian")
        return [f"deb {mirror} {suite} {components}" for suite in (codename,)]
    found: list[str] = []
    for uri, suite in _system_sources():
        if suite == codename or suite.startswith((f"{codename}-", f"{codename}/")):
            found.append(f"deb {uri} {suite} {components}")
    if not any(line.split()[2] == codename for line in found):
        raise BadImage(f"this system's apt sources do not have Debian {codename}: use --mirror URI")
    return found


def _system_sources() -> list[tuple[str, str]]:
    """(URI, suite) of the archives that this system's apt reads, in order, each once.

    An archive has a component main; others that are named after the release have theirs alone.
    """
    listed = subprocess.run(
        ("apt-get", "indextargets", "--format", "$(REPO_URI) $(RELEASE) $(COMPONENT)"),
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
    pairs = [line.split() for line in listed.stdout.decode().splitlines()]
    return list(dict.fromkeys((pair[0], pair[1]) for pair in pairs if pair[2:] == ["main"]))


def _apt_options() -> list[str]:
    """How this system's apt gets at its mirror: proxies, time-outs, checks."""
    dump = subprocess.run(
        ("apt-config", "dump"), stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    kept = re.compile(r"Acquire::(http|https|Check|Retries|ForceIPv|Languages)", re.IGNORECASE)
    return [line for line in dump.stdout.decode().splitlines() if kept.match(line) and '"' in line]


def _fit_for_network(root: Path) -> None:
    """What a box without a disk of its own does not do at boot."""
    units = "etc/systemd/system"
    for name in _MASKED:
        inside.link(root, f"{units}/{name}", "/dev/null")
    inside.link(root, f"{units}/default.target", "/usr/lib/systemd/system/multi-user.target")
    inside.write(root, "etc/fstab", b"# The root filesystem comes over the network.\n")
    for name in ("vmlinuz", "vmlinuz.old", "initrd.img", "initrd.img.old"):
        inside.remove(root, name)
    for folder in ("var/cache/apt", "var/lib/apt/lists"):
        for left in os.listdir(inside.resolve(root, folder)):
            inside.remove(root, f"{folder}/{left}")
    # As new as /usr: else every boot of every box would bring its caches up to date again.
    for folder in ("etc", "var"):
        inside.write(root, f"{folder}/.updated", b"")
