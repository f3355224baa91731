"""Acknowledged submits: 64 people over the control socket, each answered once its job is on disk.

Against SQLite (WAL, synchronous=FULL) that inserts a row of the same bytes in a transaction of its
own, from as many threads; and beside redis-server with `appendfsync always`, where it is installed.
All on the same file system, taking turns.
"""

from __future__ import annotations

import contextlib
import secrets
import selectors
import shutil
import socket
import sqlite3
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import cbor2

from bench import process
from bench.table import Row

SUBMITTERS: Final = 64
SECONDS: Final = 2.0  # of one run
RUNS: Final = 5
AIM: Final = 1.0
LEAST: Final = 0.5
# /tmp may be in memory, where a sync costs nothing.
FOLDER: Final = Path.cwd()
_DOCUMENT: Final = "suite: bench\nscript: |\n  true\n"
_HELLO: Final = cbor2.dumps({"appliance": 1})
# A key and what a journal keeps of such a job: measured, 750 bytes.
_ROW: Final = "x" * 750

Counted = Callable[[], int]  # one run: how many were acknowledged


def rows() -> list[Row]:
    """Submits per second beside their peers."""
    with (
        tempfile.TemporaryDirectory(dir=FOLDER, prefix=".bench-") as folder,
        process.appliance(Path(folder)) as server,
        contextlib.ExitStack() as stack,
    ):
        peers = {"SQLite, WAL, synchronous=FULL": stack.enter_context(_sqlite(Path(folder)))}
        if shutil.which("redis-server"):
            redis = stack.enter_context(_redis(Path(folder)))
            peers["redis-server, appendfsync always"] = redis
        people = stack.enter_context(contextlib.closing(_People(server.control)))
        taken: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
        for _ in range(RUNS):  # taking turns: a busy moment of the machine hits all
            taken["ours"].append(_rate(people.run))
            for name, run in peers.items():
                taken[name].append(_rate(run))
    ours, *others = (statistics.median(rates) for rates in taken.values())
    return [
        _row(ours, name, rate, n == 0)
        for n, (name, rate) in enumerate(zip(peers, others, strict=True))
    ]


def _row(ours: float, name: str, theirs: float, aimed: bool) -> Row:
    return Row(
        f"acknowledged submits, {SUBMITTERS} at once",
        f"{ours:,.0f}/s",
        f"{name}: {theirs:,.0f}/s",
        f"{ours / theirs:.2f}",
        f"{AIM:.1f}, at least {LEAST}" if aimed else "",
        ours / theirs >= LEAST if aimed else None,
    )


def _rate(run: Counted) -> float:
    began = time.perf_counter()
    return run() / (time.perf_counter() - began)


class _People:
    """Each has a connection of its own, and submits again when it was answered."""

    def __init__(self, control: Path) -> None:
        self._selector = selectors.DefaultSelector()
        for _ in range(SUBMITTERS):
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(str(control))
            sock.sendall(_HELLO)
            sock.recv(4096)
            self._selector.register(sock, selectors.EVENT_READ, sock)

    def run(self) -> int:
        """How many were answered within SECONDS, and those still under way then."""
        done, waiting = 0, 0
        for key in list(self._selector.get_map().values()):
            key.data.sendall(_submit())
            waiting += 1
        end = time.perf_counter() + SECONDS
        while waiting:
            for key, _ in self._selector.select():
                answer = cbor2.loads(key.data.recv(65536))
                assert "result" in answer, answer
                done += 1
                if time.perf_counter() < end:
                    key.data.sendall(_submit())
                else:
                    waiting -= 1
        return done

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.data.close()
        self._selector.close()


def _submit() -> bytes:
    paper = {"name": "bench.yaml", "text": _DOCUMENT, "defaults": {}, "overrides": {}}
    return cbor2.dumps({"verb": "submit", "documents": [paper], "key": secrets.token_hex(16)})


@contextlib.contextmanager
def _sqlite(folder: Path) -> Iterator[Counted]:
    path = folder / "peer.sqlite"
    # Writers take turns by a lock: SQLite's own way of waiting sleeps, and is slower.
    turn = threading.Lock()
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as first:
        first.execute("pragma journal_mode=wal")
        first.execute("create table jobs (key text primary key, job text)")

    def insert(counts: list[int]) -> None:
        with contextlib.closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as mine:
            mine.execute("pragma synchronous=full")
            count, end = 0, time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                with turn:
                    mine.execute("insert into jobs values (?, ?)", (secrets.token_hex(16), _ROW))
                count += 1
        counts.append(count)

    yield lambda: _in_threads(insert)


@contextlib.contextmanager
def _redis(folder: Path) -> Iterator[Counted]:
    path = folder / "redis.sock"
    command = [
        "redis-server", "--port", "0", "--unixsocket", str(path), "--dir", str(folder),
        "--appendonly", "yes", "--appendfsync", "always", "--save", "",
    ]  # fmt: skip

    def put(counts: list[int]) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(path))
            count, end = 0, time.perf_counter() + SECONDS
            while time.perf_counter() < end:
                words = ["SET", secrets.token_hex(16), _ROW]
                sent = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
                sock.sendall(f"*{len(words)}\r\n{sent}".encode())
                assert sock.recv(100) == b"+OK\r\n"
                count += 1
        counts.append(count)

    with process.running(command, folder / "redis.log", path.exists):
        yield lambda: _in_threads(put)


def _in_threads(work: Callable[[list[int]], None]) -> int:
    counts: list[int] = []
    threads = [threading.Thread(target=work, args=(counts,)) for _ in range(SUBMITTERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(counts) == SUBMITTERS, "a thread failed"
    return sum(counts)
