"""Three generations of iPXE, each through a long wait; see generations.py for what is played."""

import os
import re
from datetime import datetime

import pytest

from . import generations, scenes

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and taps need root"),
    pytest.mark.skipif(not scenes.IMAGES.exists(), reason="no image: make image"),
]
WATCHDOG_S = 120.0
BACK_S = 60.0  # of a box's own time, to ask again: a tenth of it is usual
BANNER = r"^iPXE (\S+) -- Open Source Network Boot Firmware"


@pytest.fixture(params=generations.RELEASES)
def seen(played, request):
    """One of the boxes."""
    return played.generations.boxes[request.param]


def banner(seen):
    return re.search(BANNER, seen.serial[seen.index(BANNER)])[1]


def moments(played, box, event):
    """When the server's log says this of the box, in seconds."""
    found = []
    for line in played.generations.server:
        if f'event="{event}"' in line and re.search(rf"\bbox={box}\b", line):
            at = re.search(r'timestamp="([^"]+)"', line)[1]
            found.append(datetime.fromisoformat(at + "+00:00").timestamp())
    return found


def test_each_box_runs_the_generation_that_its_hosts_file_names(played):
    said = [banner(seen) for seen in played.generations.boxes.values()]

    assert said[0].startswith("1.0.0+git-2019")
    assert said[1].startswith("1.21.1")
    assert int(said[2].split(".")[0]) >= 2


def own(played, box, event):
    """The same, by the box's own time."""
    spoken_of = played.generations.boxes[box].spoken_of
    return [at for at, line in spoken_of if f'event="{event}"' in line]


@pytest.mark.parametrize("box", generations.RELEASES)
def test_each_waits_longer_than_the_watchdog_and_asks_again(played, box):
    sat, left = moments(played, box, "box parked"), moments(played, box, "box left the lobby")

    assert WATCHDOG_S < left[0] - sat[0]
    assert left[0] <= sat[1]
    assert own(played, box, "box parked")[1] - own(played, box, "box left the lobby")[0] < BACK_S


def test_a_wait_ends_with_the_script_that_asks_again_and_that_is_run(seen):
    waited = seen.index(r":3000/boot\.ipxe/mac/\S+ ok")
    rechain = seen.index("No job now", waited)

    assert seen.index(r":3000/boot\.ipxe/mac/\S+ ok", rechain)
    assert not any("asking again" in line for line in seen.serial)  # no wait was broken off
    assert 1 == sum("Start PXE over IPv4" in line for line in seen.serial)


def test_a_job_boots_on_each_after_that(seen):
    (row,) = seen.jobs

    assert ("success", 1) == (row["health"], row["attempt"])
    assert f"{row['id']} runs on {row['box']}" in seen.stdout.splitlines()
