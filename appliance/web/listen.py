"""The listening sockets, made by us or by systemd: their connections inherit options set on them.

On port 3000, keepalive and TCP_USER_TIMEOUT free the seat of a box that lost power without a FIN
(docs/firmware.md#waiting: 39 s against never), and on 20001 that of a monitor which is gone or
reads no more.  A box that loads a kernel may be busy for longer than that, so the other ports have
none of it.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from typing import Final

import structlog

from appliance import addresses
from appliance.config import Config
from appliance.errors import BadConfig

BACKLOG: Final = 4096  # a room of boxes after a power cut asks within the same seconds
# A parked box is probed 10 s after its last sign, then every 5 s, three times; unanswered data
# (a comment line) is given up after 25 s.  Both end below 60 s with a drip of 30 s.  The 25 s hold
# for probes, too, and so the first must not be late: at 20 s, one lost packet cut off a box.
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
USER_TIMEOUT_MS: Final = 25_000

log = structlog.get_logger()


def sockets(config: Config, passed: Sequence[socket.socket] = ()) -> list[socket.socket]:
    """One bound socket for each HTTP port; those in `passed` listen already, ours not yet.

    Raises BadConfig.  A passed one that is nobody's door is named in the log: its unit is older
    than the configuration.
    """
    held = {_place(sock): sock for sock in passed if sock.family != socket.AF_UNIX}
    made = []
    for port in ports_of(config):
        try:
            waits = port in (config.ports.scheduler, config.ports.monitor)
            there = held.pop((addresses.normal(config.network.listen), port), None)
            made.append(there or _bound(config.network.listen, port))
            _check_families(made[-1])
            _set_options(made[-1], waits=waits)
        except BadConfig:
            _close(made)
            raise
        except OSError as error:
            _close(made)
            where = f"{config.network.listen} port {port}"
            raise BadConfig(f"cannot listen on {where}: {error.strerror}") from error
    for address, port in held:
        log.warning("no door is here; `appliance install` renews its unit", at=address, port=port)
    return made


def _close(made: Sequence[socket.socket]) -> None:
    for sock in made:
        sock.close()


def control(config: Config, passed: Sequence[socket.socket]) -> socket.socket | None:
    """The one among `passed` that is the command line's door."""
    path = str(config.paths.control_socket)
    found = (sock for sock in passed if sock.family == socket.AF_UNIX)
    return next((sock for sock in found if sock.getsockname() == path), None)


def ports_of(config: Config) -> tuple[int, ...]:
    """The HTTP ports."""
    ports = config.ports
    return (
        ports.scheduler, ports.os, ports.initrd, ports.upload, ports.results, ports.monitor,
    )  # fmt: skip


def cut(config: Config) -> int:
    """End every connection of our doors; returns how many there were.

    Hypercorn shields its sends from cancellation, so a client that stopped reading would hold a
    stop for as long as it likes.  What nobody reads any more is found among our own descriptors.
    """
    ended = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # no socket, or closed since
        with sock, contextlib.suppress(OSError):
            ours = sock.family in (socket.AF_INET, socket.AF_INET6)
            if ours and sock.getsockname()[1] in ports_of(config) and sock.getpeername():
                sock.shutdown(socket.SHUT_RDWR)
                ended += 1
    return ended


def _place(sock: socket.socket) -> tuple[str, int]:
    return addresses.end(sock.getsockname())


def _check_families(sock: socket.socket) -> None:
    """Raises BadConfig for a socket on every address that takes IPv6 alone: our boxes have IPv4.

    It was made elsewhere, and what it takes cannot be changed any more.
    """
    address, port = _place(sock)
    if address == "::" and sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY):
        raise BadConfig(
            f":: port {port} takes IPv6 alone: `appliance install` renews its unit, which then says"
            " BindIPv6Only=both"
        )


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:  # whatever net.ipv6.bindv6only says: `::` is for both families
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _set_options(sock: socket.socket, *, waits: bool) -> None:
    """All of them, and on a passed socket, too: its unit may say something else."""
    idle = KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(waits))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS if waits else 0)
    if waits:
        names = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
        for name, value in zip(names, idle, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, name, value)
