"""The listening sockets, made by us or by systemd; connections inherit the options set on them.

On port 3000, keepalive and TCP_USER_TIMEOUT free the seat of a box that lost power without a FIN
(docs/firmware.md#waiting: after 39 s instead of never).  On 20001 they do so for a monitor that is
gone or no longer reads.  The other ports do not have these options: a box that loads a kernel may
be busy for longer than these timeouts.
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

BACKLOG: Final = 4096  # after a power cut a room of boxes connects within the same few seconds
# A parked box is probed 10 s after its last packet, then every 5 s, three times; a connection whose
# data (a comment line) is unacknowledged is closed after 25 s.  With a drip of 30 s both end within
# 60 s.  The 25 s hold for probes, too, so the first probe must be early: when it was sent after
# 20 s, one lost packet cut off a box.
KEEPALIVE_IDLE_S: Final = 10
KEEPALIVE_INTERVAL_S: Final = 5
KEEPALIVE_PROBES: Final = 3
USER_TIMEOUT_MS: Final = 25_000

log = structlog.get_logger()


def sockets(config: Config, passed: Sequence[socket.socket] = ()) -> list[socket.socket]:
    """Returns one bound socket for each HTTP port; those from `passed` already listen, ours do not.

    Raises BadConfig.  A passed socket for which there is no door is logged: its unit is older than
    the configuration.
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
    """Returns the socket in `passed` that is the control socket, None if there is none."""
    path = str(config.paths.control_socket)
    found = (sock for sock in passed if sock.family == socket.AF_UNIX)
    return next((sock for sock in found if sock.getsockname() == path), None)


def ports_of(config: Config) -> tuple[int, ...]:
    """Returns the HTTP ports."""
    ports = config.ports
    return (
        ports.scheduler, ports.os, ports.initrd, ports.upload, ports.results, ports.monitor,
    )  # fmt: skip


def cut(config: Config) -> int:
    """Ends every connection of our doors; returns how many there were.

    Hypercorn shields its sends from cancellation, so a client that stopped reading could delay a
    stop for as long as it likes.  The connections are found among our own open descriptors.
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
    """Raises BadConfig for a socket on `::` that accepts IPv6 only, since our boxes have IPv4.

    Such a socket was passed to us, and IPV6_V6ONLY cannot be changed once it is bound.
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
    if family == socket.AF_INET6:  # `::` is for both families, whatever net.ipv6.bindv6only says
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    try:
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def _set_options(sock: socket.socket, *, waits: bool) -> None:
    """Sets all options, also on a passed socket, since its unit may say something else."""
    idle = KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_PROBES
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, int(waits))
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, USER_TIMEOUT_MS if waits else 0)
    if waits:
        names = socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT
        for name, value in zip(names, idle, strict=True):
            sock.setsockopt(socket.IPPROTO_TCP, name, value)
