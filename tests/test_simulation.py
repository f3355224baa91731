"""A whole lab against its weather: nothing that was acknowledged is lost, nothing runs twice.

SIM_SEED=123 plays that one run again; SIM_RUNS=1000 plays so many more.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from unittest import mock

import pytest

from appliance.scheduler import reaper
from tests.simulation.lab import THOUSANDS, Size, simulate
from tests.simulation.mutants import MUTANTS
from tests.simulation.seeds import on_all_cores, play

QUICK = range(5)
FIXED = range(1000, 1080)
HTTP = range(2000, 2016)
HARD_ENOUGH = 60  # seeds within which each planted bug must be found
WEB = Size(http=True)
LARGE_SEED = 4

# What must have happened in some run of the fixed set: else its weather has never been seen.
SOMETIMES = """
    a box lost power|a box only asked|a box stayed off|half-open|hung up|a fetch broke
    a boot panicked|a run panicked|re-chain|job.cgz refused|not wanted any more
    a job restarted its box|a box was quarantined
    the server died|died of its disk|it lost what was not synced|the clock jumped
    the server stopped in good order
    the disk was full|the disk refused|submitted again with the same key
    an image was gone|a report without its token
    a box was held|a box was reserved|the lab was drained|a job was renewed|an answer was kept
    a cancel was acknowledged|jobs were archived
    offer|fetch|load|begin|wrap|verdict|close|lapse|asked|undelivered|cancel|refuseupload
    end success|end failed|end abnormal|end timeout|end boot_failed|end cancel|end incomplete
"""


@pytest.mark.parametrize("seed", QUICK)
def test_nothing_is_lost_and_nothing_runs_twice(seed):
    play(seed)


def broken(scheduler, names, now):
    if names:
        raise KeyError("a bug of ours")


def play_until_one_fails():
    for seed in range(HARD_ENOUGH):
        play(seed)


@pytest.mark.parametrize(
    "bug", [MUTANTS["act_before_fsync"], lambda: mock.patch.object(reaper, "_end_attempts", broken)]
)
def test_a_run_that_fails_says_its_seed_how_to_see_it_again_and_what_happened_last(bug):
    with bug(), pytest.raises(BaseException) as caught:  # noqa: PT011 - a group, or one of ours
        play_until_one_fails()
    notes = "\n".join(caught.value.__notes__)

    again = re.search(r"seed (\d+); again: SIM_SEED=\1 pytest tests/test_simulation.py", notes)
    assert again
    assert re.search(r"the last changes:\n *\d+\.\d{3} \w+\(", notes)


@pytest.mark.slow
def test_nothing_is_lost_among_thousands_of_boxes():
    play(LARGE_SEED, THOUSANDS, "pytest tests/test_simulation.py -k thousands")


@pytest.mark.slow
def test_nothing_is_lost_through_the_whole_http_stack():
    play(1, WEB)


@pytest.fixture(scope="module")
def seen():
    """What happened in all runs of the fixed set."""
    total = Counter()
    with on_all_cores() as play_all:
        for report in [*play_all(FIXED, Size()), *play_all(HTTP, WEB)]:
            total.update(report.sometimes)
    return total


@pytest.mark.slow
def test_every_kind_of_trouble_and_every_move_happens_in_some_run(seen):
    wanted = [word.strip() for line in SOMETIMES.split("\n") for word in line.split("|")]

    assert [] == [what for what in wanted if what and not seen[what]]


def new_seeds():
    """Drawn from the commit: the same for everybody, and others tomorrow."""
    if "SIM_SEED" in os.environ:
        return [int(os.environ["SIM_SEED"])]
    command = ["git", "rev-parse", "HEAD"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    first = int(said[:8] or "0", 16)
    return range(first, first + int(os.environ.get("SIM_RUNS", "30")))


@pytest.mark.slow
def test_new_seeds_with_each_commit():
    print(f"seeds {new_seeds()}")
    if "SIM_SEED" in os.environ:
        for seed in new_seeds():
            play(seed)
            play(seed, WEB)
    else:
        with on_all_cores() as play_all:
            assert len(new_seeds()) == len(list(play_all(new_seeds(), Size())))


@pytest.mark.slow
@pytest.mark.parametrize("name", MUTANTS)
def test_the_simulation_finds_a_planted_bug(name):
    with MUTANTS[name]():
        for seed in range(HARD_ENOUGH):
            try:
                simulate(seed)
            except Exception as error:
                print(f"{name}: found by seed {seed}: {error!r}"[:200])
                return
    pytest.fail(f"{name} was not found in {HARD_ENOUGH} runs")


@pytest.mark.slow
@pytest.mark.parametrize("http", [False, True])
def test_one_seed_is_one_history_whatever_the_hashes(http):
    program = (
        "from tests.simulation.lab import Size, simulate\n"
        f"print(simulate(5, Size(http={http})))"
    )  # fmt: skip
    said = {
        subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hashes},
        ).stdout
        for hashes in ("1", "2")
    }

    assert 1 == len(said)
    assert "digest" in said.pop()
