"""Gathers facts about this server for the plan, before anything is changed."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import attrs

from appliance.config import Config
from appliance.fs import owner, plain_files
from appliance.install import units
from appliance.install.networks import Interface
from appliance.programs import run
from appliance.web import listen

_DHCP_PORT: Final = 67
_TFTP_PORT: Final = 69


@attrs.frozen
class Taken:
    """A port that one of the appliance's daemons needs, and another process has."""

    unit: str
    where: str
    whose: str

    def __str__(self) -> str:
        return f"{self.where} is taken by {self.whose}; {self.unit} needs it"


def interfaces() -> dict[str, Interface]:
    """Returns interfaces by name.  Raises Refused if iproute2 is missing."""
    found = {}
    for row in json.loads(run(["ip", "-json", "-4", "address", "show"])):
        rows = [each for each in row.get("addr_info", []) if each.get("family") == "inet"]
        at = (f"{each['local']}/{each['prefixlen']}" for each in rows)
        found[row["ifname"]] = Interface(row["ifname"], tuple(map(ipaddress.IPv4Interface, at)))
    for row in json.loads(run(["ip", "-json", "link", "show"])):
        found.setdefault(row["ifname"], Interface(row["ifname"], ()))
    return found


def read_only(folders: Iterable[Path]) -> list[Path]:
    """Returns the folders that are on a read-only file system, or would be if they existed."""
    found = []
    for folder in folders:
        there = next(path for path in (folder, *folder.parents) if path.exists())
        if os.statvfs(there).f_flag & os.ST_RDONLY:
            found.append(folder)
    return found


def texts(paths: Iterable[Path]) -> dict[Path, str]:
    """Returns the texts of existing files; "" for a file whose path another user can change."""
    found = {}
    for path in paths:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if owner.is_safe(path):
                found[path] = path.read_text(encoding="utf-8")
            elif path.lstat() and plain_files.kind(path) is None:
                found[path] = ""
    return found


def links(paths: Iterable[Path]) -> dict[Path, str]:
    """Returns symlink targets; "" for an existing path that is not a symlink."""
    return {
        path: os.readlink(path) if path.is_symlink() else ""
        for path in paths
        if path.is_symlink() or path.exists()
    }


def active(names: Iterable[str]) -> set[str]:
    """Returns the units among `names` that run."""
    found = set()
    for name in names:
        command = ["systemctl", "is-active", "--quiet", name]
        if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == 0:
            found.add(name)
    return found


def has_systemd() -> bool:
    """Returns whether systemd is this machine's init, as sd_booted(3) does."""
    return Path("/run/systemd/system").is_dir()


def has_apt() -> bool:
    """Returns whether apt can install packages here."""
    return shutil.which("apt-get") is not None


def taken(config: Config, there: Mapping[str, Interface], without: set[str]) -> list[Taken]:
    """Returns ports that cannot be bound; `without`: units that run already, or are left out."""
    tcp, udp = socket.SOCK_STREAM, socket.SOCK_DGRAM
    door = units.SOCKETS[0]
    wanted = [(door, tcp, config.network.listen, port, "") for port in listen.ports_of(config)]
    several = len(config.network.interfaces) > 1
    for name in config.network.interfaces:
        address = str(there[name].addresses[0].ip)
        wanted.append((units.DAEMONS["dnsmasq"], udp, "0.0.0.0", _DHCP_PORT, name))
        wanted.append((units.DAEMONS["dnsmasq"], udp, address, _TFTP_PORT, ""))
        wanted.append((units.DAEMONS["cifs"], tcp, address, config.ports.cifs, ""))
        where = "0.0.0.0" if several else address
        wanted.append((units.DAEMONS["nfs"], tcp, where, config.ports.nfs, ""))
    found = []
    for unit, kind, address, port, device in dict.fromkeys(wanted):
        if unit not in without and not _is_free(kind, address, port, device):
            protocol = "tcp" if kind == tcp else "udp"
            where = f"{protocol} port {port} on {device or address}"
            found.append(Taken(unit, where, _whose(protocol, port)))
    return found


def _is_free(kind: socket.SocketKind, address: str, port: int, device: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, kind) as sock:
        if kind == socket.SOCK_STREAM:  # connections in TIME_WAIT hold no port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if device:  # as dnsmasq does, which may run beside one on another interface
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        try:
            sock.bind((address, port))
        except OSError as error:
            return error.errno == errno.EADDRNOTAVAIL  # no such address: the port is free
    return True


def _whose(protocol: str, port: int) -> str:
    """Returns who has a port, for people: a process and its unit, or that /proc names nobody."""
    inodes = set()
    for table in (protocol, protocol + "6"):
        with contextlib.suppress(OSError):
            for line in Path("/proc/net", table).read_text().splitlines()[1:]:
                words = line.split()
                if int(words[1].rpartition(":")[2], 16) == port and words[3] in ("0A", "07"):
                    inodes.add(f"socket:[{words[9]}]")
    for process in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with contextlib.suppress(OSError):
            if any(os.readlink(each) in inodes for each in (process / "fd").iterdir()):
                return (
                    f"{(process / 'comm').read_text().strip()} (pid {process.name}){_unit(process)}"
                )
    return "nobody that /proc names (the kernel's own NFS server, or another namespace)"


def _unit(process: Path) -> str:
    lines = (process / "cgroup").read_text().split()
    names = {part for line in lines for part in line.split("/") if part.endswith(".service")}
    return f" of {', '.join(sorted(names))}" if names else ""
