"""Pure: no clock, no socket, no await.

Writes iPXE scripts: the script that boots a job, and the script that makes an idle box ask again.
The format is Compass-CI's of 2021, byte for byte (docs/wire.md#the-boot-script), since clients and
serial-log parsers read these lines too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

from appliance.errors import BadRequest, Refused
from appliance.jobs.documents import ipxe_words

SHEBANG: Final = "#!ipxe\n"
# A comment line, sent so that iPXE's 120 s watchdog sees body bytes (docs/firmware.md#chaining).
DRIP: Final = b"# no job yet\n"
# COMMAND_LINE_SIZE is 2048 with its NUL on x86 and arm64; UEFI iPXE puts the image's own name in
# front (docs/firmware.md#chaining).
KERNEL_LINE_MAX: Final = 2047
# Bytes kept free at submit for words known only at dispatch: the address, and the host's disks,
# consoles and parameters.
HOST_ROOM: Final = 320
# Renews the lease of the card that the box booted from.  `||`: if the server does not answer now,
# it may do so the next time.
RENEW: Final = "        dhcp netX ||\n"
# The shortest wait, even where half the lease is shorter: a box must not ask all the time.  dnsmasq
# gives no lease of less than two minutes.
PARK_MIN_S: Final = 30.0

_SECONDS: Final = re.compile(r"[0-9]{1,10}")
QUERY_MAX: Final = 512  # of a box's query, which `rechain` repeats; four SMBIOS strings fit

_CIFS_OPTIONS: Final = "guest,ro,hard,vers=1.0,noacl,nouser_xattr,noserverino"
# aarch64 gets none (docs/wire.md#the-boot-script).
_CONSOLES: Final = {"x86_64": ("tty0", "ttyS0,115200")}
_SAFE_QUERY: Final = re.compile(r"[A-Za-z0-9%&=._~:+-]*\Z")


@attrs.frozen
class HostWords:
    """The words that the operator's hosts file adds to a kernel line, and its comments."""

    rootfs_disk: tuple[str, ...] = ()
    crashkernel: str = "auto"
    console: tuple[str, ...] | None = None  # None: the consoles of the arch
    kernel_params: str = ""
    comments: tuple[str, ...] = ()  # "nr_nic=2", for hosts of virtual boxes


@attrs.frozen
class Boot:
    """The contents of one job's boot script."""

    kernel: str  # URL
    initrds: tuple[str, ...]  # URLs, in order
    os_mount: str
    arch: str
    server: str  # address of the rootfs server, as this box reaches it
    root: str  # URL path of the rootfs directory, "/os/debian/x86_64/12-..."
    custom_params: str = ""
    host: HostWords = HostWords()
    local: str = ""  # only with os_mount local: words about its volumes for the kernel line


def script(boot: Boot) -> str:
    """Returns the script that boots one job.

    Raises Refused if the kernel line is too long or two initrds have the same name (EFI finds
    them by name), BadRequest if a word could break out of its line.
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
    """Returns the kernel's arguments: parameters, one `initrd=` per initrd, the host's disks.

    Raises Refused if two initrds have the same name.
    """
    names = [_basename(url) for url in boot.initrds]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"two initrds are called {name}; the kernel finds them by name")
    words = _parameters(boot)
    crashkernel = f" crashkernel={_safe(boot.host.crashkernel)}"
    if any(word.startswith("crashkernel=") for word in words):
        crashkernel = ""  # the job or the host has its own
    words += [f" initrd={_safe(name)}" for name in names]
    disks = ",".join(_safe(disk) for disk in boot.host.rootfs_disk)
    return f"{' '.join(words)} rootfs_disk={disks}{crashkernel}"


def kernel_line_length(kernel: str, arguments: str) -> int:
    """Counts the bytes that the kernel sees: UEFI iPXE adds the image's name and a blank first."""
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
    """Returns how many seconds a box may wait, given the length of its lease (None: infinite).

    iPXE does not renew a lease while it waits, so it waits half of it: when DHCP clients renew.
    """
    return park if lease is None else min(park, max(lease / 2, PARK_MIN_S))


def lease_of(query: Mapping[str, str]) -> float | None:
    """Returns the lease in seconds, as boot.ipxe sends it; None: infinite (-1) or not sent."""
    text = query.get("lease", "")
    seconds = int(text) if _SECONDS.fullmatch(text) else 0
    return seconds or None


def rechain(scheduler: str, query: str = "", *, renew: bool = False) -> str:
    """Returns the script that makes an idle box ask `scheduler`, "172.28.0.1:3000", again.

    `query` is the query of the box's request, repeated so that the box is recognised.  `renew`
    makes the box renew its DHCP lease first: it would run out on a box that only waits.
    `--replace --autofree`: plain chains nest until iPXE hangs (docs/firmware.md#chaining).
    Virtual-machine clients look for the words `No job now` (docs/wire.md#the-boot-wait).
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
    """Returns `word` if iPXE takes it literally as one word of a line.  Raises BadRequest."""
    if not ipxe_words.is_plain(word):
        raise BadRequest(f"{word!r} cannot stand in a boot script")
    return word


def _address(url: str) -> str:
    if "#" in url:  # iPXE drops it and what follows
        raise BadRequest(f"{url!r} cannot stand in a boot script")
    return _safe(url)
