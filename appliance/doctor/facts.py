"""Facts that several checks of doctor need: the server, sockets and their owners, addresses."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import attrs

from appliance.boot.daemons import dnsmasq
from appliance.config import Config
from appliance.control.client import Server, connect_to
from appliance.doctor import ports
from appliance.errors import ApplianceError, BadConfig
from appliance.fs import owner, plain_files
from appliance.scheduler import hosts_files

# File names that `appliance install` writes; the command line of a running daemon has priority.
CONFIGURATIONS: Final = {
    "dnsmasq": "dnsmasq.conf",
    "smbd": "smb.conf",
    "ganesha.nfsd": "ganesha.conf",
}
WRITTEN_BY_US: Final = b"Written by `appliance "
_HEAD_BYTES: Final = 4096


@attrs.frozen
class World:
    """Facts that several checks need."""

    config: Config
    server: Server | None  # None: no server answers
    server_pid: int | None
    status: dict[str, Any]
    rows: list[dict[str, Any]]  # the testboxes, as `appliance hosts` lists them
    boxes: int  # how many are known
    listeners: list[ports.Listener]
    confs: dict[str, Path]  # the configuration in use, by daemon

    @property
    def running(self) -> bool:
        """Whether a server of ours answers."""
        return self.server is not None

    @property
    def archs(self) -> set[str]:
        """The architectures of the known boxes."""
        return {str(row["arch"]) for row in self.rows if row["known"] and row["arch"]}


@contextmanager
def gather(config: Config) -> Iterator[World]:
    """Gathers the facts; closes the connection to the server at the end."""
    server, pid = _connect(config)
    try:
        status = server.ask("status") if server else {}
        rows = server.ask("hosts")["hosts"] if server else []
    except ApplianceError:
        server, status, rows = None, {}, []
    try:
        listeners = _listeners(pid)
        named, _ = hosts_files.read_all(config.paths.hosts, config.defaults.queue)
        known = sum(bool(row["known"]) for row in rows) or len(named)
        yield World(config, server, pid, status, rows, known, listeners, _confs(config))
    finally:
        if server is not None:
            server.__exit__(None, None, None)


def _connect(config: Config) -> tuple[Server | None, int | None]:
    try:
        there = connect_to(str(config.paths.control_socket))
    except ApplianceError:
        return None, None
    try:
        server = Server(there)
        return server, int(server.hello["pid"])
    except ApplianceError:
        return None, None


def own_addresses(interface: str) -> list[str]:
    """Returns the IPv4 address of an interface, if any.  Raises OSError without such interface."""
    import fcntl

    socket.if_nametoindex(interface)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("256s", interface.encode()[:15])
        try:
            answer = fcntl.ioctl(sock, 0x8915, request)  # SIOCGIFADDR
        except OSError:
            return []
    return [socket.inet_ntoa(answer[20:24])]


def all_addresses() -> list[str]:
    """Returns the IPv4 addresses of this machine's interfaces."""
    found = []
    for _, name in socket.if_nameindex():
        found += own_addresses(name)
    return found


def _listeners(server_pid: int | None) -> list[ports.Listener]:
    found: list[ports.Listener] = []
    for protocol in ("tcp", "udp"):
        for table in (f"/proc/net/{protocol}", f"/proc/net/{protocol}6"):
            if os.path.exists(table):
                found += ports.listeners(protocol, Path(table).read_text())
    owners = _owners({one.inode for one in found}, server_pid)
    return [attrs.evolve(one, owners=tuple(owners.get(one.inode, ()))) for one in found]


def _owners(inodes: set[str], server_pid: int | None) -> dict[str, list[ports.Owner]]:
    """Returns the processes that hold each socket, as far as we may see them, by inode."""
    owners: dict[str, list[ports.Owner]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            links = [
                os.readlink(f"/proc/{entry}/fd/{fd}") for fd in os.listdir(f"/proc/{entry}/fd")
            ]
            name = _called(entry)
        except OSError:
            continue  # the process has ended, or is another user's and we are not root
        held = {link[8:-1] for link in links if link.startswith("socket:[")} & inodes
        if not held:
            continue
        pid = int(entry)
        ours = pid == server_pid or name == ports.SYSTEMD or _conf_of(pid) is not None
        for inode in held:
            owners.setdefault(inode, []).append(ports.Owner(pid, name, ours))
    return owners


def _called(pid: str) -> str:
    """Returns a process's name, which its user may set to any bytes.  Raises OSError."""
    return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()


def _conf_of(pid: int) -> Path | None:
    """Returns the configuration on a process's command line, if the appliance wrote it."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return None
    for word in words:
        path = Path(os.fsdecode(word.rpartition(b"=")[2]))
        if path.is_absolute() and _is_ours(path):
            return path
    return None


def _is_ours(path: Path) -> bool:
    if not owner.is_safe(path):
        return False  # `dnsmasq --test` would run a `conf-script` in it
    try:
        with open(plain_files.open_(path, os.O_RDONLY, follow=True), "rb") as file:
            return WRITTEN_BY_US in file.read(_HEAD_BYTES)
    except OSError:
        return False


def open_files_of(pid: int) -> int | None:
    """Returns a process's hard limit of open files; None if it cannot be read."""
    try:
        text = Path(f"/proc/{pid}/limits").read_text()
    except OSError:
        return None
    line = next(line for line in text.splitlines() if line.startswith("Max open files"))
    return int(line.split()[4])


def _confs(config: Config) -> dict[str, Path]:
    """Returns each daemon's configuration: of the running daemon, else the installed one."""
    found: dict[str, Path] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                name = _called(entry)
            except OSError:
                continue
            if name in CONFIGURATIONS and (conf := _conf_of(int(entry))) is not None:
                found.setdefault(name, conf)
    for daemon, name in CONFIGURATIONS.items():
        for folder in (config.paths.run, *config.paths.run.glob("*/"), config.paths.hosts.parent):
            if daemon not in found and _is_ours(folder / name):
                found[daemon] = folder / name
    return found


def conf_text(world: World, daemon: str) -> str:
    """Returns the configuration in use, else the one an install would write; empty: neither."""
    try:
        if daemon in world.confs:
            return world.confs[daemon].read_text()
        return dnsmasq.configuration(world.config)
    except (OSError, BadConfig):
        return ""


def interfaces(config: Config) -> list[str]:
    """Returns the interfaces that testboxes are on, the first one first."""
    return list(config.network.interfaces)


def owner_is_ours(world: World, port: int) -> bool:
    """Whether a program that runs with a configuration of ours has `port`."""
    return any(owner.ours for one in world.listeners if one.port == port for owner in one.owners)
