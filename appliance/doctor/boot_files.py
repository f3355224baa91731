"""Pure: no clock, no socket, no await.

Judges files on the disk: iPXE for each firmware, daemons' configurations, images.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import attrs

from appliance.boot.daemons.dnsmasq import FIRMWARES
from appliance.doctor import findings
from appliance.doctor.findings import Finding
from appliance.doctor.wire import WORDS, is_needed, mend_of

# What testparm prints about a line that it ignores; its exit status is 0 nevertheless.
_COMPLAINTS: Final = re.compile(r"Unknown parameter|Ignoring|ERROR|Error|WARNING.*(path|director)")


@attrs.frozen
class TftpFile:
    """One file below the tftp root; `trouble` is empty where boxes can load it."""

    name: str
    size: int = 0
    trouble: str = ""


@attrs.frozen
class Checked:
    """The answer of a daemon's own checker about its configuration."""

    daemon: str
    file: str
    status: int
    said: str
    trouble: str = ""  # why the checker could not be run


@attrs.frozen
class ImageState:
    """An image, and what is wrong with it."""

    name: str
    kernel: str
    problems: tuple[str, ...]


def ipxe(there: Sequence[TftpFile], archs: set[str]) -> list[Finding]:
    """Judges iPXE for each firmware.  `archs` of the known boxes; empty: no box is known yet."""
    by_name = {file.name: file for file in there}
    found = []
    for firmware in FIRMWARES:
        file = by_name[firmware.file]
        looked_at = f"iPXE for {WORDS[firmware.tag]}"
        if not file.trouble:
            found.append(findings.ok(looked_at, f"{file.name}, {file.size} bytes"))
            continue
        means = f"boxes with {WORDS[firmware.tag]} firmware cannot boot"
        mend = mend_of(firmware.tag)
        judged = findings.error if is_needed(firmware.tag, archs) else findings.warning
        found.append(judged(looked_at, f"{file.name} {file.trouble}", means, mend))
    return found


def boot_ipxe(file: TftpFile, *, current: bool) -> Finding:
    """Judges iPXE's first script: present, and written for this configuration (`current`)."""
    looked_at = "boot.ipxe"
    if file.trouble:
        means = "no box comes further than iPXE"
        return findings.error(looked_at, f"{file.name} {file.trouble}", means, "appliance tftpboot")
    if not current:
        found = "is not what this configuration and this version would write"
        means = "boxes ask another address, or leave out what newer servers want to know"
        return findings.warning(looked_at, found, means, "appliance tftpboot")
    return findings.ok(looked_at, f"{file.size} bytes")


def configuration(checked: Checked) -> Finding:
    """Judges a daemon's configuration by the daemon's own checker."""
    looked_at = f"configuration of {checked.daemon}"
    if checked.trouble:
        return findings.skipped(looked_at, checked.trouble)
    complaints = [line.strip() for line in checked.said.splitlines() if _COMPLAINTS.search(line)]
    if checked.status == 0 and not complaints:
        return findings.ok(looked_at, f"{checked.file}: accepted")
    said = "; ".join(complaints[:3]) or " ".join(checked.said.split())[-300:]
    means = f"{checked.daemon} does not start with it, or leaves that line out"
    mend = "change appliance.toml, not this file; then `appliance install` writes it anew"
    return findings.error(looked_at, f"{checked.file}: {said}", means, mend)


def rights(folder: str, *, nosuid: bool, entered: bool) -> Finding:
    """Judges whether local users can run setuid programs of images.

    `entered`: whether other users may enter the folder at all.
    """
    looked_at = "programs in images"
    if nosuid or not entered:
        return findings.ok(looked_at, "give no local user of this server any rights")
    means = "a local user of this server can run an image's own `su` as root, whoever made it"
    mend = (
        f"mount --bind {folder} {folder} && mount -o remount,bind,nosuid {folder}; and in"
        f" /etc/fstab: {folder} {folder} none bind,nosuid 0 0"
    )
    return findings.warning(looked_at, f"{folder} is mounted without nosuid", means, mend)


def images(there: Sequence[ImageState], srv: str) -> list[Finding]:
    """Judges the images that job documents can ask for."""
    if not there:
        means = "no job can boot"
        mend = "appliance image build debian 12 x86_64"
        return [findings.warning("images", f"there are none in {srv}/os", means, mend)]
    found = []
    for image in there:
        looked_at = f"image {image.name}"
        if image.problems:
            means = "jobs that name it are refused, or end as incomplete"
            readable = any("readable" in problem for problem in image.problems)
            mend = (
                "chmod o+r on the files, o+x on the folders"
                if readable
                else "appliance image build, or appliance image import"
            )
            found.append(findings.error(looked_at, "; ".join(image.problems), means, mend))
        else:
            found.append(findings.ok(looked_at, f"kernel {image.kernel}, initramfs, modules"))
    return found
