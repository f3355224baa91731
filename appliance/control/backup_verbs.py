"""The verb of `appliance backup`: the state, in pieces, as it is at one moment.

The store's image is taken in one step of the loop.  The archive is copied by SQLite itself while
nothing is moved into it (`Archive.still`), so no job is missing between the two.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import trio

import appliance
from appliance import threads
from appliance.control.verb import Answer, Asked, Event, verb
from appliance.errors import NoSpace
from appliance.keep import archive_file
from appliance.keep.repair import backup
from appliance.keep.state import records
from appliance.scheduler.scheduler import Scheduler

PIECE_BYTES: Final = 2**20  # of a file in one message
_COPY: Final = ".archive-for-backup"  # in the state folder: on a disk that has room for such files


@verb("backup", kept=True)
@attrs.frozen(kw_only=True)
class Backup:
    """Sends state and hosts files as they are at one moment.  Only root may."""

    async def do(self, asked: Asked) -> Answer:
        """{"lab", "program", "boxes", "jobs", "archived"}, after the events of `Copies.send`."""
        asked.only_root("makes a backup: it holds the secrets of jobs")
        return await asked.lab.copies.send(asked.event)


class Copies:
    """Copies of the state, one at a time, for one scheduler."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._turn = trio.Lock()  # one copy at a time

    async def send(self, event: Event) -> dict[str, Any]:
        """Each file as {"file": name}, then {"data": bytes} and again.

        Raises NoSpace, DiskTrouble.
        """
        config, store = self._scheduler.config, self._scheduler.store
        copy = config.paths.state / _COPY
        async with self._turn:
            with trio.CancelScope(shield=True):  # a thread has it; else it would be left behind
                await threads.run(_remove, copy)
            try:
                async with self._scheduler.archive.still:
                    image = records.image_of(store, 0)
                    counts = {"jobs": len(store.jobs), "archived": store.archived}
                    await self._scheduler.archive.copy_to(copy)
                await self._scheduler.durable()  # nothing leaves us that the disk does not know
                await event({"file": f"{backup.STATE}/{archive_file.NAME}"})
                await _pieces(_file(copy), event)
            except OSError as error:
                raise NoSpace(f"{error.filename or copy}: {error.strerror}") from error
            finally:
                with trio.CancelScope(shield=True):
                    await threads.run(_remove, copy)
        await event({"file": f"{backup.STATE}/{backup.SNAPSHOT}"})
        await _pieces(records.snapshot(image), event)
        async for name, path in _others(config.paths.hosts, config.paths.state):
            await event({"file": name})
            await _pieces(_file(path), event)
        about = {"lab": config.lab, "program": appliance.__version__, "boxes": len(store.boxes)}
        return {**about, **counts}


async def _pieces(pieces: Iterator[bytes], event: Event) -> None:
    """What `pieces` give, read in a thread, in messages of PIECE_BYTES at least."""

    def read() -> bytes:
        parts, size = [], 0
        for part in pieces:
            parts.append(part)
            size += len(part)
            if size >= PIECE_BYTES:
                break
        return b"".join(parts)

    while data := await threads.run(read):
        await event({"data": data})


def _file(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while data := file.read(PIECE_BYTES):
            yield data


async def _others(hosts: Path, state: Path) -> AsyncIterator[tuple[str, Path]]:
    """The hosts files, and dnsmasq's leases where they can be read: addresses stay the same."""

    def look() -> list[tuple[str, Path]]:
        files = sorted(path for path in hosts.glob("*") if path.is_file()) if hosts.exists() else []
        found = [(f"{backup.HOSTS}/{path.name}", path) for path in files]
        leases = state / backup.LEASES
        if leases.is_file() and os.access(leases, os.R_OK):
            found.append((f"{backup.STATE}/{leases.name}", leases))
        return found

    for each in await threads.run(look):
        yield each


def _remove(path: Path) -> None:
    for name in (path, path.with_name(f"{path.name}-journal")):
        with contextlib.suppress(FileNotFoundError):
            name.unlink()
