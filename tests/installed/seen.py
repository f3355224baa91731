"""What a server in a container is like, for comparing: its files, its lab."""

from __future__ import annotations

from typing import Any

from appliance.install.units import DAEMONS, SERVER

from .container import Container

UNITS = (SERVER, *DAEMONS.values())

# What may differ after an uninstall without anybody having installed anything.
RESTLESS = (
    "/dev", "/proc", "/run", "/sys", "/tmp", "/var/tmp", "/var/log", "/var/cache/ldconfig",
    "/var/lib/systemd", "/root", "/etc/machine-id", "/etc/.pwd.lock", "/var/lib/dbus",
    "/var/cache/man",
)  # fmt: skip
_SKIP = r"find / -xdev \( " + " -o ".join(f"-path {path}" for path in RESTLESS) + r" \) -prune -o "
LISTING = (
    _SKIP + r"\( -type l -printf '%p -> %l\n' \) -o \( -type d -printf '%p %m %u:%g\n' \)"
    r" -o \( -type f -printf '%p %m %u:%g\n' \)"
)
SUMS = _SKIP + "-type f -print0 | xargs -0 sha256sum --zero"


async def lab(on: Container) -> dict[str, Any]:
    """Its testboxes, jobs and daemons by name, the version that answers, the file that runs."""
    hosts = await on.json("appliance", "hosts")
    jobs = await on.json("appliance", "jobs")
    version = (await on.run("appliance", "--version")).out
    pids = (await on.run("systemctl", "show", "-P", "MainPID", *UNITS)).out.split()
    exe = (await on.run("readlink", f"/proc/{pids[0]}/exe")).out.strip()
    return {
        "hosts": {row["name"]: row for row in hosts},
        "jobs": {row["id"]: row for row in jobs},
        "version": version,
        "exe": exe,
        "pids": dict(zip(UNITS, pids, strict=True)),
    }


async def files(on: Container) -> dict[str, str]:
    """What lies on the server, by path: mode and owner, and of files a hash of what is in them."""
    listed = (await on.run("sh", "-c", LISTING)).out
    found = dict(line.split(" ", 1) for line in listed.splitlines())
    for line in (await on.run("sh", "-c", SUMS)).out.split("\0"):
        digest, _, path = line.partition("  ")
        if path:
            found[path] += " " + digest
    return found
