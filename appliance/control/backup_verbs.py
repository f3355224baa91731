"""The verb of `appliance backup`: sends the state as of one moment, in pieces.

The store's image is taken in one step of the event loop.  SQLite copies the archive while nothing
is moved into it (`Archive.still`), so no job is lost between store and archive.
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
_COPY: Final = ".archive-for-backup"  # in the state folder, whose disk has room for the archive


@verb("backup", kept=True)
@attrs.frozen(kw_only=True)
class Backup:
    """Sends state and hosts files as of one moment.  Only root may."""

    async def do(self, asked: Asked) -> Answer:
        """Returns {"lab", "program", "boxes", "jobs", "archived"}, after `Copies.send`'s events."""
        asked.only_root("makes a backup: it holds the secrets of jobs")
        return await asked.lab.copies.send(asked.event)


class Copies:
    """Sends copies of one scheduler's state, one at a time."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._turn = trio.Lock()  # one copy at a time

    async def send(self, event: Event) -> dict[str, Any]:
        """Sends each file as {"file": name}, then {"data": bytes} as often as needed.

        Raises NoSpace, DiskTrouble.
        """
        config, store = self._scheduler.config, self._scheduler.store
        copy = config.paths.state / _COPY
        async with self._turn:
            with trio.CancelScope(shield=True):  # wait for the thread, even if cancelled
                await threads.run(_remove, copy)
            try:
                async with self._scheduler.archive.still:
                    image = records.image_of(store, 0)
                    counts = {"jobs": len(store.jobs), "archived": store.archived}
                    await self._scheduler.archive.copy_to(copy)
                await self._scheduler.durable()  # send nothing that is not durable
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
    """Sends the bytes of `pieces`, read in a thread; all messages but the last have PIECE_BYTES."""

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
    """Yields the hosts files, and dnsmasq's leases if readable, so that boxes keep addresses."""

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
