"""lab/patience: a deadline counts what a box was given, whatever else the machine does."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest
import trio
from trio.lowlevel import open_process

from lab import patience
from lab.patience import Clock, Look, Spent, TooLate

# As in proc_pid_stat(5), of a program with an awkward name: 1,250 + 350 ticks of CPU time.
STAT = "7 (qemu) R 1) S 1 7 7 0 -1 4194560 99 0 0 0 1250 350 0 0 20 0 4 0 12345 999 99\n"
TWO_PROCESSORS = """\
cpu  100 0 100 800 0 0 0 0 0 0
cpu0 50 0 50 400 0 0 0 0 0 0
cpu1 50 0 50 400 0 0 0 0 0 0
intr 5 0 1
ctxt 12
btime 1790000000
processes 99
procs_running {running}
procs_blocked {blocked}
"""
HALF = Spent(cpu_s=1.0, asleep_s=2.0, wall_s=8.0)


class Kernel:
    """A box that computes, sleeps or stands in line, as the test says."""

    def __init__(self, gets=0.0, wants_cpu=False, share=1.0):
        self.gets, self.wants_cpu, self.share = gets, wants_cpu, share

    def look(self):
        return Look(trio.current_time() * self.gets, self.wants_cpu, self.share)


@pytest.fixture
def clock():
    return Clock("box's own time")


async def late(clock, kernel, nursery, allowed_s):
    """When the limit is reached, and what is said."""
    nursery.start_soon(clock.run, kernel.look)
    began = trio.current_time()
    with pytest.raises(TooLate) as caught, clock.limit("userland", allowed_s):
        await trio.sleep_forever()
    return trio.current_time() - began, str(caught.value)


@pytest.mark.parametrize(
    ("running", "blocked", "share"), [(1, 0, 1.0), (3, 0, 1.0), (5, 0, 0.5), (5, 4, 0.25)]
)
def test_programs_share_the_processors_and_who_asks_does_not_count(running, blocked, share):
    assert share == patience.share(TWO_PROCESSORS.format(running=running, blocked=blocked))


def test_the_cpu_time_and_the_state_are_found_behind_any_name():
    assert 1600 / os.sysconf("SC_CLK_TCK") == patience.cpu_time(STAT)
    assert "S" == patience.state(STAT)


def test_what_a_box_computed_counts_and_where_it_stood_in_line_does_not():
    before, now = Look(cpu_s=10.0), Look(cpu_s=10.25, wants_cpu=True, share=0.25)

    assert Spent(1.25, 2.0, 9.0) == patience.after(HALF, before, now, 1.0)


def test_what_a_box_slept_counts_by_the_share_that_those_have_for_whom_it_waits():
    before, now = Look(cpu_s=10.0), Look(cpu_s=10.0, share=0.25)

    assert Spent(1.0, 2.25, 9.0) == patience.after(HALF, before, now, 1.0)


def test_a_process_that_is_another_one_since_the_last_look_takes_nothing_back():
    assert 1.0 == patience.after(HALF, Look(cpu_s=10.0), Look(cpu_s=0.0), 1.0).cpu_s


async def test_on_a_machine_of_its_own_a_box_has_as_long_as_the_wall_says(
    clock, nursery, autojump_clock
):
    seconds, said = await late(clock, Kernel(gets=0.75), nursery, 90)

    assert 90 == pytest.approx(seconds, abs=2 * patience.LOOK_S)
    assert said.startswith("waited for userland: 90 s of box's own time, 90 allowed (68 s of CPU ")


async def test_a_box_that_has_a_quarter_of_a_processor_has_four_times_as_long(
    clock, nursery, autojump_clock
):
    kernel = Kernel(gets=0.25, wants_cpu=True, share=0.25)
    seconds, said = await late(clock, kernel, nursery, 90)

    assert 4 * 90 == pytest.approx(seconds, abs=4 * patience.LOOK_S)
    assert said == (
        "waited for userland: 90 s of box's own time, 90 allowed"
        f" (90 s of CPU time, 0 s asleep); {seconds:.0f} s of wall"
    )


async def test_a_box_that_sleeps_for_ever_is_found_on_a_busy_machine_too(
    clock, nursery, autojump_clock
):
    seconds, said = await late(clock, Kernel(share=0.25), nursery, 90)

    assert 4 * 90 == pytest.approx(seconds, abs=4 * patience.LOOK_S)
    assert (
        said == f"waited for userland: 90 s of box's own time, 90 allowed; {seconds:.0f} s of wall"
    )


async def test_who_is_given_nothing_at_all_waits_for_an_hour(clock, nursery, autojump_clock):
    seconds, said = await late(clock, Kernel(wants_cpu=True), nursery, 90)

    assert 3600 == pytest.approx(seconds, abs=2 * patience.LOOK_S)
    assert "0 s of box's own time, 90 allowed; 360" in said


async def test_a_limit_counts_from_its_begin_and_ends_with_its_block(
    clock, nursery, autojump_clock
):
    nursery.start_soon(clock.run, Kernel().look)
    await trio.sleep(1000)
    with clock.limit("the first", 10):
        await trio.sleep(9)
    with clock.limit("the second", 10):
        await trio.sleep(9)
    await trio.sleep(1000)


async def test_the_inner_of_two_limits_says_what_was_waited_for(clock, nursery, autojump_clock):
    nursery.start_soon(clock.run, Kernel().look)
    job, kernel = clock.limit("the job", 50), clock.limit("the kernel", 10)

    with pytest.raises(TooLate, match="waited for the kernel: "), job, kernel:
        await trio.sleep_forever()


async def test_it_counts_as_long_as_the_power_is_on(clock, autojump_clock):
    on = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(clock.run, Kernel().look, lambda: on)
        await trio.sleep(20)
        on = False
    assert 20 == pytest.approx(clock.spent.wall_s, abs=2 * patience.LOOK_S)


def test_a_process_that_has_ended_sleeps():
    child = subprocess.Popen(["true"])
    child.wait()

    found = patience.look_at(child.pid)
    assert (0.0, False) == (found.cpu_s, found.wants_cpu)


SPINS = "while True: pass"


@pytest.mark.slow
async def test_a_real_process_among_others_has_had_the_cpu_time_that_it_got():
    """Two for each processor: each can be given half of one at the most."""
    command = [sys.executable, "-c", SPINS]
    spinners = [await open_process(command) for _ in range(2 * (os.cpu_count() or 1))]
    clock = Clock("its own time")
    try:
        with trio.move_on_after(6):
            await clock.run(lambda: patience.look_at(spinners[0].pid))
    finally:
        for spinner in spinners:
            spinner.kill()
            await spinner.wait()

    assert 0 < clock.spent.cpu_s < 0.75 * clock.spent.wall_s
    assert clock.spent.own_s == pytest.approx(clock.spent.cpu_s, abs=2 * patience.LOOK_S)


@pytest.mark.slow
async def test_a_real_process_that_sleeps_has_all_the_time_there_is_for_one():
    clock, began = Clock("its own time"), time.monotonic()
    sleeper = await open_process(["sleep", "100"])
    try:
        with trio.move_on_after(3):
            await clock.run(lambda: patience.look_at(sleeper.pid))
    finally:
        sleeper.kill()
        await sleeper.wait()

    assert clock.spent.cpu_s < 0.1
    assert 0 < clock.spent.asleep_s <= time.monotonic() - began
