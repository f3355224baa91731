"""What systemd and the server say to each other, in a few words of the environment.

The server says that it is ready, that its event loop is alive, that it stops (sd_notify(3)).
systemd hands over sockets that it listens on (sd_listen_fds(3)): they outlive the process, so a
box that asks during a restart waits instead of being refused.
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
    """One datagram to the socket that systemd named; nothing without systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if address:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.sendto(state.encode(), address.replace("@", "\0", 1))
        except OSError as error:  # nobody listens any more; that is no reason to stop
            log.warning("sd_notify failed", state=state, why=str(error))


async def stay_alive() -> None:
    """Say so at half of WatchdogSec, from the event loop: one that hangs falls silent.

    Returns at once where no watchdog is set.
    """
    period = watchdog_s(os.environ, os.getpid())
    while period is not None:
        notify("WATCHDOG=1")
        await trio.sleep(period)


def watchdog_s(environ: MutableMapping[str, str], pid: int) -> float | None:
    """Seconds from one sign of life to the next; None where none is asked of this process."""
    with contextlib.suppress(KeyError, ValueError):
        microseconds = int(environ["WATCHDOG_USEC"])
        if microseconds > 0 and int(environ.get("WATCHDOG_PID", pid)) == pid:
            return microseconds / 2e6
    return None


def boot() -> str:
    """Which boot of the kernel this is; empty where nobody says.

    Our unit sees nothing of /proc but processes, so there systemd says it (%b).
    """
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text(encoding="ascii").strip().replace("-", "")
    return os.environ.get("APPLIANCE_BOOT", "").replace("-", "")


def reads(stream: TextIO) -> bool:
    """Whether what is written there goes to systemd's journal: systemd names that file."""
    try:
        found = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def sockets() -> list[socket.socket]:
    """Those that systemd handed over, ours from now on; a second call finds none."""
    return take(os.environ, os.getpid(), FIRST)


def take(environ: MutableMapping[str, str], pid: int, first: int) -> list[socket.socket]:
    """The sockets from descriptor `first` on that `environ` means for process `pid`.

    The words go from `environ`: a child that inherited them would look for sockets of its own.
    """
    words = [environ.pop(word, "") for word in _LISTEN]
    with contextlib.suppress(ValueError):
        if int(words[0]) == pid:
            taken = [socket.socket(fileno=first + number) for number in range(int(words[1]))]
            for sock in taken:
                sock.set_inheritable(False)
            return taken
    return []
