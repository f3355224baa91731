"""A box that loses job after job rests, whatever it loses them by; one that runs them does not."""

from __future__ import annotations

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.jobs.changes import HISTORY_MAX
from appliance.jobs.job import Offered
from tests import lab as labs
from tests.disks import MemoryDisk
from tests.lab import KEY, PINNED, open_lab

QUEUED = 60
WATCHED_S = 1000.0
# It loses one for nothing, and then rests 30 s, twice as long each time: it is given jobs at 0, 0,
# 30, 90, 210, 450 and 930 s.
GIVEN_MAX = 7


async def hangs_up(lab):
    """The script is on its way, and nobody takes it."""
    await (await lab.ask()).hang_up()
    await wait_all_tasks_blocked()


async def asks_again_and_again(lab):
    """It is never told: it asks again as soon as it has asked."""
    answers = [await lab.ask() for _ in range(2)]
    for answer in answers:
        await answer.hang_up()


async def given(lab):
    """The job that it is told of, at last."""
    answer = await lab.ask()
    while True:
        await wait_all_tasks_blocked()
        held = [job for job in lab.scheduler.store.active() if isinstance(job.state, Offered)]
        if held:
            await answer.rest()
            return held[0]
        await trio.sleep(1)


async def fetches_nothing(lab):
    """It has a script, and asks again."""
    return await given(lab)


async def fetches_its_job(lab):
    """And no more."""
    job = await given(lab)
    await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")
    return job


async def fetches_everything(lab):
    """And does not boot it."""
    job = await given(lab)
    await lab.fetched_all(job)
    return job


async def runs_and_is_gone(lab):
    """It says that the job runs, and asks for the next one."""
    await lab.report(await fetches_everything(lab), "job_state=running")


async def has_run_at_once_and_is_gone(lab):
    """It says that a job's work is over which it never began, and asks for the next one."""
    await lab.report(await fetches_everything(lab), "job_state=post_run")


async def has_run_what_it_never_fetched(lab):
    """The same, of a script that it never booted."""
    await lab.report(await given(lab), "job_state=post_run")


async def says_too_much_to_remember(lab):
    """So much that the moment at which the job began has no room in its history."""
    job = await fetches_everything(lab)
    await lab.report(job, "job_state=running")
    for n in range(HISTORY_MAX):
        await lab.report(job, f"job_stage=on_{n % 2}", "set-job-stage")


async def closes_what_it_never_ran(lab):
    """It is done before it has begun."""
    await lab.report(await given(lab), "", "lkp-post-run")


async def says_failed_before_it_ran(lab):
    """A verdict, and no run."""
    await lab.report(await given(lab), "job_state=failed")


async def passes_what_it_never_fetched(lab):
    """Three words, and a job is over that nobody ran."""
    job = await given(lab)
    await lab.report(job, "job_state=running")
    await lab.report(job, "", "lkp-post-run")


async def passes_with_its_job_alone(lab):
    """It has job.cgz, and nothing to run it with."""
    job = await fetches_its_job(lab)
    await lab.report(job, "job_state=running")
    await lab.report(job, "job_state=finished")


async def fails_what_it_never_fetched(lab):
    """A verdict, of whatever word."""
    job = await given(lab)
    await lab.report(job, "job_state=running")
    await lab.report(job, "job_state=failed")


async def gives_back_what_it_never_fetched(lab):
    """As a borrower does, or whoever cancels."""
    job = await given(lab)
    await lab.report(job, "job_state=post_run")
    await lab.report(job, "job_health=cancel", "lkp-post-run")


async def misses_a_file(lab):
    """The file is gone indeed, and is there again when the next job is looked at."""
    await given(lab)
    lab.fetches.missing("10.0.0.5", PINNED.kernel, labs.SCHEDULER[0])


AT_ONCE = [fetches_nothing, fetches_its_job, says_failed_before_it_ran]  # it rests from the first
LATER = [
    hangs_up, asks_again_and_again, fetches_everything, runs_and_is_gone,
    has_run_at_once_and_is_gone, has_run_what_it_never_fetched, says_too_much_to_remember,
    closes_what_it_never_ran, passes_what_it_never_fetched, passes_with_its_job_alone,
    fails_what_it_never_fetched, gives_back_what_it_never_fetched, misses_a_file,
]  # fmt: skip


def named(loses):
    return loses.__name__


async def goes_on(lab, loses):
    while True:
        await loses(lab)
        await trio.sleep(5)


def all_given(lab):
    return sum(len(job.attempts) for job in lab.scheduler.store.jobs.values())


@pytest.mark.parametrize("loses", [*AT_ONCE, *LATER], ids=named)
async def test_a_box_that_loses_job_after_job_does_not_eat_the_queue(autojump_clock, loses):
    async with open_lab() as lab:
        await lab.know()
        for n in range(QUEUED):
            await lab.submit(key=f"{KEY}{n:03}")
        with trio.move_on_after(WATCHED_S):
            await goes_on(lab, loses)

        assert 2 <= all_given(lab) <= GIVEN_MAX


@pytest.mark.parametrize("loses", LATER, ids=named)
async def test_once_is_no_habit_and_the_next_job_comes_at_once(autojump_clock, loses):
    """A plug was pulled, a kernel panicked."""
    async with open_lab() as lab:
        await lab.know()
        await lab.submit()
        if loses is asks_again_and_again:
            loses = hangs_up
        await loses(lab)
        assert all_given(lab)
        await lab.submit(key="another0")
        began = trio.current_time()
        await (await lab.ask()).rest()

        assert began == trio.current_time()


async def lives(lab, job, seconds):
    await lab.report(job, "job_state=running")
    await trio.sleep(seconds)
    await lab.report(job, "job_state=finished")
    await lab.report(job, "", "lkp-post-run")


async def test_a_box_that_ends_its_jobs_never_waits_for_the_next(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        began = trio.current_time()
        for n in range(QUEUED):
            await lab.submit(key=f"{KEY}{n:03}")
            await lives(lab, await fetches_everything(lab), 1)

        assert began + QUEUED == trio.current_time()


async def test_jobs_that_crash_it_after_a_while_do_not_make_it_wait(autojump_clock):
    """Which is what some jobs are for."""
    async with open_lab() as lab:
        await lab.know()
        for n in range(5):
            await lab.submit(key=f"{KEY}{n:03}")
            began = trio.current_time()
            await runs_and_is_gone(lab)
            assert began == trio.current_time()
            await trio.sleep(600)


async def test_a_job_that_ends_on_the_box_ends_the_row(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        for n in range(8):
            await lab.submit("script: x\nretry: true\n", key=f"{KEY}{n:03}")
        with trio.move_on_after(WATCHED_S):
            await goes_on(lab, runs_and_is_gone)
        assert lab.scheduler.store.box("box-1").misses > 2
        await trio.sleep(600)
        await lives(lab, await fetches_everything(lab), 1)

        assert 0 == lab.scheduler.store.box("box-1").misses
        began = trio.current_time()
        await runs_and_is_gone(lab)
        await given(lab)
        assert began == trio.current_time()


async def test_who_has_run_for_a_minute_has_run_whatever_was_fetched(autojump_clock):
    """From a cache that asks nobody, say."""
    async with open_lab() as lab:
        await lab.know()
        began = trio.current_time()
        for n in range(4):
            await lab.submit(key=f"{KEY}{n:03}")
            await lives(lab, await given(lab), 60)

        assert began + 4 * 60 == trio.current_time()


async def test_a_kernel_from_elsewhere_is_not_ours_to_serve(autojump_clock):
    """What the document's own server gives, nobody here sees."""
    async with open_lab() as lab:
        await lab.know()
        began = trio.current_time()
        for n in range(4):
            await lab.submit("script: x\nkernel_uri: http://10.9.9.9/mine\n", key=f"{KEY}{n:03}")
            job = await given(lab)
            await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")
            await lab.get("/runner.cgz")
            for path in PINNED.initrds:
                lab.fetches.done("10.0.0.5", path, 1000, 1.0)
            await wait_all_tasks_blocked()
            await lives(lab, job, 1)

        assert began + 4 == trio.current_time()


async def test_a_box_whose_fetches_a_restart_may_have_forgotten_is_not_blamed(autojump_clock):
    """It was killed before the disk knew what had been fetched."""
    disk = MemoryDisk()
    async with open_lab(disk=disk) as lab:
        await lab.know()
        await lab.submit()
        job = await fetches_its_job(lab)
        await trio.sleep(1)
    async with open_lab(disk=disk, restarted=True) as lab:
        await lives(lab, job, 1)
        await lab.ask()

        assert 0 == lab.scheduler.store.box("box-1").misses


OWN = "script: x\nkernel_uri: http://10.9.9.9/mine\n"


async def does_not_boot_it(lab):
    """It has all that we serve of a job with a kernel from elsewhere."""
    job = await given(lab)
    await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")
    await lab.get("/runner.cgz")
    for path in PINNED.initrds:
        lab.fetches.done("10.0.0.5", path, 1000, 1.0)
    await wait_all_tasks_blocked()
    return job


async def panics_at_once(lab):
    """The same, and it says that it runs."""
    await lab.report(await does_not_boot_it(lab), "job_state=running")


@pytest.mark.parametrize("loses", [does_not_boot_it, panics_at_once], ids=named)
async def test_a_developers_own_kernels_never_idle_a_box_for_long(autojump_clock, loses):
    """One after the other does not boot, and the next may."""
    async with open_lab() as lab:
        await lab.know()
        for n in range(9):
            await lab.submit(OWN, key=f"{KEY}{n:03}")
        moments = []
        for _ in range(8):
            await loses(lab)
            moments.append(trio.current_time())
        await lives(lab, await does_not_boot_it(lab), 1)

        assert [0, 0, 30, 60, 90, 120, 150, 180] == [round(at) for at in moments]
        assert 0 == lab.scheduler.store.box("box-1").misses


async def test_a_kernel_of_ones_own_that_does_not_boot_costs_others_nothing(autojump_clock):
    """What somebody else loses next begins a row that is no longer for it."""
    async with open_lab() as lab:
        await lab.know()
        for n in range(6):
            await lab.submit(OWN, key=f"{KEY}{n:03}")
        for _ in range(6):
            await does_not_boot_it(lab)
        await lab.submit(user="bob", key="another0")
        await fetches_everything(lab)
        began = trio.current_time()
        await lab.submit(user="bob", key="another1")
        await given(lab)

        assert 30 == round(trio.current_time() - began)


async def test_own_kernels_of_several_people_lost_in_a_row_are_the_boxs_fault(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        for n in range(QUEUED):
            await lab.submit(OWN, user="ann" if n % 2 else "bob", key=f"{KEY}{n:03}")
        with trio.move_on_after(WATCHED_S):
            await goes_on(lab, does_not_boot_it)

        assert 2 <= all_given(lab) <= GIVEN_MAX


async def test_a_bad_box_takes_no_more_than_two_jobs_a_minute_from_a_developer(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        for n in range(QUEUED):
            await lab.submit(OWN, key=f"{KEY}{n:03}")
        with trio.move_on_after(WATCHED_S):
            await goes_on(lab, does_not_boot_it)

        assert all_given(lab) <= 2 + WATCHED_S / 30


async def test_a_kernel_from_elsewhere_gets_no_second_boot_either(autojump_clock):
    """We gave all that was ours to give, and it did not boot."""
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit(OWN)
        await does_not_boot_it(lab)
        assert lab.scheduler.store.job(job.id).state.loaded
        await (await lab.ask()).hang_up()
        state = lab.scheduler.store.job(job.id).state

        assert "boot_failed" == state.health
        assert "its own kernel did not boot" in state.reason
