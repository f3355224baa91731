"""A client that takes nothing is cut, at every door; and what such clients hold is bounded."""

from __future__ import annotations

import contextlib
import os

import cbor2
import pytest
import structlog
import trio
from trio.testing import lockstep_stream_pair, wait_all_tasks_blocked

from appliance.control import server
from appliance.web import sending
from appliance.web.sending import PIECE_BYTES, PRESSED_S, STALL_S, Owed, TakesNothing
from tests import lab as labs
from tests.lab import ASK, HYPHENS, KEY, SCHEDULER, open_lab

MONITOR, UPLOAD = ("10.0.0.1", 20001), ("10.0.0.1", 3080)
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
GET = "GET {} HTTP/1.1\r\nHost: x\r\n\r\n"
QUESTIONS = {
    "what a box is told": (SCHEDULER, GET.format(ASK)),
    "a small answer": (SCHEDULER, GET.format("/")),
    "what is nowhere": (SCHEDULER, GET.format("/nowhere")),
    "the runner": (SCHEDULER, GET.format("/runner.cgz")),
    "a refusal": (UPLOAD, "PUT /result/x HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n"),
    "what is no HTTP": (UPLOAD, "\x00\x01\r\n\r\n"),
    "a monitor": (MONITOR, HANDSHAKE.format("/filter")),
    "no monitor": (MONITOR, HANDSHAKE.format("/nothing")),
    "a virtual box": (SCHEDULER, HANDSHAKE.format(f"/ws/boot.ipxe/mac/{HYPHENS}")),
}


@pytest.mark.parametrize("name", QUESTIONS)
async def test_who_asks_and_takes_nothing_of_the_answer_is_cut(autojump_clock, name):
    server, question = QUESTIONS[name]
    async with open_lab() as lab:
        await lab.know()
        before = len(lab.wire.nursery.child_tasks)
        stream = lab.wire.connect(("10.0.0.66", 4000), server, lockstep=True)
        with structlog.testing.capture_logs() as lines:
            await stream.send_all(question.encode("latin-1"))
            await trio.sleep(STALL_S - 1)
            assert before < len(lab.wire.nursery.child_tasks)
            await trio.sleep(60)

        assert before == len(lab.wire.nursery.child_tasks)
        assert (0, 0) == (len(lab.scheduler.lobby), len(lab.scheduler.watchers))
        assert ["10.0.0.66"] == [one["client"] for one in lines if one["event"] == "client cut"]


async def test_a_monitor_that_stops_reading_is_cut_and_its_pings_are_not_gathered(autojump_clock):
    async with open_lab() as lab:
        before = len(lab.wire.nursery.child_tasks)
        stream = lab.wire.connect(("10.0.0.66", 4000), MONITOR, lockstep=True)
        await stream.send_all(HANDSHAKE.format("/filter").encode())
        await stream.receive_some()
        sent = 0
        with trio.move_on_after(STALL_S - 1):
            while True:
                await stream.send_all(b"\x89\x80\0\0\0\0" * 100)
                sent += 1
        assert sent < 5
        await trio.sleep(60)

        assert before == len(lab.wire.nursery.child_tasks)


async def test_a_byte_a_minute_is_nothing_and_a_slow_client_is_served(autojump_clock):
    """What is taken in five minutes has a measure, which a modem keeps."""
    assert (300, 2**16) == (STALL_S, PIECE_BYTES)
    data = os.urandom(4 * PIECE_BYTES)

    async def take(stream, size, every, taken):
        with contextlib.suppress(trio.BrokenResourceError):
            while got := await stream.receive_some(size):
                taken.extend(got)
                await trio.sleep(every)

    owed = Owed()
    async with trio.open_nursery() as nursery:
        ours, theirs = lockstep_stream_pair()
        nursery.start_soon(take, theirs, 1, 60, bytearray())
        with pytest.raises(TakesNothing):
            await owed.send(ours, data, "10.0.0.66")
        assert STALL_S == trio.current_time()
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        taken = bytearray()
        ours, theirs = lockstep_stream_pair()
        nursery.start_soon(take, theirs, PIECE_BYTES // 4, STALL_S / 4 - 1, taken)
        await owed.send(ours, data, "10.0.0.67")
        await ours.aclose()

    assert data == taken


async def test_where_clients_hold_too_much_those_who_take_nothing_have_little_time(
    autojump_clock, monkeypatch
):
    monkeypatch.setattr(sending, "OWED_BYTES_MAX", 10 * PIECE_BYTES)
    owed, cut, at = Owed(), [], []

    async def stuck(number):
        ours, _theirs = lockstep_stream_pair()
        try:
            await owed.send(ours, bytes(PIECE_BYTES), f"10.0.0.{number}")
        except TakesNothing:
            cut.append(number)
            at.append(trio.current_time())

    async def honest(ours, theirs):
        async def take():
            async for _ in theirs:
                pass

        async with trio.open_nursery() as taking:
            taking.start_soon(take)
            await owed.send(ours, bytes(2 * PIECE_BYTES), "10.0.0.200")
            taking.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(stuck, number)
            await trio.sleep(1)
        await trio.sleep(60)
        assert [] == cut
        nursery.start_soon(honest, *lockstep_stream_pair())
        await wait_all_tasks_blocked()
        assert [0, 1] == sorted(cut)  # as much as it needs, of those who are there longest
        for number in range(10, 20):
            nursery.start_soon(stuck, number)
        await trio.sleep(PRESSED_S + 1)
        assert set(range(10)) == {*cut} & {*range(10)}

    assert 20 == len(cut)
    assert max(at) == 70 + STALL_S


@pytest.mark.parametrize("verb", ["status", "watch"])
async def test_a_command_line_that_does_not_read_is_cut(autojump_clock, tmp_path, verb):
    """And what it goes on to ask is not answered before it reads."""
    async with open_lab(labs.config(tmp_path)) as lab, trio.open_nursery() as nursery:
        await nursery.start(server.serve, lab.scheduler, lab.people)
        await trio.testing.wait_all_tasks_blocked()
        before = len(nursery.child_tasks)
        async with await trio.open_unix_socket(str(lab.config.paths.control_socket)) as stream:
            with structlog.testing.capture_logs() as lines:
                await stream.send_all(cbor2.dumps({"appliance": 1}))
                if verb == "watch":
                    await stream.send_all(cbor2.dumps({"verb": "watch"}))
                    for n in range(1000):
                        await lab.submit(key=f"{KEY}{n}")
                with trio.move_on_after(STALL_S / 2):
                    await stream.send_all(cbor2.dumps({"verb": "status"}) * 100_000)
                await trio.sleep(STALL_S + 60)

        assert [1] == [1 for line in lines if line["event"] == "client cut"]
        assert "the command line of " in repr(lines)
        assert 0 == len(lab.scheduler.watchers)
        assert before == len(nursery.child_tasks)
        nursery.cancel_scope.cancel()


async def test_who_hung_up_is_not_said_to_take_nothing(autojump_clock):
    ours, theirs = lockstep_stream_pair()
    owed = Owed()
    await theirs.aclose()
    with structlog.testing.capture_logs() as lines, pytest.raises(trio.BrokenResourceError):
        await owed.send(ours, b"x", "10.0.0.66")

    assert [] == lines


def test_a_client_that_takes_nothing_is_not_taken_for_a_full_disk():
    """A backup says NoSpace of an OSError, and would go on to say it to that client."""
    assert not issubclass(TakesNothing, OSError)
