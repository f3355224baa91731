"""Makes the store survive: a journal of changes, and now and then a snapshot of everything.

`append` notes changes at once and returns their position; `durable` returns once they are on
disk.  One task writes: all waiting callers share one fsync (group commit).

    snapshot-000007   the store as it was when journal-000007 began
    journal-000007    the changes since
    journal-000008    the changes after those, while snapshot-000008 is still being written

A restart loads the newest snapshot and applies the journals from its number on.

If the disk refuses a write, the gate is shut and the same batch is retried until it succeeds;
callers keep waiting.  A failed sync ends the process (errors.SyncFailed): only a restart can find
out what the disk holds then.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, NoReturn

import attrs
import structlog
import trio

from appliance.config import Space
from appliance.errors import BadState, DiskTrouble, Unknown
from appliance.jobs.changes import Change
from appliance.jobs.shown.measures import SYNC_BOUNDS, Histogram
from appliance.jobs.store import Store
from appliance.keep.state import frames, records, replay, versions
from appliance.keep.state.disk import BESIDE, NO_ROOM, Disk
from appliance.keep.state.gate import Gate
from appliance.keep.state.records import StoreImage
from appliance.keep.state.replay import State

JOURNAL_BYTES_MAX: Final = Space().journal
# Short enough that an offer's lease of 180 s survives a disk that was full for a moment, long
# enough that a dead disk costs nothing.
RETRY_S: Final = 2.0
# A snapshot that did not fit is retried after this; the journals before it stay until then.
SNAPSHOT_RETRY_S: Final = 60.0
# Lists of changes that may be queued while the disk refuses them: some 100 MB of memory.
PENDING_MAX: Final = 100_000
BATCH_BYTES_MAX: Final = frames.RECORD_BYTES_MAX - 5  # of changes in one record, after their count
# Bytes of changes encoded in one round of the loop: 20 ms if each byte is a value.  One change
# is a document of 20,000 values at most.
ROUND_BYTES: Final = 2**15

log = structlog.get_logger()


async def restore(
    disk: Disk,
    bytes_max: int | None = None,
    check: Callable[[Store], Awaitable[None]] | None = None,
) -> tuple[Store, Journal]:
    """Returns the store that is on disk, and the journal that continues it.

    A journal longer than `bytes_max` (by default JOURNAL_BYTES_MAX) becomes a snapshot.  `check`
    raises BadState for a store that cannot be used, before anything is written: an older program
    and a repair find all as it was.

    Raises BadState: a file that is not ours, newer, or damaged elsewhere than in its last record;
    DiskTrouble: there is no room for a new snapshot.
    """
    try:
        names = await disk.names()
    except OSError as error:
        raise BadState(f"the state folder cannot be read: {_why(error)}") from error
    if replay.RESTORING in names:
        raise BadState(f"{replay.RESTORING}: {replay.BROKEN_OFF}")
    files = replay.files_among(names)
    with _no_garbage():
        found = await _read(disk, files)
    state, end = found.state, found.end
    if check is not None:
        await check(state.store)
    lone = files.snapshots == files.journals == (files.newest,)
    fresh = lone and end == len(frames.JOURNAL_HEADER) and found.oldest == versions.VERSION
    number = files.newest if fresh else files.newest + 1
    journal = Journal(disk, state, number, bytes_max or JOURNAL_BYTES_MAX)
    for name in names:
        if name.endswith(BESIDE) and replay.NAME.match(name.removesuffix(BESIDE)):
            with contextlib.suppress(OSError):  # left over: it only takes room
                await disk.remove(name)
    if fresh:
        journal.go_on(number, len(frames.JOURNAL_HEADER))
        return state.store, journal
    try:
        await journal.begin()
    except DiskTrouble as error:
        if not end or replay.snapshot_name(number) in await disk.names():
            raise
        log.error("no room for a snapshot: going on behind the last journal", why=str(error))
        journal.go_on(files.newest, end)  # `space` shuts the gate, or the first write does
        if found.newest < versions.VERSION:
            await journal.go_behind()
    return state.store, journal


@contextlib.contextmanager
def _no_garbage() -> Iterator[None]:
    """Stops garbage collection: rescanning objects that stay takes half of a start's time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


@attrs.frozen
class _Found:
    """The result of reading the files of a folder."""

    state: State
    end: int  # where the newest journal's last whole record ends; 0: it has none
    oldest: int  # the lowest version of a file that was read
    newest: int  # the version of the last one


async def _read(disk: Disk, files: replay.Files) -> _Found:
    """Reads `files`.  Raises BadState."""
    if gap := files.gap():
        raise BadState(f"{gap}; {replay.HELP}")
    state, end, seen = State(), 0, [versions.VERSION]
    if files.snapshots:
        name = replay.snapshot_name(files.start)
        data = await _bytes_of(disk, name)
        state = replay.load_snapshot(data, name)
        seen.append(frames.version_of(data, frames.SNAPSHOT, name))
    for number in files.journals_from(files.start):
        name = replay.journal_name(number)
        newest = number == files.journals[-1]
        data = await _bytes_of(disk, name)
        torn = replay.replay(state, data, name, newest=newest)
        end = torn.start if torn is not None else len(data)
        if end:
            seen.append(frames.version_of(data, frames.JOURNAL, name))
        if torn is not None:
            size = torn.end - torn.start
            log.warning("dropped a torn last record", file=name, offset=torn.start, size=size)
    if files.lone:
        log.warning("no journal behind the snapshot", why=files.lone)
    end = end if files.journals[-1:] == (files.newest,) else 0
    return _Found(state, end, min(seen), seen[-1])


async def _bytes_of(disk: Disk, name: str) -> bytes:
    try:
        return await disk.read(name)
    except OSError as error:
        raise BadState(f"{name}: cannot be read: {_why(error)}") from error


@attrs.frozen
class _Writing:
    """A snapshot to write: the store as it was when the journal with this number began."""

    number: int
    image: StoreImage


class Journal:
    """Writes the store's changes to disk."""

    def __init__(self, disk: Disk, state: State, number: int, bytes_max: int) -> None:
        self.disk = disk
        self.gate = Gate()
        self.syncs = Histogram(SYNC_BOUNDS)  # of durable writes, in seconds
        self._bytes_max = bytes_max
        self._store = state.store
        self._next = state.next  # the number of the next record
        self._number = number
        self._begun = 0  # the newest journal whose header is written
        self._size = 0
        self._pending: list[list[Change]] = []
        self._appended = 0  # positions count lists of changes
        self._durable = 0
        self._nudge = trio.Event()
        self._kept = trio.Event()
        self._writing: _Writing | None = None  # the snapshot under way
        self._turned = trio.Event()

    def append(self, changes: list[Change]) -> int:
        """Notes changes that belong together; returns their position."""
        self._pending.append(changes)
        self._appended += 1
        self._nudge.set()
        return self._appended

    @property
    def appended(self) -> int:
        """The position of the newest changes."""
        return self._appended

    @property
    def writable(self) -> bool:
        """Whether the last write went through, as far as we know."""
        return not self.gate.is_shut_by("disk")

    async def durable(self, position: int, within: float = math.inf) -> None:
        """Returns once everything up to `position` is on disk.

        Raises Unknown after `within` seconds; the changes may still become durable later.
        """
        if within == math.inf:  # nearly every caller: a box's report, a hand-over
            await self._until(position)
            return
        with trio.move_on_after(within):
            await self._until(position)
        if self._durable < position:
            why = "; ".join(self.gate.reasons) or "the disk takes its time"
            raise Unknown(f"not done within {within:.0f} s, and may be done yet: {why}")

    async def caught_up(self, within: float) -> None:
        """Returns once everything so far is on disk, or after `within` seconds.

        Does not wait for a disk that refuses: people want to see the present state.
        """
        if self.writable:
            with contextlib.suppress(Unknown):
                await self.durable(self._appended, within)

    async def _until(self, position: int) -> None:
        while self._durable < position:
            await self._kept.wait()

    async def serve(
        self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> NoReturn:
        """Writes what is appended, for ever.  Raises SyncFailed; a restart finds the rest."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._snapshots)
            task_status.started()
            while True:
                await self._nudge.wait()
                await self.write()
        raise AssertionError("the journal never ends")

    async def write(self) -> None:
        """Writes everything appended so far; returns once that is durable."""
        self._nudge = trio.Event()
        if not self._pending:
            return
        data = frames.frame(await self._batch(), self._next)
        position = self._appended - len(self._pending)
        self._next += 1
        image = None
        full = self._size + len(data) > self._bytes_max
        if full and self._writing is None and not self._pending:
            # the store with this batch, and nothing after it
            image = records.image_of(self._store, self._next)
        await self._append(replay.journal_name(self._number), data)
        self._size += len(data)
        self._mark(position)
        if image is not None:
            await self._append(replay.journal_name(self._number + 1), frames.JOURNAL_HEADER)
            self._number += 1
            self._begun = self._number
            self._size = 0
            self._writing = _Writing(self._number, image)
            self._turned.set()

    async def _batch(self) -> bytes:
        """Encodes what is pending, as far as it fits into one record: almost always everything.

        Many large submits that arrived while the disk was busy are encoded in several rounds of the
        loop; changes that arrive meanwhile wait for the next record.
        """
        parts: list[bytes] = []
        size, taken = 0, 0
        for several in self._pending[:]:
            more = []
            for change in several:
                more.append(records.dump_change(change))
                size += len(more[-1])
                if size // ROUND_BYTES > (size - len(more[-1])) // ROUND_BYTES:
                    await trio.lowlevel.checkpoint()
            if parts and size > BATCH_BYTES_MAX:
                break
            parts += more
            taken += 1
        self._pending = self._pending[taken:]  # only now: a stop before this line writes all of it
        if self._pending:
            self._nudge.set()
        return records.joined(parts)

    def go_on(self, number: int, end: int) -> None:
        """Continues the journal with this number, whose last whole record ends at `end`."""
        self._number = self._begun = number
        self._size = end
        self.disk.go_on(replay.journal_name(number), end)

    async def go_behind(self) -> None:
        """Continues in a new journal of today's version; the earlier one keeps its version.

        So no file holds what its version lacks.  Raises DiskTrouble without room for a line.
        """
        before, self._number = replay.journal_name(self._number), self._number + 1
        try:
            await self.disk.append(before, b"")  # cuts off a torn end: only the last may have one
            await self.disk.append(replay.journal_name(self._number), frames.JOURNAL_HEADER)
        except OSError as error:
            raise DiskTrouble(f"the state cannot be written: {_why(error)}") from error
        self._begun, self._size = self._number, 0

    async def begin(self) -> None:
        """Writes a snapshot of the store as it is and starts a journal after it.

        Raises DiskTrouble if there is no room, even without the reserve.
        """
        self._pending, position = [], self._appended  # the snapshot has these changes
        writing = _Writing(self._number, records.image_of(self._store, self._next))
        try:
            try:
                await self._keep_snapshot(writing)
            except OSError as error:
                if error.errno not in NO_ROOM:
                    raise
                if not await self.disk.release():
                    raise
                log.warning("released the reserve", why=_why(error))
                await self._keep_snapshot(writing)
        except OSError as error:
            raise DiskTrouble(f"the state cannot be written: {_why(error)}") from error
        self._size = 0
        self._mark(position)

    async def stop(self) -> None:
        """Writes what is left and a last snapshot; if the disk refuses, its files stay."""
        self._number += 1
        try:
            await self.begin()
        except DiskTrouble as error:
            unkept = self._appended - self._durable
            log.error("stopped without a last snapshot", why=str(error), unkept=unkept)

    async def snapshot(self) -> None:
        """Writes a snapshot and begins the next journal."""
        self._number += 1
        await self.begin()

    async def _append(self, name: str, data: bytes) -> None:
        """Returns once `data` is durable; retries as often as the disk refuses."""
        while True:
            began = trio.current_time()
            try:
                await self.disk.append(name, data)
            except OSError as error:
                await self._wait_out(error)
            else:
                self.syncs.observe(trio.current_time() - began)
                if not self.writable:
                    log.warning("the disk takes the state again")
                    self.gate.open("disk")
                return

    async def _wait_out(self, error: OSError) -> None:
        if self.writable:
            log.error("the disk refuses the state; trying again", why=_why(error), every=RETRY_S)
        self.gate.shut("disk", f"the state cannot be written: {_why(error)}")
        if len(self._pending) > PENDING_MAX:
            raise DiskTrouble(f"{len(self._pending)} changes wait for a disk that refuses them")
        if error.errno in NO_ROOM and await self.disk.release():
            log.warning("released the reserve")
            self.gate.shut("space", "there is no room left for the state")  # `space` opens it
            return  # the caller retries at once
        await trio.sleep(RETRY_S)

    async def _snapshots(self) -> NoReturn:
        while True:
            await self._turned.wait()
            self._turned = trio.Event()
            while self._writing is not None:
                try:
                    await self._keep_snapshot(self._writing)
                except OSError as error:
                    log.error("no snapshot; trying again", why=_why(error), every=SNAPSHOT_RETRY_S)
                    await trio.sleep(SNAPSHOT_RETRY_S)
                else:
                    self._writing = None

    async def _keep_snapshot(self, writing: _Writing) -> None:
        """Writes a snapshot and removes older files.  Raises OSError; no state is lost then."""
        await self.disk.replace(
            replay.snapshot_name(writing.number), records.snapshot(writing.image)
        )
        if self._begun < writing.number:  # the file may exist already without its header
            await self.disk.append(replay.journal_name(writing.number), frames.JOURNAL_HEADER)
            self._begun = writing.number
        for old in replay.files_among(await self.disk.names()).before(writing.number):
            await self.disk.remove(old)

    def _mark(self, position: int) -> None:
        self._durable = max(self._durable, position)
        self._kept.set()
        self._kept = trio.Event()


def _why(error: OSError) -> str:
    return error.strerror or str(error)
