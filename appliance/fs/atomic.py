"""A file, a link or a folder takes the place of what had its name: whole, or not at all.

It is written beside that, synced, and renamed; then the folder is synced, which makes the name
durable.  Nowhere else in the program is this done, but for state files (keep/state/disk.py), whose
system calls the tests play.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from appliance.fs.plain_files import open_

OWNER_ONLY: Final = 0o600


def sync_folder(folder: Path) -> None:
    """The names in it are durable.  Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(beside: Path, path: Path) -> None:
    """What lies at `beside`, and is synced, has the name `path` durably.  Raises OSError."""
    os.replace(beside, path)
    sync_folder(path.absolute().parent)


def put(
    path: Path,
    pieces: Iterable[bytes],
    mode: int = OWNER_ONLY,
    whose: tuple[int, int] | None = None,
    *,
    beside: Path | None = None,
    durable: bool = True,
) -> None:
    """A file with these bytes, in the place of whatever file or link had the name.

    `whose`: uid and gid.  `beside`: on the same file system, where the folder of `path` must not
    have it.  `durable=False`: for what the next start writes again.  Raises OSError.
    """
    beside = beside or path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    # O_EXCL: never through a link that somebody has put there meanwhile.
    descriptor = open_(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        with open(descriptor, "wb") as file:
            file.writelines(pieces)
            if whose is not None:
                os.fchown(file.fileno(), *whose)
            os.fchmod(file.fileno(), mode)
            file.flush()
            if durable:
                os.fsync(file.fileno())
        if durable:
            replace(beside, path)
        else:
            os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            beside.unlink()
        raise


def link(path: Path, target: str) -> None:
    """A symlink to `target`, in the place of whatever link or file had the name.  Raises OSError.

    Its folder is made.  Whoever looks meanwhile finds the old one or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    replace(beside, path)
