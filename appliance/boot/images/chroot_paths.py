"""Paths in a root filesystem that somebody else made: resolved inside it, as after a chroot.

We are root on the server, and a root filesystem is full of links that mean something only once it
is a box's `/`.  `etc -> /etc` in it is its own /etc, never the server's; `..` stops at its top.
Every read, write and removal of those who make images goes through here.

A walk in user space is enough, since nobody else can write there meanwhile: the folder in the
making is root's alone until it is published (snapshot.py).
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from appliance.errors import BadImage
from appliance.fs import trees

_LINKS_MAX: Final = 40  # as many as the kernel follows before it says ELOOP


def resolve(root: Path, path: str) -> Path:
    """Where `path` of `root` lies, all links followed; names that aren't there stay as they are."""
    return _walk(root, path, last=True)


def entry(root: Path, path: str) -> Path:
    """The same, but the last name is not followed: to replace it, remove it, or read the link."""
    return _walk(root, path, last=False)


def read(root: Path, path: str) -> bytes:
    """The bytes of a regular file.  BadImage for anything else: a pipe or a disk has no end."""
    try:
        descriptor = os.open(
            resolve(root, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        )
    except (OSError, ValueError) as error:
        raise BadImage(f"/{path} of this root filesystem cannot be read: {error}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise BadImage(f"/{path} of this root filesystem is no file")
    with open(descriptor, "rb") as file:
        return file.read()


def has(root: Path, path: str) -> bool:
    """A regular file is there."""
    found = resolve(root, path)
    return found.is_file() and not found.is_symlink()


def write(root: Path, path: str, data: bytes) -> None:
    """A file of ours; what stands in its place is replaced, not followed."""
    remove(root, path)
    entry(root, path).write_bytes(data)


def link(root: Path, path: str, target: str) -> None:
    """A symlink of ours, in the place of whatever was there."""
    remove(root, path)
    entry(root, path).symlink_to(target)


def remove(root: Path, path: str) -> None:
    """The name is gone: a file, a link (not what it leads to), or a folder with all in it."""
    found = entry(root, path)
    assert found != root, path
    if found.is_dir() and not found.is_symlink():
        trees.remove(found)
    else:
        found.unlink(missing_ok=True)


def _walk(root: Path, path: str, *, last: bool) -> Path:
    """`root` and real names below it: none of them is a link, but the last may be."""
    below: list[str] = []
    ahead = path.split("/")[::-1]
    links = 0
    while ahead:
        name = ahead.pop()
        if name in ("", "."):
            continue
        if name == "..":
            del below[-1:]  # of the top it is the top
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
