"""Runs the programs that make a root filesystem, so that nothing of them outlives us.

Each gets its own process and mount namespaces: its mounts are seen by nobody else and end with it,
and it ends with this process, even if that is killed with -9.
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
_TAIL: Final = 25  # lines of a program's output that its failure shows

# Run in the mount namespace: what programs in a chroot expect to find there.
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
    """Runs a program, each line that it prints to `say`.  Raises BadImage with its last lines.

    `keep` are files that stay open until its last process is gone: a lock, above all.
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
            start_new_session=True,  # Ctrl-C reaches us alone; we end it, and wait for it
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
                collections.deque(output, maxlen=0)  # ends when the last of its processes has
    finally:
        program.wait()
    if program.returncode != 0:
        said = "\n".join(f"    {line}" for line in tail)
        raise BadImage(f"{argv[0]} failed with exit code {program.returncode}:\n{said}")


def program(name: str, more: str = "") -> str | None:
    """The path of a program that `run` would find, or that is in the folder `more`."""
    return shutil.which(name, path=os.pathsep.join((_path(), more)))


def run_inside(
    root: Path,
    argv: Sequence[str],
    say: Say,
    *,
    keep: Iterable[int] = (),
    environment: Mapping[str, str] | None = None,
) -> None:
    """The same, in a chroot that has /proc, /sys, /dev, /tmp and /run."""
    run(("sh", "-c", _CHROOT, argv[0], str(root), *argv), say, keep=keep, environment=environment)


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {"PATH": _path(), "LC_ALL": "C.UTF-8", "HOME": "/root"} | kept | dict(more or {})


def _path() -> str:
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return os.environ.get("PATH", path)
