"""A bad box doesn't eat the queue, and a bad job or image doesn't take the boxes along."""

from __future__ import annotations

import attrs
import pytest

from appliance.jobs import decisions, restart, suspicion
from appliance.jobs import job as jobs
from appliance.jobs.box import Identity
from appliance.jobs.changes import Clocked, Known, Moved, Seen, Submitted
from appliance.jobs.store import Store
from appliance.jobs.suspicion import LOST_MAX, QUICK_MAX, QUICK_S
from tests.lab import PINNED
from tests.test_decisions import NOW, WAITS, a_job, facts, make, offered


class Room:
    """A store with some boxes; each call plays a part of a job's life on one of them."""

    def __init__(self, boxes=3):
        self.store, self.now = Store(), NOW
        for n in range(boxes):
            mac = f"52:54:00:00:00:{n:02x}"
            self.store.apply(Known(facts(f"box-{n}", mac), NOW))
            self.store.apply(Seen(f"box-{n}", Identity(mac, f"10.0.0.{n}"), NOW))

    def job(self, text="script: x\n", root=PINNED.root):
        job = a_job(self.store.counter + 1, text)
        job = attrs.evolve(job, pinned=attrs.evolve(PINNED, root=root))
        self.store.apply(Submitted(job))
        return job.id

    def boot(self, box, name):
        """The box has everything and has not reported."""
        offered(self.store, name, box, self.now)
        for decide in (decisions.fetched_job, decisions.loaded):
            make(self.store, decide(self.store, self.store.job(name), self.now, WAITS))

    def lose(self, box, name=None, text="script: x\n"):
        """It loses a boot of this job, or of a new one."""
        name = name or self.job(text)
        self.boot(box, name)
        self.store.apply(Moved(name, jobs.Lapse("silent"), self.now))
        return name

    def run(self, box, name=None, health="success", seconds=5.0, begin=None, end=None):
        """It runs a job to its end."""
        name = name or self.job()
        self.boot(box, name)
        begin = begin or jobs.Begin(self.now + 1e6)
        for event in (begin, end or jobs.Close(health)):
            self.store.apply(Moved(name, event, self.now))
            self.now += seconds
        return name

    def against(self, box):
        return suspicion.against(self.store.box(box), self.store.jobs, self.store.evidence)


def test_three_boots_of_different_jobs_lost_in_a_row_are_enough():
    room = Room()
    lost = [room.lose("box-0") for _ in range(LOST_MAX - 1)]
    assert "" == room.against("box-0")
    lost.append(room.lose("box-0"))

    assert f"3 boots lost in a row: {', '.join(lost)}" == room.against("box-0")
    assert "" == room.against("box-1")


def test_a_boot_that_a_restart_of_the_server_cut_short_is_nobodys_fault():
    room = Room()
    for _ in range(LOST_MAX):
        name = room.job()
        room.boot("box-0", name)
        make(room.store, restart.restarted(room.store, Clocked(room.now + 50, "", 0.0), WAITS))
        room.store.apply(Moved(name, jobs.Asked(room.now + 60, room.now + 60), room.now + 60))
        room.now += 100

    assert () == room.store.box("box-0").lost


def test_the_same_job_lost_again_and_again_is_one():
    room = Room()
    name = room.job()
    for _ in range(LOST_MAX + 2):
        offered(room.store, name, "box-0", room.now)
        room.store.apply(Moved(name, jobs.Lapse("silent"), room.now))

    assert "" == room.against("box-0")


def test_a_job_that_begins_to_run_ends_the_row():
    room = Room()
    for _ in range(LOST_MAX - 1):
        room.lose("box-0")
    room.run("box-0")
    room.lose("box-0")

    assert "" == room.against("box-0")


def test_jobs_that_other_boxes_lost_too_are_at_fault_themselves():
    room = Room()
    for _ in range(LOST_MAX):
        room.lose("box-1", room.lose("box-0"))

    assert ["", ""] == [room.against("box-0"), room.against("box-1")]


def test_but_not_where_their_image_runs_elsewhere():
    """Two bad boxes that lose the same jobs do not excuse each other."""
    room = Room()
    room.run("box-2")
    for _ in range(LOST_MAX):
        room.lose("box-1", room.lose("box-0"))

    assert room.against("box-0")
    assert room.against("box-1")


def test_that_the_image_ran_on_the_box_itself_says_nothing_of_others():
    room = Room()
    room.run("box-0")
    for _ in range(LOST_MAX):
        room.lose("box-1", room.lose("box-0"))

    assert "" == room.against("box-0")


def test_a_kernel_of_the_submitters_own_is_not_held_against_the_box():
    room = Room()
    for _ in range(LOST_MAX):
        room.lose("box-0", text="script: x\nkernel_uri: http://h/vmlinuz\n")

    assert "" == room.against("box-0")


def test_a_box_that_left_before_it_was_told_lost_nothing():
    room = Room()
    for _ in range(LOST_MAX):
        name = room.job()
        offered(room.store, name, "box-0", room.now)
        make(room.store, decisions.undelivered(room.store, name, 1, room.now, WAITS))

    assert "" == room.against("box-0")


def quick_failures(room, count, seconds=5.0):
    return [room.run("box-0", health="failed", seconds=seconds) for _ in range(count)]


def test_jobs_that_fail_within_seconds_and_pass_elsewhere_are_enough():
    room = Room()
    room.run("box-1")
    quick_failures(room, QUICK_MAX - 1)
    assert "" == room.against("box-0")
    names = quick_failures(room, 1)

    assert names[0] in room.against("box-0")
    assert "pass elsewhere" in room.against("box-0")


def test_a_suite_that_passes_nowhere_else_is_no_fault_of_the_box():
    room = Room()
    room.run("box-0")
    quick_failures(room, QUICK_MAX + 3)

    assert "" == room.against("box-0")


@pytest.mark.parametrize("how", [
    {"health": "cancel"},
    {"begin": jobs.Wrap(NOW + 1e6), "health": "failed"},
    {"begin": jobs.Wrap(NOW + 1e6), "end": jobs.Asked(NOW + 1e6, NOW)},
], ids=["says cancel", "is over before it ran", "is over and gone"])  # fmt: skip
def test_no_word_of_the_box_keeps_a_quick_failure_from_being_counted(how):
    room = Room()
    room.run("box-1")
    for _ in range(QUICK_MAX):
        room.run("box-0", **how)

    assert "pass elsewhere" in room.against("box-0")


@pytest.mark.parametrize("how", [
    {"health": "success"},
    {"health": "failed", "seconds": QUICK_S},
    {"end": jobs.Cancel("ann")},
], ids=["passes", "takes its time", "is cancelled"])  # fmt: skip
def test_a_job_that_passes_or_takes_its_time_or_is_cancelled_ends_the_row(how):
    room = Room()
    room.run("box-1")
    quick_failures(room, QUICK_MAX - 1)
    room.run("box-0", **how)
    quick_failures(room, QUICK_MAX - 1)

    assert "" == room.against("box-0")


def test_what_is_remembered_is_bounded():
    room = Room()
    for n in range(suspicion._NAMES_MAX + 10):
        room.run("box-1", room.job(root=f"/os/{n}"))

    assert suspicion._NAMES_MAX == len(room.store.evidence.ran)
    assert "/os/9" not in room.store.evidence.ran
    assert len(room.store.evidence.passed) == 1
