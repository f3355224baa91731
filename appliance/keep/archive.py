"""The archive: document bodies and finished jobs, which memory need not hold.

One SQLite file beside the journal, in WAL mode; each transaction is synced.  The order matters
(DESIGN.md#memory-follows-active-work): a body or a job is committed to the archive first; then
the journal records that (Filed, Archived), and only this record removes it from memory.  A crash
in between leaves it in both places, and archiving it again changes nothing.
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

MENDED: Final = f"{NAME}.mended"  # a complete repaired archive, before it is renamed
# A start reads a file of up to this size to its end, which takes a third of a second.  A larger
# one (a million jobs take a gigabyte) is read while the server runs (soundness.py): with a cold
# cache that takes fifteen seconds.
CHECKED_AT_START_BYTES: Final = 64 * 2**20

T = TypeVar("T")


@attrs.frozen
class Wanted:
    """Filters for a listing of jobs; a filter that is None or empty does not apply."""

    user: str | None = None
    health: tuple[str, ...] = ()
    failed: bool = False  # only jobs that did not end in success
    box: str | None = None
    queue: str | None = None
    since: float = 0.0  # only jobs submitted at this time or later, UTC seconds


@attrs.frozen
class Listed:
    """The jobs that were found, and which of them could not be read."""

    jobs: list[Job]
    lacks: str = ""  # what could not be read, in words; empty: nothing


class Archive:
    """The archive file, open on two connections: a long listing must not delay a box's job.cgz.

    Every call raises DiskTrouble if SQLite cannot do it now, and BadState if the file is damaged.
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
        """`made`: the file did not exist before."""
        self._mine, self._lister, self._threads = mine, lister, threads
        self._path, self._made = path, made
        self.is_sound = False  # SQLite has read the whole file in this run: no damage
        self.still = trio.Lock()  # while held, no other task moves anything here
        self._turns = {id(mine): trio.CapacityLimiter(1), id(lister): trio.CapacityLimiter(1)}

    @classmethod
    def of_folder(cls, folder: Path) -> Archive:
        """Opens the archive in the state folder; creates it if there is none.

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
        """Closes both connections; no call may follow."""
        self._mine.close()
        self._lister.close()

    async def check(self, store: Store) -> None:
        """Raises BadState if it lacks what the store relies on, or if a small one is damaged."""
        missing: str = await self._do(self._mine, soundness.lacks, store)
        if missing and self._made:
            assert self._path is not None
            self.close()
            self._path.unlink()  # an empty file would look like the rest of the lost one
            missing = "is missing"
        if missing:
            raise BadState(f"{NAME}: {missing}; {HELP}")
        if self._path is not None and self._path.stat().st_size <= CHECKED_AT_START_BYTES:
            await self.read_through()

    async def say_version(self) -> None:
        """Writes today's version of the state into the archive, once the journal has it."""
        await self._do(self._mine, mark_version)

    async def read_through(self) -> None:
        """Has SQLite read the whole file.  Raises BadState if it is damaged.

        Uses a connection of its own, so that requests for a job do not wait.
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
        """Stores the document bodies of the jobs with these numbers; durable on return."""
        await self._do(self._mine, file_bodies, bodies)

    async def take(self, over: Sequence[Job]) -> None:
        """Stores finished jobs; durable on return."""
        await self._do(self._mine, take, over)

    async def mark(self, name: str, change: Mark) -> None:
        """Applies `change` to the archived job with this id as it is then; durable on return.

        Raises NotFound.
        """
        await self._do(self._mine, mark, name, change)

    # ---- out

    async def copy_to(self, path: Path) -> None:
        """Copies the archive, as of one moment, to a new file that only its owner may read."""
        await self._do(self._lister, copy, path)

    async def body(self, number: int) -> Body:
        """Returns the filed body of the job with this number."""
        found: Body | None = await self._do(self._mine, body_of, number)
        if found is None:
            raise BadState(f"{NAME}: the document number {number} is not there; {CHECK_HELP}")
        return found

    async def job(self, name: str) -> Job | None:
        """Returns the job with this id, if it is archived."""
        number = name.rpartition(".")[2]
        if not number.isascii() or not number.isdigit() or len(number) > 15:
            return None
        found = await self._jobs(self._mine, "number = ?", (int(number),))
        return next((job for job in found if job.id == name), None)

    async def with_key(self, submitter: str, key: str) -> list[Job]:
        """Returns the jobs that this submitter made with this key, oldest first."""
        where = "submitter = ? AND key = ? ORDER BY number"
        found = await self._jobs(self._mine, where, (submitter, key))
        if any((job.submitter, job.key) != (submitter, key) for job in found):
            raise BadState(_ASTRAY)
        return found

    async def with_token(self, token: str) -> Job | None:
        """Returns the job that has an attempt with this token."""
        where = "number = (SELECT number FROM attempt WHERE token = ?)"
        found = next(iter(await self._jobs(self._mine, where, (token,))), None)
        if found is not None and all(attempt.token != token for attempt in found.attempts):
            raise BadState(_ASTRAY)
        return found

    async def search(self, wanted: Wanted, most: int) -> Listed:
        """Returns the newest wanted jobs, newest first; a damaged row is named and left out."""
        terms: list[tuple[str, tuple[object, ...]]] = [("true", ())]
        if wanted.since:  # only then: a listing of all names every damaged row
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
        """Returns jobs finished before `before` whose results nobody keeps, oldest first.

        Only those that come after `after` (finished, number), and at most `most` of them (-1: all).
        """
        where = "stays = 0 AND finished < ? AND (finished, number) > (?, ?)"
        where += " ORDER BY finished, number LIMIT ?"
        found = await self._jobs(self._lister, where, (before, *after, most))
        if any((job.finished or 0.0, job.number) <= after for job in found):
            raise BadState(_ASTRAY)  # a caller that continues after the last row would never end
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

# ---- on one connection: run in a thread, or while no server runs


def file_bodies(connection: sqlite3.Connection, bodies: Iterable[tuple[int, Body]]) -> None:
    """Stores bodies; replaces those that are there already."""
    rows = [seal((number,), body, Body) for number, body in bodies]
    with transaction(connection):
        connection.executemany("INSERT OR REPLACE INTO body VALUES (?, ?)", rows)


def take(connection: sqlite3.Connection, over: Iterable[Job]) -> None:
    """Stores finished jobs; replaces those that are there already."""
    with transaction(connection):
        _put(connection, over)


def mark(connection: sqlite3.Connection, name: str, change: Mark) -> None:
    """Applies `change` to the job with this id.  Raises NotFound."""
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
            float(job.submitted), float(job.finished or 0.0),  # as SQLite returns them
            job.state.health, box, job.document.queue, int(stays),
        )  # fmt: skip
        rows.append(seal(columns, job, Job))
    marks = ", ".join("?" * 11)
    connection.executemany(f"INSERT OR REPLACE INTO job VALUES ({marks})", rows)
    connection.executemany("INSERT OR REPLACE INTO attempt VALUES (?, ?)", tokens)


def body_of(connection: sqlite3.Connection, number: int) -> Body | None:
    """Returns the document body of the job with this number."""
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
    """Returns every archived job, oldest first."""
    return _select(connection, "true ORDER BY number", ())
