"""Pure: no clock, no socket, no await.

What a testbox is told in iPXE's language: the script of a job, and the script that sends an idle
box back to ask again.  The grammar is Compass-CI's of 2021, byte for byte
(docs/wire.md#the-boot-script): clients and serial-log parsers re-read these lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from appliance.errors import BadRequest, Refused
from appliance.jobs.documents import ipxe_words

SHEBANG: Final = "#!ipxe\n"
# One comment line, so that iPXE's 120 s watchdog sees a body byte (docs/firmware.md#chaining).
DRIP: Final = b"# no job yet\n"
# COMMAND_LINE_SIZE is 2048 with its NUL on x86 and arm64; UEFI iPXE puts the image's own name in
# front (docs/firmware.md#chaining).
KERNEL_LINE_MAX: Final = 2047
# Kept free at submit for what is known only at dispatch: the address, the host's disks, consoles
# and own parameters.
HOST_ROOM: Final = 320
# Of the card it booted from.  A server that does not answer now may do so the next time.
RENEW: Final = "        dhcp netX ||\n"
# A box whose lease is shorter than two of these waits so long all the same: it would do nothing
# else than ask.  dnsmasq gives none for less than two minutes.
PARK_MIN_S: Final = 30.0

_SECONDS: Final = re.compile(r"[0-9]{1,10}")
QUERY_MAX: Final = 512  # a box's own query, repeated in its re-chain; four SMBIOS strings fit

_CIFS_OPTIONS: Final = "guest,ro,hard,vers=1.0,noacl,nouser_xattr,noserverino"
# On aarch64 there is none (docs/wire.md#the-boot-script).
_CONSOLES: Final = {"x86_64": ("tty0", "ttyS0,115200")}
_SAFE_QUERY: Final = re.compile(r"[A-Za-z0-9%&=._~:+-]*\Z")


@attrs.frozen
class HostWords:
    """What the operator's hosts file adds to a kernel line."""

    rootfs_disk: tuple[str, ...] = ()
    crashkernel: str = "auto"
    console: tuple[str, ...] | None = None  # None: the consoles of the arch
    kernel_params: str = ""
    comments: tuple[str, ...] = ()  # "nr_nic=2": hosts of virtual boxes read them


@attrs.frozen
class Boot:
    """Everything one job script says."""

    kernel: str  # URL
    initrds: tuple[str, ...]  # URLs, in order
    os_mount: str
    arch: str
    server: str  # address of the rootfs server, as this box reaches it
    root: str  # URL path of the rootfs directory, "/os/debian/x86_64/12-..."
    custom_params: str = ""
    host: HostWords = HostWords()
    local: str = ""  # of os_mount local: what the kernel line says of its volumes


def script(boot: Boot) -> str:
    """The script that boots one job.

    Raises Refused where the kernel line would not fit, or two initrds have one name (EFI finds
    them by name), and BadRequest where a word could break out of its line.
    """
    arguments = kernel_arguments(boot)
    length = kernel_line_length(boot.kernel, arguments)
    if length > KERNEL_LINE_MAX:
        raise Refused(
            f"the kernel line is {length} bytes with its image's name,"
            f" {length - KERNEL_LINE_MAX} more than kernels take ({KERNEL_LINE_MAX})"
        )
    lines = ["#!ipxe", ""]
    lines += [f"# {_safe(comment)}" for comment in boot.host.comments]
    lines += [f"initrd {_address(url)}" for url in boot.initrds]
    lines += [f"kernel {_address(boot.kernel)} {arguments}", "boot", ""]
    return "\n".join(lines)


def kernel_arguments(boot: Boot) -> str:
    """The kernel's own words: parameters, one `initrd=` per initrd, the host's disks.

    Raises Refused where two initrds have one name.
    """
    names = [_basename(url) for url in boot.initrds]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"two initrds are called {name}; the kernel finds them by name")
    words = _parameters(boot)
    crashkernel = f" crashkernel={_safe(boot.host.crashkernel)}"
    if any(word.startswith("crashkernel=") for word in words):
        crashkernel = ""  # somebody chose another
    words += [f" initrd={_safe(name)}" for name in names]
    disks = ",".join(_safe(disk) for disk in boot.host.rootfs_disk)
    return f"{' '.join(words)} rootfs_disk={disks}{crashkernel}"


def kernel_line_length(kernel: str, arguments: str) -> int:
    """Bytes that the kernel sees: UEFI iPXE puts the image's name and a blank in front."""
    return len(f"{_basename(kernel)} {arguments}".encode())


def _parameters(boot: Boot) -> list[str]:
    words = ["user=lkp", "job=/lkp/scheduled/job.yaml", "ip=dhcp"]
    words += [_safe(word) for word in (boot.local or "rootovl ro").split()]
    words += [_safe(word) for word in boot.custom_params.split()]
    words += [_safe(word) for word in boot.host.kernel_params.split()]
    if boot.os_mount == "cifs":
        words.append(f"root=cifs://{_safe(boot.server)}{_safe(boot.root)},{_CIFS_OPTIONS}")
    elif boot.os_mount in ("nfs", "local"):
        words.append(f"root={_safe(boot.server)}:{_safe(boot.root)}")
    else:
        assert boot.os_mount == "initramfs", boot.os_mount
        words += ["rdinit=/sbin/init", "prompt_ramdisk=0"]
    consoles = boot.host.console
    if consoles is None:
        consoles = _CONSOLES.get(boot.arch, ())
    return words + [f"console={_safe(console)}" for console in consoles]


def patience(park: float, lease: float | None) -> float:
    """Seconds that a box may wait whose address is leased for `lease` (None: for ever).

    iPXE renews nothing while it waits, and DHCP's own clients renew at half the time.
    """
    return park if lease is None else min(park, max(lease / 2, PARK_MIN_S))


def lease_of(query: Mapping[str, str]) -> float | None:
    """What boot.ipxe says of its lease, in seconds; None: it never ends (-1), or was not said."""
    text = query.get("lease", "")
    seconds = int(text) if _SECONDS.fullmatch(text) else 0
    return seconds or None


def rechain(scheduler: str, query: str = "", *, renew: bool = False) -> str:
    """The script that sends an idle box back to `scheduler`, "172.28.0.1:3000".

    `query` is what the box sent with its question; it is repeated, so that the box is known again.
    `renew` asks DHCP first, where the address would be taken back from a box that only waits.
    `--replace --autofree`: plain chains nest until iPXE hangs (docs/firmware.md#chaining).  The
    words `No job now` are what virtual-machine clients look for (docs/wire.md#the-boot-wait).
    """
    if not _SAFE_QUERY.match(query) or len(query) > QUERY_MAX:
        query = ""
    target = f"http://{_safe(scheduler)}/boot.ipxe/mac/${{mac:hexhyp}}"
    return (
        "#!ipxe\n"
        "        echo ...\n"
        "        echo No job now\n"
        "        echo ...\n"
        f"{RENEW if renew else ''}"
        f"        chain --replace --autofree {target}{'?' + query if query else ''}\n"
    )


def _basename(url: str) -> str:
    return url.rsplit("/", 1)[-1]


def _safe(word: str) -> str:
    """`word`, which must be printable ASCII without blanks: it stands in one line with others."""
    if not ipxe_words.is_plain(word):
        raise BadRequest(f"{word!r} cannot stand in a boot script")
    return word


def _address(url: str) -> str:
    if "#" in url:  # iPXE asks for what stands before it
        raise BadRequest(f"{url!r} cannot stand in a boot script")
    return _safe(url)
