"""tests/scenery.py: a scene that fails takes its own tests along, and says why in one line."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import attrs
import pytest
import trio

from lab.patience import TooLate
from tests import scenery
from tests.scenery import Failure, Kept, Reached

LATE = "waited for the line 'No job now': 601 s of box's own time, 600 allowed"


@attrs.define
class Scenes:
    good: str = "what the good one left"
    bad: str = ""


@attrs.define
class Boxes:
    parked: list = attrs.field(factory=list)
    ran: str | None = None


@attrs.define
class Life:
    installed: int | None = None
    boxes: Boxes = attrs.field(factory=Boxes)
    removed: int | None = None


def told(asks):
    """What the test is failed with."""
    with pytest.raises(pytest.fail.Exception) as caught:
        asks()
    return str(caught.value).splitlines()


async def nothing_is_wrong():
    pass


async def the_box_is_late():
    """As scenes fail: somewhere in nurseries, with other tasks that are cancelled for it."""

    async def other():
        try:
            await trio.sleep_forever()
        except trio.Cancelled as error:
            scenery.add_tail(error, "a box that was well", ["all is well"])
            raise

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        try:
            await trio.lowlevel.checkpoint()
            raise TooLate(LATE)
        except TooLate as error:
            scenery.add_tail(error, "the serial log of box", map(str, range(50)))
            raise


async def played():
    works = {"good": nothing_is_wrong, "bad": the_box_is_late}
    return Kept(Scenes(), {name: await scenery.play(name, work) for name, work in works.items()})


async def test_a_scene_that_fails_leaves_the_evidence_of_the_others():
    kept = await played()

    assert "what the good one left" == kept.good
    assert told(lambda: kept.bad)


async def test_the_first_test_is_told_how_the_log_ends_and_the_others_one_line():
    kept = await played()
    line = f"the scene 'bad': {LATE}"
    tail = [f"      {number}" for number in range(38, 50)]

    assert [line, "    the end of the serial log of box:", *tail] == told(lambda: kept.bad)
    assert [line] == told(lambda: kept.bad)


def test_a_mistake_in_a_scene_is_told_with_its_place():
    try:
        assert 1 == len("two"), "the log\nhas none"
    except AssertionError as error:
        failure = Failure.of("ran", error)

    assert failure.line.startswith("AssertionError: the log (test_scenery.py:")


def test_a_scene_that_says_a_lot_is_cut_short():
    failure = Failure.of("ran", TooLate("\n".join(["x" * 5000] * 5000)))

    assert scenery.LINE_CHARACTERS_MAX == len(failure.line)
    assert scenery.LOG_LINES_MAX == len(failure.logs)
    assert scenery.LINE_CHARACTERS_MAX == max(map(len, failure.logs))


async def test_a_scene_that_nothing_ends_is_ended(autojump_clock):
    began = trio.current_time()
    failure = await scenery.play("asleep", trio.sleep_forever)

    assert "not over after 2 hours of wall" == failure.line
    assert scenery.SCENE_S == trio.current_time() - began


def test_of_one_long_scene_what_was_reached_before_it_failed_still_holds():
    life = Reached(Life(installed=0, boxes=Boxes(parked=["waits"])), Failure("life", "late"))

    assert 0 == life.installed
    assert ["waits"] == life.boxes.parked
    assert ["the scene 'life': late"] == told(lambda: life.boxes.ran)
    assert ["the scene 'life': late"] == told(lambda: life.removed)
    assert None is Reached(Life()).removed


MANY = """
import pytest
from tests import test_scenery
import trio

@pytest.fixture(scope="session")
def played():
    return trio.run(test_scenery.played)

@pytest.fixture
def bad(played):
    return played.bad

@pytest.mark.parametrize("number", range(40))
def test_of_the_bad_one(bad, number):
    pass

@pytest.mark.parametrize("number", range(20))
def test_of_the_good_one(played, number):
    assert played.good
"""


@pytest.mark.slow
@pytest.mark.parametrize(("ci", "times"), [("", 1), ("1", 2)])  # pytest's summary is whole in a CI
def test_the_report_of_a_late_scene_with_forty_tests_is_read_at_once(tmp_path, ci, times):
    (tmp_path / "test_many.py").write_text(MANY)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-ra", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "CI": ci, "BUILD_NUMBER": ""},
    )
    lines = done.stdout.splitlines()

    assert {"20 passed", "40 errors"} <= set(re.findall(r"\d+ \w+", lines[-1]))
    assert len(lines) < 5 * 40
    assert times == lines.count("      49")
    assert 40 <= sum(LATE in line for line in lines)
