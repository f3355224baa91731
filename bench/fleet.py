"""A room of boxes: 1,000 that load what their scripts name, and 500 that send their results.

Boxes load with admission on, as many at once as a lab of one Gbit/s has by default; nginx serves
the same files to as many clients.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import secrets
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final
from urllib.parse import urlsplit

from bench import process
from bench.parked import PATIENCE_S, Control, raise_open_files
from bench.storm import address, mac, write_hosts
from bench.table import Row

BOXES: Final = 1000
IN_FLIGHT: Final = 12
KERNEL_BYTES: Final = 8 * 2**20  # of Debian 12
INITRAMFS_BYTES: Final = 12 * 2**20
MODULES_BYTES: Final = 25 * 2**20
RATIO: Final = 0.8
UPLOADS: Final = 500
UPLOAD_BYTES: Final = 10**7
MEMORY_BYTES: Final = 300 * 10**6
_SUBMITTED_AT_ONCE: Final = 100
_DOCUMENT: Final = "suite: bench\nscript: |\n  true\n"
_URL: Final = re.compile(rb"^(?:initrd|kernel) (http://\S+)", re.MULTILINE)


def rows() -> list[Row]:
    """Bytes per second of a whole boot storm, and memory while results come in."""
    return [_loads(), _uploads()]


def _loads() -> Row:
    raise_open_files(3 * BOXES)
    with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as theirs:
        folder = Path(name)
        write_hosts(folder, BOXES)
        with process.appliance(folder, boots=IN_FLIGHT) as server:
            _grow(server.srv)
            with process.nginx(Path(theirs), server.srv) as nginx:
                ours, bytes_ours = _storm(server)
                files = [f"/{process.IMAGE}/boot/{name}" for name in _sizes()]
                work = [
                    (f"http://127.0.0.1:{nginx}{path}", n) for n in range(BOXES) for path in files
                ]
                began = time.perf_counter()
                bytes_theirs = _fetch_all(work, IN_FLIGHT)
                theirs_s = time.perf_counter() - began
    rate, peer = bytes_ours / ours, bytes_theirs / theirs_s
    return Row(
        f"{BOXES:,} boxes load kernel and initrds, {IN_FLIGHT} at once",
        f"{rate / 1e6:,.0f} MB/s, no transfer and no offer lost",
        f"nginx, sendfile: {peer / 1e6:,.0f} MB/s",
        f"{rate / peer:.2f}",
        f"{RATIO}",
        rate / peer >= RATIO,
    )


def _storm(server: process.Appliance) -> tuple[float, int]:
    """Seconds and bytes, from the first question to the last byte."""
    with contextlib.closing(Control(server)) as control:
        _submit(control, BOXES)
        got = _Sum()
        began = time.perf_counter()
        # All ask at once; who is not let in waits, as a box does.
        _in_threads(range(BOXES), BOXES, lambda number: got.add(_boot(server, number)))
        took = time.perf_counter() - began
        control.send("jobs", limit=2 * BOXES)
        jobs = control.result()["jobs"]
    lost = [job for job in jobs if (job["stage"], job["attempt"]) != ("boot", 1)]
    assert len(jobs) == BOXES, f"{len(jobs)} jobs"
    assert not lost, f"offers lapsed or transfers failed: {lost[:3]}"
    return took, got.total


def _boot(server: process.Appliance, number: int) -> int:
    """What one box fetches, in bytes."""
    script = _script(server, number)
    return sum(_fetch(url.decode(), number) for url in _URL.findall(script))


def _script(server: process.Appliance, number: int) -> bytes:
    target = f"http://127.0.0.1:{server.ports[0]}/boot.ipxe/mac/{mac(number)}?arch=x86_64"
    with _ask(target, number) as sock:
        said = b""
        while data := sock.recv(65536):
            said += data
    assert b"\nboot\n" in said, said[-500:]
    return re.sub(rb"\r\n[0-9a-f]+\r\n", b"", said)  # the chunks' sizes


def _uploads() -> Row:
    raise_open_files(3 * UPLOADS)
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-") as name:
        folder = Path(name)
        write_hosts(folder, UPLOADS)
        with process.appliance(folder) as server, contextlib.closing(Control(server)) as control:
            _submit(control, UPLOADS)
            places: dict[int, str] = {}
            for number in range(UPLOADS):
                job = re.search(rb"/job_initrd_tmpfs/([^/]+)/job.cgz", _script(server, number))
                assert job is not None
                _fetch(f"http://127.0.0.1:{server.ports[0]}{job[0].decode()}", number)
                places[number] = job[1].decode()
            control.send("jobs", limit=2 * UPLOADS)
            roots = {job["id"]: job["result_root"] for job in control.result()["jobs"]}
            watch = _Watch(server)
            began = time.perf_counter()

            def put(number: int) -> None:
                job = places[number]
                _put(server, number, job, roots[job].removeprefix(str(server.srv)))

            _in_threads(range(UPLOADS), UPLOADS, put)
            took = time.perf_counter() - began
            most = watch.stop()
            sizes = {path.stat().st_size for path in server.srv.rglob("result/**/output")}
    assert sizes == {UPLOAD_BYTES}, sizes
    return Row(
        f"{UPLOADS} boxes put {UPLOAD_BYTES // 10**6} MB each at once: the server's memory",
        f"{most / 1e6:.0f} MB",
        f"{UPLOADS * UPLOAD_BYTES / took / 1e6:,.0f} MB/s to the disk, synced",
        f"{most / MEMORY_BYTES:.2f} of the aim",
        f"{MEMORY_BYTES // 10**6} MB",
        most < MEMORY_BYTES,
    )


def _put(server: process.Appliance, number: int, job: str, root: str) -> None:
    piece = bytes(2**16)
    with _connect(("127.0.0.1", server.ports[3]), number) as sock:
        head = f"PUT {root}/output HTTP/1.1\r\nHost: x\r\nCookie: JOBID={job}\r\n"
        sock.sendall(f"{head}Content-Length: {UPLOAD_BYTES}\r\n\r\n".encode())
        left = UPLOAD_BYTES
        while left:
            left -= sock.send(piece[: min(left, len(piece))])
        answer = sock.recv(4096)
    assert answer.startswith(b"HTTP/1.1 201 "), answer


class _Watch:
    """The most memory that the server has, looked at ten times a second."""

    def __init__(self, server: process.Appliance) -> None:
        self._most, self._over = 0, threading.Event()
        self._thread = threading.Thread(target=self._look, args=(server,))
        self._thread.start()

    def _look(self, server: process.Appliance) -> None:
        while not self._over.wait(0.1):
            self._most = max(self._most, server.resident_bytes())

    def stop(self) -> int:
        """Bytes."""
        self._over.set()
        self._thread.join()
        return self._most


class _Sum:
    def __init__(self) -> None:
        self.total, self._lock = 0, threading.Lock()

    def add(self, n: int) -> None:
        with self._lock:
            self.total += n


def _submit(control: Control, n: int) -> None:
    paper = {"name": "bench.yaml", "text": _DOCUMENT, "defaults": {}, "overrides": {}}
    for _ in range(0, n, _SUBMITTED_AT_ONCE):
        papers = [paper] * _SUBMITTED_AT_ONCE
        control.send("submit", documents=papers, key=secrets.token_hex(16))
        control.result()


def _fetch_all(work: Iterable[tuple[str, int]], clients: int) -> int:
    got = _Sum()
    _in_threads(work, clients, lambda item: got.add(_fetch(*item)))
    return got.total


def _fetch(url: str, number: int) -> int:
    """Bytes of the body, which must be whole."""
    with _ask(url, number) as sock, mmap.mmap(-1, 2**20) as buffer:
        got = sock.recv_into(buffer)
        head, end, body = buffer[:got].partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        assert end, "the head came in two pieces"
        length = re.search(rb"(?i)content-length: (\d+)", head)
        assert length is not None, head
        size = len(body)
        while size < int(length[1]) and (got := sock.recv_into(buffer)):
            size += got
    assert size == int(length[1]), f"{url}: {size} bytes"
    return size


def _ask(url: str, number: int) -> socket.socket:
    parts = urlsplit(url)
    sock = _connect((parts.hostname or "", parts.port or 80), number)
    target = parts.path + (f"?{parts.query}" if parts.query else "")
    sock.sendall(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    return sock


def _connect(server: tuple[str, int], number: int) -> socket.socket:
    sock = socket.socket()
    sock.settimeout(2 * PATIENCE_S)
    sock.bind((address(number), 0))
    sock.connect(server)
    return sock


def _in_threads(work: Iterable[Any], n: int, do: Callable[[Any], None]) -> None:
    """`do` each piece of `work`, in `n` threads; the first failure ends the benchmark."""
    todo: SimpleQueue[Any] = SimpleQueue()
    failed: list[BaseException] = []

    def one() -> None:
        while (piece := todo.get()) is not None and not failed:
            try:
                do(piece)
            except BaseException as error:
                failed.append(error)

    for piece in work:
        todo.put(piece)
    threads = [threading.Thread(target=one, daemon=True) for _ in range(n)]
    for thread in threads:
        todo.put(None)
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


def _sizes() -> dict[str, int]:
    return {
        f"vmlinuz-{process.KERNEL}": KERNEL_BYTES,
        f"initramfs.lkp-{process.KERNEL}.img": INITRAMFS_BYTES,
        f"modules-{process.KERNEL}.cgz": MODULES_BYTES,
    }


def _grow(srv: Path) -> None:
    """The image's files, as large as real ones, and in memory."""
    for name, size in _sizes().items():
        (srv / process.IMAGE / "boot" / name).write_bytes(os.urandom(size))
