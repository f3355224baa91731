"""Resolves paths inside an untrusted root filesystem, as after a chroot.

This code runs as root on the server, and a root filesystem is full of symlinks that are right only
when it is a box's `/`.  `etc -> /etc` in it means its own /etc, never the server's; `..` stops at
its top.  All code that makes images reads, writes and removes files in them through this module.

A walk in user space is enough, since nobody else can write there meanwhile: the folder belongs to
root alone until it is published (snapshot.py).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from appliance.errors import BadImage
from appliance.fs import trees

_LINKS_MAX: Final = 40  # as many as the kernel follows before it says ELOOP

READ_BYTES_MAX: Final = 2**28  # of a file that is read whole; the largest modules have a third


def resolve(root: Path, path: str) -> Path:
    """Resolves `path` in `root`, following all symlinks; names that do not exist are kept."""
    return _walk(root, path, last=True)


def entry(root: Path, path: str) -> Path:
    """Like resolve(), but does not follow the last name: to replace, remove or read a symlink."""
    return _walk(root, path, last=False)


def open_(root: Path, path: str) -> int:
    """Opens a regular file.  Raises BadImage for anything else: a pipe or a disk has no end."""
    try:
        descriptor = os.open(
            resolve(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except (OSError, ValueError) as error:
        raise BadImage(f"/{path} of this root filesystem cannot be read: {error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadImage(f"/{path} of this root filesystem is no file")
    return descriptor


def read(root: Path, path: str) -> bytes:
    """Reads a regular file.  Raises BadImage for anything else, and for one that is too large.

    A file with holes may be as large as its maker likes.
    """
    with open(open_(root, path), "rb") as file:
        if os.fstat(file.fileno()).st_size > READ_BYTES_MAX:
            raise BadImage(f"/{path} of this root filesystem is larger than {READ_BYTES_MAX} bytes")
        return file.read()


def has(root: Path, path: str) -> bool:
    """Tells whether `path` is a regular file."""
    found = resolve(root, path)
    return found.is_file() and not found.is_symlink()


def write(root: Path, path: str, data: bytes) -> None:
    """Writes a file; whatever has its name is replaced, not followed."""
    remove(root, path)
    entry(root, path).write_bytes(data)


def link(root: Path, path: str, target: str) -> None:
    """Makes a symlink; whatever has its name is replaced."""
    remove(root, path)
    entry(root, path).symlink_to(target)


def remove(root: Path, path: str) -> None:
    """Removes a file, a symlink (not its target), or a folder with everything in it."""
    found = entry(root, path)
    assert found != root, path
    if found.is_dir() and not found.is_symlink():
        trees.remove(found)
    else:
        found.unlink(missing_ok=True)


def _walk(root: Path, path: str, *, last: bool) -> Path:
    """Returns `root` plus names that are no symlinks; the last may be one if `last` is False."""
    below: list[str] = []
    ahead = path.split("/")[::-1]
    links = 0
    while ahead:
        name = ahead.pop()
        if name in ("", "."):
            continue
        if name == "..":
            del below[-1:]  # the parent of the top is the top
            continue
        here = root.joinpath(*below, name)
        if not here.is_symlink() or not (last or any(ahead)):
            below.append(name)
            continue
        links += 1
        if links > _LINKS_MAX:
            raise BadImage(f"/{path} of this root filesystem is a link that leads to itself")
        target = os.readlink(here)
        if target.startswith("/"):
            below.clear()
        ahead += target.split("/")[::-1]
    return root.joinpath(*below)
