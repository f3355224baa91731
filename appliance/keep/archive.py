"""What memory need not hold: the bodies of documents, and jobs that are over.

One SQLite file beside the journal, in WAL mode, each transaction synced.  The order is everything
(DESIGN.md#memory-follows-active-work): a body or a job is committed here first; then the journal is
told (Filed, Archived), and only that takes it out of memory.  A crash in between leaves it in both
places, and putting it here again changes nothing.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs
import trio

from appliance import threads
from appliance.errors import BadState, NotFound
from appliance.jobs.changes import Job, Mark, marked
from appliance.jobs.documents.document import Body
from appliance.jobs.job import SUCCESS, Finished
from appliance.jobs.store import Store
from appliance.keep import soundness
from appliance.keep.archive_file import connect, copy, transaction
from appliance.keep.archive_file import mark as mark_version
from appliance.keep.sealed import CHECK_HELP, HELP, NAME, is_whole, named, seal, unseal

MENDED: Final = f"{NAME}.mended"  # a repaired one, whole, that has not its name yet
# A start reads a file of this size to its end, in a third of a second; a larger one, of a million
# jobs a gigabyte, is read while the server runs (soundness.py): cold, that takes fifteen seconds.
CHECKED_AT_START_BYTES: Final = 64 * 2**20

T = TypeVar("T")


@attrs.frozen
class Wanted:
    """Which jobs to list; what is None or empty asks for nothing."""

    user: str | None = None
    health: tuple[str, ...] = ()
    failed: bool = False  # only those that ended otherwise than as a success
    box: str | None = None
    queue: str | None = None
    since: float = 0.0  # submitted then or later, UTC seconds


@attrs.frozen
class Listed:
    """What was found, and what could not be read of it."""

    jobs: list[Job]
    lacks: str = ""  # in words; empty where nothing is missing


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
        path: Path | None = None,
        made: bool = False,
    ) -> None:
        """`made`: the file was not there before."""
        self._mine, self._lister, self._threads = mine, lister, threads
        self._path, self._made = path, made
        self.is_sound = False  # SQLite has read all of it in this run, and found it whole
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
        made = not path.exists()
        mine = connect(path)
        with contextlib.ExitStack() as stack:
            stack.callback(mine.close)
            lister = connect(path)
            stack.pop_all()
        return cls(mine, lister, path=path, made=made)

    def close(self) -> None:
        """No call may follow."""
        self._mine.close()
        self._lister.close()

    async def check(self, store: Store) -> None:
        """Raises BadState where it lacks what the store relies on, and where a small one is
        damaged.
        """
        missing: str = await self._do(self._mine, soundness.lacks, store)
        if missing and self._made:
            assert self._path is not None
            self.close()
            self._path.unlink()  # an empty one would look like what is left of the other
            missing = "is missing"
        if missing:
            raise BadState(f"{NAME}: {missing}; {HELP}")
        await self._do(self._mine, mark_version)
        if self._path is not None and self._path.stat().st_size <= CHECKED_AT_START_BYTES:
            await self.read_through()

    async def read_through(self) -> None:
        """Let SQLite read all of it.  Raises BadState where it is damaged.

        By a connection of its own: who asks for a job does not wait for that.
        """
        if self._path is None:
            self.is_sound = True
            return
        connection = connect(self._path)
        self._turns[id(connection)] = trio.CapacityLimiter(1)
        try:
            wrong: str = await self._do(connection, soundness.unsound)
        finally:
            del self._turns[id(connection)]
            connection.close()
        if wrong:
            raise BadState(f"{NAME}: {wrong}; {HELP}")
        self.is_sound = True

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
        await self._do(self._lister, copy, path)

    async def body(self, number: int) -> Body:
        """Of a job whose body was put there."""
        found: Body | None = await self._do(self._mine, body_of, number)
        if found is None:
            raise BadState(f"{NAME}: the document number {number} is not there; {CHECK_HELP}")
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
        found = await self._jobs(self._mine, where, (submitter, key))
        if any((job.submitter, job.key) != (submitter, key) for job in found):
            raise BadState(_ASTRAY)
        return found

    async def with_token(self, token: str) -> Job | None:
        """The job that has an attempt with this token."""
        where = "number = (SELECT number FROM attempt WHERE token = ?)"
        found = next(iter(await self._jobs(self._mine, where, (token,))), None)
        if found is not None and all(attempt.token != token for attempt in found.attempts):
            raise BadState(_ASTRAY)
        return found

    async def search(self, wanted: Wanted, most: int) -> Listed:
        """The newest of those wanted, newest first; a damaged one is named and left out."""
        terms: list[tuple[str, tuple[object, ...]]] = [("true", ())]
        if wanted.since:  # who asks for all is told of damaged ones, whatever stands in them
            terms.append(("submitted >= ?", (wanted.since,)))
        if wanted.user is not None:
            terms.append(("submitter = ?", (wanted.user,)))
        if wanted.health:
            marks = ", ".join("?" * len(wanted.health))
            terms.append((f"health IN ({marks})", wanted.health))
        if wanted.failed:
            terms.append(("health != ?", (SUCCESS,)))
        if wanted.box is not None:
            terms.append(("box = ?", (wanted.box,)))
        if wanted.queue is not None:
            terms.append(("queue = ?", (wanted.queue,)))
        where = " AND ".join(term for term, _ in terms) + " ORDER BY number DESC LIMIT ?"
        values = [value for _, several in terms for value in several]
        return await self._do(self._lister, _list, where, (*values, most))

    async def sweepable(
        self, before: float, after: tuple[float, int] = (0.0, 0), most: int = -1
    ) -> list[Job]:
        """Those over before that moment whose results nobody keeps, oldest first.

        Only those behind `after` (finished, number), and at most `most` of them (-1: all).
        """
        where = "stays = 0 AND finished < ? AND (finished, number) > (?, ?)"
        where += " ORDER BY finished, number LIMIT ?"
        found = await self._jobs(self._lister, where, (before, *after, most))
        if any((job.finished or 0.0, job.number) <= after for job in found):
            raise BadState(_ASTRAY)  # and whoever goes on behind the last would never end
        return found

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
            return await threads.run(work, connection, *args, limiter=turn)
        except soundness.ERRORS as error:
            raise soundness.trouble(error) from error


_ASTRAY: Final = f"{NAME}: an index leads to another job; {CHECK_HELP}"

# ---- one connection: what runs in a thread, or while no server does


def file_bodies(connection: sqlite3.Connection, bodies: Iterable[tuple[int, Body]]) -> None:
    """Keep bodies; one that is there already is replaced."""
    rows = [seal((number,), body, Body) for number, body in bodies]
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO body VALUES (?, ?)", rows)


def take(connection: sqlite3.Connection, over: Iterable[Job]) -> None:
    """Keep jobs that are over; a job that is there already is replaced."""
    with transaction(connection):
        _put(connection, over)


def mark(connection: sqlite3.Connection, name: str, change: Mark) -> None:
    """Change the job with this id.  Raises NotFound."""
    with transaction(connection):
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
        rows.append(seal(columns, job, Job))
    marks = ", ".join("?" * 11)
    connection.executemany(f"INSERT OR REPLACE INTO job VALUES ({marks})", rows)
    connection.executemany("INSERT OR REPLACE INTO attempt VALUES (?, ?)", tokens)


def body_of(connection: sqlite3.Connection, number: int) -> Body | None:
    """The body of the document of the job with this number."""
    row = connection.execute("SELECT * FROM body WHERE number = ?", (number,)).fetchone()
    return unseal(row, Body) if row is not None else None


def _select(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> list[Job]:
    rows = connection.execute(f"SELECT * FROM job WHERE {where}", values).fetchall()
    return [unseal(row, Job) for row in rows]


def _list(connection: sqlite3.Connection, where: str, values: tuple[object, ...]) -> Listed:
    rows = connection.execute(f"SELECT * FROM job WHERE {where}", values).fetchall()
    whole = [row for row in rows if is_whole(row)]
    broken = [row[0] for row in rows if not is_whole(row)]
    lacks = f"{NAME}: {named('job', broken)}; {CHECK_HELP}" if broken else ""
    return Listed([unseal(row, Job) for row in whole], lacks)


def all_jobs(connection: sqlite3.Connection) -> list[Job]:
    """Every job in it, oldest first."""
    return _select(connection, "true ORDER BY number", ())
