"""Plain files: read for what they are, and written whole or not at all.

What lies under a name may be a link, a pipe that keeps its reader waiting, or a folder: each is an
OSError that says so.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_OWNER_ONLY: Final = 0o600
# Of a pipe, an open waits for the other end without O_NONBLOCK; of a plain file it does nothing.
_SAFE: Final = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_RIGHT: Final = "where a plain file belongs"
FOLDER: Final = "a folder"
_KINDS: Final = {
    stat.S_IFLNK: "a symlink", stat.S_IFDIR: FOLDER, stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def kind(path: Path) -> str | None:
    """What lies there, in words, if it is no plain file; None for that, and for nothing at all."""
    try:
        return _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode))
    except FileNotFoundError:
        return None


def open_(path: Path, flags: int, mode: int = _OWNER_ONLY, *, follow: bool = False) -> int:
    """A descriptor of a plain file.  Raises OSError, which says what else lies there."""
    flags |= _SAFE if follow else _SAFE | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        # ELOOP is a link, ENXIO a pipe without a reader or a socket, EISDIR a folder.
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR) and (what := kind(path)):
            raise OSError(error.errno, f"is {what}, {_RIGHT}", str(path)) from error
        raise
    found = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(found):
        os.close(descriptor)
        number = errno.EISDIR if stat.S_ISDIR(found) else errno.EINVAL
        raise OSError(number, f"is {_KINDS[stat.S_IFMT(found)]}, {_RIGHT}", str(path))
    return descriptor


def read(path: Path, most: int | None = None, *, follow: bool = False) -> bytes:
    """The whole file.  Raises OSError, also for one of more than `most` bytes, and reads none then.

    One with holes is as large as its owner likes.
    """
    with open(open_(path, os.O_RDONLY, follow=follow), "rb") as file:
        if most is not None and os.fstat(file.fileno()).st_size > most:
            raise _too_large(path, most)
        try:
            data = file.read() if most is None else file.read(most + 1)
        except MemoryError as error:
            why = "is larger than the memory of this machine"
            raise OSError(errno.EFBIG, why, str(path)) from error
    if most is not None and len(data) > most:
        raise _too_large(path, most)
    return data


def _too_large(path: Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"is larger than {most} bytes", str(path))
