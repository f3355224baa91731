"""Results that have grown old: what a sweep removes, what it leaves, and what it says."""

from __future__ import annotations

import errno
import itertools
import os
from functools import partial

import attrs
import pytest
import structlog
import trio

from appliance.config import Limits, Waits
from appliance.control import retention
from appliance.errors import BadRequest, DiskTrouble, NoSpace, Refused, Unknown
from appliance.keep import results
from tests.lab import config, open_lab
from tests.test_operator import do
from tests.test_uploads import send

DAY = 86400.0


async def over(lab, key, user="ann"):
    """A job that is cancelled, with a file in its result root."""
    job = await lab.submit(user=user, key=key)
    await do(lab, "cancel", job=job.id)
    root = lab.config.paths.srv / job.result_root[1:]
    root.mkdir(parents=True)
    (root / "attempt-2").mkdir()
    (root / "attempt-2/stdout").write_bytes(b"x" * 100)
    (root / "link").symlink_to(lab.config.paths.srv)
    return job, root


async def swept(lab, **more):
    return [row["job"] for row in (await do(lab, "results-gc", older=DAY, **more))["jobs"]]


@pytest.mark.parametrize("dry_run", [True, False])
async def test_what_is_old_goes_and_what_is_kept_or_new_or_not_over_stays(tmp_path, dry_run):
    async with open_lab(config(tmp_path)) as lab:
        waits = await lab.submit(key="waiting01")
        old, gone = await over(lab, "firstkey")
        kept, stays = await over(lab, "secondkey")
        await do(lab, "results-keep", "ann", job=kept.id)
        clock = lab.scheduler.clock.started_utc
        object.__setattr__(lab.scheduler.clock, "started_utc", clock + 2 * DAY)  # two days pass
        _, new = await over(lab, "thirdkey")

        assert [old.id] == await swept(lab, dry_run=dry_run)
        assert [dry_run, True, True] == [gone.exists(), stays.exists(), new.exists()]
        assert ([old.id] if dry_run else []) == await swept(lab, dry_run=dry_run)
        assert lab.scheduler.store.job(waits.id).swept is None
        history = lab.scheduler.store.job(old.id).history[-1].what
        assert ("results removed" == history) is not dry_run


async def test_what_is_kept_no_longer_goes(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        job, root = await over(lab, "firstkey")
        await do(lab, "results-keep", job=job.id)
        assert [] == (await do(lab, "results-gc", older=0.0))["jobs"]
        await do(lab, "results-keep", "ann", job=job.id, on=False)
        await trio.sleep(0.001)
        (row,) = (await do(lab, "results-gc", older=0.0))["jobs"]

        assert (job.id, 100) == (row["job"], row["bytes"])
        assert not root.exists()
        assert lab.config.paths.srv.exists()  # a link is removed, not followed
        with pytest.raises(Refused, match="removed already"):
            await do(lab, "results-keep", job=job.id)


async def test_who_may_not_and_what_makes_no_sense_is_refused(autojump_clock):
    async with open_lab() as lab:
        job = await lab.submit()
        with pytest.raises(Refused, match="only ann or root"):
            await do(lab, "results-keep", "bob", job=job.id)
        with pytest.raises(Refused, match="is not over"):
            await do(lab, "results-keep", "ann", job=job.id)
        with pytest.raises(Refused, match="only root"):
            await do(lab, "results-gc", "ann", older=1.0)
        for older in (-1.0, float("nan")):
            with pytest.raises(BadRequest, match="older"):
                await do(lab, "results-gc", older=older)


@pytest.mark.parametrize(("step", "calls"), [("set_aside", 1), ("remove", 1)])
async def test_what_a_bad_disk_left_goes_with_the_next_sweep(tmp_path, monkeypatch, step, calls):
    real, made = getattr(results, step), itertools.count(1)

    def refuse(*arguments):
        if next(made) == calls:
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(*arguments)

    async with open_lab(config(tmp_path)) as lab:
        job, root = await over(lab, "firstkey")
        await trio.sleep(0.001)
        folder = lab.config.paths.srv / "result"
        with monkeypatch.context() as broken:
            broken.setattr(results, step, refuse)
            with pytest.raises(NoSpace, match="Read-only file system"):
                await do(lab, "results-gc", older=0.0)
        assert [] != results.listing(folder)
        await do(lab, "results-gc", older=0.0)

        assert [] == results.listing(folder)
        assert not root.exists()
        assert lab.scheduler.store.job(job.id).swept is not None


async def stopped_before_the_mark(lab, monkeypatch, error):
    """A sweep that ends with `error` where it should have marked a job."""

    async def refuse(job, change):
        raise error

    with monkeypatch.context() as broken:
        broken.setattr(lab.scheduler, "mark", refuse)
        with pytest.raises(type(error)):
            await do(lab, "results-gc", older=0.0)


@pytest.mark.parametrize("error", [DiskTrouble("full"), KeyboardInterrupt()])
async def test_a_job_that_is_kept_after_half_a_sweep_has_its_results(tmp_path, monkeypatch, error):
    async with open_lab(config(tmp_path)) as lab:
        job, root = await over(lab, "firstkey")
        await trio.sleep(0.001)
        before = results.listing(root)
        await stopped_before_the_mark(lab, monkeypatch, error)
        assert (before == results.listing(root)) is isinstance(error, DiskTrouble)
        await do(lab, "results-keep", "ann", job=job.id)
        assert before == results.listing(root)
        assert [] == (await do(lab, "results-gc", older=0.0))["jobs"]

        assert before == results.listing(root)


async def test_half_a_sweep_is_undone_by_the_next_that_does_not_want_the_job(tmp_path, monkeypatch):
    async with open_lab(config(tmp_path)) as lab:
        _, root = await over(lab, "firstkey")
        await trio.sleep(0.001)
        before = results.listing(root)
        await stopped_before_the_mark(lab, monkeypatch, KeyboardInterrupt())
        unclaimed = lab.config.paths.srv / "result" / results.ASIDE / "lab.99"
        unclaimed.mkdir()
        root.mkdir(parents=True)  # a late upload
        (root / "late").write_bytes(b"late")
        assert [] == await swept(lab)

        assert set(before) < set(results.listing(root))
        assert {"attempt-2/stdout", "late"} == {path for path, _, _ in results.listing(root)}
        assert (root / "link").is_symlink()
        assert [unclaimed] == results.set_apart(lab.config.paths.srv / "result")


def test_what_goes_back_to_its_place_leaves_what_was_uploaded_since(tmp_path):
    root = tmp_path / "a/lab.1"
    for name in ("old", "both", "folder/x"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("before")
    aside = results.set_aside(root, tmp_path)
    (root / "folder").mkdir(parents=True)
    (root / "both").write_text("since")
    for _ in range(2):
        results.put_back(aside, root)

    assert ["both", "folder/x", "old"] == [path for path, _, _ in results.listing(root)]
    assert ("since", "before") == ((root / "both").read_text(), (root / "old").read_text())
    assert not aside.exists()


async def test_a_job_that_is_kept_while_a_sweep_removes_another_stays(tmp_path, monkeypatch):
    async with open_lab(config(tmp_path)) as lab:
        first, _ = await over(lab, "firstkey")
        second, root = await over(lab, "secondkey")
        await trio.sleep(0.001)
        remove = results.remove

        def slow(folder):
            if folder.name == first.id:
                trio.from_thread.run(lambda: do(lab, "results-keep", job=second.id))
            return remove(folder)

        monkeypatch.setattr(results, "remove", slow)
        rows = (await do(lab, "results-gc", older=0.0))["jobs"]

        assert [first.id] == [row["job"] for row in rows]
        assert root.exists()


async def test_a_disk_that_is_stuck_is_told_to_all_who_keep_and_sweep(tmp_path):
    async with open_lab(config(tmp_path, waits=Waits(answer=0.1))) as lab:
        jobs = [await over(lab, key) for key in ("firstkey", "secondkey", "thirdkey")]
        await trio.sleep(0.001)
        lab.disk.calls.broken = errno.EIO
        for job, _ in jobs[:2]:
            for _ in range(2):  # said again it is no surer
                with trio.fail_after(5), pytest.raises(Unknown):
                    await do(lab, "results-keep", job=job.id)
        for _ in range(2):
            with trio.fail_after(5), pytest.raises(Unknown):
                await do(lab, "results-gc", older=0.0)

        folder = lab.config.paths.srv / "result"
        assert [100] * 3 == [size for path, size, _ in results.listing(folder)]  # none is gone


async def test_who_waits_too_long_for_anothers_turn_is_told_that_nothing_was_done(
    tmp_path, monkeypatch
):
    async with open_lab(config(tmp_path, waits=Waits(answer=0.1))) as lab:
        job, _ = await over(lab, "firstkey")
        set_aside, token = results.set_aside, trio.lowlevel.current_trio_token()

        def slow(root, below):
            asked = partial(do, lab, "results-keep", job=job.id)
            with pytest.raises(DiskTrouble, match="nothing done"):
                trio.from_thread.run(asked, trio_token=token)  # by another task

            return set_aside(root, below)

        monkeypatch.setattr(results, "set_aside", slow)
        await trio.sleep(0.001)
        assert [job.id] == [row["job"] for row in (await do(lab, "results-gc", older=0.0))["jobs"]]


def test_nothing_outside_of_the_results_is_removed(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "os").mkdir()
    (tmp_path / "result/out").symlink_to(tmp_path / "os")
    for root in ("result", "os", "result/../os", "result/out"):
        with pytest.raises(Refused):
            results.set_aside(tmp_path / root, tmp_path / "result")

    assert (tmp_path / "os").is_dir()


def part(root, run, size):
    """An upload that this run of a server was killed in."""
    root.mkdir(parents=True, exist_ok=True)
    path = root / f".appliance-part-{run}-0123456789abcdef"
    path.write_bytes(b"x" * size)
    return path


async def attempted(lab, key):
    """A job that runs, and its result root."""
    await lab.know()
    job = await lab.submit(key=key)
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    return job, lab.config.paths.srv / job.result_root[1:]


async def test_a_start_removes_what_a_killed_server_left_half_written(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        _, root = await attempted(lab, "firstkey")
        left = [part(root, "deadbeef", 100), part(root / "a/b", "deadbeef", 20)]
        async with results.Upload(root / "mine") as upload:
            await upload.write(b"half of it")
            with structlog.testing.capture_logs() as lines:
                await retention.tidy(lab.scheduler)
            await upload.finish()

        assert [False, False] == [path.exists() for path in left]
        assert b"half of it" == (root / "mine").read_bytes()
        assert [("half-written results removed", 2, 120)] == [
            (line["event"], line["files"], line["bytes"]) for line in lines
        ]
        with structlog.testing.capture_logs() as lines:
            await retention.tidy(lab.scheduler)
        assert [] == lines


async def test_the_first_sweep_removes_them_everywhere_and_a_dry_run_none(tmp_path):
    async with open_lab(config(tmp_path)) as lab:
        left = part(lab.config.paths.srv / "result/old/2026-01-01/x/y/z/lab.77", "deadbeef", 100)
        await swept(lab, dry_run=True)
        assert left.exists()
        await swept(lab)
        assert not left.exists()


async def test_until_then_they_count_as_results_of_their_attempt(tmp_path):
    limits = Limits(upload_attempt_bytes=150)
    async with open_lab(attrs.evolve(config(tmp_path), limits=limits)) as lab:
        job, root = await attempted(lab, "firstkey")
        part(root, "deadbeef", 100)
        put = await send(lab, "PUT", f"{job.result_root}/much", b"x" * 60, cookie=job.id)

        assert 507 == put.status
        assert not (root / "much").exists()
