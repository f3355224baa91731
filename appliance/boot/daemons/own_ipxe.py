"""Gives one testbox its own build of iPXE, if its hosts file names one (`ipxe:`).

dnsmasq looks in `tftp-root/<mac>` first if that folder exists (tftp-unique-root); it knows a
client's MAC from its lease or its neighbour entry.  So DHCP does not change and nothing is
restarted: the box asks for the same name as all boxes of its firmware, and gets another file.

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
    """Finds the file that `ipxe:` of testbox `name` names: a path, or a name below <tftp>/ipxe.

    Raises BadRequest if it is missing, not a regular file, empty, or not readable by dnsmasq.
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
    """Makes the box get `file`, whichever of these cards it boots from.  Raises OSError."""
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
    """Makes the box get the same file as all boxes again.  Raises OSError."""
    for link in _links(tftp, name):
        (tftp / link).unlink(missing_ok=True)
    shutil.rmtree(tftp / FOLDER / name, ignore_errors=True)


def given(tftp: Path) -> Collection[str]:
    """Returns the testboxes that have their own iPXE.  Raises OSError."""
    folder = tftp / FOLDER
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _links(tftp: Path, name: str) -> set[str]:
    """Returns the MACs whose symlinks in the tftp root lead to `name`."""
    if not (tftp / FOLDER / name).is_dir():
        return set()  # true of most boxes, and saves a scan: a lab may have ten thousand
    links = (entry for entry in os.scandir(tftp) if _MAC.match(entry.name) and entry.is_symlink())
    return {link.name for link in links if os.readlink(link) == f"{FOLDER}/{name}"}
