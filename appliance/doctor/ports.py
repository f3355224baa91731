"""Pure: no clock, no socket, no await.

Reads who has which port from /proc's tables of sockets, and judges the appliance's ports.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from typing import Final

import attrs

from appliance.config import Config
from appliance.doctor import findings
from appliance.doctor.findings import Finding

_LISTENS: Final = {"tcp": "0A", "udp": "07"}  # a connected UDP socket is 01
SYSTEMD: Final = "systemd"  # holds sockets for services that it starts


@attrs.frozen
class Owner:
    """A process that has a socket; `ours`: it runs with a configuration of this appliance."""

    pid: int
    name: str
    ours: bool


@attrs.frozen
class Listener:
    """A socket that accepts connections or receives datagrams."""

    protocol: str  # "tcp", "udp"
    address: str
    port: int
    inode: str
    owners: tuple[Owner, ...] = ()


@attrs.frozen
class Wanted:
    """A port of the appliance."""

    protocol: str
    port: int
    daemon: str  # which should have it
    key: str  # of the configuration, to choose another; empty: boxes hard-code the port
    needed: bool = True  # whether every boot needs it


def wanted(config: Config) -> list[Wanted]:
    """Returns all ports of the appliance."""
    ports = config.ports
    doors = ("scheduler", "os", "initrd", "upload", "results", "monitor")
    found = [Wanted("tcp", getattr(ports, name), "appliance", f"ports.{name}") for name in doors]
    found += [Wanted("udp", 67, "dnsmasq", ""), Wanted("udp", 69, "dnsmasq", "")]
    found.append(Wanted("tcp", ports.cifs, "smbd", "ports.cifs"))
    found.append(Wanted("tcp", ports.nfs, "ganesha.nfsd", "ports.nfs", needed=False))
    return found


def listeners(protocol: str, table: str) -> list[Listener]:
    """Reads the sockets in a table such as /proc/net/tcp6, without owners."""
    found = []
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) > 9 and words[3] == _LISTENS[protocol]:
            address, _, port = words[1].partition(":")
            found.append(Listener(protocol, _address(address), int(port, 16), words[9]))
    return found


def _address(digits: str) -> str:
    """Reads an address of the kernel: words of four bytes, each with the least byte first."""
    words = [bytes.fromhex(digits[n : n + 8])[::-1] for n in range(0, len(digits), 8)]
    found = ipaddress.ip_address(b"".join(words))
    mapped = getattr(found, "ipv4_mapped", None)
    return str(mapped or found)


def judge(
    each: Wanted, all_there: Sequence[Listener], own: Iterable[str], *, running: bool
) -> Finding:
    """Judges one port.  `own`: this machine's addresses; `running`: our server answers."""
    looked_at = f"port {each.port}/{each.protocol} ({each.daemon})"
    mine = {*own, "0.0.0.0", "::"}
    there = [
        one
        for one in all_there
        if (one.protocol, one.port) == (each.protocol, each.port) and one.address in mine
    ]
    owners = {owner for one in there for owner in one.owners}
    foreign = sorted({owner.name for owner in owners if not owner.ours})
    if not there:
        return _nobody(looked_at, each, running=running)
    if not owners:
        why = "somebody has it; to see who, root is needed"
        return findings.skipped(looked_at, why, "sudo appliance doctor")
    names = ", ".join(sorted({f"{owner.name} (pid {owner.pid})" for owner in owners}))
    if not foreign:
        return findings.ok(looked_at, names)
    if each.daemon == "dnsmasq" == foreign[0] and any(owner.ours for owner in owners):
        return findings.ok(looked_at, f"{names}; the other one has another interface")
    other = f", or choose another with {each.key}" if each.key else ""
    mend = f"systemctl disable --now {foreign[0]} (or what started it){other}"
    means = f"{each.daemon} of the appliance cannot have it"
    return findings.error(looked_at, f"{names} has it", means, mend)


def _nobody(looked_at: str, each: Wanted, *, running: bool) -> Finding:
    if not running:
        return findings.ok(looked_at, "free")
    if not each.needed:
        return findings.ok(looked_at, "nobody listens: no job can say `os_mount: nfs`")
    unit = {"appliance": "appliance", "smbd": "appliance-cifs"}.get(
        each.daemon, "appliance-dnsmasq"
    )
    return findings.error(
        looked_at,
        "nobody listens",
        "no box boots",
        f"systemctl restart {unit}; journalctl -u {unit}",
    )
