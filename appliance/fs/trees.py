"""Walks and removes folders that strangers filled, however deeply nested.

Python's own functions recurse, or hold a path or a descriptor for each level: they fail at a
thousand nested folders, and leave the folders behind.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

# Levels of nested folders.  Files of distributions have some thirty; the kernel's longest path,
# 4096 bytes, has room for this many names of twenty letters.
DEPTH_MAX: Final = 200
PATH_BYTES_MAX: Final = 4095
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@attrs.frozen
class Folder:
    """One folder of a walk."""

    path: str
    depth: int  # 0 for the root of the walk
    entries: list[os.DirEntry[str]]


def walk(root: Path, *, strict: bool = False) -> Iterator[Folder]:
    """Yields every folder from `root` on, parents first; follows no link.

    Skips folders deeper than DEPTH_MAX, and folders that cannot be read; with `strict`, raises
    OSError for the latter.
    """
    ahead = [(os.fspath(root), 0)]
    while ahead:
        path, depth = ahead.pop()
        try:
            with os.scandir(path) as found:
                entries = list(found)
        except OSError:
            if strict:
                raise
            continue
        yield Folder(path, depth, entries)
        if depth < DEPTH_MAX:
            below = (entry.path for entry in entries if entry.is_dir(follow_symlinks=False))
            ahead += [(each, depth + 1) for each in below if not _is_too_long(each)]


def too_deep(root: Path) -> str | None:
    """Returns the first levels of a folder that is too deep for a walk; None: there is none."""
    for folder in walk(root, strict=True):
        for entry in folder.entries:
            deep = folder.depth == DEPTH_MAX or _is_too_long(entry.path)
            if deep and entry.is_dir(follow_symlinks=False):
                return "/".join(os.path.relpath(entry.path, root).split("/")[:3]) + "/..."
    return None


def _is_too_long(path: str) -> bool:
    return len(os.fsencode(path)) > PATH_BYTES_MAX


def remove(root: Path) -> None:
    """Removes a folder with everything in it.  Raises OSError: EBUSY if something is mounted there.

    Each inner folder is first renamed into `root` and then emptied there.  So only two folders are
    open at a time, no path is long, no link is followed, and a mount point stops the removal since
    it cannot be renamed.  A kill leaves some folders in `root`, for the next call.
    """
    top = os.open(root, _OPEN)
    try:
        mark = f".doomed-{secrets.token_hex(8)}-"
        count = 0
        ahead: list[str | None] = [None]  # folders in `root`; None: `root` itself
        while ahead:
            name = ahead.pop()
            folder = os.open(name, _OPEN, dir_fd=top) if name is not None else os.dup(top)
            try:
                for each in _emptied(folder):
                    count += 1
                    os.rename(each, f"{mark}{count}", src_dir_fd=folder, dst_dir_fd=top)
                    ahead.append(f"{mark}{count}")
            finally:
                os.close(folder)
            if name is not None:
                os.rmdir(name, dir_fd=top)
    finally:
        os.close(top)
    root.rmdir()


def _emptied(folder: int) -> list[str]:
    """Removes everything but folders; returns the names of the folders."""
    with os.scandir(folder) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in entries if is_folder]


def mounts_in(root: Path, mounts: Path = _MOUNTS) -> list[str]:
    """Returns the mount points below `root`, bind mounts included."""
    below = os.path.realpath(root) + "/"
    places = (line.split(" ")[4] for line in mounts.read_text("utf-8", "replace").splitlines())
    plain = (_ESCAPED.sub(lambda match: chr(int(match[1], 8)), place) for place in places)
    return sorted(place for place in plain if place.startswith(below))
