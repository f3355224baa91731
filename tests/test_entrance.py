"""Who finds no place at the doors is told so, and who loses one loses it like a hang-up."""

from __future__ import annotations

import gc
import os
import re
import socket
import tracemalloc
from collections import Counter
from contextlib import ExitStack, suppress
from datetime import datetime
from functools import partial

import attrs
import pytest
import structlog
import trio
from trio.testing import wait_all_tasks_blocked

from appliance import floods, run, turns
from appliance.addresses import is_own
from appliance.config import Network
from appliance.control.server import serve as serve_control
from appliance.web import entrance, file_server
from appliance.web.asgi import answer
from appliance.web.entrance import Entrance, Heads
from appliance.web.shares import Callers, Kind, Places, Shares
from tests import lab as labs
from tests.bad_input.worst import handshake
from tests.fakes import Wire
from tests.lab import SCHEDULER, open_lab
from tests.test_serve import Appliance, hello

QUESTION = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
SMALL = Shares(control=16, lab=32, others=16)  # 4 of one address among others, 8 of a box
FULL = b"HTTP/1.1 503 Service Unavailable\r\n"


def let_in(lab, shares=SMALL):
    """A lab whose doors have so many places."""
    made, _ = run._entrance(lab.scheduler)
    made.places = Places(shares)
    lab.wire.context.entrance = made
    return made


def ask(number):
    """An unknown box's question, which is not answered soon."""
    target = f"/boot.ipxe/mac/52-54-00-00-99-{number:02}"
    return f"GET {target} HTTP/1.1\r\nhost: x\r\n\r\n".encode()


async def heard(stream):
    """What comes until the other side ends it, within an hour."""
    found = b""
    with trio.fail_after(3600):
        while data := await stream.receive_some():
            found += data
    return found


async def test_one_address_has_its_part_of_the_places_and_is_told_so(autojump_clock):
    async with open_lab() as lab:
        made = let_in(lab)
        parked = [lab.wire.connect(("10.0.0.9", 4000 + n), SCHEDULER) for n in range(4)]
        for number, stream in enumerate(parked):
            await stream.send_all(ask(number))
        await wait_all_tasks_blocked()
        with structlog.testing.capture_logs() as lines:
            stream = lab.wire.connect(("10.0.0.9", 4009), SCHEDULER)
            await stream.send_all(QUESTION)
            told = await heard(stream)
        other = await lab.get("/", client="10.0.0.10")

        assert told.startswith(FULL)
        assert b"\r\nretry-after: 5\r\n" in told
        assert told.endswith(
            b"10.0.0.9 has as many connections open as one address may: try again\n"
        )
        assert [("connection refused", "10.0.0.9")] == [
            (line["event"], line["client"]) for line in lines
        ]
        assert 200 == other.status
        for stream in parked:
            await stream.aclose()
        await wait_all_tasks_blocked()
        assert (0, 0) == made.places.used


async def test_a_connection_that_is_cut_goes_whatever_its_app_waits_for(autojump_clock):
    """Its app asks for no hang-up, and so much was sent that nobody reads on."""
    waits, over = trio.Event(), False

    async def app(scope, receive, send):
        await waits.wait()

    async with open_lab() as lab:
        made = let_in(lab)
        lab.wire.app = app
        before = len(lab.wire.nursery.child_tasks)
        head = b"POST /x HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n"
        crowd = [lab.wire.connect((f"10.9.0.{n % 4}", 4000 + n), SCHEDULER) for n in range(16)]
        for stream in crowd:
            await stream.send_all(head + b"x" * 10**6)
        await wait_all_tasks_blocked()
        assert (16, 0) == (made.places.used[1], made.places.leaving)
        newcomer = lab.wire.connect(("10.0.0.77", 4000), SCHEDULER)
        await newcomer.send_all(QUESTION)
        await wait_all_tasks_blocked()
        assert (16, 1) == (made.places.used[1], made.places.leaving)
        await trio.sleep(entrance.CUT_S + 0.1)

        assert (16, 0) == (made.places.used[1], made.places.leaving)
        assert 16 == len(lab.wire.nursery.child_tasks) - before
        assert [] == lab.wire.crashes
        waits.set()
        over = True
    assert over, "what was cancelled is that connection, and not all of the server"


@pytest.mark.parametrize("port", ["talking", "giving"])
async def test_heads_that_do_not_end_give_way_to_newer_ones_and_nothing_else_does(
    nursery, monkeypatch, port
):
    """Whichever server it is: 10 heads of 1000 bytes, and room for 5."""

    async def app(scope, receive, send):
        await answer(send, 200, "ok")

    made = Entrance(Places(Shares.of(4096)), lambda client, server: (client, Kind.OTHER))
    made.heads = Heads(5000)
    connect = await served(nursery, port, app, made)
    with trio.fail_after(20):
        kept = await connect()
        await kept.send_all(QUESTION)
        assert (await kept.receive_some()).startswith(b"HTTP/1.1 200 ")
        half = [await connect() for _ in range(10)]
        for stream in half:
            await stream.send_all(b"GET /x HTTP/1.1\r\nhost: x\r\nx: " + b"y" * 971)
            await wait_all_tasks_blocked(0.05)
        assert 5000 == made.heads.taken
        for stream in half[:5]:
            assert (await heard(stream)).startswith(b"HTTP/1.1 408 ")
        for stream in (*half[5:], kept):
            await stream.send_all(b"\r\n\r\n" if stream is not kept else QUESTION)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        await wait_all_tasks_blocked(0.05)
        assert 0 == made.heads.taken
        for stream in (*half, kept):
            await stream.aclose()
    nursery.cancel_scope.cancel()


async def served(nursery, port, app, made):
    """What connects to a server of that kind."""
    if port == "talking":
        wire = Wire(nursery, app)
        wire.context.entrance = made

        async def connect():
            return wire.connect(("10.0.0.9", 4000), SCHEDULER)

        return connect
    sock = socket.create_server(("127.0.0.1", 0))
    serve = partial(
        file_server.serve, app, [sock], stop=trio.sleep_forever, patience=1, entrance=made
    )
    await nursery.start(serve)
    return partial(trio.open_tcp_stream, *sock.getsockname())


async def test_slices_of_the_loop_know_who_is_of_the_lab(autojump_clock, tmp_path):
    network = Network(check_neighbour=False, providers=("10.0.7.0/24",))
    chosen = attrs.evolve(labs.config(tmp_path), network=network)
    async with open_lab(chosen) as lab:
        let_in(lab)
        is_lab = turns.slices().is_lab
        stranger = await lab.ask("/boot.ipxe/mac/52-54-00-00-99-01", "10.0.0.66")
        assert not is_lab("10.0.0.5")
        await lab.know()
        parked = await lab.ask()

        assert [True, True, True, True, False, False] == [
            is_lab(who)
            for who in ("10.0.0.5", "127.0.0.1", "::1", "10.0.7.3", "10.0.0.66", "10.9.0.1")
        ]
        await parked.hang_up()
        await stranger.hang_up()


async def test_kept_connections_that_ask_for_nothing_make_room_for_their_own_address(
    autojump_clock,
):
    async with open_lab() as lab:
        made = let_in(lab)
        lab.wire.config.keep_alive_timeout = 10_000
        streams = []
        for number in range(10):
            stream = lab.wire.connect(("10.0.0.9", 4000 + number), SCHEDULER)
            streams.append(stream)
            await stream.send_all(QUESTION)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
            await wait_all_tasks_blocked()
            assert made.places.used[1] <= 4
        for stream in streams[:6]:
            assert b"" == await heard(stream)
        await streams[-1].send_all(QUESTION)
        assert (await streams[-1].receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_a_crowd_of_strangers_keeps_no_box_and_no_newcomer_out(autojump_clock):
    async with open_lab() as lab:
        made = let_in(lab)
        await lab.know()
        parked = await lab.ask()
        crowd = [lab.wire.connect((f"10.9.0.{n % 4}", 4000 + n), SCHEDULER) for n in range(16)]
        for number, stream in enumerate(crowd):
            await stream.send_all(ask(number))
        await wait_all_tasks_blocked()
        assert 16 == made.places.used[1]
        newcomer = await lab.get("/", client="10.0.0.77")
        job = await lab.submit()
        script = (await parked.rest()).decode()
        fetched = await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")

        assert 200 == newcomer.status
        assert f"/{job.id}/" in script
        assert 200 == fetched.status
        assert 0 == made.places.leaving


async def test_a_box_that_loses_its_place_is_as_one_that_hung_up(autojump_clock):
    async with open_lab() as lab:
        made = let_in(lab, Shares(control=16, lab=4, others=16))
        for number in (1, 2):
            await lab.know(f"box-{number}", f"52:54:00:00:00:0{number}")
        ask = "/boot.ipxe/mac/52-54-00-00-00-0{}?arch=x86_64"
        for number in (1, 2):  # who they are is known from then on
            await (await lab.ask(ask.format(number), f"10.0.0.{number}")).hang_up()
        await wait_all_tasks_blocked()
        greedy = [await lab.ask(ask.format(1), "10.0.0.1")]
        streams = [lab.wire.connect(("10.0.0.1", n), SCHEDULER) for n in range(3)]
        await wait_all_tasks_blocked()
        second = await lab.ask(ask.format(2), "10.0.0.2")
        await wait_all_tasks_blocked()

        assert 200 == second.status
        assert {"box-1", "box-2"} >= {seat.box for seat in lab.scheduler.lobby}
        assert made.places.used[0] <= 4
        assert greedy
        assert streams


@pytest.mark.parametrize("door", ["10.0.0.1", "::1"])
def test_who_is_on_this_machine_is_one_by_whichever_address(door):
    assert is_own(door, door)
    assert is_own("127.0.0.77", "127.0.0.1")
    assert is_own("::1", "::1")
    assert not is_own("10.0.0.9", "10.0.0.1")


async def test_kinds_are_told_by_addresses(autojump_clock):
    config = labs.config()
    async with open_lab(config) as lab:
        made, _ = run._entrance(lab.scheduler)
        await lab.know()
        await (await lab.ask(client="10.0.0.5")).hang_up()
        await lab.ask("/boot.ipxe/mac/52-54-00-00-00-99", client="10.0.0.99")

        class Nobody:
            socket = None

        found = {}
        for client in ("10.0.0.5", "10.0.0.99", "127.0.0.9", "::1", "10.0.0.1", "10.0.0.66"):
            place = made.enter(Nobody(), ((client, 4000), ("10.0.0.1", 3000)), lambda: None)
            found[client] = place.who, place.crowd is made.places._lab

    assert {
        "10.0.0.5": ("10.0.0.5", True),
        "10.0.0.99": ("10.0.0.99", False),  # nobody has made it a testbox
        "127.0.0.9": ("the server itself", True),
        "::1": ("the server itself", True),
        "10.0.0.1": ("the server itself", True),
        "10.0.0.66": ("10.0.0.66", False),
    } == found


async def test_the_doors_that_only_give_files_have_places_too(nursery):
    async def here(scope, receive, send):
        await answer(send, 200, "here")

    places = Places(SMALL)
    made = Entrance(places, lambda client, server: (client, Kind.OTHER))
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    stop = trio.Event()
    serve = partial(file_server.serve, here, [sock], stop=stop.wait, patience=1.0, entrance=made)
    await nursery.start(serve)
    with trio.fail_after(20):
        busy = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in busy:
            await stream.send_all(QUESTION)
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")
        third = await trio.open_tcp_stream("127.0.0.1", port)
        await third.send_all(QUESTION)

        assert (await third.receive_some()).startswith(b"HTTP/1.1 200 ")
        assert b"" == await busy[0].receive_some()  # it asked for nothing
        assert (0, 4) == places.used
        for stream in (*busy, third):
            await stream.aclose()
        await wait_all_tasks_blocked(0.1)
        assert (0, 0) == places.used


async def test_who_has_his_answer_and_is_read_to_the_end_makes_room(nursery, monkeypatch):
    """A body is on its way that nobody asked for, and the kernel must not drop the answer."""

    async def app(scope, receive, send):
        await answer(send, 200, "ok")

    monkeypatch.setattr(file_server, "LINGER_S", 60.0)
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    places = Places(SMALL)
    made = Entrance(places, lambda client, server: (client, Kind.OTHER))
    serve = partial(
        file_server.serve, app, [sock], stop=trio.sleep_forever, patience=1, entrance=made
    )
    await nursery.start(serve)
    with trio.fail_after(20):
        lingering = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in lingering:
            await stream.send_all(b"PUT / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1")
            assert (await heard(stream)).startswith(b"HTTP/1.1 200 ")
        third = await trio.open_tcp_stream("127.0.0.1", port)
        await third.send_all(QUESTION)

        assert (await third.receive_some()).startswith(b"HTTP/1.1 200 ")
        for stream in (*lingering, third):
            await stream.aclose()
    nursery.cancel_scope.cancel()


async def test_who_finds_no_place_at_a_door_of_files_is_told_so(nursery):
    went = trio.Event()

    async def slow(scope, receive, send):
        await went.wait()
        await answer(send, 200, "here")

    made = Entrance(Places(SMALL), lambda client, server: (client, Kind.OTHER))
    sock = socket.create_server(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    serve = partial(
        file_server.serve, slow, [sock], stop=trio.sleep_forever, patience=1, entrance=made
    )
    await nursery.start(serve)
    with trio.fail_after(20):
        busy = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
        for stream in busy:
            await stream.send_all(QUESTION)
        await wait_all_tasks_blocked(0.05)
        third = await trio.open_tcp_stream("127.0.0.1", port)
        await third.send_all(QUESTION * 50)
        told = await heard(third)
        went.set()

        assert told.startswith(FULL)
        for stream in (*busy, third):
            async with stream:
                assert stream is third or (await stream.receive_some()).startswith(b"HTTP/1.1 200 ")


async def test_more_than_a_few_who_find_no_place_find_the_door_shut(autojump_clock):
    async with open_lab() as lab:
        made = let_in(lab, Shares(control=16, lab=32, others=0))
        crowd = [lab.wire.connect(("10.0.0.9", n), SCHEDULER) for n in range(50)]
        answers = [await heard(stream) for stream in crowd]
        await trio.sleep(2 * entrance.LINGER_S)

        assert entrance.TOLD_MAX == sum(found.startswith(FULL) for found in answers)
        assert 50 - entrance.TOLD_MAX == answers.count(b"")
        assert 0 == made._told


async def test_too_many_callers_are_told_so_and_others_still_find_the_control_socket(
    tmp_path, monkeypatch
):
    """The kernel says who calls, so here all are one: root, or whoever runs the tests."""
    config = labs.config(tmp_path)
    async with open_lab(config) as lab, trio.open_nursery() as nursery:
        callers = Callers(3)
        monkeypatch.setattr("appliance.control.server._peer", lambda stream: "root")
        await nursery.start(partial(serve_control, callers=callers), lab.scheduler, lab.people)
        path = str(config.paths.control_socket)
        here = [await trio.open_unix_socket(path) for _ in range(3)]
        for stream in here:
            assert await stream.receive_some()
        fourth = await trio.open_unix_socket(path)
        await fourth.send_all(b"\xa1\x69appliance\x01" * 100)
        with trio.fail_after(10):
            told = await heard(fourth)

        assert b"3 connections to the control socket are open: try again" in told
        await here[0].aclose()
        await trio.sleep(0.1)
        again = await trio.open_unix_socket(path)
        assert b"error" not in await again.receive_some()
        for stream in (*here, fourth, again):
            await stream.aclose()
        nursery.cancel_scope.cancel()


LIMIT = 400
CROWD = 600


@pytest.mark.slow
def test_strangers_who_hold_all_that_they_may_stop_neither_the_state_nor_people_nor_uploads(
    tmp_path,
):
    """At a limit of 400 open files; 600 connections that say nothing, and 600 that say half."""
    server = Appliance(tmp_path)
    server.start("prlimit", f"--nofile={LIMIT}:{LIMIT}", "--")
    server.run("host", "add", "box-1", "--mac", "52-54-00-00-00-01")
    fds = f"/proc/{server.process.pid}/fd"
    at_rest = len(os.listdir(fds))
    with ExitStack() as stack:
        for number in range(2 * CROWD):
            port = sorted(server.ports.values())[number % len(server.ports)]
            source = (f"127.0.0.{2 + number % 20}", 0)
            with suppress(ConnectionError):  # it may be refused before we have looked
                sock = socket.create_connection(("127.0.0.1", port), 10, source_address=source)
                stack.enter_context(sock)
                if number % 2:
                    sock.sendall(b"PUT /result/x HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n1")
        for _ in range(8):
            door = stack.enter_context(socket.socket(socket.AF_UNIX))
            door.connect(str(tmp_path / "run/control.sock"))
        held = len(os.listdir(fds))
        submitted = server.run("submit", hello(tmp_path)).stdout
        status = server.run("status").stdout
        server.run("backup", str(tmp_path / "backup.zip"))
        held = max(held, len(os.listdir(fds)))
        with socket.create_connection(("127.0.0.1", server.ports["os"]), 10) as box:
            box.sendall(b"GET /os/debian/x86_64/12/boot/vmlinuz HTTP/1.1\r\nhost: x\r\n\r\n")
            kernel = box.recv(100)
    ended = server.stop()
    log = (tmp_path / "log").read_text()
    print(f"{at_rest} open at rest, {held} with the crowd")

    assert submitted.startswith("lab.1 ")
    assert "no new jobs are taken" not in status
    assert at_rest < 80
    assert held < LIMIT
    assert 0 == ended
    assert "Traceback" not in log
    assert "EMFILE" not in log
    # Of each address three are said in a period, then their number; how many come to be refused at
    # all depends on who is quicker, and tests/test_floods.py has the folding for certain.
    refused = re.findall(
        r'timestamp="(.*?)" level=warning event="connection refused" client=(\S+) (why|more)', log
    )
    first, last = (datetime.fromisoformat(refused[n][0]) for n in (0, -1))
    periods = 1 + int((last - first).total_seconds() / floods.PERIOD_S)
    said = Counter((client, what) for _, client, what in refused)
    most = {"why": floods.SHOWN["warning"], "more": 1}
    assert {} == {key: n for key, n in said.items() if n > periods * most[key[1]]}
    assert log.count("\n") < 2 * CROWD / 2  # what the half of them did that said something
    assert kernel.startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize(
    "target",
    ["/boot.ipxe/mac/52-54-00-00-99-{:02}", "/ws/boot.ipxe/mac/52-54-00-00-99-{:02}", "/filter"],
)
@pytest.mark.parametrize("query", [False, True])
async def test_who_waits_keeps_nothing_of_what_it_came_with(autojump_clock, target, query):
    """Two thousand strangers may wait, each with 16 KiB of them."""
    async with open_lab() as lab:
        server = ("10.0.0.1", 20001) if target.startswith("/filter") else SCHEDULER
        streams, kept = [], []
        tracemalloc.start()
        try:
            for size in (1, 1, 150):  # the first ones make what is made once
                gc.collect()
                before = tracemalloc.get_traced_memory()[0]
                for _ in range(10):
                    number = len(streams)
                    stream = lab.wire.connect((f"10.0.0.{60 + number}", 4000), server)
                    streams.append(stream)
                    more = "".join(f"h{n}: {'v' * size}{number}\r\n" for n in range(80))
                    asked, more = (f"?x={'v' * 80 * size}", "") if query else ("", more)
                    question = handshake(target.format(number) + asked)[:-2]
                    question += more.encode() + b"\r\n"
                    if "/ws/" not in target and target != "/filter":
                        question = question.replace(b"Upgrade: websocket\r\n", b"")
                    await stream.send_all(question)
                    await wait_all_tasks_blocked()
                    assert re.match(rb"HTTP/1.1 (101|200) ", await stream.receive_some())
                del more, question
                gc.collect()
                kept.append(tracemalloc.get_traced_memory()[0] - before)
        finally:
            tracemalloc.stop()

        assert kept[2] - kept[1] < 10 * 2000
