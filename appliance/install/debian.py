"""Installs Debian's packages, and keeps their daemons from being started and enabled.

Samba, ganesha and ganesha's dependency rpcbind would run with configurations of their own, on all
interfaces.  A policy-rc.d forbids their start for as long as apt runs, and units that were newly
enabled are disabled again, so that they do not start at boot either.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from appliance.errors import Refused
from appliance.programs import run

POLICY: Final = Path("/usr/sbin/policy-rc.d")
_FORBIDS: Final = (
    "#!/bin/sh\n# Written by `appliance install` for the time of one installation.\nexit 101\n"
)
_APT: Final = (
    *("apt-get", "-qq", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=600"),
    *("--no-install-recommends", "-y", "install"),
)


def install(names: Sequence[str]) -> None:
    """Installs packages by name.  Raises Refused with apt's message."""
    before = _enabled()
    environ = {"DEBIAN_FRONTEND": "noninteractive"}
    with _daemons_forbidden():
        try:
            run([*_APT, *names], **environ)
        except Refused:  # apt's package lists may be outdated or missing
            run(["apt-get", "-qq", "update"], **environ)
            _last_try(names, environ)
    if new := sorted(_enabled() - before):
        run(["systemctl", "disable", *new])


def _last_try(names: Sequence[str], environ: Mapping[str, str]) -> None:
    """Raises Refused, which also names the packages that are installed: apt may fail half-way."""
    try:
        run([*_APT, *names], **environ)
    except Refused as error:
        there = sorted(installed(names))
        told = f"\ninstalled by now: {' '.join(there)}" if there else ""
        raise Refused(f"{error}{told}") from error


def installed(packages: Iterable[str]) -> set[str]:
    """Returns those of Debian's `packages` that are installed; none without dpkg."""
    query = ["dpkg-query", "-W", "-f", "${Package} ${db:Status-Status}\n", *packages]
    try:
        said = subprocess.run(query, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return set()
    return {line.split()[0] for line in said.splitlines() if line.endswith(" installed")}


@contextmanager
def _daemons_forbidden() -> Iterator[None]:
    """Forbids daemon starts by a policy-rc.d; one that somebody else wrote stays as it is."""
    ours = not POLICY.exists() or POLICY.read_text() == _FORBIDS  # left by a killed install
    if ours:
        POLICY.write_text(_FORBIDS)
        POLICY.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            POLICY.unlink(missing_ok=True)


def _enabled() -> set[str]:
    """Returns the services, sockets and targets that start at boot."""
    command = ["systemctl", "list-unit-files", "--state=enabled", "--no-legend", "--no-pager"]
    environ = {**os.environ, "SYSTEMD_COLORS": "0"}
    said = subprocess.run(command, capture_output=True, text=True, check=False, env=environ).stdout
    names = (line.split()[0] for line in said.splitlines() if line.strip())
    return {name for name in names if name.endswith((".service", ".socket", ".target"))}
