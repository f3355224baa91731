"""The monitor socket, as LKP's `submit -m` uses it: through a real Hypercorn, in virtual time."""

from __future__ import annotations

import errno
import json

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.scheduler import queries, watching
from appliance.scheduler.watching import Group
from tests import fakes
from tests.lab import KEY, MAC, open_lab

MONITOR = ("10.0.0.1", 20001)


async def watch(lab, query, target="/filter"):
    """A client that has said what it wants."""
    socket = fakes.WebSocket(lab.wire, target, ("10.0.0.9", 5000), MONITOR)
    assert None is await socket.open()
    await socket.say(query)
    await wait_all_tasks_blocked()
    return socket


async def until(socket, **wanted):
    """The messages up to the one that has these values."""
    found = []
    while (message := await socket.next()) is not None:
        found.append(message)
        if wanted.items() <= message.items():
            return found
    raise AssertionError((socket.ended, found))


async def run(lab, job):
    """The job runs and is over."""
    await (await lab.ask()).rest()
    await lab.fetched_all(job)
    await lab.report(job, "tbox_state=running&tbox_name=box-1", "lkp-wtmp")
    await lab.report(job, "job_state=running")
    await lab.report(job, "ssh_port=21325&message=", "report_ssh_port")
    await lab.report(job, "job_state=post_run")
    await lab.report(job, "job_state=finished")
    await lab.report(job, "", "lkp-post-run")


async def test_a_client_hears_of_its_job_from_the_download_to_the_end(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        socket = await watch(lab, {"job_id": [job.id]})
        await run(lab, job)
        heard = await until(socket, job_state="extract_finished")

        words = [message["job_state"] for message in heard if "job_state" in message]
        assert [
            "offered", "download", "boot", "running", "post_run", "finished", "extract_finished",
        ] == words  # fmt: skip
        assert {job.id} == {message["job_id"] for message in heard}
        assert all(isinstance(message["log"], str) for message in heard)
        for message in heard:  # what people are shown is what can be asked for
            assert json.loads(message.pop("log")) == message
        last = heard[-1]
        assert ("finish", "success", "box-1", f"/srv{job.result_root}") == (
            last["job_stage"], last["job_health"], last["testbox"], last["result_root"],
        )  # fmt: skip


async def test_where_a_borrowed_box_can_be_reached_is_said_as_the_client_waits_for_it(
    autojump_clock,
):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        socket = await watch(lab, {"job_id": [job.id], "state": ["set ssh port"]})
        await run(lab, job)
        [message] = await until(socket, state="set ssh port")
        log = json.loads(message["log"])

        assert ("set ssh port", "21325", "", "box-1", job.id) == (
            log["state"], log["ssh_port"], log["message"], log["testbox"], log["job_id"],
        )  # fmt: skip


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"job_id": None},
        {"job_id": "lab.1", "job_state": ["submit", "offered"]},
        {"job_state": "^off"},
        {"^job_st": ["nothing", "offered"]},  # the first key that it finds
        {"testbox": "box-[0-9]+"},
    ],
)
async def test_values_are_words_or_expressions_and_keys_may_be_expressions(autojump_clock, query):
    async with open_lab() as lab:
        await lab.know()
        socket = await watch(lab, query)
        await (await lab.ask()).hang_up()
        await wait_all_tasks_blocked()
        await lab.submit()
        box = await lab.ask()

        assert "offered" == (await until(socket, job_state="offered"))[-1]["job_state"]
        await box.hang_up()


@pytest.mark.parametrize(
    "query",
    [{"job_id": "lab.2"}, {"job_state": "running"}, {"nothing": "x"}, {"job_id": []}, {"(x)": 7}],
)
async def test_what_was_not_asked_for_is_not_heard(autojump_clock, query):
    async with open_lab() as lab:
        await lab.know()
        socket = await watch(lab, query)
        await lab.submit()
        box = await lab.ask()
        with trio.move_on_after(10):
            raise AssertionError(await socket.next())
        await box.hang_up()


async def test_a_jobs_end_is_not_taken_for_that_of_one_whose_id_begins_alike(autojump_clock):
    async with open_lab() as lab:
        first = await lab.submit()
        socket = await watch(lab, {"job_id": first.id})
        for n in range(9):
            tenth = await lab.submit(key=f"{KEY}{n}")
        assert (first.id + "0") == tenth.id
        await lab.scheduler.cancel(tenth.id, "ann")
        await lab.scheduler.cancel(first.id, "ann")

        assert [first.id] == [message["job_id"] for message in await until(socket)]


async def test_nothing_is_told_before_the_disk_knows_it(autojump_clock):
    async with open_lab() as lab:
        socket = await watch(lab, {})
        lab.disk.calls.broken = errno.EROFS
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.submit)
            with trio.move_on_after(10):
                raise AssertionError(await socket.next())
            assert "submit" == lab.stage(lab.scheduler.store.job("lab.1"))
            lab.disk.calls.broken = None
            assert "submit" == (await socket.next())["job_state"]


@pytest.mark.parametrize(
    ("query", "word"),
    [
        ("", "JSON"),
        ("[" * 50_000, "JSON"),
        (b"\x00", "JSON"),
        ("[]", "JSON object"),
        ({"job_id": "("}, "no expression"),
        ({"job_id": "(?=a)"}, "no expression"),
        ({"\ud800": 1}, "no expression"),
        ({"x": "a" * 201}, "at most 200"),
        ({"x": "(((a{100}){10}){10})"}, "no expression"),
        ({"x": ".{1,100}a.{1,100}N"}, "instructions at most"),
        ({"x": "(a{100}){9}b{99}c{99}"}, "instructions at most"),
        ({"x": ["a", "b"] * 30 + [str(n) for n in range(99)]}, "at most 100"),
        ({str(n): n for n in range(51)}, "at most 100"),
        ({"job_id": [f"lab.{n}" for n in range(5000)]}, None),
    ],
)
async def test_a_query_that_makes_no_sense_ends_with_the_reason(autojump_clock, query, word):
    async with open_lab() as lab:
        socket = await watch(lab, query)
        if word is None:
            assert 1 == len(lab.scheduler.watchers)
            return
        assert None is await socket.next()
        assert 1008 == socket.ended
        assert word in socket.reason
        await wait_all_tasks_blocked()
        assert 0 == len(lab.scheduler.watchers)


async def test_an_expression_that_backtracks_holds_nobody(autojump_clock):
    """Python's own would need years for this one."""
    async with open_lab() as lab:
        socket = await watch(lab, {"message": r"^(([a-z_])+.)+[A-Z]([a-z_])+$"})
        await lab.know()
        job = await lab.submit()
        await (await lab.ask()).rest()
        await lab.fetched_all(job)
        await lab.report(job, f"x={'a' * 60}")
        await lab.report(job, "job_state=running")

        assert "running" == lab.stage(job)
        await socket.hang_up()


async def test_who_does_not_read_is_told_how_much_it_missed(autojump_clock, monkeypatch):
    """News are kept once for all who watch, and not once more for each who does not read."""
    monkeypatch.setattr(watching, "UNREAD_BYTES_MAX", 11_000)
    async with open_lab() as lab:
        watcher = lab.scheduler.watchers.join(Group.NETWORK, "10.0.0.9")
        watcher.ask(queries.Query({}))
        for n in range(5):
            await lab.submit(key=f"{KEY}{n}")
        assert 5 == len(await watcher.read())
        for n in range(6):
            await lab.submit(key=f"{KEY}{n + 5}")

        assert [] == await watcher.read()
        assert watching.BEHIND == watcher.ended


async def test_only_so_many_watch_at_once(autojump_clock, monkeypatch):
    monkeypatch.setitem(watching.MOST, Group.NETWORK, 2)
    async with open_lab() as lab:
        first = await watch(lab, {})
        await watch(lab, {})
        third = fakes.WebSocket(lab.wire, "/filter", ("10.0.0.9", 5000), MONITOR)
        refused = await third.open()
        await first.hang_up()
        await wait_all_tasks_blocked()
        await watch(lab, {})

        assert (503, b"2 watch over the network already\n") == (refused.status, refused.body)


async def test_who_says_nothing_is_sent_away_and_a_day_is_the_longest(autojump_clock):
    async with open_lab() as lab:
        silent = fakes.WebSocket(lab.wire, "/filter", ("10.0.0.9", 5000), MONITOR)
        assert None is await silent.open()
        patient = await watch(lab, {"job_id": "lab.1"})
        assert None is await silent.next()
        assert (1008, 30) == (silent.ended, trio.current_time())
        assert None is await patient.next()
        assert (1000, 86400) == (patient.ended, round(trio.current_time()))


async def test_a_stop_sends_all_away(autojump_clock):
    async with open_lab() as lab:
        socket = await watch(lab, {})
        lab.scheduler.watchers.dismiss()
        assert None is await socket.next()
        late = fakes.WebSocket(lab.wire, "/filter", ("10.0.0.9", 5000), MONITOR)
        assert None is await late.open()
        assert None is await late.next()

        assert (1001, 1001) == (socket.ended, late.ended)


async def test_other_paths_and_plain_requests_are_told_where_it_is(autojump_clock):
    async with open_lab() as lab:
        plain = await lab.get("/filter", port=20001)
        other = await fakes.WebSocket(lab.wire, "/x", ("10.0.0.9", 5000), MONITOR).open()
        on_another_port = await fakes.WebSocket(lab.wire, "/filter").open()

        assert (404, 404, 403) == (plain.status, other.status, on_another_port.status)
        assert b"/filter" in plain.body
        assert b"/filter" in other.body


async def test_no_secret_and_no_script_is_heard(autojump_clock):
    async with open_lab() as lab:
        await lab.know(mac=MAC)
        socket = await watch(lab, {})
        job = await lab.submit("script: echo s3cr3t-script\nsecrets: {a: s3cr3t}\nb: s3cr3t-b\n")
        await run(lab, job)
        heard = await until(socket, job_state="extract_finished")

        assert "s3cr3t" not in repr(heard)
