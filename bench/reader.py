"""Clients that read a URL and throw it away: one process each, so that none waits for another.

They read into memory from mmap: into a buffer that is not aligned the kernel copies at a fifth of
the speed on some machines, and the client, not the server, would be measured.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import socket
import time
from collections.abc import Iterator
from typing import Final

_BUFFER_BYTES: Final = 2**20


def seconds(port: int, path: str, size: int, clients: int) -> float:
    """How long `clients` took to read `path` once each, all begun at the same moment."""
    go_read, go_write = os.pipe()
    children = []
    for _ in range(clients):
        pid = os.fork()
        if pid == 0:
            os.close(go_write)
            _child(port, path, size, go_read)
        children.append(pid)
    os.close(go_read)
    time.sleep(0.1)  # all are connected and wait
    began = time.perf_counter()
    os.close(go_write)
    failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    took = time.perf_counter() - began
    assert not failed, f"{len(failed)} of {clients} clients did not get {size} bytes"
    return took


@contextlib.contextmanager
def load(port: int, path: str, size: int, clients: int) -> Iterator[None]:
    """`clients` read `path` over and over until the block ends."""
    stop_read, stop_write = os.pipe()
    children = []
    for _ in range(clients):
        pid = os.fork()
        if pid == 0:
            os.close(stop_write)
            _for_ever(port, path, size, stop_read)
        children.append(pid)
    os.close(stop_read)
    try:
        yield
    finally:
        os.close(stop_write)
        failed = [pid for pid in children if os.waitpid(pid, 0)[1] != 0]
    assert not failed, f"{len(failed)} of {clients} clients did not get {size} bytes"


def _child(port: int, path: str, size: int, go: int) -> None:
    status = 1
    try:
        with socket.create_connection(("127.0.0.1", port)) as sock:
            os.read(go, 1)
            status = 0 if _read(sock, path) == size else 1
    finally:
        os._exit(status)


def _for_ever(port: int, path: str, size: int, stop: int) -> None:
    os.set_blocking(stop, False)
    status = 1
    try:
        while True:
            with contextlib.suppress(BlockingIOError):
                os.read(stop, 1)  # end of file: the other end was closed
                status = 0
                break
            with socket.create_connection(("127.0.0.1", port)) as sock:
                if _read(sock, path) != size:
                    break
    finally:
        os._exit(status)


def _read(sock: socket.socket, path: str) -> int:
    """The number of body bytes of one answer."""
    request = f"GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n"
    sock.sendall(request.encode())
    with mmap.mmap(-1, _BUFFER_BYTES) as buffer:
        got = sock.recv_into(buffer)
        head = buffer[:got].partition(b"\r\n\r\n")
        assert head[0].startswith(b"HTTP/1.1 200 "), head[0]
        assert head[1], "the head came in two pieces"
        body = len(head[2])
        while got := sock.recv_into(buffer):
            body += got
    return body
