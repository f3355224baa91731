"""The smallest operating system that can run a job out of an initramfs: busybox and its libraries.

It is what a lab puts in /srv/initrd/osimage for `os_mount: initramfs`, in two archives: the system
(`current`), and the script that brings up its network (`run-ipconfig.cgz`).
"""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

from appliance.boot.cgz import Entry, pack

# Of the runner's archive; an image with an init of its own would find it in /etc/init.d.
START = "/lkp/lkp/src/rootfs/addon/etc/init.d/lkp-bootstrap"
INIT = f"""\
#!/bin/sh
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


def lay_out(osimage: Path) -> None:
    """`current` and `run-ipconfig.cgz` in this folder of /srv/initrd/osimage."""
    osimage.mkdir(parents=True)
    (osimage / "tiny.cgz").write_bytes(pack(_system()))
    (osimage / "current").symlink_to("tiny.cgz")
    (osimage / "run-ipconfig.cgz").write_bytes(
        pack(
            [
                Entry("usr/bin/run-ipconfig", RUN_IPCONFIG.encode(), _SCRIPT),
                Entry("usr/share/udhcpc/default.script", LEASE.encode(), _SCRIPT),
            ]
        )
    )


def _system() -> Iterator[Entry]:
    program = shutil.which("busybox", path="/usr/bin:/bin")
    assert program is not None, "busybox is not installed: make setup"
    yield Entry("usr/bin/busybox", Path(program).read_bytes(), _SCRIPT)
    yield Entry("usr/sbin/init", INIT.encode(), _SCRIPT)
    # A merged /usr, as the kernel's modules in the second initrd expect it.
    for name in ("bin", "sbin", "lib", "lib64"):
        yield Entry(name, f"usr/{name}".encode(), stat.S_IFLNK | 0o777)
    for name in ("proc", "sys", "dev", "run", "tmp", "root"):
        yield Entry(name, mode=_FOLDER)
    said = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout
    for applet in set(said.split()) - {"busybox", "init"}:
        yield Entry(f"usr/bin/{applet}", b"busybox", stat.S_IFLNK | 0o777)
    # The runner asks for these by their whole path.
    for applet in ("reboot", "modprobe"):
        yield Entry(f"usr/sbin/{applet}", b"../bin/busybox", stat.S_IFLNK | 0o777)
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for library in sorted(set(re.findall(r"(?:=> |^\s+)(/\S+)", said, re.MULTILINE))):
        name = library.removeprefix("/").removeprefix("usr/")
        yield Entry(f"usr/{name}", Path(library).read_bytes(), _SCRIPT)
