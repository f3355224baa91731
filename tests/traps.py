"""What the user who owns a folder may put there for root to walk into, and root that walks.

A command runs in a process of its own, as root, with a time limit: it must neither touch what the
traps lead to, nor make anything beside it, nor wait for ever.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import stat
import sys
import time
from pathlib import Path

import attrs

from appliance import cli

USER = 65534  # nobody: real, and not root
LIMIT_S = 60.0  # a command takes less than one; the machine may be busy

KINDS = ("symlink", "to a folder", "dangling", "hard link", "pipe", "folder")


def plant(kind: str, path: Path, victim: Path) -> None:
    """A trap under the name `path`, in the place of what is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    match kind:
        case "symlink":
            path.symlink_to(victim / "secret")
        case "to a folder":
            path.symlink_to(victim / "folder")
        case "dangling":
            path.symlink_to(victim / "folder/made")
        case "hard link":
            os.link(victim / "secret", path)  # where fs.protected_hardlinks is off
            return
        case "pipe":
            os.mkfifo(path, 0o666)
        case "folder":
            path.mkdir()
    os.chown(path, USER, USER, follow_symlinks=False)


def make_victim(folder: Path) -> Path:
    """What only root may read and change."""
    (folder / "folder/within").mkdir(parents=True, mode=0o700)
    (folder / "folder/inside").write_text("only root's, too\n")
    (folder / "folder/within/file").write_text("and this\n")
    # A hosts file, too, whose mistake a message would quote.
    (folder / "secret").write_text("mac: root-only-secret\n")
    (folder / "secret").chmod(0o600)
    return folder


def facts(folder: Path) -> dict[str, tuple[object, ...]]:
    """Names, owners, modes and bytes of all that is in it."""
    found = {}
    for path in (folder, *sorted(folder.rglob("*"))):
        there = path.lstat()
        text = path.read_bytes() if stat.S_ISREG(there.st_mode) else None
        found[str(path)] = (there.st_uid, there.st_gid, there.st_mode, text)
    return found


def give(folder: Path, user: int = USER) -> None:
    """All of it belongs to the user."""
    for path in (folder, *folder.rglob("*")):
        os.chown(path, user, user, follow_symlinks=False)


@attrs.frozen
class Ran:
    """How a command ended."""

    code: int
    said: str


def run(config: Path, *words: object, said: Path) -> Ran:
    """`appliance WORDS`, in a child of this process; a hang is an AssertionError."""
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os._exit(_command([str(config), *map(str, words)], said))
    end = time.monotonic() + LIMIT_S
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return Ran(os.waitstatus_to_exitcode(status), said.read_text(errors="replace"))
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise AssertionError(f"{words} hangs; it said {said.read_text(errors='replace')!r}")
        time.sleep(0.005)


def _command(words: list[str], said: Path) -> int:
    code = 99  # a traceback
    with contextlib.suppress(BaseException):
        out = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(out, 1)
        os.dup2(out, 2)
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        os.environ["PYTHONWARNINGS"] = "ignore"
        sys.argv = ["appliance", "--config", *words]
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
        sys.stdout.flush()
        sys.stderr.flush()
    return code
