"""lab/story: who looks at the demo is told what it waits for while nothing moves."""

from __future__ import annotations

import pytest

from lab import story as stories
from lab.patience import Clock, Spent, TooLate
from lab.story import BOX, QUIET_S, STAGE_S, WAITS, Story

USERLAND = "Welcome to Debian GNU/Linux 12 (bookworm)!"


class Told:
    """A story on a machine where a box gets half of the time."""

    def __init__(self, capsys, **more):
        self.wall, self.capsys = 0.0, capsys
        self.clock = Clock("its own time")
        self.story = Story(now=lambda: self.wall, clock=self.clock, **more)

    def pass_by(self, seconds):
        """Looks on for that long, as the demo does."""
        for _ in range(seconds):
            self.wall += 1
            self.clock.spent = Spent(self.wall / 2, 0.0, self.wall)
            self.story.look()

    def lines(self):
        return [" ".join(line.split()) for line in self.capsys.readouterr().out.splitlines()]


@pytest.fixture
def told(capsys):
    return Told(capsys)


def test_while_nothing_moves_it_says_what_is_waited_for_and_how_long_that_usually_is(told):
    told.story.watch(BOX, USERLAND)
    told.pass_by(82)
    told.story.tell("job", "lab.1 running on box-1", stage="job running")

    said = told.lines()
    assert "0:00 userland Debian GNU/Linux 12 (bookworm)" == said[0]
    assert (
        "1:20 waiting for the job to run: 40 s of its own time since 'userland', usually 27"
        == (said[-2])
    )
    assert 82 // QUIET_S == sum(" waiting " in line for line in said)


def test_what_moves_is_not_talked_over(told):
    for second in range(30):
        told.story.tell("file", f"number {second}")
        told.pass_by(int(QUIET_S) - 1)

    assert not any("waiting" in line for line in told.lines())


def test_a_wait_is_measured_from_the_stage_before_it(told):
    told.pass_by(9)
    told.story.watch(BOX, "Linux version 6.1.0")
    told.story.tell("file", "vmlinuz, which is told late")
    told.pass_by(10)

    assert told.lines()[-1].endswith(
        "waiting for the root filesystem: 5 s of its own time since 'kernel', usually 12"
    )


def test_a_box_that_is_not_emulated_is_not_compared_with_one_that_is(capsys):
    told = Told(capsys, usual=False)
    told.story.watch(BOX, USERLAND)
    told.pass_by(10)

    assert told.lines()[-1].endswith("5 s of its own time since 'userland'")


def test_a_stage_that_does_not_come_ends_the_demo_by_the_boxes_own_time(capsys):
    told = Told(capsys, serial=[f"line {number}" for number in range(99)])
    told.story.watch(BOX, USERLAND)
    told.pass_by(2 * int(STAGE_S))
    with pytest.raises(TooLate) as caught:
        told.pass_by(1)

    line, *tail = str(caught.value).splitlines()
    assert (
        "waited for the job to run: 300 s of box-1's own time since 'userland'"
        " (300 s of CPU time, 0 s asleep), 300 allowed; 601 s of wall; the serial line ends with"
    ) == line
    assert "    line 98" == tail[-1]
    assert stories.TAIL_LINES == len(tail)


def test_no_stage_usually_takes_long_enough_to_be_ended_on_a_slower_machine():
    assert STAGE_S >= 10 * max(wait.usual_s for wait in WAITS)


def test_each_wait_begins_with_something_that_is_told():
    told = {what for _, _, what, _ in stories._STAGES}
    jobs = {
        f"job {stage}" for stage in ["submit", "offered", "boot", "running", "post_run", "finish"]
    }

    assert told | jobs | {"power on"} == {wait.since for wait in WAITS}
