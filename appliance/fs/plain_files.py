"""Opens and reads plain files only.

A name may lead to a link, to a pipe that blocks its reader, or to a folder: each of them raises an
OSError that says so.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

_OWNER_ONLY: Final = 0o600
# Without O_NONBLOCK, opening a pipe waits for its other end; for a plain file the flag is ignored.
_SAFE: Final = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_RIGHT: Final = "where a plain file belongs"
FOLDER: Final = "a folder"
_KINDS: Final = {
    stat.S_IFLNK: "a symlink", stat.S_IFDIR: FOLDER, stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def kind(path: Path) -> str | None:
    """Names the kind of a path that is no plain file; None for a plain file or a missing path."""
    try:
        return _KINDS.get(stat.S_IFMT(os.lstat(path).st_mode))
    except FileNotFoundError:
        return None


def open_(path: Path, flags: int, mode: int = _OWNER_ONLY, *, follow: bool = False) -> int:
    """Opens a plain file.  Raises OSError, which says what else is there."""
    flags |= _SAFE if follow else _SAFE | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
    except OSError as error:
        # ELOOP: a link.  ENXIO: a socket, or a pipe without a reader.  EISDIR: a folder.
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
    """Reads a whole file.  Raises OSError, also if it has more than `most` bytes.

    The size is checked first: a sparse file may be of any size.
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
