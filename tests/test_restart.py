"""No deadline ends a job because somebody moved the clock between two starts."""

from __future__ import annotations

import itertools

import pytest
import trio
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from appliance.jobs import restart
from appliance.jobs.changes import Clocked, Known, Missed, Seen
from appliance.jobs.job import Finished
from appliance.jobs.restart import GRACE_S
from appliance.jobs.store import Store
from appliance.keep.state import records
from appliance.scheduler.clock import Clock
from tests.disks import MemoryDisk as Disk
from tests.lab import KEY, open_lab
from tests.test_decisions import MAC, NOW, WAITS, Identity, facts

HOUR, DAY, YEAR = 3600.0, 86400.0, 365 * 86400.0
TO_1970 = -1_800_000_000.0  # no battery, no network yet
STEPS = [0.0, -60.0, HOUR, -HOUR, DAY, -DAY, YEAR, -YEAR, TO_1970]
RUN_S = 3600.0 + 450 + 60  # of a job that says nothing: its usual limit


def start(disk, wall=0.0, boot="one"):
    """A server that starts on `disk`, its clock `wall` seconds ahead."""
    return open_lab(disk=disk, restarted=True, wall=wall, boot=boot)


async def running(lab, seconds=0.0):
    """A job that has run for so long."""
    if "box-1" not in lab.scheduler.store.boxes:
        await lab.know()
    job = await lab.submit(key=f"{KEY}{len(lab.scheduler.store.jobs)}")
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    await lab.report(job, "job_state=running")
    await trio.sleep(seconds)
    return job


async def ends_at(lab, job):
    """When, in the clock of the test; and why."""
    seen = 0
    while not isinstance((state := lab.scheduler.store.job(job.id).state), Finished):
        seen = (await lab.scheduler.changes_of(job.id, seen)).moments
    return trio.current_time(), state.health


@pytest.mark.parametrize(("first", "second"), [*itertools.product(STEPS, STEPS)])
async def test_within_one_boot_a_job_has_its_time_to_the_second(autojump_clock, first, second):
    """The issue's own: a day back at one start, right at the next."""
    disk = Disk()
    async with start(disk) as lab:
        job = await running(lab, 1000)
    began = trio.current_time() - 1000
    async with start(disk, first):
        await trio.sleep(500)
    await trio.sleep(60)
    async with start(disk, second) as lab:
        await wait_all_tasks_blocked()
        assert "running" == lab.stage(job)
        end, health = await ends_at(lab, job)

    assert "timeout" == health
    assert RUN_S <= end - began < RUN_S + 2


@pytest.mark.parametrize("step", STEPS)
async def test_over_a_reboot_a_job_keeps_what_it_had_left(autojump_clock, step):
    """How long the machine was off nobody knows but its clock, and that may be wrong."""
    disk = Disk()
    async with start(disk) as lab:
        job = await running(lab, 1000)
        await lab.report(job, "loadavg=1")  # the last that the journal hears
        await lab.scheduler.durable()
    stopped = trio.current_time()
    async with start(disk, step, boot="two") as lab:
        end, health = await ends_at(lab, job)

    assert "timeout" == health
    assert RUN_S - 1000 - 2 < end - stopped < RUN_S - 1000 + 2


@pytest.mark.parametrize("step", STEPS)
async def test_a_job_that_is_seconds_old_is_not_ended_by_the_next_start(autojump_clock, step):
    disk = Disk()
    async with start(disk, step) as lab:
        job = await running(lab, 5)
    async with start(disk, boot="two") as lab:
        await trio.sleep(HOUR)
        assert "running" == lab.stage(job)


async def test_one_whose_time_was_over_meanwhile_may_still_say_how_it_went(autojump_clock):
    disk = Disk()
    async with start(disk) as lab:
        job = await running(lab)
    await trio.sleep(2 * HOUR)
    async with start(disk) as lab:
        await trio.sleep(GRACE_S - 1)
        assert "running" == lab.stage(job)
        await lab.report(job, "job_state=finished")
        await lab.report(job, "", "lkp-post-run")
        assert "success" == lab.scheduler.store.job(job.id).state.health


@pytest.mark.parametrize("step", [-YEAR, -DAY, DAY, YEAR])
async def test_a_back_off_lasts_as_long_as_it_would_have(autojump_clock, step):
    disk = Disk()
    async with start(disk) as lab:
        await lab.know()
        await lab.scheduler.durable(
            lab.scheduler.change([Missed("box-1", lab.scheduler.clock.now() + 300)])
        )
    async with start(disk, step) as lab:
        answer = await lab.ask()
        job = await lab.submit()
        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert 299 < trio.current_time() < 302


@pytest.mark.parametrize("step", [-YEAR, -DAY, DAY, YEAR])
async def test_a_box_that_a_person_keeps_is_kept_as_long_as_was_said(autojump_clock, step):
    disk = Disk()
    async with start(disk) as lab:
        await lab.know()
        until = lab.scheduler.clock.now() + 1000
        await lab.scheduler.reserve(lab.scheduler.store.box("box-1"), None, until, "root", "")
    async with start(disk, step):
        await trio.sleep(100)
    async with start(disk) as lab:
        answer = await lab.ask()
        job = await lab.submit()
        await trio.sleep(898)
        assert "submit" == lab.stage(job)
        assert f"/{job.id}/" in (await answer.rest()).decode()
        assert trio.current_time() < 1002


@pytest.mark.parametrize("boot", ["one", "two"])
async def test_a_box_that_was_there_before_the_clock_went_back_is_not_there_for_a_day(
    autojump_clock, boot
):
    disk = Disk()
    async with start(disk) as lab:
        await lab.know("box-2", "52:54:00:00:00:02")
        await (await lab.ask("/boot.ipxe/mac/52-54-00-00-00-02?arch=x86_64", "10.0.0.6")).hang_up()
        await wait_all_tasks_blocked()
        asked = lab.scheduler.store.box("box-2").asked
    async with start(disk, -DAY, boot) as lab:
        assert asked - DAY - 1 < lab.scheduler.store.box("box-2").asked < asked - DAY + 1


async def test_a_job_that_ran_for_hours_is_no_quick_failure_because_the_clock_went_back(
    autojump_clock,
):
    disk = Disk()
    async with start(disk) as lab:
        job = await running(lab, 2000)
    async with start(disk, -DAY) as lab:
        await lab.report(job, "job_state=failed")
        await lab.report(job, "", "lkp-post-run")
        assert () == lab.scheduler.store.box("box-1").quick


@pytest.mark.parametrize("boot", ["one", "two"])
@pytest.mark.parametrize("step", [-DAY, -61.0])
async def test_clocks_that_disagree_are_told_of(autojump_clock, step, boot):
    disk = Disk()
    async with start(disk) as lab:
        await running(lab)
    with capture_logs() as logs:
        async with start(disk, step, boot) as lab:
            wrong = (await lab.people.do("status", {}, "ann", None))["wrong"]

    [line] = [row for row in logs if row["event"] == "the clock was moved between two starts"]
    assert "warning" == line["log_level"]
    assert step - 1 <= line["seconds"] <= step + 1
    [said] = [text for text in wrong if "clock" in text]
    assert "back" in said


async def test_a_restart_with_a_clock_that_is_right_says_nothing(autojump_clock):
    disk = Disk()
    async with start(disk) as lab:
        await running(lab)
    await trio.sleep(1000)
    with capture_logs() as logs:
        async with start(disk) as lab:
            assert [] == (await lab.people.do("status", {}, "ann", None))["wrong"]
    assert [] == [row for row in logs if row["log_level"] == "warning"]


async def test_a_clock_that_is_moved_while_the_server_runs_is_told_of_as_well(autojump_clock):
    async with open_lab() as lab:
        now = lab.scheduler.clock.now()
        lab.scheduler.clock = Clock(trio.current_time(), now, wall=lambda: now + YEAR)
        [said] = (await lab.people.do("status", {}, "ann", None))["wrong"]

    assert "365 days" in said
    assert "restart" in said


def woken(at, boot="one", uptime=0.0, step=0.0):
    return Clocked(at, boot, uptime, step)


def test_a_state_of_before_clocks_were_written_down_gives_what_runs_its_stage():
    known = [Known(facts(), NOW), Seen("box-1", Identity(MAC, "10.0.0.5"), NOW)]
    store = Store()
    for change in known:
        store.apply(change)

    assert [woken(NOW + 5)] == restart.restarted(store, woken(NOW + 5), WAITS)


def test_what_the_clocks_said_survives_a_snapshot_and_equal_stores_are_equal_bytes():
    store = Store()
    store.apply(woken(NOW, "one", 77.0))
    store.apply(Known(facts(), NOW + 9))
    loading = records.Loading("snapshot")
    for payload in records.dump_image(records.image_of(store, 0)):
        loading.add(payload)
    again = loading.store()

    assert (store.clocked, store.moment) == (again.clocked, again.moment)
    assert (woken(NOW, "one", 77.0), NOW + 9) == (again.clocked, again.moment)
    assert records.dump_store(store) == records.dump_store(again)
