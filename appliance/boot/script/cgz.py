"""Pure: no clock, no socket, no await.

Packs files into a gzip-compressed cpio archive (newc), which the kernel unpacks as an initramfs.

Equal entries give equal bytes: entries are sorted, every time is 0, the owner is root, the inode
is the entry's position in the archive.  Missing parent folders are added, with mode 0755.
"""

from __future__ import annotations

import gzip
import stat
from collections.abc import Iterable
from typing import Final

import attrs

# Linux Documentation/driver-api/early-userspace/buffer-format.rst: magic, 13 fields of 8 hex digits
_HEAD: Final = b"070701" + b"%08X" * 13
_TRAILER: Final = "TRAILER!!!"
_DIRECTORY: Final = stat.S_IFDIR | 0o755
# Compared with level 6, on a job of 7 KB: 1 % larger, half the time.
_LEVEL: Final = 3


@attrs.frozen
class Entry:
    """One member.  `mode` is the full st_mode; a symlink's target is its `data`."""

    path: str  # relative, "lkp/scheduled/job.sh"
    data: bytes = b""
    mode: int = stat.S_IFREG | 0o644


def pack(entries: Iterable[Entry]) -> bytes:
    """Packs `entries` as one gzip member.  Raises ValueError for a path that leaves the root."""
    return gzip.compress(cpio(entries), compresslevel=_LEVEL, mtime=0)


def cpio(entries: Iterable[Entry]) -> bytes:
    """Like pack(), but not compressed."""
    members: dict[str, Entry] = {}
    for entry in entries:
        _check(entry.path)
        if entry.path in members:
            raise ValueError(f"{entry.path} is there twice")
        members[entry.path] = entry
    for path in list(members):
        for parent in _parents(path):
            members.setdefault(parent, Entry(parent, mode=_DIRECTORY))
    out = bytearray()
    for inode, path in enumerate(sorted(members), start=1):
        _write(out, members[path], inode)
    _write(out, Entry(_TRAILER, mode=0), 0)
    return bytes(out)


def _check(path: str) -> None:
    parts = path.split("/")
    if "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a plain relative path")


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _write(out: bytearray, entry: Entry, inode: int) -> None:
    name = entry.path.encode() + b"\0"
    links = 2 if stat.S_ISDIR(entry.mode) else 1
    #        ino    mode        uid gid nlink mtime size            dev    rdev  namesize  check
    fields = (inode, entry.mode, 0, 0, links, 0, len(entry.data), 0, 0, 0, 0, len(name), 0)
    out += _HEAD % fields + name
    _align(out)
    out += entry.data
    _align(out)


def _align(out: bytearray) -> None:
    out += bytes(-len(out) % 4)
