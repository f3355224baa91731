"""One testbox's own build of iPXE, where its hosts file names one (`ipxe:`).

dnsmasq looks below `tftp-root/<mac>` first where there is such a folder (tftp-unique-root), by the
lease or the neighbour entry of who asks.  So nothing in DHCP changes and nothing is restarted: the
box asks for the name that all boxes of its firmware ask for, and finds another file behind it.

    <tftp>/52-54-00-12-34-56       -> hosts/rack-7
    <tftp>/hosts/rack-7/undionly.kpxe, ipxe/bin-x86_64-efi/snp.efi, ...  -> the file
    <tftp>/hosts/rack-7/boot.ipxe  -> ../../boot.ipxe
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Final

from appliance.boot.daemons.dnsmasq import FIRMWARES, SCRIPTS
from appliance.errors import BadRequest
from appliance.fs import atomic

FOLDER: Final = "hosts"  # below the tftp root
_MAC: Final = re.compile(r"[0-9a-f]{2}(-[0-9a-f]{2}){5}\Z")


def find(tftp: Path, name: str, ipxe: str) -> Path:
    """The file that `ipxe:` of testbox `name` names: a path, or a name below <tftp>/ipxe.

    Raises BadRequest: it is not there, it is no file, or dnsmasq could not read it.
    """
    path = tftp / "ipxe" / ipxe
    where = f"{name}: ipxe: {path}"
    right = f"name a file that all may read, by its path or below {tftp}/ipxe"
    try:
        found = os.stat(path)
    except OSError as error:
        raise BadRequest(f"{where}: {error.strerror}; {right}") from error
    if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
        raise BadRequest(f"{where} is no file with an iPXE in it; {right}")
    real = Path(os.path.realpath(path))
    for place, bit in ((real, stat.S_IROTH), *((up, stat.S_IXOTH) for up in real.parents)):
        if not os.stat(place).st_mode & bit:
            raise BadRequest(f"{where}: dnsmasq cannot read it, since others may not: {place}")
    return path


def give(tftp: Path, name: str, macs: Sequence[str], file: Path) -> None:
    """From now on the box gets `file` whichever of these cards it boots from.  Raises OSError."""
    folder = tftp / FOLDER / name
    for firmware in FIRMWARES:
        atomic.link(folder / firmware.file, str(file))
    for script in SCRIPTS:
        atomic.link(folder / script, f"../../{script}")
    wanted = {mac.replace(":", "-") for mac in macs}
    for link in _links(tftp, name) - wanted:
        (tftp / link).unlink(missing_ok=True)
    for link in wanted:
        atomic.link(tftp / link, f"{FOLDER}/{name}")


def take_away(tftp: Path, name: str) -> None:
    """The box gets what all boxes get.  Raises OSError."""
    for link in _links(tftp, name):
        (tftp / link).unlink(missing_ok=True)
    shutil.rmtree(tftp / FOLDER / name, ignore_errors=True)


def given(tftp: Path) -> Collection[str]:
    """The testboxes that have one.  Raises OSError."""
    folder = tftp / FOLDER
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _links(tftp: Path, name: str) -> set[str]:
    """The MACs in the tftp root that lead to `name`."""
    if not (tftp / FOLDER / name).is_dir():
        return set()  # most boxes have none, and a lab may have ten thousand
    links = (entry for entry in os.scandir(tftp) if _MAC.match(entry.name) and entry.is_symlink())
    return {link.name for link in links if os.readlink(link) == f"{FOLDER}/{name}"}
