"""A plain Debian tree with a systemd, made once: the server before anybody installed anything.

The packages that an install brings lie in apt's cache, so it needs no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from appliance.boot import archives
from appliance.setup.site import PACKAGES

CODENAME = "bookworm"
TREE = Path(__file__).parents[2] / ".cache/server"
# What a server has in any case, and what the tests' own scripts want.
WANTED = ("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "passwd", "man-db")
LATER = [name for names in PACKAGES.values() for name in names]
# Of a container, nothing else is different from a machine: no timers that look for updates.
QUIET = "apt-daily.timer apt-daily-upgrade.timer"


def command(target: Path) -> list[str]:
    """mmdebstrap, from where this system's own apt gets its packages."""
    apt = "apt-get -y -q --no-install-recommends --download-only install"
    sources = archives.sources(CODENAME, None, print)
    return [
        *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(WANTED)}"),
        *("--skip=cleanup/apt/lists", "--skip=cleanup/apt/cache"),
        '--aptopt=Acquire::Languages "none"',
        *(f"--aptopt={line}" for line in archives.apt_options()),
        f'--customize-hook=chroot "$1" {apt} {" ".join(LATER)}',
        f'--customize-hook=chroot "$1" systemctl mask {QUIET}',
        *(CODENAME, str(target)),
        *(source.line for source in sources),
    ]


def ensure() -> Path:
    """The tree, made if there is none or if this file has changed."""
    TREE.parent.mkdir(parents=True, exist_ok=True)
    stamp = TREE.with_name("server.made-from")
    wanted = hashlib.sha256(Path(__file__).read_bytes() + " ".join(LATER).encode()).hexdigest()
    with TREE.with_name("server.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted and TREE.is_dir()):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(TREE, ignore_errors=True)
            subprocess.run(command(TREE), check=True)
            stamp.write_text(wanted)
    return TREE
