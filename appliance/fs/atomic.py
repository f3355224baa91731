"""Replaces a file, a link or a folder atomically and durably.

The new one is written beside the old one, synced, and renamed; then the folder is synced, which
makes the name durable.  Only state files have code of their own for this (keep/state/disk.py),
whose system calls the tests simulate.
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
    """Makes the names in `folder` durable.  Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace(beside: Path, path: Path) -> None:
    """Renames `beside`, which is synced already, to `path`, durably.  Raises OSError."""
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
    """Writes a file with these bytes, replacing any file or link at `path`.

    `whose`: uid and gid.  `beside`: another temporary path on the same file system, for a folder
    that must not hold temporary files.  `durable=False`: no sync, for files that the next start
    writes again.  Raises OSError.
    """
    beside = beside or path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    # O_EXCL: never write through a link that another user has made meanwhile.
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
    """Makes `path` a symlink to `target`, replacing any link or file there.  Raises OSError.

    Makes the folder of `path` if needed.  Readers see the old one or the new one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    replace(beside, path)
