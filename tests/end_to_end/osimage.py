"""The smallest operating system that can run a job out of an initramfs: busybox.

It is what a lab puts in /srv/initrd/osimage for `os_mount: initramfs`, in two archives: the system
(`current`), and the script that brings up its network (`run-ipconfig.cgz`).  On x86-64 it is this
machine's busybox with its libraries, and boots with the kernel of the cached image; on arm64 both
are Debian's, as release/firmware.sh fetches them.
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from appliance.boot.script.cgz import Entry, pack

# Of the runner's archive; an image with an init of its own would find it in /etc/init.d.
START = "/lkp/lkp/src/rootfs/addon/etc/init.d/lkp-bootstrap"
INIT = f"""\
#!/bin/sh
/usr/bin/busybox --install -s /usr/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t tmpfs tmpfs /run
exec </dev/console >/dev/console 2>&1
echo "tiny init: $(cat /proc/cmdline)"
for module in virtio_pci virtio_net; do modprobe "$module"; done
run-ipconfig
{START} start
while :; do sleep 1000; done
"""
RUN_IPCONFIG = """\
#!/bin/sh
ip link set lo up
ip link set eth0 up
udhcpc -q -n -t 20 -i eth0 -s /usr/share/udhcpc/default.script
"""
LEASE = """\
#!/bin/sh
[ "$1" = bound ] || exit 0
ip addr add "$ip/$mask" dev "$interface"
"""
_SCRIPT = stat.S_IFREG | 0o755
_FOLDER = stat.S_IFDIR | 0o755
_LINK = stat.S_IFLNK | 0o777


FETCHED = Path(__file__).parents[2] / ".cache/firmware/arm64"
VIRTIO = ("virtio_pci", "virtio_pci_legacy_dev", "virtio_pci_modern_dev")
NETWORK = ("virtio_net", "net_failover", "failover")


def lay_out(osimage: Path) -> None:
    """`current` and `run-ipconfig.cgz` in this folder of /srv/initrd/osimage."""
    program = shutil.which("busybox", path="/usr/bin:/bin")
    assert program is not None, "busybox is not installed: make setup"
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    libraries = sorted(set(re.findall(r"(?:=> |^\s+)(/\S+)", said, re.MULTILINE)))
    _lay_out(osimage, Path(program), [Path(library) for library in libraries])


def lay_out_arm64(osimage: Path, image: Path) -> None:
    """The same for arm64, and in `image`, a folder of /srv/os/<os>/<arch>, its kernel."""
    _lay_out(osimage, FETCHED / "bin/busybox", [])
    (kernel,) = FETCHED.glob("boot/vmlinuz-*")
    version = kernel.name.removeprefix("vmlinuz-")
    boot = image / "boot"
    boot.mkdir(parents=True)
    shutil.copyfile(kernel, boot / kernel.name)
    (boot / "vmlinuz").symlink_to(kernel.name)
    (boot / f"modules-{version}.cgz").write_bytes(pack(_modules(version)))


def _modules(version: str) -> Iterator[Entry]:
    """The card's drivers alone: all of them would take a box without KVM a minute to unpack."""
    folder = FETCHED / "lib/modules" / version
    depends = []
    for names in (VIRTIO, NETWORK):
        paths = [next(folder.rglob(f"{name}.ko")).relative_to(folder) for name in names]
        for path in paths:
            yield Entry(f"usr/lib/modules/{version}/{path}", (folder / path).read_bytes())
        depends.append(f"{paths[0]}: {' '.join(map(str, paths[1:]))}\n")
        depends += [f"{path}:\n" for path in paths[1:]]
    yield Entry(f"usr/lib/modules/{version}/modules.dep", "".join(depends).encode())


def _lay_out(osimage: Path, busybox: Path, libraries: list[Path]) -> None:
    osimage.mkdir(parents=True)
    (osimage / "tiny.cgz").write_bytes(pack(_system(busybox, libraries)))
    (osimage / "current").symlink_to("tiny.cgz")
    (osimage / "run-ipconfig.cgz").write_bytes(
        pack(
            [
                Entry("usr/bin/run-ipconfig", RUN_IPCONFIG.encode(), _SCRIPT),
                Entry("usr/share/udhcpc/default.script", LEASE.encode(), _SCRIPT),
            ]
        )
    )


def _system(busybox: Path, libraries: list[Path]) -> Iterator[Entry]:
    yield Entry("usr/bin/busybox", busybox.read_bytes(), _SCRIPT)
    yield Entry("usr/bin/sh", b"busybox", _LINK)
    yield Entry("usr/sbin/init", INIT.encode(), _SCRIPT)
    # A merged /usr, as the kernel's modules in the second initrd expect it.
    for name in ("bin", "sbin", "lib", "lib64"):
        yield Entry(name, f"usr/{name}".encode(), _LINK)
    for name in ("proc", "sys", "dev", "run", "tmp", "root"):
        yield Entry(name, mode=_FOLDER)
    # The runner asks for these by their whole path.
    for applet in ("reboot", "modprobe"):
        yield Entry(f"usr/sbin/{applet}", b"../bin/busybox", _LINK)
    for library in libraries:
        name = str(library).removeprefix("/").removeprefix("usr/")
        yield Entry(f"usr/{name}", library.read_bytes(), _SCRIPT)
