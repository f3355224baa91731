"""The lab in one screen, what is said when, and the screen that is live."""

from __future__ import annotations

import errno
import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.cli import lab as commands
from appliance.cli import watch
from appliance.errors import BadRequest, Refused
from appliance.jobs.shown import overview
from tests.lab import ASK, open_lab

JOB = "script: echo hi\nruntime: 7200\n"


async def status(lab):
    return await lab.people.do("status", {}, "ann", None)


async def test_a_lab_at_rest_has_nothing_wrong(autojump_clock):
    async with open_lab() as lab:
        answer = await status(lab)

    assert ({}, {}, None, [], []) == tuple(
        answer[key] for key in ("boxes", "jobs", "oldest", "running", "wrong")
    )


async def test_the_oldest_that_waits_is_named_and_so_is_what_runs(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        first = await lab.submit(JOB, key="k" * 16)
        await trio.sleep(60)
        await lab.submit("script: x\n", key="l" * 16)

        answer = await status(lab)
        assert {"submit": 2} == answer["jobs"]
        assert first.id == answer["oldest"]["id"]
        assert 7200 == answer["longest_runtime"]

        await lab.ask()
        await wait_all_tasks_blocked()
        answer = await status(lab)
        assert [first.id] == [row["id"] for row in answer["running"]]
        assert "lab.2" == answer["oldest"]["id"]
        assert 7200 == answer["longest_runtime"]  # what runs counts, too


async def test_a_job_that_fits_no_box_is_wrong(autojump_clock):
    async with open_lab() as lab:
        await lab.submit("script: x\nqueue: nowhere\n")

        (told,) = (await status(lab))["wrong"]
        assert "lab.1 waits: no known testbox serves the queue nowhere on x86_64" == told


async def test_a_shut_gate_and_a_drained_lab_are_wrong(autojump_clock):
    async with open_lab() as lab:
        await lab.people.do("drain", {}, "root", None)
        lab.scheduler.gate.shut("space", "the disk is full")

        gate, drained = (await status(lab))["wrong"]
        assert "no new jobs are taken: the disk is full" == gate
        assert drained.startswith("drained by root")


async def test_a_quarantined_box_is_wrong_with_the_command_that_ends_it(autojump_clock):
    from appliance.jobs.changes import Quarantined

    async with open_lab() as lab:
        await lab.know()
        now = lab.scheduler.clock.now()
        await lab.scheduler.durable(
            lab.scheduler.change([Quarantined("box-1", "lost three boots", "", now)])
        )

        (told,) = (await status(lab))["wrong"]
        assert "box-1 quarantined: lost three boots" in told
        assert "appliance host release box-1" in told


def test_the_screen_begins_with_what_is_wrong():
    answer = {
        "lab": "lab", "version": "1", "since": 0, "wrong": ["x is broken"],
        "boxes": {"parked": 2}, "jobs": {"running": 3, "submit": 1, "finish": 9},
        "oldest": {"id": "lab.9", "submitted": 0, "submitter": "ann", "queue": "q", "arch": "a"},
        "running": [{"id": "lab.1", "stage": "boot", "box": "b", "suite": "s", "submitter": "u"}],
        "disks": [{"what": ["state", "images"], "path": "/v", "free": 2**30, "size": 2**31}],
        "log_level": "debug",
    }  # fmt: skip

    lines = commands.screen(answer)

    assert "! x is broken" == lines[1]
    assert "boxes: 2 parked" in lines
    assert "jobs: 9 finish, 3 running, 1 submit" in lines
    assert "  and 2 more" in lines
    assert "disk: 1.0 GiB of 2.0 GiB free for state, images" in lines
    assert "log level: debug" in lines
    assert any("oldest waiting: lab.9" in line for line in lines)


async def test_a_watcher_has_a_screen_at_once_and_another_when_something_happens(autojump_clock):
    seen = []

    async def event(what):
        seen.append(what)

    async with open_lab() as lab, trio.open_nursery() as nursery:
        await lab.know()
        nursery.start_soon(lab.people.do, "watch", {}, "ann", event)
        await wait_all_tasks_blocked()
        assert [[]] == [screen["news"] for screen in seen]

        await trio.sleep(3600)
        assert 1 == len(seen)  # nothing happened

        job = await lab.submit()
        await trio.sleep(5)
        assert [job.id] == [news["job_id"] for news in seen[1]["news"]]
        assert {"submit": 1} == seen[-1]["status"]["jobs"]
        before = len(seen)

        await lab.ask(ASK)
        await trio.sleep(5)
        assert len(seen) > before
        assert ["offered"] == [n["job_stage"] for screen in seen[before:] for n in screen["news"]]
        nursery.cancel_scope.cancel()


async def test_a_box_that_sits_down_is_seen_though_no_job_moves(autojump_clock):
    seen = []

    async def event(what):
        seen.append(what["status"]["boxes"])

    async with open_lab() as lab, trio.open_nursery() as nursery:
        nursery.start_soon(lab.people.do, "watch", {}, "ann", event)
        await wait_all_tasks_blocked()
        await lab.ask()
        await trio.sleep(1)

        assert [{}, {"parked": 1}] == seen
        nursery.cancel_scope.cancel()


async def test_one_screen_is_made_in_each_round_of_the_loop_however_many_look(
    autojump_clock, monkeypatch
):
    """Each is a look at every job: 40 ms where there are 100,000."""
    made, look = [], overview.overview

    class Round(trio.abc.Instrument):
        number = 0

        def after_io_wait(self, timeout):
            self.number += 1

    def noted(*args):
        made.append(this.number)
        return look(*args)

    async def event(what):
        await trio.lowlevel.checkpoint()

    monkeypatch.setattr(overview, "overview", noted)
    this = Round()
    async with open_lab() as lab, trio.open_nursery() as nursery:
        trio.lowlevel.add_instrument(this)
        for _ in range(20):
            nursery.start_soon(lab.people.do, "watch", {}, "ann", event)
        await trio.sleep(1)
        await lab.submit()
        for _ in range(20):
            nursery.start_soon(status, lab)
        await trio.sleep(1)
        nursery.cancel_scope.cancel()

    assert len(made) >= 60
    assert len(set(made)) == len(made)


async def test_a_watcher_sees_that_the_disk_refuses(autojump_clock):
    """It is then that somebody looks; nothing is told of what it does not know, but memory is."""
    seen = []

    async def event(what):
        seen.append(what["status"]["gate"])

    async with open_lab() as lab, trio.open_nursery() as nursery:
        nursery.start_soon(lab.people.do, "watch", {}, "ann", event)
        await wait_all_tasks_blocked()
        lab.disk.calls.broken = errno.EIO
        await lab.ask()
        await trio.sleep(10)

        assert [[], ["the state cannot be written: Input/output error"]] == seen
        nursery.cancel_scope.cancel()


async def test_a_watch_ends_with_the_server_and_leaves_no_watcher(autojump_clock):
    async def event(what):
        await trio.lowlevel.checkpoint()

    async with open_lab() as lab, trio.open_nursery() as nursery:
        ended = []

        async def watch_it():
            ended.append(await lab.people.do("watch", {}, "ann", event))

        nursery.start_soon(watch_it)
        await wait_all_tasks_blocked()
        lab.scheduler.watchers.dismiss()
        await trio.sleep(1)

        assert [{"ended": "the server stops"}] == ended
        assert 0 == len(lab.scheduler.watchers)


def test_what_happened_is_one_line_and_shows_no_control_characters():
    news = {"time": "t", "job_id": "lab.1", "job_stage": "boot", "message": "a\x1b[2Jb"}

    assert r"t  lab.1  boot  a\x1b[2Jb" == watch.line(news)
    assert json.dumps(news)


@pytest.mark.parametrize(
    ("arguments", "user", "error"),
    [
        ({"level": "debug"}, "ann", Refused),
        ({"level": "loud"}, "root", BadRequest),
        ({"level": "debug", "seconds": 0}, "root", BadRequest),
        ({"level": "debug", "seconds": 1e9}, "root", BadRequest),
    ],
)
async def test_only_root_changes_the_log_and_only_to_what_there_is(
    autojump_clock, arguments, user, error
):
    async with open_lab() as lab:
        with pytest.raises(error):
            await lab.people.do("log-level", arguments, user, None)
        assert {"level": "info", "then": "info"} == await lab.people.do("log-level", {}, "x", None)
