"""Folders that strangers filled: walked and removed, however deep they are.

Python's own walks recurse, and hold a path or a descriptor for each level: at a thousand folders in
each other they end with a trace, and what they should have removed stays.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import attrs

# Folders in each other.  What distributions install has some thirty; the longest path that the
# kernel takes, 4096 bytes, has room for so many of twenty letters.
DEPTH_MAX: Final = 200
PATH_BYTES_MAX: Final = 4095
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOUNTS: Final = Path("/proc/self/mountinfo")
_ESCAPED: Final = re.compile(r"\\([0-7]{3})")


@attrs.frozen
class Folder:
    """One folder of a walk."""

    path: str
    depth: int  # of the first: 0
    entries: list[os.DirEntry[str]]


def walk(root: Path, *, strict: bool = False) -> Iterator[Folder]:
    """Every folder from `root` on, parents first; no link is followed.

    Folders deeper than DEPTH_MAX are not looked into.  What cannot be read is passed over, unless
    it is `strict`: that raises OSError.
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
    """A folder that a walk does not look into, its first levels; None: there is none."""
    for folder in walk(root, strict=True):
        for entry in folder.entries:
            deep = folder.depth == DEPTH_MAX or _is_too_long(entry.path)
            if deep and entry.is_dir(follow_symlinks=False):
                return "/".join(os.path.relpath(entry.path, root).split("/")[:3]) + "/..."
    return None


def _is_too_long(path: str) -> bool:
    return len(os.fsencode(path)) > PATH_BYTES_MAX


def remove(root: Path) -> None:
    """The folder with all in it.  Raises OSError: EBUSY where something is mounted in it.

    Each folder is first renamed to the top, and emptied there: two are open at a time, no path is
    long, no link is followed, and what is mounted cannot be renamed.  A kill leaves some of them at
    the top, for the next call.
    """
    top = os.open(root, _OPEN)
    try:
        mark = f".doomed-{secrets.token_hex(8)}-"
        count = 0
        ahead: list[str | None] = [None]  # folders at the top; None: that itself
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
    """Remove what is no folder; the names of what is one."""
    with os.scandir(folder) as found:
        entries = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in found]
    for name, is_folder in entries:
        if not is_folder:
            os.unlink(name, dir_fd=folder)
    return [name for name, is_folder in entries if is_folder]


def mounts_in(root: Path, mounts: Path = _MOUNTS) -> list[str]:
    """Where something is mounted below `root`, the same file system at a second place included."""
    below = os.path.realpath(root) + "/"
    places = (line.split(" ")[4] for line in mounts.read_text("utf-8", "replace").splitlines())
    plain = (_ESCAPED.sub(lambda match: chr(int(match[1], 8)), place) for place in places)
    return sorted(place for place in plain if place.startswith(below))
