"""Results that have grown old: what a sweep removes, what it leaves, and what it says."""

from __future__ import annotations

import errno
import itertools
import os

import pytest
import trio

from appliance.errors import BadRequest, NoSpace, Refused
from appliance.keep import results
from tests.lab import config, open_lab
from tests.test_operator import do

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


@pytest.mark.parametrize(("step", "calls"), [("set_aside", 1), ("remove", 1), ("remove", 2)])
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


def test_nothing_outside_of_the_results_is_removed(tmp_path):
    (tmp_path / "result").mkdir()
    (tmp_path / "os").mkdir()
    (tmp_path / "result/out").symlink_to(tmp_path / "os")
    for root in ("result", "os", "result/../os", "result/out"):
        with pytest.raises(Refused):
            results.set_aside(tmp_path / root, tmp_path / "result")

    assert (tmp_path / "os").is_dir()
