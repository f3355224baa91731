"""Opens the file that a URL path names, and reads it without blocking the loop.

A path is judged by the file it resolves to, not by its text.  The kernel resolves it, including
symlinks, to an O_PATH descriptor, which can neither read nor write.  Only if that descriptor is a
regular file inside the served roots, the same inode is opened for reading.  So swapping names in
between gains an attacker nothing, and no device or FIFO is ever opened.

Must not: write, list directories, know HTTP.
"""

from __future__ import annotations

import errno
import mmap
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

import attrs
import trio

from appliance import threads
from appliance.errors import BadRequest, NotFound, Refused

# Bytes of one read, where the kernel does not send from the file.  A client that does not read
# keeps two such chunks in memory, and there may be a thousand such clients: with chunks of 1 MiB
# they held 2 GB.
CHUNK_BYTES: Final = 2**15
# A disk serves a few readers of uncached files well and many badly.  Further boxes wait, and other
# users of threads are not starved.
_DISK_THREADS_MAX: Final = 16

_BROKEN_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_CONTROL: Final = re.compile(rb"[\x00-\x1f\x7f]")
# The kernel's errors for a path that names no file we could serve.
_NAMES_NOTHING: Final = {errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
# RWF_NOWAIT: "not in memory", and "this filesystem cannot tell" (fuse, some network mounts).
_ASK_A_THREAD: Final = {errno.EAGAIN, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}

# Filled and emptied between two awaits, so all readers share one buffer, which stays in the CPU's
# cache.  mmap aligns it to a page: the kernel copies from whole pages, and into a buffer that
# starts 16 bytes after a page boundary, as a large bytearray does, it copies at a fifth of the
# speed (2.0 instead of 9.5 GB/s; loads wait for stores whose addresses end alike).
_scratch: Final = memoryview(mmap.mmap(-1, CHUNK_BYTES))


class LeavesRoots(NotFound):
    """The path, or a symlink on it, leads outside the served directories."""


class Gone(NotFound):
    """The disk has nothing of that name."""


class Body(Protocol):
    """The source of an answer's bytes."""

    @property
    def size(self) -> int: ...

    @property
    def etag(self) -> bytes:
        """Returns a strong validator, quotes included; empty: there is none."""

    @property
    def modified(self) -> int | None:
        """Returns the time of the last change in UTC seconds; None: unknown."""

    @property
    def descriptor(self) -> int | None:
        """Returns the open file, for a server that can send from it; None: there is none."""

    async def read(self, offset: int, length: int) -> bytes:
        """Returns 1 to `length` bytes; b"" if the body now ends before `offset`."""

    def close(self) -> None: ...


class Disk(Protocol):
    """Opens files; tests in virtual time use one without threads."""

    async def open(self, root: str, names: list[bytes]) -> Body:
        """Opens the file `names` below the URL prefix `root`.

        Raises Gone: nothing there; NotFound: nothing that may be served; Refused: not readable;
        OSError: the disk or the table of open files is in trouble.
        """


def parse_path(raw: bytes) -> list[bytes]:
    """Returns the names in a URL path from the wire, percent-decoded once.

    Raises BadRequest: broken percent, control characters.  NotFound: `..`, or a trailing slash,
    because directories are not served.
    """
    if not raw.startswith(b"/") or _BROKEN_PERCENT.search(raw):
        raise BadRequest("this is no path")
    path = unquote_to_bytes(raw)
    if _CONTROL.search(path):
        raise BadRequest("a control character in the path")
    names = path.split(b"/")
    if names[-1] in (b"", b"."):
        raise NotFound("directories are not listed here")
    if b".." in names:
        raise LeavesRoots("the path leaves its root")
    return [name for name in names if name not in (b"", b".")]


@attrs.define
class OpenFile:
    """A regular file inside the roots.  `size` is its size when it was opened."""

    descriptor: int
    size: int
    etag: bytes
    modified: int
    limiter: trio.CapacityLimiter

    async def read(self, offset: int, length: int) -> bytes:
        """Reads from the page cache at once, or from the disk in a thread."""
        length = min(length, CHUNK_BYTES)
        try:
            n = os.preadv(self.descriptor, [_scratch[:length]], offset, os.RWF_NOWAIT)
            return bytes(_scratch[:n])
        except OSError as error:
            if error.errno not in _ASK_A_THREAD:
                raise
        return await threads.run(os.pread, self.descriptor, length, offset, limiter=self.limiter)

    def close(self) -> None:
        os.close(self.descriptor)


class RealDisk:
    """The directories behind the URL prefixes.  A symlink may lead from one into another."""

    def __init__(self, roots: Mapping[str, Path]) -> None:
        self._roots = dict(roots)
        self._limiter = trio.CapacityLimiter(_DISK_THREADS_MAX)

    async def open(self, root: str, names: list[bytes]) -> OpenFile:
        # In a thread: every name in the path may need a directory block from the disk.
        try:
            return await threads.run(self._open, root, names, limiter=self._limiter)
        except FileNotFoundError as error:
            raise Gone("no such file") from error
        except OSError as error:
            if error.errno in _NAMES_NOTHING:
                raise NotFound("no such file") from error
            if isinstance(error, PermissionError):
                raise Refused("the server may not read this file") from error
            raise

    def _open(self, root: str, names: list[bytes]) -> OpenFile:
        path = os.path.join(os.fsencode(self._roots[root]), *names)
        handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise NotFound("not a regular file")
            self._check_landing(os.readlink(b"/proc/self/fd/%d" % handle))
            descriptor = os.open(
                b"/proc/self/fd/%d" % handle, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
            )
        finally:
            os.close(handle)
        found = os.fstat(descriptor)
        etag = b'"%x-%x-%x"' % (found.st_ino, found.st_mtime_ns, found.st_size)
        return OpenFile(descriptor, found.st_size, etag, int(found.st_mtime), self._limiter)

    def _check_landing(self, landed: bytes) -> None:
        # The roots are looked up each time: an operator may move /srv to a bigger disk.
        for root in self._roots.values():
            real = os.fsencode(os.path.realpath(root))
            if landed.startswith(real.rstrip(b"/") + b"/"):
                return
        raise LeavesRoots(f"leads outside the served directories, to {os.fsdecode(landed)!r}")


@attrs.frozen
class Bytes:
    """A body in memory."""

    data: bytes
    etag: bytes = b""
    modified: int | None = None
    descriptor: None = None

    @property
    def size(self) -> int:
        return len(self.data)

    async def read(self, offset: int, length: int) -> bytes:
        """Returns a slice; if that is the whole, without a copy."""
        return self.data[offset : offset + length]

    def close(self) -> None:
        """Does nothing: there is no descriptor to close."""
