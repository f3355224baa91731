"""What memory need not hold: the bodies of documents, and jobs that are over.

One SQLite file beside the journal, in WAL mode, each transaction synced.  The order is everything
(DESIGN.md#memory-follows-active-work): a body or a job is committed here first; then the journal is
told (Filed, Archived), and only that takes it out of memory.  A crash in between leaves it in both
places, and putting it here again changes nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import attrs
import google_crc32c
import trio

from appliance.errors import BadState, DiskTrouble, NotFound
from appliance.jobs.changes import Job, Mark, marked
from appliance.jobs.document import Body
from appliance.jobs.job import Finished
from appliance.jobs.store import Store
from appliance.keep import plain, records

NAME: Final = "archive.sqlite"
_SQLITES: Final = ("", "-wal", "-shm", "-journal")  # behind the name: what SQLite may have there
FILES: Final = tuple(NAME + ending for ending in _SQLITES)
MENDED: Final = f"{NAME}.mended"  # a repaired one, whole, that has not its name yet
APPLICATION_ID: Final = 0x41504C41  # "APLA", at byte 68 of the file (sqlite.org/fileformat2.html)
VERSION: Final = 1
_MODE: Final = 0o600  # secrets of jobs; SQLite gives its log the same
# SQLite waits so long for another program that holds the file, as a backup does for a moment.
BUSY_S: Final = 5.0
LOG_BYTES_MAX: Final = 16 * 2**20  # the write-ahead log shrinks to this once it was copied
HELP: Final = "`appliance state repair` says what can be saved"

_SCHEMA: Final = f"""
BEGIN;
CREATE TABLE body (number INTEGER PRIMARY KEY, cbor BLOB NOT NULL);
CREATE TABLE job (
    number INTEGER PRIMARY KEY, id TEXT NOT NULL, submitter TEXT NOT NULL, key TEXT NOT NULL,
    submitted REAL NOT NULL, finished REAL NOT NULL, health TEXT NOT NULL, box TEXT,
    queue TEXT NOT NULL, stays INTEGER NOT NULL, cbor BLOB NOT NULL
);
CREATE INDEX job_by_key ON job (submitter, key);
CREATE INDEX job_by_box ON job (box, number);
CREATE INDEX job_to_sweep ON job (finished) WHERE stays = 0;
CREATE TABLE attempt (token TEXT PRIMARY KEY, number INTEGER NOT NULL) WITHOUT ROWID;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
COMMIT;
"""

CRC: Final = struct.Struct(">I")  # before each row's CBOR: of its other columns and that

T = TypeVar("T")


@attrs.frozen
class Wanted:
    """Which jobs to list; what is None or empty asks for nothing."""

    user: str | None = None
    health: tuple[str, ...] = ()
    box: str | None = None
    queue: str | None = None
    since: float = 0.0  # submitted then or later, UTC seconds


class Archive:
    """The file, by two connections: a long listing must not keep a box from its job.cgz.

    Every call raises DiskTrouble where SQLite cannot do it now, and BadState where the file is
    damaged.
    """

    def __init__(
        self,
        mine: sqlite3.Connection,
        lister: sqlite3.Connection,
        *,
        threads: bool = True,
        made: Path | None = None,
    ) -> None:
        """`made`: the file was not there before."""
        self._mine, self._lister, self._threads = mine, lister, threads
        self._made = made
        self.still = trio.Lock()  # whoever has it knows that nothing is moved into the archive
        self._turns = {id(mine): trio.CapacityLimiter(1), id(lister): trio.CapacityLimiter(1)}

    @classmethod
    def of_folder(cls, folder: Path) -> Archive:
        """The archive in the state folder, made where there is none.

        Raises BadState, DiskTrouble.
        """
        if (folder / MENDED).exists():
            raise BadState(f"{folder / NAME}: its repair was broken off; {HELP}")
        path = folder / NAME
        made = None if path.exists() else path
        return cls(connect(path), connect(path), made=made)

    def close(self) -> None:
        """No call may follow."""
        self._mine.close()
        self._lister.close()

    async def check(self, store: Store) -> None:
        """Raises BadState where it lacks what the store relies on."""
        missing: str = await self._do(self._mine, lacks, store)
        if missing and self._made is not None:
            self.close()
            self._made.unlink()  # an empty one would look like what is left of the other
            missing = "is missing"
        if missing:
            raise BadState(f"{NAME}: {missing}; {HELP}")

    # ---- in

    async def file(self, bodies: Sequence[tuple[int, Body]]) -> None:
        """Keep the bodies of the documents of the jobs with these numbers; durable on return."""
        await self._do(self._mine, file_bodies, bodies)

    async def take(self, over: Sequence[Job]) -> None:
        """Keep jobs that are over; durable on return."""
        await self._do(self._mine, take, over)

    async def mark(self, name: str, change: Mark) -> None:
        """Change the job with this id as it is here, whatever else does; durable on return.

        Raises NotFound.
        """
        await self._do(self._mine, mark, name, change)

    # ---- out

    async def copy_to(self, path: Path) -> None:
        """A copy of it as it is now, of one moment, in a new file that only its owner may read."""
        await self._do(self._lister, _copy, path)

    async def body(self, number: int) -> Body:
        """Raises NotFound."""
        found: Body | None = await self._do(self._mine, body_of, number)
        if found is None:
            raise NotFound(f"{NAME} has no document of job number {number}")
        return found

    async def job(self, name: str) -> Job | None:
        """The job with this id."""
        number = name.rpartition(".")[2]
        if not number.isascii() or not number.isdigit() or len(number) > 15:
            return None
        found = await self._jobs(self._mine, "number = ?", (int(number),))
        return next((job for job in found if job.id == name), None)

    async def with_key(self, submitter: str, key: str) -> list[Job]:
        """The jobs that this submitter made with this key, oldest first."""
        where = "submitter = ? AND key = ? ORDER BY number"
        return await self._jobs(self._mine, where, (submitter, key))

    async def with_token(self, token: str) -> Job | None:
        """The job that has an attempt with this token."""
        where = "number = (SELECT number FROM attempt WHERE token = ?)"
        return next(iter(await self._jobs(self._mine, where, (token,))), None)

    async def search(self, wanted: Wanted, most: int) -> list[Job]:
        """The newest of those wanted, newest first."""
        terms: list[tuple[str, tuple[object, ...]]] = [("submitted >= ?", (wanted.since,))]
        if wanted.user is not None:
            terms.append(("submitter = ?", (wanted.user,)))
        if wanted.health:
            marks = ", ".join("?" * len(wanted.health))
            terms.append((f"health IN ({marks})", wanted.health))
        if wanted.box is not None:
            terms.append(("box = ?", (wanted.box,)))
        if wanted.queue is not None:
            terms.append(("queue = ?", (wanted.queue,)))
        where = " AND ".join(term for term, _ in terms) + " ORDER BY number DESC LIMIT ?"
        values = [value for _, several in terms for value in several]
        return await self._jobs(self._lister, where, (*values, most))

    async def sweepable(
        self, before: float, after: tuple[float, int] = (0.0, 0), most: int = -1
    ) -> list[Job]:
        """Those over before that moment whose results nobody keeps, oldest first.

        Only those behind `after` (finished, number), and at most `most` of them (-1: all).
        """
        where = "stays = 0 AND finished < ? AND (finished, number) > (?, ?)"
        where += " ORDER BY finished, number LIMIT ?"
        return await self._jobs(self._lister, where, (before, *after, most))

    async def _jobs(
        self, by: sqlite3.Connection, where: str, values: tuple[object, ...]
    ) -> list[Job]:
        return await self._do(by, _select, where, values)

    async def _do(self, connection: sqlite3.Connection, work: Callable[..., T], *args: Any) -> T:
        try:
            if not self._threads:
                await trio.lowlevel.checkpoint()
                return work(connection, *args)
            turn = self._turns[id(connection)]
            return await trio.to_thread.run_sync(work, connection, *args, limiter=turn)
        except sqlite3.Error as error:
            raise trouble(error) from error


# What the world does to a file that is whole (sqlite.org/rescode.html).
_NOT_NOW: Final = {
    sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM,
}  # fmt: skip


def trouble(error: sqlite3.Error) -> DiskTrouble | BadState:
    """What SQLite says, in our words: something is in the way, or the file is damaged."""
    if getattr(error, "sqlite_errorcode", 0) & 0xFF in _NOT_NOW:
        return DiskTrouble(f"{NAME}: {error}")
    return BadState(f"{NAME}: {error}; {HELP}")


# ---- one connection: what runs in a thread, or while no server does


def connect(path: Path | Literal[":memory:"], mode: str = "rwc") -> sqlite3.Connection:
    """The file, made where there is none if the mode has a `c`.  Raises BadState, DiskTrouble."""
    where = path if path == ":memory:" else f"{path.absolute().as_uri()}?mode={mode}"
    if path != ":memory:":
        _check_files(path, mode)
    try:
        if path != ":memory:" and mode == "rwc":
            # SQLite makes it for everybody to read.  One that exists is not opened here: to close
            # it would drop the locks of this process's other connection.
            if not path.exists():
                path.touch(_MODE)
            path.chmod(_MODE)
    except OSError as error:
        raise DiskTrouble(f"{NAME}: {error.strerror}") from error
    try:
        connection = sqlite3.connect(
            str(where), BUSY_S, uri=True, check_same_thread=False, isolation_level=None
        )
        with contextlib.ExitStack() as stack:
            stack.callback(connection.close)
            _prepare(connection)
            stack.pop_all()
    except sqlite3.Error as error:
        raise trouble(error) from error
    return connection


def _check_files(path: Path, mode: str) -> None:
    """SQLite opens them by name, follows what leads elsewhere, and says little of what it lacks.

    Raises BadState, DiskTrouble.
    """
    for each in (path.with_name(path.name + ending) for ending in _SQLITES):
        if what := plain.kind(each):
            raise BadState(f"{NAME}: {each.name} is {what}, where a plain file belongs; {HELP}")
        mine = not mode.startswith("rw") or os.access(each, os.R_OK | os.W_OK, effective_ids=True)
        if each.exists() and not mine:
            raise DiskTrouble(f"{NAME}: {each.name} is somebody else's, or closed to its owner")


def _prepare(connection: sqlite3.Connection) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if tables and application != APPLICATION_ID:
        raise BadState(f"{NAME}: is no archive of the appliance")
    if version > VERSION:
        raise BadState(f"{NAME}: version {version} is newer than this program's")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")  # in WAL mode: the log is synced by each commit
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES_MAX}")
    if not tables:
        connection.executescript(_SCHEMA)


def _copy(connection: sqlite3.Connection, path: Path) -> None:
    path.touch(_MODE, exist_ok=False)
    with contextlib.closing(sqlite3.connect(path)) as target:
        connection.backup(target)
        target.execute("PRAGMA journal_mode = DELETE")  # the copy is one file


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def file_bodies(connection: sqlite3.Connection, bodies: Iterable[tuple[int, Body]]) -> None:
    """Keep bodies; one that is there already is replaced."""
    rows = [_sealed((number,), body, Body) for number, body in bodies]
    with _transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO body VALUES (?, ?)", rows)


def take(connection: sqlite3.Connection, over: Iterable[Job]) -> None:
    """Keep jobs that are over; a job that is there already is replaced."""
    with _transaction(connection):
        _put(connection, over)


def mark(connection: sqlite3.Connection, name: str, change: Mark) -> None:
    """Change the job with this id.  Raises NotFound."""
    with _transaction(connection):
        there = _select(connection, "id = ? AND number = ?", (name, int(name.rpartition(".")[2])))
        if not there:
            raise NotFound(f"{NAME} has no job {name}")
        _put(connection, [marked(there[0], change)])


def _put(connection: sqlite3.Connection, over: Iterable[Job]) -> None:
    rows, tokens = [], []
    for job in over:
        assert isinstance(job.state, Finished), job.id
        assert job.document.body is None, f"the body of {job.id} is not filed"
        tokens += [(attempt.token, job.number) for attempt in job.attempts]
        box = job.attempt.box if job.attempt is not None else None
        stays = job.kept or job.swept is not None
        columns = (
            job.number, job.id, job.submitter, job.key,
            float(job.submitted), float(job.finished or 0.0),  # as they come back
            job.state.health, box, job.document.queue, int(stays),
        )  # fmt: skip
        rows.append(_sealed(columns, job, Job))
    marks = ", ".join("?" * 11)
    connection.executemany(f"INSERT OR REPLACE INTO job VALUES ({marks})", rows)
    connection.executemany("INSERT OR REPLACE INTO attempt VALUES (?, ?)", tokens)


def body_of(connection: sqlite3.Connection, number: int) -> Body | None:
    """The body of the document of the job with this number."""
    row = connection.execute("SELECT * FROM body WHERE number = ?", (number,)).fetchone()
    return _unsealed(row, Body) if row is not None else None


def _select(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Job]:
    rows = connection.execute(f"SELECT * FROM job WHERE {where}", values).fetchall()
    return [_unsealed(row, Job) for row in rows]


def _sealed(columns: tuple[Any, ...], value: Any, kind: type) -> tuple[Any, ...]:
    """A row: its columns, then CBOR behind the CRC32C of all: SQLite does not see a flipped bit."""
    data = records.dumps(value, kind)
    return (*columns, _sum(columns, data) + data)


def _sum(columns: Sequence[Any], data: bytes) -> bytes:
    return CRC.pack(google_crc32c.value(repr(tuple(columns)).encode() + data))


def is_whole(row: Sequence[Any]) -> bool:
    """Whether the row holds what was written."""
    *columns, sealed = row
    return bool(sealed[: CRC.size] == _sum(columns, sealed[CRC.size :]))


def _unsealed(row: Sequence[Any], kind: type[T]) -> T:
    if not is_whole(row):
        raise BadState(f"{NAME}: a row is damaged; {HELP}")
    return records.loads(row[-1][CRC.size :], kind, NAME)


def all_jobs(connection: sqlite3.Connection) -> list[Job]:
    """Every job in it, oldest first."""
    return _select(connection, "true ORDER BY number", ())


def lacks(connection: sqlite3.Connection, store: Store) -> str:
    """What the store relies on and is not there, in words; empty where nothing is."""
    (there,) = connection.execute("SELECT count(*) FROM job").fetchone()
    if there < store.archived:
        return f"holds {there} jobs, and {store.archived} were put there"
    newest = max(
        (job.number for job in store.jobs.values() if job.document.body is None), default=0
    )
    (filed,) = connection.execute("SELECT max(number) FROM body").fetchone()
    if newest > (filed or 0):
        return f"ends with document {filed or 0}, and document {newest} was put there"
    if (filed or 0) > store.counter:  # filed once the journal had the job
        lost = f"job {store.counter} is the newest that the journal knows"
        return f"holds document {filed}, and {lost}: records are lost"
    return ""
