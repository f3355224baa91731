"""A connection that ends badly ends alone."""

from __future__ import annotations

import contextlib
import gc
import math
import socket
from collections import Counter
from functools import partial

import h11
import hypercorn.trio
import pytest
import structlog
import trio
import wsproto
from hypercorn.protocol.ws_stream import FrameTooLargeError
from trio.testing import wait_all_tasks_blocked
from wsproto.events import TextMessage

from appliance import run, turns
from appliance.doors.boot_wait_ws import MESSAGE_BYTES_MAX
from appliance.web import connections, request_heads
from appliance.web.asgi import Doors, answer
from appliance.web.connections import Connection
from appliance.web.http import Buffer, TooLong
from tests.fakes import Rounds, Wire
from tests.lab import HYPHENS, SCHEDULER, config, open_lab

FRAME = b"\x81\x80\x00\x00\x00\x00"  # an empty message


def hello(path):
    client = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
    return client.send(wsproto.events.Request(host="x", target=path))


async def everything(stream):
    """What comes until the other side ends it, which it does within an hour."""
    found = b""
    with trio.fail_after(3600):
        while data := await stream.receive_some():
            found += data
    return found


@pytest.mark.parametrize("later", range(4))  # before its app is asked, and behind its answer
async def test_bytes_behind_a_handshake_that_is_refused_end_that_connection_alone(
    autojump_clock, later
):
    async with open_lab() as lab:
        await lab.know()
        parked = await lab.ask()
        stream = lab.wire.connect(("10.0.0.9", 4000), SCHEDULER)
        with structlog.testing.capture_logs() as lines:
            await stream.send_all(hello("/ws/boot.ipxe") + (b"" if later else FRAME * 3))
            for _ in range(later):
                await trio.lowlevel.checkpoint()
            with contextlib.suppress(trio.BrokenResourceError):
                await stream.send_all(FRAME * 3)
            await wait_all_tasks_blocked()
        answer = bytes(await stream.receive_some())
        job = await lab.submit()

        assert f"/{job.id}/" in (await parked.rest()).decode()
        assert answer.startswith(b"HTTP/1.1 400 ")
        hurried = answer.endswith(b"first frame waits for the answer to its handshake\n")
        assert hurried or (later and b"is no MAC address" in answer)
        assert 1 == answer.count(b"HTTP/1.1 ")
        assert b"" == await stream.receive_some()
        assert ["10.0.0.9"] * hurried == [
            line.get("client") for line in lines if line["event"] == "no websocket"
        ]


async def test_a_connection_that_is_over_leaves_no_circle(autojump_clock):
    """Or a storm of boxes has Python look through all that it holds for garbage, a second long."""
    async with open_lab() as lab:
        gc.collect()
        gc.disable()
        try:
            before = sum(isinstance(each, Connection) for each in gc.get_objects())
            for number in range(5):
                stream = lab.wire.connect(("10.0.0.9", 4000 + number), SCHEDULER)
                await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                assert (await everything(stream)).startswith(b"HTTP/1.1 200 ")
            await wait_all_tasks_blocked()

            assert before == sum(isinstance(each, Connection) for each in gc.get_objects())
        finally:
            gc.enable()


async def test_an_answers_head_goes_out_with_its_body_and_its_end():
    async def in_pieces(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await wait_all_tasks_blocked()
        await send({"type": "http.response.body", "body": b"last"})

    async with trio.open_nursery() as nursery:
        wire = Wire(nursery, in_pieces)
        stream = wire.connect()
        await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        pieces = [bytes(await stream.receive_some()) for _ in range(2)]
        nursery.cancel_scope.cancel()

    assert pieces[0].startswith(b"HTTP/1.1 200 ")
    assert pieces[0].endswith(b"\r\n\r\n5\r\nfirst\r\n")
    assert b"4\r\nlast\r\n0\r\n\r\n" == pieces[1]


async def test_connections_that_ask_for_nothing_do_not_hold_up_a_stop():
    """Neither one that never asked, nor one that has had its answer, nor one that comes late."""

    async def hello_world(scope, receive, send):
        await answer(send, 200, "here")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        made = run._hypercorn(config(), [listener])
        made.keep_alive_timeout = math.inf
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            serve = partial(hypercorn.trio.serve, shutdown_trigger=stop.wait)
            await nursery.start(serve, Doors({port: hello_world}), made)
            streams = [await trio.open_tcp_stream("127.0.0.1", port) for _ in range(2)]
            await streams[1].send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await streams[1].receive_some()).endswith(b"here")
            streams.append(await trio.open_tcp_stream("127.0.0.1", port))
            stop.set()
            with trio.fail_after(5):
                for stream in streams:
                    assert b"" == await stream.receive_some()
                    await stream.aclose()


@pytest.mark.parametrize("path", ["/filter", f"/ws/boot.ipxe/mac/{HYPHENS}"])
async def test_a_handshake_that_is_refused_or_hurried_holds_nothing(autojump_clock, path):
    """Whatever its client does then, which may be nothing for ever."""
    server = ("10.0.0.1", 20001) if path == "/filter" else SCHEDULER
    good = hello(path)
    async with open_lab() as lab:
        await lab.know()
        before = len(lab.wire.nursery.child_tasks)
        for sent in (good.replace(b"Version: 13", b"Version: 1"), good + FRAME, good + b"\0" * 99):
            stream = lab.wire.connect(("10.0.0.9", 4000), server)
            await stream.send_all(sent)
            answer = await everything(stream)
            head, _, why = answer.partition(b"\r\n\r\n")
            await wait_all_tasks_blocked()

            assert head.startswith(b"HTTP/1.1 400 ")
            assert b"handshake" in why
            assert before == len(lab.wire.nursery.child_tasks)
            assert (0, 0) == (len(lab.scheduler.lobby), len(lab.scheduler.watchers))
        assert 0 == trio.current_time()


@pytest.mark.parametrize(
    "request_line",
    ["GET /", "POST /nowhere", "GET /~lkp/cgi-bin/lkp-wtmp", "PUT /set_host_mac", "POST /metrics"],
)
async def test_a_body_that_never_ends_holds_no_connection_once_it_is_answered(
    autojump_clock, request_line
):
    """Time and again: it was a matter of which task came first."""
    head = f"{request_line} HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nabc"
    async with open_lab() as lab:
        before = len(lab.wire.nursery.child_tasks)
        for _ in range(20):
            stream = lab.wire.connect(("10.0.0.9", 4000), SCHEDULER)
            await stream.send_all(head.encode())
            await wait_all_tasks_blocked()

            assert before == len(lab.wire.nursery.child_tasks)


async def test_a_kept_connection_ends_when_no_other_question_comes(autojump_clock):
    async with open_lab() as lab:
        before = len(lab.wire.nursery.child_tasks)
        for _ in range(20):
            stream = lab.wire.connect(("10.0.0.9", 4000), SCHEDULER)
            await stream.send_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            await trio.sleep(2 * lab.wire.config.keep_alive_timeout)

            assert before == len(lab.wire.nursery.child_tasks)


@pytest.mark.parametrize(
    ("framing", "body", "slices"),
    [
        (b"content-length: 200000", b"x" * 200_000, 0),
        (b"transfer-encoding: chunked", b"1\r\nx\r\n" * 33_000 + b"0\r\n\r\n", 6),
    ],
)
async def test_bytes_of_a_body_wait_for_no_slice_but_those_of_chunks_do(
    nursery, monkeypatch, framing, body, slices
):
    asked, heard = [], trio.Event()

    async def own_round(who):
        asked.append(who)

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        heard.set()
        await answer(send, 200, "kept")

    monkeypatch.setattr(connections, "own_round", own_round)
    monkeypatch.setattr(turns, "own_round", own_round)  # a head asks for it there
    stream = Wire(nursery, app).connect(("10.0.0.9", 4000), SCHEDULER)
    await stream.send_all(b"PUT /x HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n")
    await wait_all_tasks_blocked()
    await stream.send_all(body)
    with trio.fail_after(5):
        await heard.wait()
    assert ["10.0.0.9"] * slices == asked[:slices]
    assert bool(slices) == bool(asked)
    await wait_all_tasks_blocked()
    asked.clear()
    await stream.send_all(b"GET /" + b"x" * 2000 + b" HTTP/1.1\r\nhost: x\r\n\r\n")
    await wait_all_tasks_blocked()
    assert ["10.0.0.9"] == asked


DENSE = b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a:\r\n" * 3000 + b"\r\n"  # 10 ms to look through
POST = b"POST /x HTTP/1.1\r\nhost: x\r\n"


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (POST + b"content-length: 2\r\n\r\n{", b"}" + DENSE),
        (POST + b"transfer-encoding: chunked\r\n\r\n", b"0\r\n\r\n" + DENSE),
        (POST + b"content-length: 0\r\n\r\n", DENSE),
        (DENSE[:-2], DENSE[-2:]),
        (POST + b"transfer-encoding: chunked\r\n\r\n0\r\n" + b"a:\r\n" * 3000, b"\r\n"),
    ],
    ids=["behind a body", "behind chunks", "behind an answer", "its end", "trailers"],
)
async def test_of_long_heads_one_is_looked_through_in_a_round(nursery, monkeypatch, first, last):
    """However they came: behind a body they waited for nothing, and a hundred took a second."""
    rounds = Rounds()

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await answer(send, 200, "kept")

    class Looked(h11.Connection):
        def next_event(self):
            event = super().next_event()
            if len(getattr(event, "headers", ())) > 1000:
                rounds.note()
            return event

    monkeypatch.setattr(h11, "Connection", Looked)
    wire = Wire(nursery, app)
    streams = [wire.connect(("10.0.0.9", 4000 + n), SCHEDULER) for n in range(20)]
    for stream in streams:
        await stream.send_all(first)
    await wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(rounds)
    for stream in streams:
        nursery.start_soon(stream.send_all, last)
    await wait_all_tasks_blocked()

    assert 20 == len(rounds.seen) == len(set(rounds.seen))


async def test_of_short_heads_a_few_are_looked_through_in_a_round(nursery, monkeypatch):
    rounds = Rounds()

    async def app(scope, receive, send):
        await answer(send, 200, "kept")

    class Looked(h11.Connection):
        def next_event(self):
            event = super().next_event()
            if isinstance(event, h11.Request):
                rounds.note()
            return event

    monkeypatch.setattr(h11, "Connection", Looked)
    wire = Wire(nursery, app)
    streams = [wire.connect(("10.0.0.9", 4000 + n), SCHEDULER) for n in range(200)]
    await wait_all_tasks_blocked()
    trio.lowlevel.add_instrument(rounds)
    for stream in streams:
        nursery.start_soon(stream.send_all, DENSE[:27] + b"a:\r\n" * 200 + b"\r\n")
    await wait_all_tasks_blocked()

    assert 200 == len(rounds.seen)
    assert max(Counter(rounds.seen).values()) <= 2 * turns.ROUND_BYTES // 800 + 2


@pytest.mark.parametrize("before", [b"", POST + b"content-length: 0\r\n\r\n"])
async def test_a_head_that_is_too_long_is_refused_though_it_is_whole(nursery, before):
    async def app(scope, receive, send):
        await answer(send, 200, "kept")

    stream = Wire(nursery, app).connect(("10.0.0.9", 4000), SCHEDULER)
    head = b"GET / HTTP/1.1\r\nhost: x\r\na: %s\r\n\r\n"
    with structlog.testing.capture_logs() as lines:
        await stream.send_all(before + head % (b"x" * request_heads.HEAD_BYTES_MAX))
        found = await everything(stream)

    assert bool(before) == (b" 200 " in found)
    assert b"HTTP/1.1 431 " in found
    assert found.endswith(b"its head has more than 16384 bytes\n")
    assert ["10.0.0.9"] == [line["client"] for line in lines]


@pytest.mark.parametrize("sent", [b"GET /x HTTP/1.1\r\nhost:", b"\xffrandom", b"PUT"])
async def test_what_never_becomes_a_request_is_told_so(autojump_clock, sent):
    async with open_lab() as lab:
        stream = lab.wire.connect(("10.0.0.9", 4000), SCHEDULER)
        silent = lab.wire.connect(("10.0.0.9", 4001), SCHEDULER)
        with structlog.testing.capture_logs() as lines:
            await stream.send_all(sent)
            answer = await everything(stream)

        assert answer.startswith(b"HTTP/1.1 408 ")
        assert answer.endswith(b"\r\n\r\nno whole request came within 5 s\n")
        assert ["10.0.0.9"] == [line["client"] for line in lines]
        assert b"" == await silent.receive_some()


async def test_the_real_server_goes_on_after_them_too():
    """Without the guard, these bytes stop the process: on loopback, through Hypercorn's own run."""

    async def hello_world(scope, receive, send):
        await answer(send, 200, "here")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        made = run._hypercorn(config(), [listener])
        async with trio.open_nursery() as nursery:
            await nursery.start(hypercorn.trio.serve, Doors({port: hello_world}), made)
            for _ in range(20):
                async with await trio.open_tcp_stream("127.0.0.1", port) as bad:
                    await bad.send_all(hello("/ws/boot.ipxe") + FRAME * 3)
                    with trio.move_on_after(1):
                        while await bad.receive_some():
                            pass
            async with await trio.open_tcp_stream("127.0.0.1", port) as good:
                await good.send_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
                found = b""
                while data := await good.receive_some():
                    found += data

            assert found.endswith(b"here")
            nursery.cancel_scope.cancel()


def test_a_message_that_is_too_long_is_not_gathered_any_further():
    buffer = Buffer(100)
    buffer.extend(TextMessage("x" * 100))
    with pytest.raises(FrameTooLargeError):
        buffer.extend(TextMessage("x"))
    for _ in range(3):
        with pytest.raises(TooLong, match="100 bytes"):
            buffer.extend(TextMessage("x" * 1000))

    assert 101 == buffer.length == len(buffer.value.getvalue())


async def test_a_parked_host_that_sends_without_an_end_is_cut_off(autojump_clock):
    async with open_lab() as lab:
        await lab.know(arch="x86_64")
        stream = lab.wire.connect(("10.0.0.5", 4000), SCHEDULER)
        await stream.send_all(hello(f"/ws/boot.ipxe?mac={HYPHENS}"))
        await wait_all_tasks_blocked()
        assert 1 == len(lab.scheduler.lobby)
        part = b"x" * 2**15
        sent = 0
        with contextlib.suppress(trio.BrokenResourceError):
            while sent < 10 * MESSAGE_BYTES_MAX:
                opcode = 0x00 if sent else 0x01
                head = bytes([opcode, 0xFE]) + len(part).to_bytes(2, "big") + bytes(4)
                await stream.send_all(head + part)
                await wait_all_tasks_blocked()
                sent += len(part)

        assert sent <= 2 * MESSAGE_BYTES_MAX
        assert 0 == len(lab.scheduler.lobby)
        assert 0 == trio.current_time()
