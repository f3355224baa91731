"""SQLite's files on a disk whose syncs fail as Linux's do: once, and what was not written is gone.

A failed fsync leaves the kernel's pages as clean as a good one: whoever reads sees the new bytes,
the next sync says "fine", and the disk never gets them.  SQLite's own system calls are beneath
ours here, put in the way by ctypes, so it is the library itself that must cope.

    with sick_sqlite(folder) as disk:
        disk.fail_at = 3                the third sync from the start fails, once
        disk.syncs                      how many there were
        disk.after_power_loss(other)    the files as the disk has them
"""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import random
from ctypes import POINTER, c_char_p, c_int, c_int64, c_void_p
from pathlib import Path
from typing import Final

OK: Final = 0
IOERR_FSYNC: Final = 10 | 4 << 8  # sqlite.org/rescode.html

# Names are addresses: SQLite keeps those that it gives, and a copy of ours would not live so long.
_OPEN: Final = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_void_p, c_int, POINTER(c_int))
_DELETE: Final = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int)
_WRITE: Final = ctypes.CFUNCTYPE(c_int, c_void_p, c_void_p, c_int, c_int64)
_TRUNCATE: Final = ctypes.CFUNCTYPE(c_int, c_void_p, c_int64)
_SYNC: Final = ctypes.CFUNCTYPE(c_int, c_void_p, c_int)


class _Methods(ctypes.Structure):
    """sqlite3_io_methods, version 3 (sqlite.org/c3ref/io_methods.html)."""

    _fields_ = (
        ("version", c_int), ("close", c_void_p), ("read", c_void_p), ("write", c_void_p),
        ("truncate", c_void_p), ("sync", c_void_p), ("others", c_void_p * 13),
    )  # fmt: skip


class _File(ctypes.Structure):
    _fields_ = (("methods", POINTER(_Methods)),)


class _Vfs(ctypes.Structure):
    """The beginning of sqlite3_vfs (sqlite.org/c3ref/vfs.html)."""

    _fields_ = (
        ("version", c_int), ("size", c_int), ("path_max", c_int), ("next", c_void_p),
        ("name", c_char_p), ("data", c_void_p), ("open", c_void_p),
        ("delete", c_void_p),
    )  # fmt: skip


class SickDisk:
    """What reached the disk, and what only the kernel knows."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.fail_at = 0
        self.syncs = 0
        self._folder, self._rng = folder, random.Random(seed)
        self._safe: dict[str, bytearray] = {}
        self._pending: dict[str, list[tuple[int, bytes | None]]] = {}  # None: cut there
        self._alive: list[object] = []  # what C points at
        self._names: dict[int, str] = {}  # by address of the open file

    def after_power_loss(self, folder: Path) -> None:
        """Put there what a restart would find; of what was not synced, some."""
        folder.mkdir()
        for name, safe in self._safe.items():
            found = bytearray(safe)
            for change in self._pending[name]:
                if self._rng.random() < 0.3:
                    _apply(found, *change)
            (folder / name).write_bytes(found)

    def opened(self, name: str, file: int) -> None:
        """From now on this file goes through us, and no sync waits for a real disk."""
        path = Path(name)
        there = ctypes.cast(file, POINTER(_File)).contents
        old, new = there.methods.contents, _Methods()
        ctypes.pointer(new)[0] = old
        calls = {"sync": _SYNC(lambda file, flags: OK)}
        if path.parent == self._folder:
            self._names[file] = path.name
            self._safe.setdefault(path.name, bytearray())
            self._pending.setdefault(path.name, [])
            calls = {
                "write": _WRITE(self._write(old)),
                "truncate": _TRUNCATE(self._cut(old)),
                "sync": _SYNC(self._sync),
            }
        for method, call in calls.items():
            setattr(new, method, ctypes.cast(call, c_void_p))
        self._alive += [new, calls]
        there.methods = ctypes.pointer(new)

    def deleted(self, name: str) -> None:
        """For good: SQLite syncs the folder where it matters."""
        if Path(name).parent == self._folder:
            self._safe.pop(Path(name).name, None)

    def _write(self, old: _Methods):
        real = _WRITE(old.write)

        def write(file, data, size, offset):
            self._pending[self._names[file]].append((offset, ctypes.string_at(data, size)))
            return real(file, data, size, offset)

        return write

    def _cut(self, old: _Methods):
        real = _TRUNCATE(old.truncate)

        def cut(file, size):
            self._pending[self._names[file]].append((size, None))
            return real(file, size)

        return cut

    def _sync(self, file: int, flags: int) -> int:
        self.syncs += 1
        name = self._names[file]
        pending, self._pending[name] = self._pending[name], []
        if self.syncs == self.fail_at:
            return IOERR_FSYNC
        for change in pending:
            _apply(self._safe[name], *change)
        return OK


def _apply(image: bytearray, offset: int, data: bytes | None) -> None:
    if data is None:
        del image[offset:]
    else:
        image.extend(bytes(max(0, offset - len(image))))
        image[offset : offset + len(data)] = data


@contextlib.contextmanager
def sick_sqlite(folder: Path, seed: int = 0):
    """Files that SQLite opens in `folder` meanwhile lie on a SickDisk."""
    library = ctypes.CDLL(ctypes.util.find_library("sqlite3"))  # the one that Python has loaded
    library.sqlite3_vfs_find.restype = POINTER(_Vfs)
    vfs, disk = library.sqlite3_vfs_find(None).contents, SickDisk(folder, seed)
    before, real, real_delete = (vfs.open, vfs.delete), _OPEN(vfs.open), _DELETE(vfs.delete)

    def open_(itself, name, file, flags, found):
        code = real(itself, name, file, flags, found)
        if code == OK:
            disk.opened(ctypes.string_at(name).decode() if name else "", file)
        return code

    def delete(itself, name, sync):
        disk.deleted(ctypes.string_at(name).decode())
        return real_delete(itself, name, sync)

    ours = _OPEN(open_), _DELETE(delete)
    vfs.open, vfs.delete = (ctypes.cast(call, c_void_p) for call in ours)
    try:
        yield disk
    finally:
        vfs.open, vfs.delete = before
