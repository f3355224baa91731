"""A plain Debian tree with a systemd, made once: the server before anybody installed anything.

The packages that an install brings lie in apt's cache, so it needs no network.
"""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from appliance.boot.images import apt_sources
from appliance.install.site import PACKAGES

BUILT_ON = "bookworm"  # the release that this project is built and tested on
NEWER = "trixie"
CACHE = Path(__file__).parents[2] / ".cache"
# What a server has in any case, and what the tests' own scripts want.
WANTED = ("systemd", "systemd-sysv", "dbus", "iproute2", "procps", "passwd", "man-db")
LATER = [name for names in PACKAGES.values() for name in names]
# Of a container, nothing else is different from a machine: no timers that look for updates.
QUIET = "apt-daily.timer apt-daily-upgrade.timer"


def command(target: Path, codename: str) -> list[str]:
    """mmdebstrap, from where this system's own apt gets its packages."""
    apt = "apt-get -y -q --no-install-recommends --download-only install"
    sources = apt_sources.sources(BUILT_ON, None, print)
    if codename != BUILT_ON:
        sources = apt_sources.sources(codename, sources[0].uri, print)
    return [
        *("mmdebstrap", "--quiet", "--variant=apt", f"--include={','.join(WANTED)}"),
        *("--skip=cleanup/apt/lists", "--skip=cleanup/apt/cache"),
        '--aptopt=Acquire::Languages "none"',
        *(f"--aptopt={line}" for line in apt_sources.apt_options()),
        f'--customize-hook=chroot "$1" {apt} {" ".join(LATER)}',
        f'--customize-hook=chroot "$1" systemctl mask {QUIET}',
        *(codename, str(target)),
        *(source.line for source in sources),
    ]


def ensure(codename: str = BUILT_ON) -> Path:
    """The tree of a release, made if there is none or if this file has changed."""
    CACHE.mkdir(parents=True, exist_ok=True)
    made = CACHE / ("server" if codename == BUILT_ON else f"server-{codename}")
    stamp = made.with_name(f"{made.name}.made-from")
    wanted = hashlib.sha256(Path(__file__).read_bytes() + " ".join(LATER).encode()).hexdigest()
    with made.with_name(f"{made.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (stamp.exists() and stamp.read_text() == wanted and made.is_dir()):
            stamp.unlink(missing_ok=True)
            shutil.rmtree(made, ignore_errors=True)
            subprocess.run(command(made, codename), check=True)
            stamp.write_text(wanted)
    return made
