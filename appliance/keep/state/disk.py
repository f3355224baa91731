"""The only writer of state files.

`StateDisk` keeps the promises: an append happens completely or not at all, and a replaced file is
the old one or the new one.  It makes plain system calls (`Calls`), so that tests can put calls in
memory in their place and have them fail.  Two kinds of failure leave it:

* OSError: the call was refused and had no effect; it may be retried;
* SyncFailed: a sync failed.  The kernel may have dropped what it could not write and report
  success the next time, so nothing may be retried: the process must stop and read the disk.

Everything that blocks runs in a thread.  Tests under a mock clock use a disk in memory instead,
since Trio's autojump does not know of threads (python-trio/trio#456).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import trio

from appliance.errors import BadState, DiskTrouble, SyncFailed
from appliance.fs import atomic, owner, plain_files

RESERVE: Final = "reserve"  # the file that holds the room set aside for the state
LOCK: Final = "lock"  # the file with the pid of the process that uses the folder
NO_ROOM: Final = frozenset([errno.ENOSPC, errno.EDQUOT])  # then the reserve is released
BESIDE: Final = ".new"  # suffix of a file that is still being written
_FOLDER_OWNER_ONLY: Final = 0o700
_OWNER_ONLY: Final = 0o600  # documents hold secrets
# For the journal, a snapshot and the watch over space at once.  Trio's own limit of 40 threads is
# not used: a storm of file requests may have taken them all.
_THREADS: Final = 4


class Disk(Protocol):
    """A flat folder of state files.  Every method but `read` raises OSError and SyncFailed."""

    async def names(self) -> list[str]:
        """Returns the names of all files, sorted."""

    async def read(self, name: str) -> bytes:
        """Returns the whole file.  Raises OSError."""

    async def append(self, name: str, data: bytes) -> None:
        """Returns once `data` is durable at the end of the file, which is created if missing."""

    def go_on(self, name: str, size: int) -> None:
        """Lets the next append first cut off everything after the first `size` bytes."""

    async def replace(self, name: str, pieces: Iterable[bytes]) -> None:
        """Returns once the file durably holds `pieces` and nothing else."""

    async def remove(self, name: str) -> None:
        """Returns once the file is gone; a power cut may bring it back."""

    async def free(self) -> int:
        """Returns how many bytes may still be written."""

    async def reserve(self, size: int) -> None:
        """Sets `size` bytes aside."""

    async def release(self) -> bool:
        """Gives up what was set aside; returns whether there was any."""


class Calls(Protocol):
    """The system calls beneath a StateDisk; names are those of files in its folder."""

    def names(self) -> list[str]: ...
    def read(self, name: str) -> bytes: ...
    def size(self, name: str) -> int: ...
    def write(self, name: str, data: memoryview) -> int: ...
    def truncate(self, name: str, size: int) -> None: ...
    def allocate(self, name: str, size: int) -> None: ...
    def sync(self, name: str) -> None: ...
    def sync_folder(self) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def unlink(self, name: str) -> None: ...
    def free(self) -> int: ...


def new_folder(within: Path, prefix: str) -> Path:
    """Makes a folder for its owner only: the first free name of `<prefix>1`, `<prefix>2`...

    Raises OSError.
    """
    number = 1
    while os.path.lexists(made := within / f"{prefix}{number}"):
        number += 1
    made.mkdir(mode=_FOLDER_OWNER_ONLY)
    return made


Run = Callable[..., Awaitable[Any]]  # runs a plain function, in a thread if it blocks


class StateDisk:
    """A Disk made of system calls."""

    def __init__(self, calls: Calls, run: Run) -> None:
        self._calls = calls
        self._run = run
        self._good: dict[str, int] = {}  # by file: how many of its bytes are acknowledged
        self._dirty: set[str] = set()  # files with bytes after the acknowledged ones
        self._named: set[str] = set()  # files whose names are known to be durable

    async def names(self) -> list[str]:
        """Returns the names of all files, sorted."""
        names: list[str] = await self._run(self._calls.names)
        return sorted(names)

    async def read(self, name: str) -> bytes:
        """Returns the whole file.  Raises OSError."""
        data: bytes = await self._run(self._calls.read, name)
        return data

    async def append(self, name: str, data: bytes) -> None:
        """Returns once `data` is durable at the end of the file, which is created if missing."""
        await self._run(self._append, name, data)

    def go_on(self, name: str, size: int) -> None:
        """Lets the next append first cut off everything after the first `size` bytes."""
        self._good[name] = size
        self._dirty.add(name)

    async def replace(self, name: str, pieces: Iterable[bytes]) -> None:
        """Returns once the file durably holds `pieces`; runs their iterator in a thread, too."""
        await self._run(self._replace, name, pieces)

    async def remove(self, name: str) -> None:
        """Returns once the file is gone; a power cut may bring it back."""
        await self._run(self._calls.unlink, name)
        self._good.pop(name, None)
        self._dirty.discard(name)
        self._named.discard(name)

    async def free(self) -> int:
        """Returns how many bytes may still be written."""
        free: int = await self._run(self._calls.free)
        return free

    async def reserve(self, size: int) -> None:
        """Sets `size` bytes aside."""
        await self._run(self._reserve, size)

    async def release(self) -> bool:
        """Gives up what was set aside; returns whether there was any."""
        try:
            await self._run(self._calls.unlink, RESERVE)
        except OSError:
            return False
        return True

    def _append(self, name: str, data: bytes) -> None:
        if name not in self._good:
            self._good[name] = self._calls.size(name)
        good = self._good[name]
        if name in self._dirty:
            self._calls.truncate(name, good)
        self._dirty.add(name)
        try:
            self._write(name, data)
        except OSError:
            with contextlib.suppress(OSError):  # if this fails, the next append does it
                self._calls.truncate(name, good)
                self._dirty.discard(name)
            raise
        # An earlier process, or an earlier try, may have stopped before it synced the name.
        self._sync(name, folder=name not in self._named)
        self._named.add(name)
        self._good[name] = good + len(data)
        self._dirty.discard(name)

    def _replace(self, name: str, pieces: Iterable[bytes]) -> None:
        beside = name + BESIDE
        try:
            self._calls.truncate(beside, 0)
            for piece in pieces:
                self._write(beside, piece)
            self._sync(beside)
            self._calls.rename(beside, name)
        except OSError:
            with contextlib.suppress(OSError):
                self._calls.unlink(beside)
            raise
        self._sync(None, folder=True)
        self._good.pop(name, None)

    def _write(self, name: str, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._calls.write(name, view) :]

    def _sync(self, name: str | None, *, folder: bool = False) -> None:
        try:
            if name is not None:
                self._calls.sync(name)
            if folder:
                self._calls.sync_folder()
        except OSError as error:
            what = name or "the folder"
            raise SyncFailed(f"{what}: a sync of the state failed: {error.strerror}") from error

    def _reserve(self, size: int) -> None:
        try:
            self._calls.allocate(RESERVE, size)
        except OSError:
            with contextlib.suppress(OSError):
                self._calls.unlink(RESERVE)
            raise


class StateFolder(StateDisk):
    """A Disk on a real folder, locked against a second server."""

    def __init__(self, folder: Path) -> None:
        """Locks the folder.  Raises BadState with the pid of another holder, DiskTrouble."""
        limiter = trio.CapacityLimiter(_THREADS)

        async def run(function: Callable[..., Any], *args: Any) -> Any:
            return await trio.to_thread.run_sync(function, *args, limiter=limiter)

        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = lock(folder)
        except OSError as error:
            where = error.filename or folder
            raise DiskTrouble(f"{where}: cannot hold the state: {error.strerror}") from error
        self._files = FileCalls(folder)
        super().__init__(self._files, run)

    def close(self) -> None:
        """Releases the lock."""
        self._files.close()
        self._lock.close()


def lock(folder: Path) -> contextlib.ExitStack:
    """Locks the folder until the result is closed.  Raises OSError, BadState (names the holder).

    Both the folder itself and the file `lock` are locked: a person may remove any file in the
    folder, but `lock` tells the pid, and older programs look at it.  Root is refused in another
    user's folder: callers that run as root use `owner.acting`.
    """
    with contextlib.ExitStack() as stack:
        itself = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, itself)
        _check_owner(itself, folder)
        _take(itself, folder)
        file = plain_files.open_(folder / LOCK, os.O_RDWR | os.O_CREAT)
        stack.callback(os.close, file)
        _take(file, folder)
        os.ftruncate(file, 0)
        with contextlib.suppress(OSError):  # a full disk: the lock holds without a pid in it
            os.pwrite(file, b"%d\n" % os.getpid(), 0)
        return stack.pop_all()


def _take(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = _holder(descriptor) or _named_in(folder / LOCK) or "unknown"
        raise BadState(f"{folder}: in use by another server, pid {pid}") from None


def _holder(descriptor: int) -> str:
    """Returns the pid that holds a flock on this file, from the kernel (proc(5)); or nothing."""
    facts = os.fstat(descriptor)
    which = f"{os.major(facts.st_dev):02x}:{os.minor(facts.st_dev):02x}:{facts.st_ino}"
    with contextlib.suppress(OSError):  # systemd may hide it from a service
        for line in Path("/proc/locks").read_text().splitlines():
            words = line.split()
            if "FLOCK" in words and which in words and "->" not in words:  # `->`: a waiter
                return words[words.index(which) - 1]
    return ""


def _named_in(path: Path) -> str:
    try:
        return plain_files.read(path).decode(errors="replace")[:20].strip()
    except OSError:
        return ""


def _check_owner(itself: int, folder: Path) -> None:
    whose = os.fstat(itself).st_uid
    if os.geteuid() == 0 != whose:
        user = owner.name(whose)
        raise BadState(
            f"{folder}: belongs to {user}, whose links root would follow: run this as that user,"
            f" such as `runuser -u {user} -- appliance serve`"
        )


class FileCalls:
    """The real system calls."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, int] = {}

    def close(self) -> None:
        """Closes every file."""
        while self._open:
            os.close(self._open.popitem()[1])

    def names(self) -> list[str]:
        """Returns the names of all files in the folder."""
        return os.listdir(self._folder)

    def read(self, name: str) -> bytes:
        """Returns the whole file."""
        return plain_files.read(self._folder / name)

    def size(self, name: str) -> int:
        """Returns the file's size; 0 if there is no such file."""
        try:
            return (self._folder / name).lstat().st_size
        except FileNotFoundError:
            return 0

    def write(self, name: str, data: memoryview) -> int:
        """Writes at the end of the file, which is created if missing."""
        return os.write(self._descriptor(name), data)

    def truncate(self, name: str, size: int) -> None:
        """Sets the file's size; creates it if missing."""
        os.ftruncate(self._descriptor(name), size)

    def allocate(self, name: str, size: int) -> None:
        """Gives the file this much room, taken from the disk now."""
        os.posix_fallocate(self._descriptor(name), 0, size)

    def sync(self, name: str) -> None:
        """Makes the file's bytes and size durable."""
        os.fdatasync(self._descriptor(name))

    def sync_folder(self) -> None:
        """Makes the names in the folder durable."""
        atomic.sync_folder(self._folder)

    def rename(self, old: str, new: str) -> None:
        """Renames a file; replaces one that has the new name."""
        self._close(old)
        self._close(new)
        (self._folder / old).rename(self._folder / new)

    def unlink(self, name: str) -> None:
        """Removes a file.  Raises FileNotFoundError."""
        self._close(name)
        (self._folder / name).unlink()

    def free(self) -> int:
        """Returns the bytes free for any user, without the file system's reserve for root."""
        found = os.statvfs(self._folder)
        return found.f_bavail * found.f_frsize

    def _descriptor(self, name: str) -> int:
        if name not in self._open:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            self._open[name] = plain_files.open_(self._folder / name, flags, _OWNER_ONLY)
        return self._open[name]

    def _close(self, name: str) -> None:
        if name in self._open:
            os.close(self._open.pop(name))
