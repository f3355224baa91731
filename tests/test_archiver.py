"""What memory need not hold goes to the archive, and everything that asks finds it there."""

from __future__ import annotations

import contextlib
import errno
import gzip
import sqlite3
import stat

import attrs
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Limits
from appliance.control import retention
from appliance.doors.admission import Admission
from appliance.errors import BadState, DiskTrouble, NotFound, Refused, Unknown
from appliance.jobs import decisions
from appliance.jobs.changes import Kept, Lacking, Moved
from appliance.jobs.documents.document import Body
from appliance.jobs.job import Fetch
from appliance.jobs.store import Store
from appliance.keep import archive, archive_file
from appliance.keep.archive import Archive
from appliance.scheduler import archiver, intake
from appliance.scheduler.intake import Paper
from appliance.scheduler.reports import Reports, Source
from tests import fakes
from tests import lab as labs
from tests.lab import open_lab

SMALL = attrs.evolve(labs.config(), limits=Limits(finished_in_memory=1))


async def filed(lab):
    """Once everything that may be filed is."""
    await trio.sleep(2 * archiver.GATHER_S)
    await lab.scheduler.durable()


async def over(lab, number, text="script: echo hi\n", user="ann"):
    """A job that was cancelled while it waited."""
    job = await lab.submit(text, user, f"{number:016}")
    await lab.scheduler.cancel(job.id, user)
    return job


async def test_a_waiting_jobs_document_lies_on_the_disk_alone(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit("script: echo hi\nsecrets: {TOKEN: s3cret}\n")
        await filed(lab)

        waiting = lab.scheduler.store.job(job.id)
        assert waiting.document.body is None
        body = await lab.scheduler.body(waiting)
        assert ("#!/bin/sh\necho hi\n", None, {}) == (body.script, body.job2sh, body.fields)
        shown = await lab.people.do("show", {"job": job.id}, "ann", None)
        assert ("#!/bin/sh\necho hi\n", ["TOKEN"]) == (
            shown["document"]["script"], shown["document"]["secrets"],
        )  # fmt: skip


async def test_a_box_gets_the_job_whose_document_was_filed(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit("script: echo a word\n")
        await filed(lab)
        await lab.know()
        script = await (await lab.ask()).rest()
        answer = await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")

        assert b"job.cgz" in script
        assert b"echo a word" in gzip.decompress(answer.body)


async def test_a_job_whose_document_is_lost_ends_and_says_so(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        await filed(lab)
        lab.disk.sqlite.execute("DELETE FROM body")
        await lab.know()
        await (await lab.ask()).rest()
        answer = await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")

        assert 404 == answer.status
        state = lab.scheduler.store.job(job.id).state
        assert "incomplete" == state.health
        assert "its document cannot be read" in state.reason


async def test_a_job_whose_document_cannot_be_read_just_now_waits_for_it(
    autojump_clock, monkeypatch
):
    async with open_lab() as lab:
        job = await lab.submit()
        await filed(lab)
        await lab.know()
        await (await lab.ask()).rest()

        async def locked(self, number):
            raise DiskTrouble("archive.sqlite: database is locked")

        with monkeypatch.context() as patch:
            patch.setattr(Archive, "body", locked)
            answer = await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")
        assert (503, "5") == (answer.status, answer.headers["retry-after"])
        again = await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")

        assert (200, "boot") == (again.status, lab.stage(job))


async def test_the_newest_finished_jobs_stay_and_all_others_are_found_in_the_archive(
    autojump_clock,
):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(4)]
        await filed(lab)
        store = lab.scheduler.store

        assert ([jobs[3].id], 3) == ([*store.jobs], store.archived)
        found = [await lab.scheduler.find(job.id) for job in jobs]
        assert [job.id for job in jobs] == [job.id for job in found]
        assert {"cancel"} == {job.state.health for job in found}
        with pytest.raises(NotFound, match=r"lab\.99"):
            await lab.scheduler.find("lab.99")
        with pytest.raises(Refused, match="over already"):
            await lab.scheduler.cancel(jobs[0].id, "ann")
        with pytest.raises(Refused, match="Only running job can renew"):
            await lab.scheduler.renew(jobs[0].id, 60)
        assert {"finish": 4} == (await lab.people.do("status", {}, "ann", None))["jobs"]


async def test_jobs_lists_memory_and_archive_as_one(autojump_clock):
    async with open_lab(SMALL) as lab:
        for n in range(6):
            await over(lab, n, user="ann" if n % 2 else "bob")
        await filed(lab)
        await lab.submit(key="f" * 16)

        async def ids(**wanted):
            return [row["id"] for row in (await lab.people.do("jobs", wanted, "ann", None))["jobs"]]

        assert [f"lab.{n}" for n in (7, 6, 5, 4, 3, 2, 1)] == await ids()
        assert ["lab.7", "lab.6", "lab.5"] == await ids(limit=3)
        assert ["lab.5", "lab.3", "lab.1"] == await ids(user="bob")
        assert ["lab.7"] == await ids(state=["submit"])
        assert ["lab.6", "lab.5"] == await ids(state=["finish"], limit=2)
        assert [] == await ids(health=["success"])
        assert 6 == len(await ids(health=["cancel"]))
        assert [] == await ids(box="box-1")
        assert [] == await ids(queue="other")
        assert [] == await ids(since=lab.scheduler.clock.now() + 1)


async def test_whatever_word_a_job_ended_with_it_failed_if_it_was_no_success(autojump_clock):
    words = ["success", "a word of its own", "soft_timeout", "success", "cancel", "OOM"]
    async with open_lab(SMALL) as lab:
        for n, word in enumerate(words):
            job = await lab.submit(key=f"{n:016}")
            now = lab.scheduler.clock.now()
            lab.scheduler.change([*decisions.failed(job, word, "so it said", now)])
        await filed(lab)
        await lab.submit(key="f" * 16)  # which has not ended

        answer = await lab.people.do("jobs", {"failed": True}, "ann", None)

        assert len(lab.scheduler.store.jobs) < len(words)
        assert ["lab.6", "lab.5", "lab.3", "lab.2"] == [row["id"] for row in answer["jobs"]]


async def test_a_repeated_submit_finds_the_job_that_was_archived(autojump_clock):
    async with open_lab(SMALL) as lab:
        first = await over(lab, 1)
        await over(lab, 2)
        await over(lab, 3)
        await filed(lab)
        assert first.id not in lab.scheduler.store.jobs

        assert first.id == (await lab.submit(key=f"{1:016}")).id
        assert [first.id] == [
            job.id for job in await lab.scheduler.jobs_with_key("ann", f"{1:016}")
        ]
        assert first.id != (await lab.submit(key=f"{1:016}", user="bob")).id


async def test_jobs_of_one_submit_keep_their_order_whichever_ends_first(autojump_clock):
    papers = [Paper(f"{n}.yaml", "script: x\n") for n in range(4)]
    async with open_lab(SMALL) as lab:
        jobs = await intake.submit(lab.scheduler, papers, "ann", "f" * 16)
        for n in (2, 0, 3):
            await lab.scheduler.cancel(jobs[n].id, "ann")
        await filed(lab)
        assert 2 == lab.scheduler.store.archived
        again = await intake.submit(lab.scheduler, papers, "ann", "f" * 16)

        assert [job.id for job in jobs] == [job.id for job in again]


async def test_a_late_report_of_an_archived_job_is_kept_and_moves_nothing(autojump_clock):
    async with open_lab(SMALL) as lab:
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        token = lab.scheduler.store.job(job.id).attempt.token
        await lab.scheduler.cancel(job.id, "ann")
        for n in range(2):
            await over(lab, n)
        await filed(lab)
        assert job.id not in lab.scheduler.store.jobs
        before = await lab.scheduler.find(job.id)
        reports = Reports(
            lab.scheduler, Admission(lab.config.network, lab.neighbours, lambda card: None).check
        )
        await reports.append(Source(token, "10.0.0.9"), {"job_state": "finished"})

        assert before == await lab.scheduler.find(job.id)
        steps = lab.scheduler.store.box("box-1").boot.steps
        assert any("late: job_state=finished" in step.detail for step in steps)
        assert not await reports.still_wanted(Source(token, "10.0.0.9"), {})


@pytest.mark.parametrize("error", [DiskTrouble("disk I/O error"), BadState("a row is damaged")])
async def test_boxes_are_told_503_while_the_archive_cannot_be_read(
    autojump_clock, monkeypatch, error
):
    async def refuse(self, *asked):
        raise error

    async with open_lab(SMALL) as lab:
        await over(lab, 0), await over(lab, 1)
        await filed(lab)
        monkeypatch.setattr(Archive, "job", refuse)
        monkeypatch.setattr(Archive, "with_token", refuse)
        token = "0" * 32
        report = await lab.get(f"/~lkp/{token}/cgi-bin/lkp-jobfile-append-var?job_state=running")
        upload = await fakes.fetch(
            lab.wire, "PUT", "/result/x", {"cookie": "JOBID=lab.1"}, b"x",
            client=("10.0.0.5", 1), server=("10.0.0.1", 3080),
        )  # fmt: skip

        assert [(503, str(error))] * 2 == [
            (answer.status, answer.body.decode().strip()) for answer in (report, upload)
        ]
        lab.check()


async def test_what_a_box_is_suspected_for_stays_in_memory(autojump_clock):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(4)]
        await lab.know()
        lab.scheduler.store.box("box-1").lost = (jobs[0].id,)
        await filed(lab)

        assert jobs[0].id in lab.scheduler.store.jobs
        assert 3 == lab.scheduler.store.archived


async def test_an_archive_that_takes_nothing_loses_nothing_and_is_tried_again(
    autojump_clock, monkeypatch
):
    async def full(self, bodies):
        raise DiskTrouble("database or disk is full")

    async with open_lab() as lab:
        with monkeypatch.context() as broken:
            broken.setattr(Archive, "file", full)
            job = await lab.submit()
            await filed(lab)
            assert lab.scheduler.store.job(job.id).document.body is not None
        await trio.sleep(archiver.RETRY_S)
        await filed(lab)

        assert lab.scheduler.store.job(job.id).document.body is None


async def test_a_start_finds_both_again(autojump_clock):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(3)]
        waiting = await lab.submit("script: x\n", key="f" * 16)
        await filed(lab)
        disk = lab.disk.after_kill()
    async with open_lab(SMALL, disk) as lab:
        assert 2 == lab.scheduler.store.archived
        assert "cancel" == (await lab.scheduler.find(jobs[0].id)).state.health
        assert waiting.document.body == await lab.scheduler.body(
            lab.scheduler.store.job(waiting.id)
        )


async def test_a_job_whose_row_is_gone_is_damaged_and_not_unknown(autojump_clock):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(3)]
        await filed(lab)
        lab.disk.sqlite.execute("DELETE FROM job WHERE number = 1")

        for verb in ("show", "results", "cancel"):
            with pytest.raises(BadState, match=r"lab\.1 was archived .*`appliance state check`"):
                await lab.people.do(verb, {"job": jobs[0].id}, "ann", None)
        for name in ("lab.4", "lab.0", "lab.01", "other.1", "lab.1x", "lab." + "1" * 5000):
            with pytest.raises(NotFound, match=r"^no job "):
                await lab.scheduler.find(name)


async def test_a_job_that_a_repair_left_out_is_no_more(autojump_clock):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(3)]
        await filed(lab)
        lab.disk.sqlite.execute("DELETE FROM job WHERE number = 1")
        lab.scheduler.store.archived -= 1  # as a repair counts them
        await lab.scheduler.archive.read_through()

        with pytest.raises(NotFound, match=r"no job lab\.1 any more: .* older state"):
            await lab.scheduler.find(jobs[0].id)


async def test_a_list_names_the_jobs_that_are_damaged_and_shows_the_others(autojump_clock):
    async with open_lab(SMALL) as lab:
        for n in range(4):
            await over(lab, n)
        await filed(lab)
        lab.disk.sqlite.execute("UPDATE job SET cbor = 'text' WHERE number = 2")
        answer = await lab.people.do("jobs", {}, "ann", None)

        assert ["lab.4", "lab.3", "lab.1"] == [row["id"] for row in answer["jobs"]]
        assert "the job number 2 is damaged; `appliance state check`" in answer["lacks"]
        lab.disk.sqlite.execute("DROP TABLE job")
        answer = await lab.people.do("jobs", {}, "ann", None)
        assert ["lab.4"] == [row["id"] for row in answer["jobs"]]
        assert "no such table" in answer["lacks"]


def astray(path):
    """An index of that archive leads from each key to the job before: no key finds its own."""
    with contextlib.closing(archive_file.connect(path)) as connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("UPDATE sqlite_schema SET sql = replace(sql, 'key)', 'id)') "
                           "WHERE name = 'job_by_key'")  # fmt: skip
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("REINDEX job_by_key")
        connection.execute("PRAGMA writable_schema = ON")
        sql = dict(archive_file.schema())["job_by_key"]
        connection.execute("UPDATE sqlite_schema SET sql = ? WHERE name = 'job_by_key'", (sql,))


async def test_a_damaged_archive_is_seen_at_the_start_or_shuts_the_gate(tmp_path, monkeypatch):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(3)]
        await filed(lab)
        await lab.disk.archive.copy_to(tmp_path / archive_file.NAME)
        store = lab.scheduler.store
    astray(tmp_path / archive_file.NAME)

    shelf = Archive.of_folder(tmp_path)
    with contextlib.closing(shelf):
        with pytest.raises(BadState, match=r"archive\.sqlite: .*index.*`appliance state repair`"):
            await shelf.check(store)

        monkeypatch.setattr(archive, "CHECKED_AT_START_BYTES", 0)
        await shelf.check(store)
    async with open_lab(SMALL) as lab:
        lab.scheduler.archive = Archive.of_folder(tmp_path)
        with contextlib.closing(lab.scheduler.archive):
            await archiver.look_over(lab.scheduler)
            with pytest.raises(DiskTrouble, match=r"archive is damaged .*job_by_key.*Nothing was"):
                await lab.submit(key=jobs[0].key)
            assert jobs[0].id == (await lab.scheduler.archive.job(jobs[0].id)).id


@pytest.mark.parametrize("table", ["job", "body"])
async def test_a_start_without_what_was_put_there_is_refused_by_name(autojump_clock, table):
    async with open_lab(SMALL) as lab:
        for n in range(3):
            await over(lab, n)
        await lab.submit("script: x\n", key="f" * 16)
        await filed(lab)
        store, shelf = lab.scheduler.store, lab.disk.archive
        await shelf.check(store)
        lab.disk.sqlite.execute(f"DELETE FROM {table}")

        with pytest.raises(BadState, match=r"archive\.sqlite: .*appliance state repair"):
            await shelf.check(store)


async def test_a_start_that_would_give_numbers_again_is_refused(autojump_clock):
    async with open_lab() as lab:
        await lab.submit()
        await filed(lab)
        await lab.disk.archive.check(lab.scheduler.store)

        with pytest.raises(BadState, match=r"holds document 1, .* job 0 .* records are lost"):
            await lab.disk.archive.check(Store())


async def test_what_is_marked_while_it_is_archived_is_archived_as_it_is_then(
    autojump_clock, monkeypatch
):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(3)]
        take, marked = Archive.take, trio.Event()

        async def slow(self, over):
            await take(self, over)
            monkeypatch.undo()
            await lab.people.do("results-keep", {"job": jobs[0].id}, "ann", None)
            marked.set()

        monkeypatch.setattr(Archive, "take", slow)
        await filed(lab)
        await marked.wait()  # a thread looked whether its results are in their place
        await filed(lab)

        assert (2, True) == (
            lab.scheduler.store.archived, (await lab.scheduler.find(jobs[0].id)).kept,
        )  # fmt: skip


async def test_two_who_mark_an_archived_job_at_once_do_not_undo_each_other(autojump_clock):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(2)]
        await filed(lab)
        scheduler, name = lab.scheduler, jobs[0].id
        as_it_was = await scheduler.find(name)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(scheduler.mark, as_it_was, Kept(name, True, "ann", 1.0))
            nursery.start_soon(scheduler.mark, as_it_was, Lacking(name, 1, "quota", 2.0))
        found = await scheduler.find(name)

        assert found.kept
        assert {"results kept by ann", "upload refused: quota"} == {
            moment.what for moment in found.history[-2:]
        }


async def test_results_of_archived_jobs_are_kept_and_swept(autojump_clock):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(4)]
        await filed(lab)
        await lab.people.do("results-keep", {"job": jobs[0].id}, "ann", None)
        await trio.sleep(100)
        before, sweepable = lab.scheduler.clock.now() - 50, lab.scheduler.archive.sweepable
        rows = await sweepable(before)

        assert [job.id for job in jobs[1:3]] == [job.id for job in rows]
        (first,) = await sweepable(before, most=1)
        (second,) = await sweepable(before, (first.finished, first.number), most=1)
        assert [first, second] == rows
        assert [] == await sweepable(before, (second.finished, second.number), most=1)
        assert "results kept by ann" == (await lab.scheduler.find(jobs[0].id)).history[-1].what


async def test_a_sweep_reads_the_archive_in_batches_and_misses_nothing(autojump_clock, monkeypatch):
    monkeypatch.setattr(retention, "BATCH", 2)
    read = []
    sweepable = Archive.sweepable

    async def counted(*arguments):
        read.append(await sweepable(*arguments))
        return read[-1]

    monkeypatch.setattr(Archive, "sweepable", counted)
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(9)]
        await filed(lab)
        await trio.sleep(100)
        asked = {"older": 50.0, "dry_run": True}
        rows = (await lab.people.do("results-gc", asked, "root", None))["jobs"]

        assert sorted(job.id for job in jobs) == sorted(row["job"] for row in rows)
        assert 6 <= lab.scheduler.store.archived
        assert 2 == max(len(batch) for batch in read)


def test_a_foreign_or_newer_archive_is_refused(tmp_path):
    path = tmp_path / archive_file.NAME
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE x (y)")
    with pytest.raises(BadState, match="no archive of the appliance"):
        archive_file.connect(path)
    other.close()
    path.unlink()
    archive_file.connect(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 3")
    newer.close()
    with pytest.raises(BadState, match="version 3 is newer"):
        archive_file.connect(path)


def rows(lab, table):
    return lab.disk.sqlite.execute(f"SELECT count(*) FROM {table}").fetchone()[0]


@pytest.mark.parametrize("late", [True, False])  # a body is filed before jobs are archived
async def test_nothing_goes_to_the_archive_before_the_journal_has_it(autojump_clock, late):
    """Else a power loss would leave in it what never happened."""
    async with open_lab(SMALL) as lab, trio.open_nursery() as nursery:
        jobs = [await lab.submit(key=f"{n:016d}") for n in range(3)]
        await filed(lab)
        assert (3, 0) == (rows(lab, "body"), rows(lab, "job"))
        lab.disk.calls.broken = errno.EIO
        for job in jobs:
            nursery.start_soon(refused_or_not, lab, "cancel", {"job": job.id})
        if late:
            paper = {"name": "late.yaml", "text": "script: x\n"}
            asked = {"documents": [paper], "key": "f" * 16}
            nursery.start_soon(refused_or_not, lab, "submit", asked)
        await trio.sleep(100)
        assert {"finish"} == {lab.stage(job) for job in jobs}  # decided, and no more than that
        assert (3, 0) == (rows(lab, "body"), rows(lab, "job"))
        lab.disk.calls.broken = None
        await trio.sleep(100)

        assert 0 < rows(lab, "job")


async def refused_or_not(lab, verb, arguments):
    with contextlib.suppress(DiskTrouble, Unknown):
        await lab.people.do(verb, arguments, "ann", None)


async def test_who_waits_is_told_of_no_more_than_the_disk_knows_by_then(autojump_clock):
    async with open_lab() as lab, trio.open_nursery() as nursery:
        await lab.know()
        await (await lab.ask()).hang_up()
        await wait_all_tasks_blocked()
        job, append, told = await lab.submit(), lab.disk.append, []
        await filed(lab)
        store, waits, now = lab.scheduler.store, lab.config.waits, lab.scheduler.clock.now()
        offer = decisions.offers(store, [("box-1", job.id)], now, waits, lambda: "token")

        async def slow(name, data):
            await trio.sleep(1)
            await append(name, data)

        async def wait():
            told.append(await lab.scheduler.changes_of(job.id, 1))

        lab.disk.append = slow
        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        lab.scheduler.change([*offer])
        await trio.sleep(0.5)
        lab.scheduler.change([Moved(job.id, Fetch(now + 100), now)])  # while the first is written
        await trio.sleep(0.6)

        assert [["submit", "offered"]] == [[at.stage for at in job.history] for job in told]
        assert "boot" == lab.stage(job)


async def test_who_waits_for_a_job_is_told_once_the_disk_knows(autojump_clock):
    told = []

    async def event(what):
        told.append(what["stage"])
        await trio.lowlevel.checkpoint()

    async with open_lab() as lab, trio.open_nursery() as nursery:
        job = await lab.submit()
        nursery.start_soon(lab.people.do, "wait", {"job": job.id}, "ann", event)
        await trio.sleep(1)
        assert ["submit"] == told
        lab.disk.calls.broken = errno.EIO
        nursery.start_soon(refused_or_not, lab, "cancel", {"job": job.id})
        await trio.sleep(100)
        assert "finish" == lab.stage(job)
        assert ["submit"] == told
        lab.disk.calls.broken = None
        await trio.sleep(100)

        assert ["submit", "finish"] == told


def test_each_commit_of_the_archive_is_synced(tmp_path):
    with contextlib.closing(archive_file.connect(tmp_path / archive_file.NAME)) as connection:
        [mode] = connection.execute("PRAGMA journal_mode").fetchone()
        [synchronous] = connection.execute("PRAGMA synchronous").fetchone()

    assert ("wal", 2) == (mode, synchronous)  # 2: FULL (sqlite.org/pragma.html)


@pytest.mark.parametrize("old", [None, 0o644])
def test_only_the_owner_reads_the_archive_which_holds_secrets(tmp_path, old):
    path = tmp_path / archive_file.NAME
    if old is not None:
        path.touch(old)
    with contextlib.closing(archive_file.connect(path)) as connection:
        archive.file_bodies(connection, [(1, Body(secrets={"token": "x"}))])

        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()}
    assert {
        archive_file.NAME,
        f"{archive_file.NAME}-wal",
        f"{archive_file.NAME}-shm",
    } == modes.keys()
    assert {0o600} == set(modes.values())


async def test_a_row_with_a_flipped_bit_is_refused_when_it_is_asked_for(autojump_clock):
    async with open_lab(SMALL) as lab:
        jobs = [await over(lab, n) for n in range(3)]
        await filed(lab)
        shelf, number = lab.disk.archive, jobs[0].number
        for table, ask in [("job", shelf.job(jobs[0].id)), ("body", shelf.body(number))]:
            where = f"FROM {table} WHERE number = {number}"
            [data] = lab.disk.sqlite.execute(f"SELECT cbor {where}").fetchone()
            flipped = data[:-1] + bytes([data[-1] ^ 1])
            lab.disk.sqlite.execute(
                f"UPDATE {table} SET cbor = ? WHERE number = {number}", (flipped,)
            )
            with pytest.raises(BadState, match=f"number {number} is damaged"):
                await ask
