"""The archive while no server uses it: checked, repaired, and read as a whole for an export.

A repair copies every readable row into a new file, which is renamed into place when complete.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs

from appliance.errors import BadState, DiskTrouble, NewerState
from appliance.fs import atomic, owner, plain_files
from appliance.jobs.changes import Job, Moved, moved
from appliance.jobs.documents.document import Body
from appliance.jobs.job import Booting, Fail, Finished, Offered, Queued
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file, sealed, soundness
from appliance.keep.repair.survey import Damage
from appliance.keep.state import replay

_BESIDE: Final = f".{archive_file.NAME}.new"
# Replaces a lost script, in case the job's box starts the job again.
_LOST: Final = Body(script="#!/bin/sh\necho 'the document of this job was lost' >&2\nexit 1\n")
_WHY: Final = "its document was lost"
# Most numbers between two readable stretches that are asked for one by one: some seconds of work.
_HOLE_MAX: Final = 1_000_000


def damage(folder: Path, store: Store) -> Damage | None:
    """Says why a server would not start with this archive, or a job would not run; None: all well.

    Raises DiskTrouble if that cannot be told, as when another program holds the file.
    """
    filed = [job for job in store.jobs.values() if job.document.body is None]
    if os.path.lexists(folder / replay.RESTORING):
        return Damage(replay.RESTORING, None, replay.BROKEN_OFF)
    if what := plain_files.kind(folder / archive.MENDED):
        return Damage(archive_file.NAME, None, f"{what} is in the way of {archive.MENDED}")
    if (folder / archive.MENDED).exists():
        return Damage(archive_file.NAME, None, "its repair was broken off")
    if not os.path.lexists(folder / archive_file.NAME):
        why = "is missing" if store.archived or filed else ""
        there = _Left(set(), set())
    else:
        why, there = _look(folder, store)
    lost = [job.id for job in filed if job.number not in there.bodies | there.over]
    bare = there.over - there.bodies
    if not why and not lost and not bare:
        return None
    over = store.archived - len(there.over)
    words = [f"{over} jobs that are over"] * (over > 0)
    words += [f"the documents of {len(lost)} jobs"] * bool(lost)
    words += [f"the documents of {len(bare)} jobs that are over"] * bool(bare)
    if (newest := max(there.bodies, default=0)) > store.counter:
        words.append(f"what was decided of the jobs numbered {store.counter + 1} to {newest}")
    why = why or f"lacks the documents of {len(lost) + len(bare)} jobs"
    return Damage(archive_file.NAME, None, why, " and ".join(words), tuple(lost))


@attrs.frozen
class _Left:
    over: set[int]  # numbers of archived jobs
    bodies: set[int]


def _look(folder: Path, store: Store) -> tuple[str, _Left]:
    for name in files(folder):
        if what := plain_files.kind(folder / name):
            return f"{what} is in the way of {name}", _Left(set(), set())
    try:
        connection = _old(folder)
    except NewerState:
        raise
    except BadState as error:
        return str(error).removeprefix(f"{archive_file.NAME}: "), _Left(set(), set())
    broken: dict[str, list[int]] = {"job": [], "document": []}
    with contextlib.closing(connection):
        left = _Left(
            {row[0] for row in _rows(connection, "job", broken["job"])},
            {row[0] for row in _rows(connection, "body", broken["document"])},
        )
        try:
            words = [sealed.named(what, numbers) for what, numbers in broken.items() if numbers]
            words.append(soundness.unsound(connection) or soundness.lacks(connection, store))
            lacks = " and ".join(filter(None, words)) or _astray(connection)
        except soundness.ERRORS as error:
            if isinstance(why := soundness.trouble(error), DiskTrouble):
                raise why from error
            lacks = str(why).removeprefix(f"{archive_file.NAME}: ").removesuffix(f"; {sealed.HELP}")
    return lacks, left


def _astray(connection: sqlite3.Connection) -> str:
    """Says which attempts cannot be found by token, or have no job, in words; empty: none."""
    number_of = "SELECT number FROM attempt WHERE token = ?"
    lost = [
        row[0]
        for row in connection.execute("SELECT * FROM job")
        if any(
            connection.execute(number_of, (token,)).fetchone() != (row[0],)
            for token in sealed.tokens_of(row)
        )
    ]
    (more,) = connection.execute(
        "SELECT count(*) FROM attempt WHERE number NOT IN (SELECT number FROM job)"
    ).fetchone()
    if lost:
        return sealed.named("attempt of job", lost).replace("attempt of jobs", "attempts of jobs")
    return f"{more} attempts are of no job" if more else ""


def _rows(
    connection: sqlite3.Connection, table: str, broken: list[int] | None = None
) -> Iterator[tuple[Any, ...]]:
    """Yields the readable rows that are whole: from both ends, then one by one between them.

    Puts the numbers of damaged rows into `broken`.
    """
    seen: set[int] = set()
    ends = [0, 0]  # the last number read from either end
    for n, way in enumerate(("ASC", "DESC")):
        try:
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY number {way}"):
                if row[0] in seen:  # found twice, or from the other end
                    continue
                seen.add(row[0])
                if sealed.is_whole(row):
                    ends[n] = row[0]
                    yield row
                elif broken is not None:
                    broken.append(row[0])
        except soundness.ERRORS:
            continue
        if n == 0:
            return
    hole = range(ends[0] + 1, max(ends) + 1)
    for number in hole[:_HOLE_MAX]:
        if number not in seen:
            with contextlib.suppress(*soundness.ERRORS):
                one = f"SELECT * FROM {table} WHERE number = ?"
                found = connection.execute(one, (number,)).fetchone()
                if found is not None and sealed.is_whole(found):
                    seen.add(number)
                    yield found


def mend(folder: Path) -> None:
    """Replaces a damaged archive by a new one that has every whole row.

    The old archive must have a second name already.  After a kill at any point the next call
    finishes the work.  Raises OSError, DiskTrouble and sqlite3.Error.
    """
    if not (folder / archive.MENDED).exists():
        _copy(folder, folder / _BESIDE)
        atomic.replace(folder / _BESIDE, folder / archive.MENDED)  # complete
    for name in files(folder):  # SQLite would apply the old log to the new file
        if name != archive_file.NAME:
            (folder / name).unlink()
    atomic.replace(folder / archive.MENDED, folder / archive_file.NAME)


def _copy(folder: Path, beside: Path) -> None:
    beside.unlink(missing_ok=True)
    with contextlib.closing(archive_file.connect(beside)) as new:
        new.execute("PRAGMA journal_mode = DELETE")  # a single file, since it is renamed
        if not (folder / archive_file.NAME).exists():
            return
        with contextlib.suppress(BadState), contextlib.closing(_old(folder)) as old:
            for table in ("body", "job"):
                new.execute("BEGIN")
                for row in _rows(old, table):
                    marks = ", ".join("?" * len(row))
                    new.execute(f"INSERT INTO {table} VALUES ({marks})", row)
                    if table == "job":  # table `attempt` has no checksums: made anew
                        tokens = [(token, row[0]) for token in sealed.tokens_of(row)]
                        new.executemany("INSERT OR REPLACE INTO attempt VALUES (?, ?)", tokens)
                new.execute("COMMIT")


def agreed(folder: Path, store: Store, now: float) -> Store:
    """Returns the repaired store, corrected by what the whole archive holds.

    A job in the archive is over, even if the record of its end was lost; no number in the archive
    is given to a new job; a job whose document is lost ends, since nobody could run it.
    """
    if not (folder / archive_file.NAME).exists():
        return store
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME, "rw")) as connection:
        over = {number for (number,) in connection.execute("SELECT number FROM job")}
        bodies = {number for (number,) in connection.execute("SELECT number FROM body")}
        jobs = {job.id: job for job in store.jobs.values() if job.number not in over}
        filed = {job.number for job in jobs.values() if job.document.body is None}
        lost = (filed | over) - bodies
        jobs = {job.id: _ended(job, now) if job.number in lost else job for job in jobs.values()}
        archive.file_bodies(connection, [(number, _LOST) for number in sorted(lost)])
    held = {job.attempt.box: job.id for job in jobs.values() if job.attempt and _is_active(job)}
    boxes = {
        name: attrs.evolve(box, job=held.get(name)) if box.job else box
        for name, box in store.boxes.items()
    }
    counter = max(store.counter, *bodies, *over, 0)
    return Store(jobs, boxes, counter, store.drained, len(over), store.clocked, store.moment)


def _ended(job: Job, now: float) -> Job:
    if isinstance(job.state, Queued | Offered | Booting):
        return moved(job, Moved(job.id, Fail("incomplete", _WHY), now))
    return job


def _is_active(job: Job) -> bool:
    return not isinstance(job.state, Finished)


def _old(folder: Path) -> sqlite3.Connection:
    """Opens the archive, in a read-only folder too.  Raises BadState, DiskTrouble."""
    mode = "rw"
    if not os.access(folder, os.W_OK, effective_ids=True):
        # SQLite ignores the log of an immutable file; for any other it creates a missing log.
        mode = "ro" if (folder / f"{archive_file.NAME}-wal").exists() else "ro&immutable=1"
    return archive_file.connect(folder / archive_file.NAME, mode)


def files(folder: Path) -> list[str]:
    """Returns the names of the archive's files that exist: SQLite has several."""
    return [name for name in archive_file.FILES if os.path.lexists(folder / name)]


def whole(folder: Path, store: Store) -> Store:
    """Returns the store plus all that only the archive has.  Raises BadState if it is damaged."""
    with owner.acting(folder):
        return _whole(folder, store)


def _whole(folder: Path, store: Store) -> Store:
    if found := damage(folder, store):
        raise BadState(f"{folder / str(found)}; {sealed.HELP}")
    if not (folder / archive_file.NAME).exists():
        return store
    with contextlib.closing(_old(folder)) as connection:
        jobs = {job.id: job for job in archive.all_jobs(connection)} | store.jobs
        in_order = sorted(jobs.values(), key=lambda job: job.number)
        jobs = {job.id: _with_body(job, connection) for job in in_order}
    clocks = (store.clocked, store.moment)
    return Store(jobs, store.boxes, store.counter, store.drained, 0, *clocks)


def _with_body(job: Job, connection: sqlite3.Connection) -> Job:
    body = job.document.body or archive.body_of(connection, job.number)
    return attrs.evolve(job, document=attrs.evolve(job.document, body=body))
