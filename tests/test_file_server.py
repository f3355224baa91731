"""Real sockets on loopback: sendfile knows no others.  No test waits for a clock."""

from __future__ import annotations

import gc
import math
import os
import socket
import tracemalloc
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import attrs
import pytest
import trio

from appliance.web import file_server, request_heads
from appliance.web.asgi import Doors
from appliance.web.entrance import Entrance, Heads
from appliance.web.files import Files
from appliance.web.request_heads import HEAD_BYTES_MAX
from appliance.web.sending import PIECE_BYTES
from appliance.web.shares import Kind, Places, Shares
from tests import fakes

SIZE = 5 * 2**20 + 7  # several chunks, and a piece of one


@attrs.define
class Ledger:
    moved_bytes: int = 0
    done_paths: list[str] = attrs.Factory(list)

    def moved(self, client, path, n):
        self.moved_bytes += n

    def done(self, client, path, *rest):
        self.done_paths.append(path)

    def __getattr__(self, name):
        return lambda *args: None


@attrs.frozen
class Door:
    port: int
    close: trio.Event
    ledger: Ledger
    over: trio.Event

    async def connect(self):
        return await trio.open_tcp_stream("127.0.0.1", self.port)


@asynccontextmanager
async def door(folder, patience=5.0, holds=None, entrance=None):
    """`holds`: bytes that the kernel keeps of what a client has not taken."""
    sock = socket.socket()
    if holds is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, holds)
    sock.bind(("127.0.0.1", 0))
    port = sock.getsockname()[1]
    ledger, close, over = Ledger(), trio.Event(), trio.Event()
    app = Doors({port: Files({"/os": folder}, ledger)})

    async def serve(*, task_status):
        await file_server.serve(
            app,
            [sock],
            stop=close.wait,
            patience=patience,
            entrance=entrance,
            task_status=task_status,
        )
        over.set()

    with trio.fail_after(30 if patience < math.inf else math.inf):
        async with trio.open_nursery() as nursery:
            await nursery.start(serve)
            yield Door(port, close, ledger, over)
            close.set()


@pytest.fixture
def large(tmp_path):
    data = os.urandom(SIZE)
    (tmp_path / "large").write_bytes(data)
    return data


async def fetch(stream, method="GET", target="/os/large", **headers):
    answer = await fakes.begin(stream, method, target, headers)
    return answer, await answer.rest()


async def test_a_file_arrives_whole(tmp_path, large):
    async with door(tmp_path) as opened, await opened.connect() as stream:
        answer, body = await fetch(stream)

    assert (200, str(SIZE)) == (answer.status, answer.headers["content-length"])
    assert large == body
    assert SIZE == opened.ledger.moved_bytes


async def test_a_range_starts_and_ends_where_it_was_asked_to(tmp_path, large):
    async with door(tmp_path) as opened, await opened.connect() as stream:
        answer, body = await fetch(stream, range=f"bytes=100-{2**21}")

    assert (206, large[100 : 2**21 + 1]) == (answer.status, body)


@pytest.mark.parametrize(("method", "target", "status"), [
    ("HEAD", "/os/large", 200),
    ("GET", "/os/gone", 404),
    ("GET", "/os/../etc/passwd", 404),
    ("DELETE", "/os/large", 405),
])  # fmt: skip
async def test_what_is_no_file_is_answered_too(tmp_path, large, method, target, status):
    async with door(tmp_path) as opened, await opened.connect() as stream:
        answer = await fakes.begin(stream, method, target)

    assert status == answer.status


async def test_a_connection_serves_one_file_after_the_other(tmp_path):
    (tmp_path / "large").write_bytes(bytes(SIZE))  # no header has a zero byte in it
    question = b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n"
    async with door(tmp_path) as opened, await opened.connect() as stream:
        await stream.send_all(question * 3)  # before the first answer, as some clients do
        got = 0
        while got < 3 * SIZE:
            got += (await stream.receive_some(2**20)).count(0)
        await trio.testing.wait_all_tasks_blocked()

    assert 3 * SIZE == opened.ledger.moved_bytes


NOISE = [
    b"\x16\x03\x01\x02\x00\r\n\r\n",
    b"GET / HTTP/9\r\n\r\n",
    b"A" * 2**17,
    b"HEAD /os/large HTTP/1.1\r\nHost: lab\r\na: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n",
]


@pytest.mark.parametrize("noise", NOISE, ids=len)
async def test_what_is_no_http_is_told_so_and_shown_out(tmp_path, noise):
    async with door(tmp_path) as opened, await opened.connect() as stream:
        await stream.send_all(noise)
        answer = b""
        while more := await stream.receive_some(65536):
            answer += more

    assert answer.startswith(b"HTTP/1.1 4")


async def test_a_head_waits_for_its_turn_by_all_that_it_has_though_it_came_early(
    tmp_path, large, monkeypatch
):
    """Behind another question, or with its last byte alone."""
    turns = []

    async def round_for(who, size):
        turns.append((who, size))

    monkeypatch.setattr(request_heads, "round_for", round_for)
    short = b"HEAD /os/large HTTP/1.1\r\nHost: lab\r\n\r\n"
    long = short[:-2] + b"a:\r\n" * 3000 + b"\r\n"
    async with door(tmp_path) as opened, await opened.connect() as stream:
        await stream.send_all(short + long + long[:-1])
        answers = b""
        while answers.count(b"HTTP/1.1 ") < 2:
            answers += await stream.receive_some(65536)
        assert [len(short), len(long)] == [size for _, size in turns]
        await stream.send_all(long[-1:])
        await stream.receive_some(65536)

    assert [("127.0.0.1", len(each)) for each in (short, long, long)] == turns


async def test_a_client_that_hangs_up_midway_is_not_done(tmp_path):
    size = 64 * 2**20  # more than the kernel keeps for a connection
    with (tmp_path / "large").open("wb") as file:
        file.truncate(size)
    async with door(tmp_path) as opened:
        async with await opened.connect() as stream:
            await stream.send_all(b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n")
            await stream.receive_some(1)
        opened.close.set()
        await opened.over.wait()  # nobody is left; no patience was needed

    assert (opened.ledger.moved_bytes < size, []) == (True, opened.ledger.done_paths)


async def test_a_stop_lets_a_transfer_end_and_nobody_new_in(tmp_path, large):
    async with door(tmp_path) as opened, await opened.connect() as stream:
        answer = await fakes.begin(stream, "GET", "/os/large")
        opened.close.set()
        await trio.testing.wait_all_tasks_blocked()

        assert large == await answer.rest()
        with pytest.raises(OSError, match="connect"):
            await opened.connect()


async def test_a_stop_does_not_wait_for_idle_connections(tmp_path, large):
    async with door(tmp_path) as opened, await opened.connect() as stream:
        await fetch(stream)
        opened.close.set()

        assert b"" == await stream.receive_some(1)
        with trio.fail_after(file_server.LINGER_S / 2):  # nor linger, though they stay
            await opened.over.wait()


async def test_what_never_becomes_a_request_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr(file_server, "IDLE_S", 0.05)
    async with door(tmp_path) as opened, await opened.connect() as stream:
        await stream.send_all(b"\xffrandom")
        answer = b""
        while more := await stream.receive_some(65536):
            answer += more

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b"\r\n\r\nno whole request came within 0 s\n")


async def test_a_stop_ends_at_once_what_takes_longer_than_its_patience(tmp_path):
    with (tmp_path / "large").open("wb") as file:
        file.truncate(64 * 2**20)
    async with door(tmp_path, patience=0.0) as opened, await opened.connect() as stream:
        await stream.send_all(b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n")
        await stream.receive_some(1)
        opened.close.set()
        await opened.over.wait()


async def test_a_file_that_shrinks_ends_the_connection_short(tmp_path):
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(64 * 2**20)
    async with door(tmp_path) as opened, await opened.connect() as stream:
        await stream.send_all(b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n")
        await stream.receive_some(1)
        os.truncate(path, 2**20)
        receive = partial(stream.receive_some, 2**20)
        got = 1
        while more := await receive():
            got += len(more)

    assert (got < 64 * 2**20, []) == (True, opened.ledger.done_paths)


async def test_a_client_that_takes_a_little_of_a_file_now_and_then_is_cut(
    tmp_path, large, mock_clock
):
    """Each time there is room for more; and yet it would keep the file open for a month."""
    async with door(tmp_path, patience=math.inf, holds=4096) as opened:
        sock = trio.socket.socket()
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            await sock.connect(("127.0.0.1", opened.port))
            await sock.send(b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n")
            taken, cut = 0, False
            while not cut and taken < SIZE and mock_clock.current_time() < 2 * file_server.STALL_S:
                try:
                    got = len(await sock.recv(8192))
                    cut = not got
                    taken += got
                except ConnectionError:
                    cut = True
                for _ in range(50):  # the server does what it can
                    await trio.lowlevel.checkpoint()
                mock_clock.jump(59)

    assert cut
    assert 0 < taken < 2 * PIECE_BYTES


def lets_all_in():
    shares = Shares(control=16, lab=32, others=16)
    return Entrance(Places(shares), lambda client, server: (client, Kind.OTHER))


async def until(said):
    with trio.fail_after(10):
        while not said():
            await trio.lowlevel.checkpoint()


SHORT = b"GET /os/large HTTP/1.1\r\nHost: lab\r\nRange: bytes=0-0\r\n"


async def test_of_questions_behind_an_unread_file_few_are_kept_and_those_count(tmp_path):
    made = lets_all_in()
    (tmp_path / "large").write_bytes(bytes(2**20))
    behind = (SHORT + b"\r\n") * 299 + SHORT + b"Connection: close\r\n\r\n"
    async with door(tmp_path, holds=4096, entrance=made) as opened:
        stream = await opened.connect()
        await stream.send_all(b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n" + behind)
        await until(lambda: made.heads.taken)
        for _ in range(100):  # it takes what it will take
            await trio.lowlevel.checkpoint()
        kept = made.heads.taken
        found = bytearray()
        while more := await stream.receive_some(2**20):
            found += more
        await stream.aclose()
        await until(lambda: not made.heads.taken)

    assert 0 < kept <= file_server.PIPELINED_BYTES_MAX
    assert 300 == found.count(b"HTTP/1.1 206 ")


async def test_who_keeps_questions_behind_an_unread_file_gives_way_to_heads_that_come(tmp_path):
    made = lets_all_in()
    made.heads = Heads(file_server.PIPELINED_BYTES_MAX + 100)
    (tmp_path / "large").write_bytes(bytes(SIZE))
    async with door(tmp_path, holds=4096, entrance=made) as opened:
        first, second = await opened.connect(), await opened.connect()
        async with first, second:
            await first.send_all(b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n")
            await first.receive_some(1)
            await first.send_all(SHORT * 100)
            await until(lambda: made.heads.taken == file_server.PIPELINED_BYTES_MAX)
            await second.send_all(SHORT * 5)
            got = 0
            with suppress(trio.BrokenResourceError):
                while more := await first.receive_some(2**20):
                    got += len(more)

    assert got < SIZE


async def test_a_client_that_asks_early_and_hangs_up_is_noticed(tmp_path):
    """Also where more than is read of what it asked waits in the kernel."""
    made = lets_all_in()
    (tmp_path / "large").write_bytes(bytes(SIZE))
    async with door(tmp_path, holds=4096, entrance=made) as opened:
        async with await opened.connect() as stream:
            await stream.send_all(b"GET /os/large HTTP/1.1\r\nHost: lab\r\n\r\n" + SHORT * 100)
            await until(lambda: made.heads.taken)
        await until(lambda: made.places.used == (0, 0))

    assert 0 == made.heads.taken


async def test_who_lingers_behind_an_answer_keeps_nothing_of_what_was_asked(tmp_path, large):
    """Four hundred that asked with 3,500 empty headers each kept 160 MiB for two seconds."""
    kept = []
    async with door(tmp_path) as opened:
        for headers in (1, 1, 3000):  # the first ones make what is made once
            async with AsyncExitStack() as stack:
                gc.collect()
                tracemalloc.start()
                try:
                    for _ in range(10):
                        stream = await stack.enter_async_context(await opened.connect())
                        head = b"GET /os/large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"
                        await stream.send_all(head + b"a:\r\n" * headers + b"\r\n")
                        while await stream.receive_some(2**20):
                            pass  # up to its end: the server listens for what is still on its way
                    gc.collect()
                    kept.append(tracemalloc.get_traced_memory()[0])
                finally:
                    tracemalloc.stop()

    assert kept[2] - kept[1] < 10 * 5000
