"""How the store survives: a journal of changes, and now and then a snapshot of the whole.

`append` notes changes at once and returns their position; `durable` returns when the disk knows
them.  One task writes: all who wait share one fsync (group commit).

    snapshot-000007   the store as it was when journal-000007 began
    journal-000007    the changes since

A restart loads the newest snapshot and applies the journals from its number on.
"""

from __future__ import annotations

import re
from typing import Final, NoReturn

import structlog
import trio

from appliance.errors import BadState, IllegalMove
from appliance.jobs.store import Change, Store
from appliance.keep import records
from appliance.keep.disk import Disk

# A start replays at most this much; at 300 bytes a change that is about two seconds.
JOURNAL_BYTES_MAX: Final = 16 * 2**20
_NAME: Final = re.compile(r"(snapshot|journal)-(\d{6})\Z")

log = structlog.get_logger()


async def restore(disk: Disk) -> tuple[Store, Journal]:
    """The store as the disk knows it, and the journal that goes on from there.

    Raises BadState: a file that is not ours, newer, or damaged elsewhere than in its last record.
    """
    names = [match for name in await disk.names() if (match := _NAME.match(name))]
    snapshots = sorted(int(match[2]) for match in names if match[1] == "snapshot")
    journals = sorted(int(match[2]) for match in names if match[1] == "journal")
    store, start = Store(), 0
    if snapshots:
        start = snapshots[-1]
        store = await _read_snapshot(disk, f"snapshot-{start:06}")
    for number in journals:
        if number >= start:
            await _replay(disk, f"journal-{number:06}", store, newest=number == journals[-1])
    newest = max([0, *snapshots, *journals])
    journal = Journal(disk, store, newest + 1)
    await journal.begin()
    return store, journal


async def _read_snapshot(disk: Disk, name: str) -> Store:
    data = await disk.read(name)
    start = records.check_header(data, records.SNAPSHOT, name)
    for end, payload in records.unframe(data, start, name):
        if end == len(data):
            return records.load_store(payload, name)
    raise BadState(f"{name}: damaged at byte {start}: the snapshot is not whole")


async def _replay(disk: Disk, name: str, store: Store, *, newest: bool) -> None:
    data = await disk.read(name)
    if newest and (records.JOURNAL % records.VERSION).startswith(data):
        return  # made, and lost power before its header was whole
    whole = start = records.check_header(data, records.JOURNAL, name)
    for end, payload in records.unframe(data, start, name):
        whole = end
        for change in records.load_changes(payload, name):
            try:
                store.apply(change)
            except (IllegalMove, KeyError, AssertionError) as error:
                raise BadState(f"{name}: byte {end}: {error!r} while applying {change}") from error
    if whole != len(data):
        if not newest:
            raise BadState(f"{name}: damaged at byte {whole}: torn, but a newer journal follows")
        log.warning("dropped a torn last record", file=name, offset=whole, size=len(data) - whole)


class Journal:
    """The one who writes the store's changes down."""

    def __init__(self, disk: Disk, store: Store, number: int) -> None:
        self._disk = disk
        self._store = store
        self._number = number
        self._size = 0
        self._pending: list[list[Change]] = []
        self._appended = 0  # positions: how many lists of changes so far
        self._durable = 0
        self._nudge = trio.Event()
        self._kept = trio.Event()

    def append(self, changes: list[Change]) -> int:
        """Note changes that belong together; returns their position."""
        self._pending.append(changes)
        self._appended += 1
        self._nudge.set()
        return self._appended

    @property
    def appended(self) -> int:
        """The position of the newest changes."""
        return self._appended

    async def durable(self, position: int) -> None:
        """Returns when the disk knows everything up to `position`."""
        while self._durable < position:
            await self._kept.wait()

    async def serve(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Write what is appended.  A disk that fails ends the process; a restart finds the rest."""
        task_status.started()
        while True:
            await self._nudge.wait()
            await self.write()

    async def write(self) -> None:
        """Write everything appended so far."""
        self._nudge = trio.Event()
        batch, position = self._pending, self._appended
        self._pending = []
        if batch:
            data = b"".join(records.frame(records.dump_changes(changes)) for changes in batch)
            await self._disk.append(self._file, data)
            self._size += len(data)
        if self._size > JOURNAL_BYTES_MAX:
            await self.snapshot()
            position = max(position, self._durable)
        self._mark(position)

    async def begin(self) -> None:
        """Write a snapshot of the store as it is, start a journal behind it, drop older files."""
        payload = records.dump_store(self._store)  # with what is pending: applied before appended
        self._pending, position = [], self._appended
        name = f"snapshot-{self._number:06}"
        header = records.SNAPSHOT % records.VERSION
        await self._disk.replace(name, header + records.frame(payload))
        await self._disk.append(self._file, records.JOURNAL % records.VERSION)
        self._size = 0
        self._mark(position)
        for old in await self._disk.names():
            match = _NAME.match(old)
            if match and int(match[2]) < self._number:
                await self._disk.remove(old)

    async def snapshot(self) -> None:
        """Begin the next journal."""
        self._number += 1
        await self.begin()

    @property
    def _file(self) -> str:
        return f"journal-{self._number:06}"

    def _mark(self, position: int) -> None:
        self._durable = max(self._durable, position)
        self._kept.set()
        self._kept = trio.Event()
