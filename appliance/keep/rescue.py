"""The archive while no server uses it: is it whole, what is left of it, and all of it for people.

A repair copies every row that can be read into a new file, which gets the name when it is whole.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from appliance.errors import BadState
from appliance.jobs.changes import Job
from appliance.jobs.store import Store
from appliance.keep import archive
from appliance.keep.survey import Damage

_BESIDE: Final = f".{archive.NAME}.new"
_TABLES: Final = {"body": "number", "job": "number", "attempt": "token"}  # and what orders them


def damage(folder: Path, store: Store) -> Damage | None:
    """Why a server would not start with this archive, or a job not run; None where all is well."""
    filed = [job for job in store.jobs.values() if job.document.body is None]
    if not (folder / archive.NAME).exists():
        why = "is missing" if store.archived or filed else ""
        there = _Left(0, set())
    else:
        why, there = _look(folder, store)
    lost = [job.id for job in filed if job.number not in there.bodies]
    if not why and not lost:
        return None
    words = [f"{store.archived - there.jobs} jobs that are over"] * (there.jobs < store.archived)
    words += [f"the documents of {len(lost)} jobs"] * bool(lost)
    if (newest := max(there.bodies, default=0)) > store.counter:
        words.append(f"what was decided of the jobs numbered {store.counter + 1} to {newest}")
    why = why or f"lacks the documents of {len(lost)} jobs"
    return Damage(archive.NAME, None, why, " and ".join(words), tuple(lost))


@attrs.frozen
class _Left:
    jobs: int
    bodies: set[int]  # the numbers of their jobs


def _look(folder: Path, store: Store) -> tuple[str, _Left]:
    try:
        connection = _old(folder)
    except BadState as error:
        return str(error).removeprefix(f"{archive.NAME}: "), _Left(0, set())
    with contextlib.closing(connection):
        left = _Left(
            sum(1 for _ in _rows(connection, "job")),
            {number for number, _ in _rows(connection, "body")},
        )
        try:
            (word,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            lacks = archive.lacks(connection, store) if word == "ok" else word
            (rows,) = connection.execute("SELECT (SELECT count(*) FROM job) + count(*) FROM body")
            if not lacks and rows[0] > left.jobs + len(left.bodies):
                lacks = f"{rows[0] - left.jobs - len(left.bodies)} rows are damaged"
        except sqlite3.Error as error:
            lacks = str(error)
    return lacks, left


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[Any, ...]]:
    """Those that can be read, from both ends towards what cannot."""
    seen = set()
    for way in ("ASC", "DESC"):
        with contextlib.suppress(sqlite3.Error):
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY {_TABLES[table]} {way}"):
                if row[0] in seen:
                    break
                seen.add(row[0])
                if table == "attempt" or archive.is_whole(row[0], row[-1]):
                    yield row


def mend(folder: Path) -> None:
    """Put a new archive, with every row that is whole, in the place of a damaged one.

    The old one must have a second name already.  Raises OSError, and DiskTrouble's reasons as
    sqlite3.Error.
    """
    beside = folder / _BESIDE
    beside.unlink(missing_ok=True)
    with contextlib.closing(archive.connect(beside)) as new:
        new.execute("PRAGMA journal_mode = DELETE")  # one file, to be renamed
        with contextlib.suppress(BadState), contextlib.closing(_old(folder)) as old:
            for table in _TABLES:
                new.execute("BEGIN")
                for row in _rows(old, table):
                    marks = ", ".join("?" * len(row))
                    new.execute(f"INSERT INTO {table} VALUES ({marks})", row)
                new.execute("COMMIT")
    for name in files(folder):
        (folder / name).unlink()
    os.replace(beside, folder / archive.NAME)


def agreed(folder: Path, store: Store) -> Store:
    """The store after a repair, with what a whole archive knows better.

    A job that the archive took is over, whether the record of its end was lost or not; and no
    number that it has is given to a new job.
    """
    if not (folder / archive.NAME).exists():
        return store
    with contextlib.closing(_old(folder)) as connection:
        over = {number for (number,) in connection.execute("SELECT number FROM job")}
        (body,) = connection.execute("SELECT max(number) FROM body").fetchone()
    jobs = {job.id: job for job in store.jobs.values() if job.number not in over}
    boxes = {
        name: box if box.job is None or box.job in jobs else attrs.evolve(box, job=None)
        for name, box in store.boxes.items()
    }
    counter = max(store.counter, body or 0, *over, 0)
    return Store(jobs, boxes, counter, store.drained, len(over))


def _old(folder: Path) -> sqlite3.Connection:
    """Read where the folder can only be read, too.  Raises BadState."""
    writable = os.access(folder, os.W_OK)
    return archive.connect(folder / archive.NAME, "rw" if writable else "ro&immutable=1")


def files(folder: Path) -> list[str]:
    """The archive's files that are there: SQLite has up to three."""
    names = [archive.NAME, f"{archive.NAME}-wal", f"{archive.NAME}-shm"]
    return [name for name in names if (folder / name).exists()]


def whole(folder: Path, store: Store) -> Store:
    """The store with all that only the archive has.  Raises BadState where that is damaged."""
    if found := damage(folder, store):
        raise BadState(f"{folder / str(found)}; {archive.HELP}")
    if not (folder / archive.NAME).exists():
        return store
    with contextlib.closing(_old(folder)) as connection:
        jobs = {job.id: job for job in archive.all_jobs(connection)} | store.jobs
        in_order = sorted(jobs.values(), key=lambda job: job.number)
        jobs = {job.id: _with_body(job, connection) for job in in_order}
    return Store(jobs, store.boxes, store.counter, store.drained)


def _with_body(job: Job, connection: sqlite3.Connection) -> Job:
    body = job.document.body or archive.body_of(connection, job.number)
    return attrs.evolve(job, document=attrs.evolve(job.document, body=body))
