"""The archive on a disk whose syncs fail: nothing that it said to have taken is lost."""

from __future__ import annotations

import contextlib
import functools
import sqlite3

import attrs

from appliance.errors import DiskTrouble
from appliance.jobs.changes import Kept
from appliance.jobs.job import Finished
from appliance.keep import archive, archive_file, soundness
from tests import rich
from tests.sick_sqlite import sick_sqlite

PAGES = 6  # of the log: so that it is copied into the file, too, again and again


@functools.cache
def jobs_over():
    """Some that are over, and their documents' bodies."""
    found = []
    for seed in range(40):
        for job in rich.grow(seed, 60)[0].jobs.values():
            if isinstance(job.state, Finished) and job.document.body is not None:
                number = len(found) + 1
                attempts = tuple(
                    attrs.evolve(attempt, token=f"{number}-{attempt.number}")
                    for attempt in job.attempts
                )
                body, bare = job.document.body, attrs.evolve(job.document, body=None)
                named = {"id": f"lab.{number}", "number": number, "kept": False}
                found.append((attrs.evolve(job, document=bare, attempts=attempts, **named), body))
    return found


def steps(connection, over):
    """What filing does, one transaction each: (what to do, what is true then)."""
    for n in range(0, len(over), 3):
        some = over[n : n + 3]
        bodies = [(job.number, body) for job, body in some]
        yield lambda b=bodies: archive.file_bodies(connection, b), {"body": bodies}
        jobs = [job for job, _ in some]
        yield lambda j=jobs: archive.take(connection, j), {"job": jobs}
        kept = attrs.evolve(jobs[0], kept=True)
        yield (
            lambda k=kept: archive.mark(connection, k.id, Kept(k.id, True, "ann", 1.0)),
            {"kept": [kept.id]},
        )


def has(folder, true):
    """Whether a start would find in that archive what is `true`."""
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as found:
        assert "ok" == found.execute("PRAGMA integrity_check").fetchone()[0]
        jobs = {job.id: job for job in archive.all_jobs(found)}
        for number, body in true["body"]:
            assert body == archive.body_of(found, number)
        for job in true["job"]:
            assert job.attempts == jobs[job.id].attempts
            assert (job.id in true["kept"]) == jobs[job.id].kept


def run(folder, fail_at=0):
    """All steps, one sync failing; a step that is refused is done again.

    The power goes then, after the next try, and at the end: nothing of what was done is lost.
    (how many syncs there were, which step was refused if any)
    """
    folder.mkdir()
    true = {"body": [], "job": [], "kept": []}
    refused = None
    with sick_sqlite(folder, fail_at) as disk:
        connection = archive_file.connect(folder / archive_file.NAME)
        connection.execute(f"PRAGMA wal_autocheckpoint = {PAGES}")
        before = disk.syncs
        disk.fail_at = before + fail_at if fail_at else 0

        def check(when):
            disk.after_power_loss(folder / when)
            has(folder / when, true)

        for n, (do, then) in enumerate(steps(connection, jobs_over())):
            try:
                do()
            except sqlite3.Error as error:
                assert isinstance(soundness.trouble(error), DiskTrouble)  # noqa: PT017 - any of them
                refused = n
                check("refused")
                do()
            for key, values in then.items():
                true[key] += values
            if n == refused:
                check("again")
        check("end")
        connection.close()
    return disk.syncs - before, refused


def test_what_was_committed_is_there_whichever_sync_failed_when_the_power_goes(tmp_path):
    """SQLite may go on where the journal must stop: it writes what was refused anew."""
    syncs, refused = run(tmp_path / "0")
    assert (True, None) == (syncs > 20, refused)
    outcomes = [run(tmp_path / str(n), n)[1] for n in range(1, syncs + 1)]

    assert None in outcomes  # the log was being copied into the file, which may wait
    assert len({*outcomes}) > 6
