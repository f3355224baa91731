"""The only writer of state files.

Everything that blocks runs in a thread.  Tests under a mock clock use a disk in memory instead,
since Trio's autojump does not know about threads (python-trio/trio#456).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Final, Protocol

import trio

from appliance.errors import BadState

_OWNER_ONLY: Final = 0o600  # documents hold secrets


class Disk(Protocol):
    """A flat folder of state files."""

    async def names(self) -> list[str]:
        """All files, sorted."""

    async def read(self, name: str) -> bytes:
        """The whole file.  Raises OSError."""

    async def append(self, name: str, data: bytes) -> None:
        """Returns once `data` is durable at the end of the file, which is made if need be."""

    async def replace(self, name: str, data: bytes) -> None:
        """Returns once the file durably holds `data` and nothing else."""

    async def remove(self, name: str) -> None:
        """Returns once the file is gone."""


class StateFolder:
    """A Disk on a real folder, locked against a second server."""

    def __init__(self, folder: Path) -> None:
        """Raises BadState where another process holds the lock; names its pid."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, _OWNER_ONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._lock, 20, 0).decode(errors="replace").strip() or "unknown"
            os.close(self._lock)
            raise BadState(f"{folder}: in use by another server, pid {pid}") from None
        os.ftruncate(self._lock, 0)
        os.pwrite(self._lock, b"%d\n" % os.getpid(), 0)
        self._open: dict[str, int] = {}

    def close(self) -> None:
        """Give up the lock."""
        for descriptor in [*self._open.values(), self._lock]:
            os.close(descriptor)
        self._open.clear()

    async def names(self) -> list[str]:
        """All files, sorted."""
        return sorted(await trio.to_thread.run_sync(os.listdir, self._folder))

    async def read(self, name: str) -> bytes:
        """The whole file.  Raises OSError."""
        return await trio.to_thread.run_sync((self._folder / name).read_bytes)

    async def append(self, name: str, data: bytes) -> None:
        """Returns once `data` is durable at the end of the file, which is made if need be."""
        await trio.to_thread.run_sync(self._append, name, data)

    async def replace(self, name: str, data: bytes) -> None:
        """Returns once the file durably holds `data` and nothing else."""
        await trio.to_thread.run_sync(self._replace, name, data)

    async def remove(self, name: str) -> None:
        """Returns once the file is gone."""
        if name in self._open:
            os.close(self._open.pop(name))
        await trio.to_thread.run_sync((self._folder / name).unlink)

    def _append(self, name: str, data: bytes) -> None:
        if name not in self._open:
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._open[name] = os.open(self._folder / name, flags, _OWNER_ONLY)
            self._sync_folder()
        _write_all(self._open[name], data)
        os.fdatasync(self._open[name])

    def _replace(self, name: str, data: bytes) -> None:
        beside = self._folder / (name + ".new")
        descriptor = os.open(
            beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, _OWNER_ONLY
        )
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, descriptor)
            _write_all(descriptor, data)
            os.fsync(descriptor)
        beside.rename(self._folder / name)
        self._sync_folder()

    def _sync_folder(self) -> None:
        descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
