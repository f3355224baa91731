"""Runs the programs that make a root filesystem, so that none of their processes or mounts stays.

Each program gets its own process and mount namespaces: its mounts are visible to no other process
and end with it.  It is killed when this process ends, even by SIGKILL.
"""

from __future__ import annotations

import collections
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from appliance.errors import BadImage

Say = Callable[[str], None]

_CONTAINED: Final = ("setpriv", "--pdeathsig", "KILL", "--", "unshare", "--mount", "--pid")
_AND: Final = ("--fork", "--kill-child", "--mount-proc", "--")
_TAIL: Final = 25  # last lines of a program's output, shown if it fails

# Run in the mount namespace: makes the mounts that programs in a chroot expect.
_CHROOT: Final = """\
set -e
cd "$1"; shift
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount --bind /dev dev
mount -t tmpfs tmpfs tmp
mount -t tmpfs tmpfs run
exec chroot . "$@"
"""


def run(
    argv: Sequence[str],
    say: Say,
    *,
    keep: Iterable[int] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Runs a program and passes its output to `say`.  Raises BadImage with the last lines.

    `keep` are descriptors, mainly locks, that stay open until the program's last process is gone.
    """
    tail: collections.deque[str] = collections.deque(maxlen=_TAIL)
    command = (*_CONTAINED, *_AND, *argv)
    try:
        program = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=_environment(environment),
            pass_fds=tuple(keep),
            start_new_session=True,  # Ctrl-C reaches only us; we kill it, and wait
        )
    except FileNotFoundError as error:
        raise BadImage(f"{error.filename} is not installed") from None
    assert program.stdout is not None
    try:
        with program.stdout as output:
            try:
                for raw in output:
                    line = raw.decode(errors="replace").rstrip()
                    tail.append(line)
                    say(line)
            finally:
                if program.poll() is None:
                    program.kill()
                collections.deque(output, maxlen=0)  # ends with its last process
    finally:
        program.wait()
    if program.returncode != 0:
        said = "\n".join(f"    {line}" for line in tail)
        raise BadImage(f"{argv[0]} failed with exit code {program.returncode}:\n{said}")


def program(name: str, more: str = "") -> str | None:
    """Finds a program in the PATH that `run` uses, or in the folder `more`."""
    return shutil.which(name, path=os.pathsep.join((_path(), more)))


def run_inside(
    root: Path,
    argv: Sequence[str],
    say: Say,
    *,
    keep: Iterable[int] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """Like run(), but in a chroot that has /proc, /sys, /dev, /tmp and /run."""
    run(("sh", "-c", _CHROOT, argv[0], str(root), *argv), say, keep=keep, environment=environment)


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {"PATH": _path(), "LC_ALL": "C.UTF-8", "HOME": "/root"} | kept | dict(more or {})


def _path() -> str:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return os.environ.get("PATH", path)
