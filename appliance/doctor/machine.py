"""Pure: no clock, no socket, no await.

Judges the machine's limits (neighbours, open files, transfers, leases, disk space) and its clock.
"""

from __future__ import annotations

import re
from typing import Final

import attrs

from appliance.config import Config, Space, Waits
from appliance.doctor import findings
from appliance.doctor.findings import Finding
from appliance.jobs.restart import STEP_S, told

# Open files of a server besides one connection for each parked box: listeners, journal, archive,
# transfers, people's clients.
FILES_BESIDES: Final = 1000
# dnsmasq opens one file for each transfer, and some thirty of its own.
TFTP_FILES_BESIDES: Final = 30
# Part of a file system's inodes; small result files use up inodes before space.
INODES_LOW: Final = 0.02
_PROXY_RENEWS: Final = 2.0  # a client renews at half its lease (RFC 2131 §4.4.5)
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_RANGE: Final = re.compile(r"^dhcp-range=.*?,(\d+)([smhdw]?)$", re.MULTILINE)


@attrs.frozen
class Room:
    """One file system."""

    path: str
    free: int  # bytes, without root's reserve
    size: int
    inodes_free: int
    inodes: int  # 0: the file system counts none


def neighbours(thresholds: tuple[int, int, int], boxes: int) -> Finding:
    """Judges the kernel's ARP table (gc_thresh1, 2, 3) by the number of boxes."""
    looked_at = "ARP table"
    _, soft, hard = thresholds
    found = f"room for {hard} neighbours, kept for a while up to {soft}; {boxes} boxes are known"
    room = max(4096, 2 * boxes)
    mend = (
        f"sysctl -w net.ipv4.neigh.default.gc_thresh3={room}"
        f" net.ipv4.neigh.default.gc_thresh2={room // 2};"
        " and the same two lines in /etc/sysctl.d/appliance.conf"
    )
    if hard <= boxes:
        means = "connections fail with 'neighbour table overflow' when all boxes are on"
        return findings.error(looked_at, found, means, mend)
    if soft <= boxes:
        means = "the kernel throws neighbours out within seconds, and asks the wire again and again"
        return findings.warning(looked_at, found, means, mend)
    return findings.ok(looked_at, found)


def open_files(limit: int, whose: str, boxes: int, config: Config) -> Finding:
    """Judges the hard limit of open files by the number of boxes that may wait at once."""
    looked_at = "open files"
    needed = boxes + config.limits.unknown_boxes + FILES_BESIDES
    found = f"{whose} may have {limit} open"
    if limit >= needed:
        return findings.ok(looked_at, found)
    means = f"{boxes} known and {config.limits.unknown_boxes} unknown boxes need {needed}"
    mend = "LimitNOFILE=1048576 under [Service], by `systemctl edit appliance`"
    return findings.warning(looked_at, found, means, mend)


def transfers(conf: str, limit: int | None) -> Finding:
    """Judges how many TFTP transfers dnsmasq runs at once; `limit`: files that it may open."""
    looked_at = "tftp-max"
    most = _number(conf, "tftp-max", 50)
    if limit is not None and limit < most + TFTP_FILES_BESIDES:
        means = (
            "dnsmasq lowers it to that by itself; a request over it is dropped without an answer"
        )
        mend = "LimitNOFILE=1048576 under [Service], by `systemctl edit appliance-dnsmasq`"
        return findings.warning(
            looked_at, f"{most}, but dnsmasq may have {limit} files open", means, mend
        )
    if most < 1000:
        means = "a room that comes back from a power cut asks within one minute"
        return findings.warning(looked_at, str(most), means, "systemctl restart appliance-dnsmasq")
    return findings.ok(looked_at, f"{most} transfers at once")


def leases(conf: str, boxes: int) -> Finding:
    """Judges how many leases dnsmasq gives; a box takes one for each card that ever asked."""
    looked_at = "dhcp-lease-max"
    most = _number(conf, "dhcp-lease-max", 1000)
    if most < 2 * boxes:
        means = "over it a box gets no answer at all"
        mend = "systemctl restart appliance-dnsmasq: it runs with an older configuration"
        return findings.warning(looked_at, f"{most} leases for {boxes} boxes", means, mend)
    return findings.ok(looked_at, f"{most} leases")


def lease_of(conf: str) -> float | None:
    """Returns the lease time, in seconds, of the range in a dnsmasq.conf; None: no range."""
    found = _RANGE.search(conf)
    return float(found[1]) * _UNITS[found[2]] if found else None


def lease(seconds: float | None, longest_s: float, waits: Waits, *, proxy: bool) -> Finding:
    """Judges the lease time by the boot wait and the longest job; None: no server was heard."""
    looked_at = "lease"
    if seconds is None:
        return findings.skipped(looked_at, "nobody was heard to offer an address")
    boot = waits.boot_max + waits.post_run
    found = (
        f"{_hours(seconds)}; an idle box waits {_hours(waits.park)} at a time,"
        f" the longest job takes {_hours(longest_s + boot)} with its boot and its end"
    )
    where = (
        "in the DHCP server that leases the addresses" if proxy else "dhcp-range in dnsmasq.conf"
    )
    mend = f"a longer lease, {where}"
    if seconds < longest_s + boot:
        means = (
            "the address goes during a job, and the network root with it, where nobody renews it"
        )
        return findings.warning(looked_at, found, means, mend)
    if seconds < waits.park * _PROXY_RENEWS:
        means = "iPXE renews only between two waits: the address may end during one"
        return findings.warning(looked_at, found, means, mend)
    return findings.ok(looked_at, found)


def disk(room: Room, space: Space, upload_bytes: int | None) -> list[Finding]:
    """Judges one file system; `upload_bytes`: what one attempt may upload, if results lie there."""
    looked_at = f"disk of {room.path}"
    found = f"{_gib(room.free)} of {_gib(room.size)} GiB free"
    mend = "appliance image gc; appliance results gc --older-than 30d"
    if room.free < space.low:
        means = f"below {_gib(space.low)} GiB no new job is taken"
        return [findings.error(looked_at, found, means, mend)]
    if room.free < space.warn:
        means = f"below {_gib(space.low)} GiB no new job is taken"
        return [findings.warning(looked_at, found, means, mend)]
    if upload_bytes is not None and room.free < upload_bytes:
        means = f"one attempt may upload {_gib(upload_bytes)} GiB (limits.upload_attempt_bytes)"
        return [findings.warning(looked_at, found, means, mend)]
    if room.inodes and room.inodes_free < INODES_LOW * room.inodes:
        named = f"{room.inodes_free} of {room.inodes} inodes free"
        return [findings.warning(looked_at, named, "no new file can be made without one", mend)]
    return [findings.ok(looked_at, found)]


def clock(ahead: float | None, *, synchronised: bool | None) -> list[Finding]:
    """Judges the clock.  `ahead`: seconds by which the state's newest record is ahead of it.

    `synchronised`: the kernel's word.  None for either: not known.
    """
    looked_at, found = "clock", []
    if ahead is None:
        found.append(
            findings.skipped(looked_at, "the state's files cannot be seen", "sudo appliance doctor")
        )
    elif ahead >= STEP_S:
        moved = told(-ahead)
        means = "deadlines hold, but dates are wrong: of jobs, results, reservations and accounts"
        mend = "timedatectl set-ntp true; then systemctl restart appliance"
        found.append(
            findings.error(looked_at, f"{moved}: the state has newer records", means, mend)
        )
    if synchronised is None:
        found.append(
            findings.skipped(looked_at, "the kernel does not say whether it is kept right")
        )
    elif not synchronised:
        means = (
            "it may be wrong, and leap: reservations end by it, and over a reboot nothing else"
            " says how long the server was off"
        )
        mend = "timedatectl set-ntp true, or apt install chrony"
        found.append(findings.warning(looked_at, "nothing keeps it right", means, mend))
    return found or [findings.ok(looked_at, "is kept right")]


def _number(conf: str, key: str, default: int) -> int:
    found = re.search(rf"^{key}=(\d+)$", conf, re.MULTILINE)
    return int(found[1]) if found else default


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.4g} h"


def _gib(count: float) -> str:
    return f"{count / 2**30:.4g}"
