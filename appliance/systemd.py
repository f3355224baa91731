"""Talks to systemd by sd_notify(3) and sd_listen_fds(3), through variables of the environment.

The server reports that it is ready, that its event loop is alive, and that it stops.
systemd hands over listening sockets, which outlive the process: a box that asks during a restart
waits instead of being refused.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import MutableMapping
from pathlib import Path
from typing import Final, TextIO

import structlog
import trio

FIRST: Final = 3  # the descriptor of the first socket; sd_listen_fds(3)
BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_LISTEN: Final = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")

log = structlog.get_logger()


def notify(state: str) -> None:
    """Sends `state` to the socket that systemd named; does nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError as error:  # nobody listens any more, which is no reason to stop
            log.warning("sd_notify failed", state=state, why=str(error))


async def stay_alive() -> None:
    """Reports at half of WatchdogSec that the event loop is alive; a hanging loop cannot report.

    Returns at once if no watchdog is set.
    """
    period = watchdog_s(os.environ, os.getpid())
    while period is not None:
        notify("WATCHDOG=1")
        await trio.sleep(period)


def watchdog_s(environ: MutableMapping[str, str], pid: int) -> float | None:
    """Returns the seconds between two watchdog reports; None if this process need not report."""
    with contextlib.suppress(KeyError, ValueError):
        microseconds = int(environ["WATCHDOG_USEC"])
        if microseconds > 0 and int(environ.get("WATCHDOG_PID", pid)) == pid:
            return microseconds / 2e6
    return None


def boot() -> str:
    """Returns the kernel's boot id; empty if unknown.

    Our unit sees only processes in /proc, so systemd passes the id (%b) by the environment.
    """
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip().replace("-", "")
    return os.environ.get("APPLIANCE_BOOT", "").replace("-", "")


def reads(stream: TextIO) -> bool:
    """Whether `stream` goes to systemd's journal; JOURNAL_STREAM names the journal's file."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def sockets() -> list[socket.socket]:
    """Takes the sockets that systemd handed over; a second call finds none."""
    return take(os.environ, os.getpid(), FIRST)


def take(environ: MutableMapping[str, str], pid: int, first: int) -> list[socket.socket]:
    """Takes the sockets, from descriptor `first` on, that `environ` announces for process `pid`.

    Removes the variables from `environ`, so that a child does not look for sockets of its own.
    """
    words = [environ.pop(word, "") for word in _LISTEN]
    with contextlib.suppress(ValueError):
        if int(words[0]) == pid:
            taken = [socket.socket(fileno=first + number) for number in range(int(words[1]))]
            for sock in taken:
                sock.set_inheritable(False)
            return taken
    return []
