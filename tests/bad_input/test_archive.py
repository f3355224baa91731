"""The archive with bytes changed as a sick disk or a wrong program changes them, anywhere.

Whatever was done to the file, a job that was put there is read as it was, or whoever asks is told
that the archive is damaged and what looks into it.  It is never "no such job", nor another job,
nor a traceback; and what `state check` finds sound, a repair leaves alone.
"""

from __future__ import annotations

import contextlib
import functools
import random
import sqlite3

import attrs
import pytest

from appliance.errors import BadState
from appliance.jobs import job as jobs
from appliance.jobs.documents.document import Body
from appliance.jobs.job import Attempt
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file
from appliance.keep.archive import Archive, Wanted
from appliance.keep.repair import rescue
from appliance.keep.state import journal as journals
from appliance.scheduler import archiver
from appliance.scheduler.clock import Clock
from appliance.scheduler.scheduler import Scheduler
from tests import lab as labs
from tests import rich
from tests.disks import MemoryDisk
from tests.spoiled import spoil

from .strangers import SEED, TIMES

JOBS = 400  # of each of three tables several pages, and pages that point at them
PAGE = 4096
ODD = ["text", "", None, b"", b"\xff" * 9, b"\0", 1.5, -1, 0, 2**62, -(2**62), "7", float("inf")]
COLUMNS = {
    "job": ["number", "id", "submitter", "key", "submitted", "finished", "health", "box", "queue",
            "stays", "cbor"],
    "body": ["number", "cbor"],
    "attempt": ["token", "number"],
}  # fmt: skip


@functools.cache
def over():
    """Jobs that are over, as they were put there."""
    store, _ = rich.grow(1, 40)
    first = next(iter(store.jobs.values()))
    bare = attrs.evolve(first.document, body=None)
    return tuple(
        attrs.evolve(
            first, id=f"lab.{n}", number=n, key=f"key{n}" + "0" * 8, document=bare,
            state=jobs.Finished(("success", "failed")[n % 2], "", None), finished=float(n),
            attempts=(
                Attempt(1, token=f"token{n:x}", box=f"box-{n % 7}", address="10.0.0.5", began=1.0),
            ),
        )
        for n in range(1, JOBS + 1)
    )  # fmt: skip


@functools.cache
def whole():
    """The bytes of the file with all of them."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, archive_file.NAME)
        with contextlib.closing(archive_file.connect(path)) as connection:
            archive.file_bodies(connection, [(n, Body(script=f"{n}")) for n in range(1, JOBS + 1)])
            archive.take(connection, over())
        return path.read_bytes()


def a_bit(rng, data):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def some_bytes(rng, data):
    for _ in range(rng.randrange(1, 40)):
        data[rng.randrange(len(data))] = rng.randrange(256)


def a_head(rng, data):
    """Where a page says what it is and where its cells lie."""
    at = rng.randrange(len(data) // PAGE) * PAGE + rng.randrange(60)
    data[at] = rng.randrange(256)


def a_page_of(filling):
    def change(rng, data):
        at = rng.randrange(len(data) // PAGE) * PAGE
        data[at : at + PAGE] = filling(rng)

    return change


def swapped(rng, data):
    one, two = (rng.randrange(1, len(data) // PAGE) * PAGE for _ in range(2))
    data[one : one + PAGE], data[two : two + PAGE] = data[two : two + PAGE], data[one : one + PAGE]


def doubled(rng, data):
    one, two = (rng.randrange(1, len(data) // PAGE) * PAGE for _ in range(2))
    data[one : one + PAGE] = data[two : two + PAGE]


def cut(rng, data):
    pages = rng.randrange(1, len(data) // PAGE) * PAGE
    del data[rng.choice([pages, rng.randrange(len(data))]) :]


CHANGES = [
    a_bit, some_bytes, a_head, a_head, swapped, doubled, cut,
    a_page_of(lambda rng: bytes(PAGE)), a_page_of(lambda rng: rng.randbytes(PAGE)),
]  # fmt: skip


def write(folder, rng):
    """The file with one kind of damage, once or a few times over."""
    folder.mkdir()
    path = folder / archive_file.NAME
    if rng.random() < 0.25:
        path.write_bytes(whole())
        _retype(path, rng)
        return
    data = bytearray(whole())
    change = rng.choice(CHANGES)
    for _ in range(rng.choice([1, 1, 1, 3])):
        if len(data) > 2 * PAGE:
            change(rng, data)
    path.write_bytes(data)


def _retype(path, rng):
    """A value of another type, as no program of ours writes it."""
    table = rng.choice(["job", "job", "body", "attempt"])
    column, value = rng.choice(COLUMNS[table]), rng.choice(ODD)
    with contextlib.suppress(sqlite3.IntegrityError):  # of a number that must be one
        spoil(path, table, column, rng.randrange(1, JOBS + 1), value)


def with_body(job):
    """As `state export` has it."""
    return attrs.evolve(job, document=attrs.evolve(job.document, body=Body(script=f"{job.number}")))


@contextlib.contextmanager
def damage_told(told):
    """What is raised within must be damage that names where to look."""
    try:
        yield
    except BadState as error:
        told.append(str(error))


class Counts:
    """How the cases ended."""

    def __init__(self):
        self.refused = self.told = self.silent = 0


async def start(folder, store):
    """The scheduler that a start would make of it.  Raises BadState where it refuses."""
    shelf = Archive.of_folder(folder)
    try:
        await shelf.check(store)
    except BaseException:
        shelf.close()
        raise
    disk = MemoryDisk()
    _, journal = await journals.restore(disk)
    scheduler = Scheduler(
        labs.config(), store, journal, shelf, labs.FakeImages(),
        clock=Clock(0.0, 1_800_000_000.0), token=lambda: "token",
    )  # fmt: skip
    return shelf, scheduler


async def asked_for_all(rng, scheduler, shelf, counts):
    """Everything that is asked by name: right, or damage."""
    told, silent = [], 0
    for job in rng.sample(over(), 120):
        with damage_told(told):
            assert job == await scheduler.find(job.id)
            assert str(job.number) == (await scheduler.body(job)).script
    await archiver.look_over(scheduler)
    told += scheduler.gate.reasons
    for job in rng.sample(over(), 60):
        with damage_told(told):
            found = await scheduler.jobs_with_key(job.submitter, job.key)
            # A key that says something else in table and index alike, only a checksum can tell.
            silent += not found and not scheduler.gate.reasons
            assert found in ([], [job])
            found = await scheduler.attempt_with(job.attempts[0].token)
            silent += found is None  # a late report of a box is a stranger's then
            assert found in (None, (job, job.attempts[0]))
    with damage_told(told):
        told += await listed(scheduler, shelf)
    assert all("`appliance state" in text for text in told), told
    counts.told += bool(told)
    counts.silent += not told
    return told or silent


async def listed(scheduler, shelf):
    """A list is whole, or says what it lacks."""
    listed = await shelf.search(Wanted(), JOBS)
    assert set(map(repr, listed.jobs)) <= set(map(repr, over()))
    assert len(listed.jobs) == JOBS or listed.lacks or scheduler.gate.reasons
    return [listed.lacks] if listed.lacks else []


async def one(folder, rng, counts):
    write(folder, rng)
    store = Store({}, {}, JOBS, "", JOBS)
    refused = []
    with damage_told(refused):
        shelf, scheduler = await start(folder, store)
    if refused:
        counts.refused += 1
        told = refused
        assert archive_file.NAME in refused[0]
    else:
        with contextlib.closing(shelf):
            told = await asked_for_all(rng, scheduler, shelf, counts)
    found = rescue.damage(folder, store)
    assert found is not None or not told, "told of damage that no check finds"
    if found is None:
        read = rescue.whole(folder, store).jobs
        assert {job.id: with_body(job) for job in over()} == read
    else:
        assert found.why
        assert "\n" not in f"{found}"
        repaired(folder, store)


def repaired(folder, store):
    rescue.mend(folder)
    after = rescue.agreed(folder, store, 1.9e9)
    assert rescue.damage(folder, after) is None
    right = {job.id: job for job in over()}
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as connection:
        left = archive.all_jobs(connection)
        assert all(right[job.id] == job for job in left)
        tokens = connection.execute("SELECT token, number FROM attempt").fetchall()
    assert {(job.attempts[0].token, job.number) for job in left} == {*tokens}


async def rounds(tmp_path, times, seed):
    print(f"FUZZ_SEED={seed}")
    counts = Counts()
    for n in range(times):
        rng = random.Random(f"{seed}:{n}")
        try:
            await one(tmp_path / str(n), rng, counts)
        except BaseException as error:
            error.add_note(f"FUZZ_SEED={seed}, case {n}")
            raise
    return counts


async def test_no_damage_makes_an_archived_job_unknown_or_another(tmp_path):
    counts = await rounds(tmp_path, 12 * TIMES, SEED)

    assert counts.refused
    assert counts.told


@pytest.mark.slow
async def test_no_damage_of_hundreds_makes_an_archived_job_unknown(tmp_path):
    counts = await rounds(tmp_path, 400 * TIMES, SEED + 1000)

    assert min(counts.refused, counts.told, counts.silent) > 5
