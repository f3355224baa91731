"""Folders of very many names cost the loop nothing and memory little, whoever lists them.

On real files, which take threads, and so on the real clock.
"""

from __future__ import annotations

import os
import random
import re
import socket
import subprocess
import sys
from functools import partial
from pathlib import Path
from urllib.parse import unquote_to_bytes

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.doors import index, index_page
from appliance.doors.index import Index
from appliance.keep import results
from appliance.turns import Turns, in_slices
from appliance.web import file_server
from appliance.web.files import Files, Unwatched
from tests import fakes
from tests import lab as labs
from tests.lab import open_lab

ROOT = Path(__file__).parent.parent
NAMES = 99_000
STALL_S = 0.1
MEMORY_BYTES = 64 * 2**20
GET = b"GET /result/many/ HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
# How long a loop that does nothing is not there: what the machine has other people do.
IDLE_LOOP = "import trio; from tests.test_listings import Stalls; trio.run(Stalls().tell)"


def crowd(folder: Path, names: int) -> None:
    """A folder of that many files."""
    folder.mkdir(parents=True)
    for number in range(names):
        os.close(os.open(folder / f"file-{number * 7919 % names:06}", os.O_CREAT | os.O_WRONLY))


def peak() -> int:
    """The most memory that this process has had since `forget`, in bytes."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def forget() -> None:
    Path("/proc/self/clear_refs").write_text("5")


class Stalls:
    """How long the loop was not there, at the longest."""

    def __init__(self) -> None:
        self.longest = 0.0

    async def watch(self) -> None:
        while True:
            before = trio.current_time()
            await trio.sleep(0.001)
            self.longest = max(self.longest, trio.current_time() - before)

    async def tell(self) -> None:
        """Watch until standard input ends, and write down what was seen."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.watch)
            await trio.to_thread.run_sync(sys.stdin.read)
            nursery.cancel_scope.cancel()
        print(self.longest)


class Elsewhere:
    """The same of a loop in a process of its own, that has nothing to do."""

    def __enter__(self) -> Elsewhere:
        command, pipe = [sys.executable, "-c", IDLE_LOOP], subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=ROOT)
        return self

    def __exit__(self, *_: object) -> None:
        self.longest = float(self._process.communicate()[0])


def served(srv: Path) -> Index:
    return Index("/result", srv / "result", Files({"/result": srv / "result"}, Unwatched()))


def named(page: bytes) -> list[bytes]:
    """The names that a page links to."""
    return [unquote_to_bytes(found) for found in re.findall(rb'href="\./([^"]*)"', page)]


async def take(port: int, method: str, got: list[int]) -> None:
    """Ask for the page and throw it away as it comes; its length."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    async with stream:
        await stream.send_all(GET.replace(b"GET", method.encode(), 1))
        length = 0
        while data := await stream.receive_some(2**18):
            length += len(data)
        got.append(length)


@pytest.fixture
def small(monkeypatch):
    """Windows of some four names, pieces of one or two, and hurry."""
    monkeypatch.setattr(index_page, "WINDOW_BYTES", 4 * (index_page.NAME_BYTES + 6))
    monkeypatch.setattr(index_page, "PIECE_BYTES", 100)
    monkeypatch.setattr(index, "SLOW_S", 0.05)


@pytest.mark.parametrize("seed", range(10))
async def test_a_page_of_many_windows_has_each_name_once_and_in_order(tmp_path, small, seed):
    rng = random.Random(seed)
    folder = tmp_path / "srv/result/many"
    folder.mkdir(parents=True)
    letters = [b"a", b"b", b" ", b".", b"\xff", b"-", b"&"]
    names = {b"".join(rng.choices(letters, k=5)) for _ in range(rng.randrange(80))}
    folders = set(rng.sample(sorted(names), len(names) // 3))
    for name in names:
        path = os.fsencode(folder) + b"/" + name
        os.mkdir(path) if name in folders else os.close(os.open(path, os.O_CREAT))
    (folder / "aaaa-link").symlink_to("x")
    async with trio.open_nursery() as nursery:
        wire = fakes.Wire(nursery, served(tmp_path / "srv"))
        page = await fakes.fetch(wire, "GET", "/result/many/")
        nursery.cancel_scope.cancel()

    assert [name + b"/" * (name in folders) for name in sorted(names)] == named(page.body)
    assert page.body.startswith(b"<html>")
    assert page.body.endswith(index_page.FOOT)


async def test_the_head_of_a_page_has_no_folder_read(tmp_path, monkeypatch):
    (tmp_path / "srv/result/many").mkdir(parents=True)

    def read(*_: object) -> None:
        raise AssertionError("the folder was read")

    monkeypatch.setattr(index_page.Folder, "piece", read)
    async with trio.open_nursery() as nursery:
        wire = fakes.Wire(nursery, served(tmp_path / "srv"))
        head = await fakes.fetch(wire, "HEAD", "/result/many/")
        nursery.cancel_scope.cancel()

    assert (200, b"") == (head.status, head.body)
    assert [] == wire.crashes


@pytest.mark.parametrize("leaves", [True, False])
async def test_a_client_that_is_slow_or_gone_does_not_keep_the_next_from_its_page(
    nursery, tmp_path, small, monkeypatch, leaves
):
    """Neither another of its own address, which has one turn at a time."""
    monkeypatch.setattr(index, "PAGES_MAX", 1)
    crowd(tmp_path / "srv/result/many", 50)
    wire = fakes.Wire(nursery, served(tmp_path / "srv"))
    slow = [wire.connect(("10.0.0.9", 4000 + number), lockstep=True) for number in range(3)]
    for stream in slow:
        await stream.send_all(GET)
        assert await stream.receive_some(100)
        if leaves:
            await stream.aclose()
    try:
        with trio.fail_after(10):
            got = [
                await fakes.fetch(wire, "GET", "/result/many/", client=(client, 5000))
                for client in ("10.0.0.9", "10.0.0.10")
            ]
    finally:
        for stream in slow:  # Hypercorn shields what it sends
            stream.send_stream.close()
            stream.receive_stream.close()

    assert [50, 50] == [len(named(page.body)) for page in got]


async def test_a_client_that_hangs_up_while_it_waits_for_its_turn_is_let_go(
    nursery, tmp_path, small, monkeypatch
):
    monkeypatch.setattr(index, "PAGES_MAX", 1)
    crowd(tmp_path / "srv/result/many", 50)
    app = served(tmp_path / "srv")
    wire = fakes.Wire(nursery, app)
    turn = await app._turns.begin("10.9.0.1")
    before = len(os.listdir("/proc/self/fd"))
    waiting = [wire.connect((f"10.0.0.{9 + n % 2}", 4000 + n)) for n in range(4)]
    with trio.fail_after(10):
        for stream in waiting:
            await stream.send_all(GET)
        while len(os.listdir("/proc/self/fd")) < before + 4:  # noqa: ASYNC110 - threads open them
            await trio.sleep(0.01)
        for stream in waiting:
            await stream.aclose()
        while len(os.listdir("/proc/self/fd")) > before:  # noqa: ASYNC110 - and Hypercorn goes
            await trio.sleep(0.01)
    assert 1 == len(app._turns)
    turn.give_back()
    assert 0 == len(app._turns)


async def test_a_page_whose_folder_goes_away_meanwhile_leaves_nothing_behind(
    nursery, tmp_path, small
):
    folder = tmp_path / "srv/result/many"
    crowd(folder, 50)
    app = served(tmp_path / "srv")
    wire = fakes.Wire(nursery, app)
    before = len(os.listdir("/proc/self/fd"))
    slow = wire.connect(lockstep=True)
    await slow.send_all(GET)
    found = bytes(await slow.receive_some(200))
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    with trio.fail_after(10):
        while data := await slow.receive_some(1000):
            found += data

    await wait_all_tasks_blocked()
    assert found.endswith(index_page.FOOT + b"\r\n0\r\n\r\n")
    assert before == len(os.listdir("/proc/self/fd"))
    assert 0 == len(app._turns)
    assert [] == wire.crashes


async def test_turns_are_few_and_each_address_has_one(autojump_clock):
    turns, begun = Turns(2), {}

    async def work(who: str, number: int) -> None:
        turn = await turns.begin(who)
        begun[who, number] = trio.current_time()
        await trio.sleep(1)
        turn.give_back()
        turn.give_back()

    async with trio.open_nursery() as nursery:
        for number in range(4):
            nursery.start_soon(work, "greedy", number)
        await wait_all_tasks_blocked()
        nursery.start_soon(work, "b", 0)
        nursery.start_soon(work, "c", 0)

    assert [0.0, 1.0] == sorted([begun["b", 0], begun["c", 0]])
    assert [0.0, 1.0, 2.0, 3.0] == sorted(begun["greedy", n] for n in range(4))
    assert 0 == len(turns)


async def test_who_leaves_the_queue_leaves_nothing(autojump_clock):
    turns = Turns(1)
    first = await turns.begin("a")
    for who in ("a", "b"):
        with trio.move_on_after(1) as scope:
            await turns.begin(who)
        assert scope.cancelled_caught
    first.give_back()
    assert 0 == len(turns)

    with trio.fail_after(1):
        (await turns.begin("b")).give_back()


def test_items_come_in_slices_as_they_were():
    assert list(range(1000)) == list(in_slices(range(1000)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_twenty_who_list_a_folder_of_99_000_names_hold_up_nobody(tmp_path, method):
    crowd(tmp_path / "srv/result/many", NAMES)
    app, stop, stalls, got = served(tmp_path / "srv"), trio.Event(), Stalls(), []
    sock = socket.create_server(("127.0.0.1", 0))
    elsewhere = Elsewhere()
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(file_server.serve, app, [sock], stop=stop.wait, patience=1.0))
        port = sock.getsockname()[1]
        await take(port, "HEAD", [])
        forget()
        before = peak()
        nursery.start_soon(stalls.watch)
        with elsewhere:
            began = trio.current_time()
            async with trio.open_nursery() as clients:
                for _ in range(20):
                    clients.start_soon(take, port, method, got)
            took = trio.current_time() - began
        nursery.cancel_scope.cancel()
    more = peak() - before
    print(f"{method}: {took:.2f} s, stall {stalls.longest:.3f} s ({elsewhere.longest:.3f}), {more}")

    assert 20 == len(got)
    assert all(length > 60 * NAMES if method == "GET" else length < 1000 for length in got)
    assert more < MEMORY_BYTES
    if method == "HEAD":
        assert took < 1.0
    else:  # long enough that the other loop was there, too
        assert stalls.longest < STALL_S + elsewhere.longest


async def test_however_many_upload_at_once_their_attempt_is_counted_once(tmp_path, monkeypatch):
    """After a restart, when nobody remembers how much it has uploaded."""
    counted, used = [], results.used
    monkeypatch.setattr(results, "used", lambda root: counted.append(root) or used(root))
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know()
        asked = await lab.ask()
        job = await lab.submit()
        await asked.rest()
        await lab.fetched_all(job)
        root = lab.scheduler.store.job(job.id).result_root
        crowd(tmp_path / "srv" / root[1:] / "earlier", 500)
        cookie = {"cookie": f"JOBID={job.id}"}
        statuses = []

        async def put(number: int) -> None:
            answer = await fakes.fetch(
                lab.wire, "PUT", f"{root}/file-{number}", cookie, b"x", server=("10.0.0.1", 3080)
            )
            statuses.append(answer.status)

        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(put, number)

    assert [201] * 10 == statuses
    assert 1 == len(counted)


def test_what_is_counted_is_what_is_listed_and_what_a_killed_server_left(tmp_path):
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/c").write_bytes(b"123")
    (tmp_path / "d").write_bytes(b"45")
    (tmp_path / f"{results.PART}e").write_bytes(b"6")
    (tmp_path / "a/f").symlink_to(tmp_path / "none")

    assert [("a/b/c", 3), ("d", 2)] == [row[:2] for row in results.listing(tmp_path)]
    assert (6, 5) == results.used(tmp_path)  # the half-written one takes room as well
