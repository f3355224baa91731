"""10,000 boxes whose waits end in the same second: each is told to ask again, and does at once.

So that they end together, however long it took the boxes to come, the server is stopped (SIGSTOP)
from before the first wait is over until after the last, as a machine that was suspended would be.
Meanwhile somebody submits jobs for other boxes, which sat down right before.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import signal
import socket
import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from bench import process
from bench.parked import PATIENCE_S, Control, raise_open_files
from bench.table import Row, percentile

BOXES: Final = 10_000
QUICK: Final = 400  # boxes that get the jobs
PARK_S: Final = 40.0  # a wait: longer than it takes all of them to sit down
QUICK_S: Final = 3.0  # for the others to sit down
PARKED_S: Final = 10.0
DISPATCH_S: Final = 0.5
BETWEEN_S: Final = 0.02  # two submits
_AT_ONCE: Final = 200  # connections on their way
_DOCUMENT: Final = "suite: bench\nqueue: quick\nscript: |\n  true\n"


def rows() -> list[Row]:
    """How long until all are parked again, and how long jobs took meanwhile."""
    raise_open_files(2 * BOXES)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_hosts(folder, BOXES, QUICK)
        waits = f"\n[waits]\npark = {PARK_S}\ndrip = {PARK_S}\n"
        with process.appliance(folder, waits) as server:
            address = ("127.0.0.1", server.ports[0])
            with contextlib.ExitStack() as stack:
                crowd = stack.enter_context(contextlib.closing(Crowd(address, 0, BOXES)))
                quick = stack.enter_context(contextlib.closing(Crowd(address, BOXES, QUICK)))
                control = stack.enter_context(contextlib.closing(Control(server)))
                began = time.monotonic()
                crowd.ask_all()
                parked = time.monotonic()
                assert parked < began + PARK_S - 2 * QUICK_S, "the waits are too short for so many"
                time.sleep(began + PARK_S - QUICK_S - time.monotonic())
                quick.ask_all()
                assert time.monotonic() < began + PARK_S, "the first waits are over"
                os.kill(server.pid, signal.SIGSTOP)
                time.sleep(parked + PARK_S + 1 - time.monotonic())
                os.kill(server.pid, signal.SIGCONT)
                return _storm(crowd, quick, control)


def _storm(crowd: Crowd, quick: Crowd, control: Control) -> list[Row]:
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:  # a process of its own: what is slow in one crowd must not be seen in the other
        status = 1
        try:
            taken = _dispatch(quick, control, read_end=read, write_end=write)
            status = 0 if taken else 1
        finally:
            os._exit(status)
    began = time.perf_counter()
    crowd.come_back()
    took = time.perf_counter() - began
    os.kill(pid, signal.SIGUSR1)
    os.close(write)
    with open(read) as lines:
        taken = [float(line) for line in lines]
    assert os.waitpid(pid, 0)[1] == 0, "the submits failed"
    p99 = percentile(taken, 99)
    return [
        Row(
            f"{BOXES:,} waits that end in one second: all parked again",
            f"{took:.1f} s",
            f"{BOXES / took:,.0f} boxes/s, {crowd.cut_off} cut off",
            f"{took / PARKED_S:.2f} of the aim",
            f"{PARKED_S:.0f} s",
            took <= PARKED_S and not crowd.cut_off,
        ),
        Row(
            "submit to first script byte meanwhile",
            f"{statistics.median(taken) * 1000:.1f} ms, p99 {p99 * 1000:.0f} ms",
            f"{len(taken)} jobs",
            f"{p99 / DISPATCH_S:.2f} of the aim",
            f"p99 {DISPATCH_S * 1000:.0f} ms",
            p99 < DISPATCH_S,
        ),
    ]


def _dispatch(quick: Crowd, control: Control, read_end: int, write_end: int) -> list[float]:
    """Submits, one after the other, until it is told to stop; how long each took, in seconds."""
    os.close(read_end)
    stop = False

    def stopped(*_: object) -> None:
        nonlocal stop
        stop = True

    signal.signal(signal.SIGUSR1, stopped)
    taken: list[float] = []
    while not stop and len(taken) < QUICK:
        taken.append(quick.hand_over(control))
        time.sleep(BETWEEN_S)
    os.write(write_end, "".join(f"{seconds}\n" for seconds in taken).encode())
    os.close(write_end)
    return taken


class Crowd:
    """`n` boxes that ask, each from its own address, and ask again when they are told to."""

    def __init__(self, server: tuple[str, int], first: int, n: int) -> None:
        self.cut_off = 0  # connections that broke instead of ending with a script
        self._server = server
        self._numbers = range(first, first + n)
        self._epoll = select.epoll()
        self._waiting: dict[int, tuple[socket.socket, int]] = {}

    def ask_all(self) -> None:
        """All of them; returns when each has been told to wait."""
        for start in range(0, len(self._numbers), _AT_ONCE):
            numbers = self._numbers[start : start + _AT_ONCE]
            for number in numbers:
                self._ask(number)
            self._until_parked(len(numbers))

    def come_back(self) -> None:
        """Each is told that there is no job, asks again, and waits; an error ends the benchmark."""
        told = parked = 0
        heads: dict[int, bytes] = {}
        deadline = time.monotonic() + PATIENCE_S
        while parked < len(self._numbers):
            if time.monotonic() > deadline:
                raise SystemExit(f"{told} were told to come back, {parked} are parked again")
            for descriptor, _ in self._epoll.poll(1.0, _AT_ONCE):
                sock, number = self._waiting[descriptor]
                data = self._read(sock)
                if descriptor in heads:  # it has asked again
                    heads[descriptor] += data
                    assert data, "a box was cut off before it was parked"
                    if b"#!ipxe" in heads[descriptor]:
                        assert heads[descriptor].startswith(b"HTTP/1.1 200 ")
                        del heads[descriptor]
                        parked += 1
                elif not data:
                    told += 1
                    self._epoll.unregister(descriptor)
                    del self._waiting[descriptor]
                    sock.close()
                    heads[self._ask(number)] = b""

    def hand_over(self, control: Control) -> float:
        """Seconds from sending a submit until a box has the first byte of the job's script."""
        papers = [{"name": "bench.yaml", "text": _DOCUMENT, "defaults": {}, "overrides": {}}]
        began = time.perf_counter()
        control.send("submit", documents=papers, key=secrets.token_hex(16))
        while True:
            if time.perf_counter() > began + PATIENCE_S:
                raise SystemExit(f"no box was handed a job: {control.result()}")
            for descriptor, _ in self._epoll.poll(1.0):
                sock, _ = self._waiting[descriptor]
                if b"initrd " in sock.recv(65536):
                    took = time.perf_counter() - began
                    control.result()
                    self._epoll.unregister(descriptor)
                    del self._waiting[descriptor]
                    with sock:
                        sock.setblocking(True)
                        while sock.recv(65536):
                            pass
                    return took

    def _read(self, sock: socket.socket) -> bytes:
        try:
            return sock.recv(65536)
        except ConnectionResetError:
            self.cut_off += 1
            return b""

    def close(self) -> None:
        """They lose power, all at once."""
        for sock, _ in self._waiting.values():
            sock.close()
        self._epoll.close()

    def _ask(self, number: int) -> int:
        sock = socket.socket()
        sock.settimeout(PATIENCE_S)
        sock.bind((address(number), 0))
        sock.connect(self._server)
        sock.sendall(
            f"GET /boot.ipxe/mac/{mac(number)}?arch=x86_64 HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        )
        self._waiting[sock.fileno()] = sock, number
        self._epoll.register(sock.fileno(), select.EPOLLIN)
        return sock.fileno()

    def _until_parked(self, n: int) -> None:
        heads: dict[int, bytes] = {}
        while n:
            for descriptor, _ in self._epoll.poll(PATIENCE_S):
                heads[descriptor] = heads.get(descriptor, b"") + self._waiting[descriptor][0].recv(
                    65536
                )
                n -= b"#!ipxe" in heads[descriptor]


def address(number: int) -> str:
    """Of a box, on loopback."""
    return f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


def mac(number: int) -> str:
    """As a path has it."""
    return "02-00-00-" + "-".join(f"{byte:02x}" for byte in number.to_bytes(3, "big"))


def write_hosts(folder: Path, n: int, quick: int = 0) -> None:
    """Operator's hosts files of `n` boxes, and `quick` more in a queue of that name.

    Thousands of `host add` would take longer than everything else.
    """
    hosts = folder / "hosts"
    hosts.mkdir()
    for number in range(n + quick):
        queue = "" if number < n else "queues: [quick]\n"
        text = f"mac: '{mac(number).replace('-', ':')}'\narch: x86_64\n{queue}"
        (hosts / f"box-{number}").write_text(text)
