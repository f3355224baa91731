"""Disks in memory that fail as disks do, beneath the real StateDisk: no thread, virtual time.

    disk = MemoryDisk(seed=7)            a Disk (keep/state/disk.py) for `journals.restore`
    disk.files                           what a reader sees now, by name; tests may change it
    disk.calls.operations                how many changing system calls there were

    disk.calls.fail_at(3, errno.ENOSPC)  the third call from now is refused, once
    disk.calls.fail_at(3, errno.EIO, syncs=True)   the third sync from now fails
    disk.calls.kill_at(3)                the third call from now raises Killed, half done
    disk.calls.broken = errno.EROFS      every write is refused until it is None again
    disk.calls.room = 1000               bytes in all; beyond them ENOSPC
    disk.calls.quota = 1000              bytes for us, of a disk with room: beyond them EDQUOT
    disk.calls.short_writes = True       each write takes only a part

    disk.after_kill()                    a healthy disk with what a restart would find

What was not synced is lost at a kill, as the seed draws: of a file's new bytes any prefix is left,
or all with some sectors read as zeros; of new names, renames and removals the first few.
A failed write may have left a part of its bytes behind.  Equal seeds and calls give equal disks.
"""

from __future__ import annotations

import errno
import os
import random
from typing import Final

import trio

from appliance.keep import archive_file
from appliance.keep.archive import Archive
from appliance.keep.state.disk import StateDisk
from appliance.keep.state.frames import SECTOR_BYTES

NO_FAULT: Final = 0
KILLED: Final = -1


class Killed(BaseException):
    """The power went in the middle of a system call."""


class MemoryCalls:
    """The system calls of a StateDisk, on files in memory (see above)."""

    def __init__(self, seed: int = 0) -> None:
        self.rng = random.Random(seed)
        self._files: dict[str, bytes] = {}
        self._behind: dict[str, bytearray] = {}  # of files that grow: not yet in `_files`
        self.operations = 0
        self.writes = 0
        self.broken: int | None = None
        self.room: int | None = None
        self.quota: int | None = None
        self.short_writes = False
        self._fail: tuple[int, int] = (0, 0)  # at which operation, with which errno
        self._fail_sync: tuple[int, int] = (0, 0)
        self._kill = 0
        self._syncs = 0
        self._safe: dict[str, int] = {}  # of files with more bytes than were synced
        self._unsynced_names: list[tuple[str, bytes | None]] = []  # what stood there before

    @property
    def files(self) -> dict[str, bytes]:
        """What a reader sees now."""
        for name, data in self._behind.items():
            self._files[name] += data
        self._behind.clear()
        return self._files

    @files.setter
    def files(self, files: dict[str, bytes]) -> None:
        self._behind.clear()
        self._files = files

    def fail_at(self, number: int, code: int, *, syncs: bool = False) -> None:
        """The `number`-th call from now (or sync, counted alone) raises OSError(code)."""
        if syncs:
            self._fail_sync = (self._syncs + number, code)
        else:
            self._fail = (self.operations + number, code)

    def kill_at(self, number: int) -> None:
        """The `number`-th changing call from now is half done, and raises Killed."""
        self._kill = self.operations + number

    @property
    def untouched(self) -> bool:
        """Whether no fault that was asked for has come yet."""
        failed = self._fail[0] and self.operations >= self._fail[0]
        return not (
            failed
            or (self._fail_sync[0] and self._syncs >= self._fail_sync[0])
            or (self._kill and self.operations >= self._kill)
        )

    # ---- what StateDisk calls

    def names(self) -> list[str]:
        return list(self.files)

    def read(self, name: str) -> bytes:
        if name not in self.files:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.files[name]

    def size(self, name: str) -> int:
        return len(self._files.get(name, b"")) + len(self._behind.get(name, b""))

    def write(self, name: str, data: memoryview) -> int:
        code = self._next()
        self.writes += 1
        left = max(0, min(len(data), self.free(), self._allowed()))
        if code != NO_FAULT:
            left = min(left, self.rng.randrange(len(data) + 1))
        elif self.short_writes:
            left = min(left, self.rng.randint(1, len(data)))
        self._make(name)
        self._safe.setdefault(name, self.size(name))
        self._behind.setdefault(name, bytearray()).extend(data[:left])
        if code != NO_FAULT or left == 0:
            self._refuse(code or self._full())
        return left

    def truncate(self, name: str, size: int) -> None:
        self._do()
        self._make(name)
        self.files[name] = self.files[name][:size]
        self._safe[name] = min(self._safe.get(name, size), size)

    def allocate(self, name: str, size: int) -> None:
        self._do()
        if min(self.free(), self._allowed()) < size:
            self._refuse(self._full())
        self.files[name] = bytes(size)

    def sync(self, name: str) -> None:
        self._do(sync=True)
        self._safe.pop(name, None)

    def sync_folder(self) -> None:
        self._do(sync=True)
        self._unsynced_names.clear()

    def rename(self, old: str, new: str) -> None:
        self._do()
        self._unsynced_names += [(new, self.files.get(new)), (old, self.files[old])]
        self.files[new] = self.files.pop(old)
        self._safe.pop(new, None)
        if old in self._safe:
            self._safe[new] = self._safe.pop(old)

    def unlink(self, name: str) -> None:
        self.read(name)
        self._do()
        self._unsynced_names.append((name, self.files.pop(name)))
        self._safe.pop(name, None)

    def free(self) -> int:
        if self.room is None:
            return 2**40
        return self.room - self._used()

    def _used(self) -> int:
        return sum(len(data) for data in self.files.values())

    def _allowed(self) -> int:
        """What the quota leaves, of which statvfs knows nothing."""
        return 2**40 if self.quota is None else self.quota - self._used()

    def _full(self) -> int:
        return errno.ENOSPC if self.free() <= self._allowed() else errno.EDQUOT

    # ---- what goes wrong

    def after_kill(self) -> dict[str, bytes]:
        """The files that a restart would find."""
        found = dict(self.files)
        for name, safe in sorted(self._safe.items()):
            if name in found:
                found[name] = self._torn(found[name], safe)
        kept = self.rng.randrange(len(self._unsynced_names) + 1)
        for name, before in reversed(self._unsynced_names[kept:]):
            if before is None:
                found.pop(name, None)
            else:
                found[name] = before
        return found

    def _torn(self, data: bytes, safe: int) -> bytes:
        if self.rng.random() < 0.75:
            return data[: self.rng.randint(safe, len(data))]
        torn, start = bytearray(data), safe
        while start < len(data):
            edge = min(len(data), (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
            if self.rng.random() < 0.5:
                torn[start:edge] = bytes(edge - start)
            start = edge
        return bytes(torn)

    def _make(self, name: str) -> None:
        if name not in self._files:
            self._unsynced_names.append((name, None))
            self._files[name] = b""

    def _do(self, *, sync: bool = False) -> None:
        code = self._next(sync=sync)
        if code != NO_FAULT:
            self._refuse(code)

    def _next(self, *, sync: bool = False) -> int:
        """Count a call; the errno that it fails with."""
        self.operations += 1
        self._syncs += sync
        if self.operations == self._kill:
            return KILLED
        if self.operations == self._fail[0]:
            return self._fail[1]
        if sync:
            return self._fail_sync[1] if self._syncs == self._fail_sync[0] else NO_FAULT
        return self.broken or NO_FAULT

    def _refuse(self, code: int) -> None:
        if code == KILLED:
            raise Killed
        raise OSError(code, os.strerror(code))


class MemoryDisk(StateDisk):
    """A StateDisk on MemoryCalls."""

    def __init__(self, seed: int = 0) -> None:
        self.calls = MemoryCalls(seed)
        self.sqlite = archive_file.connect(":memory:")
        super().__init__(self.calls, _at_once)

    @property
    def archive(self) -> Archive:
        """The archive on this disk, without threads; SQLite keeps what it has committed."""
        return Archive(self.sqlite, self.sqlite, threads=False)

    @property
    def files(self) -> dict[str, bytes]:
        return self.calls.files

    @files.setter
    def files(self, files: dict[str, bytes]) -> None:
        self.calls.files = files

    @property
    def writes(self) -> int:
        return self.calls.writes

    def reopened(self) -> MemoryDisk:
        """The same files for another process: the kernel has what was written, synced or not."""
        disk = MemoryDisk()
        disk.calls = disk._calls = self.calls
        disk.sqlite = self.sqlite
        return disk

    def after_kill(self) -> MemoryDisk:
        """A healthy disk with what a restart would find."""
        disk = MemoryDisk(self.calls.rng.randrange(2**32))
        disk.files = self.calls.after_kill()
        disk.sqlite = self.sqlite
        return disk


async def _at_once(function, *args):
    await trio.lowlevel.checkpoint()
    return function(*args)
