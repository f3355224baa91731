"""Boxes that wait for work, thousands in one process: raw sockets, each from its own 127.x.y.z."""

from __future__ import annotations

import contextlib
import resource
import secrets
import select
import socket
import time
from collections.abc import Iterator
from typing import Any, Final

import cbor2

from bench.process import Appliance

PATIENCE_S: Final = 60.0
_DOCUMENT: Final = "suite: bench\nscript: |\n  true\n"
_AT_ONCE: Final = 200  # connections on their way; the server's backlog holds more


class Control:
    """The control socket, blocking."""

    def __init__(self, appliance: Appliance) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(PATIENCE_S)
        self._socket.connect(str(appliance.control))
        self._decoder = cbor2.CBORDecoder(self._socket.makefile("rb"))
        self._decoder.decode()
        self._socket.sendall(cbor2.dumps({"appliance": 1}))

    def send(self, verb: str, **arguments: Any) -> None:
        """Ask; the answer is left for `result`."""
        self._socket.sendall(cbor2.dumps({"verb": verb, **arguments}))

    def result(self) -> dict[str, Any]:
        """The next answer; an error ends the benchmark."""
        answer: dict[str, Any] = self._decoder.decode()
        if "result" not in answer:
            raise SystemExit(f"the appliance refused: {answer}")
        result: dict[str, Any] = answer["result"]
        return result

    def close(self) -> None:
        self._socket.close()


class Boxes:
    """`n` known testboxes."""

    def __init__(self, appliance: Appliance, n: int) -> None:
        self._appliance = appliance
        self._n = n
        self._control = Control(appliance)
        self._epoll = select.epoll()
        self._waiting: dict[int, socket.socket] = {}
        self._told: list[socket.socket] = []

    def register(self) -> None:
        """`host add`, for each."""
        for number in range(self._n):
            mac = _mac(number)
            self._control.send("host-add", name=f"box-{number}", macs=[mac], arch="x86_64")
            self._control.result()

    def park(self) -> None:
        """Each asks what to run, and has been told to wait."""
        raise_open_files(self._n + 100)
        for first in range(0, self._n, _AT_ONCE):
            asked = [self._ask(number) for number in range(first, min(first + _AT_ONCE, self._n))]
            for sock in asked:
                told = b""
                while b"#!ipxe" not in told:
                    told += sock.recv(4096)
                    assert told.startswith(b"HTTP/1.1 200 "), told
                sock.setblocking(False)
                self._waiting[sock.fileno()] = sock
                self._epoll.register(sock.fileno(), select.EPOLLIN)

    def hand_over(self) -> float:
        """Seconds from sending a submit until a box has the first byte of the job's script."""
        papers = [{"name": "bench.yaml", "text": _DOCUMENT, "defaults": {}, "overrides": {}}]
        began = time.perf_counter()
        self._control.send("submit", documents=papers, key=secrets.token_hex(16))
        while not self._script_came(began + PATIENCE_S):
            pass
        took = time.perf_counter() - began
        self._control.result()
        self._hear_out()
        return took

    def close(self) -> None:
        """They lose power, all at once."""
        for sock in self._waiting.values():
            sock.close()
        self._epoll.close()
        self._control.close()

    def _ask(self, number: int) -> socket.socket:
        sock = socket.socket()
        sock.settimeout(PATIENCE_S)
        sock.bind((f"127.{1 + (number >> 16)}.{number >> 8 & 255}.{number & 255}", 0))
        sock.connect(("127.0.0.1", self._appliance.ports[0]))
        mac = _mac(number).replace(":", "-")
        request = f"GET /boot.ipxe/mac/{mac}?arch=x86_64 HTTP/1.1\r\nHost: bench\r\n\r\n"
        sock.sendall(request.encode())
        return sock

    def _script_came(self, deadline: float) -> bool:
        """Read what came.  Comment lines for those that wait on are no script."""
        found = False
        if time.perf_counter() > deadline:
            raise SystemExit(f"no box was handed a job: {self._control.result()}")
        for descriptor, _ in self._epoll.poll(1.0):
            sock = self._waiting[descriptor]
            if b"initrd " in sock.recv(65536):
                found = True
                self._epoll.unregister(descriptor)
                self._told.append(self._waiting.pop(descriptor))
        return found

    def _hear_out(self) -> None:
        """Read scripts to their end: a box that hangs up before gives its job back."""
        for sock in self._told:
            with sock:
                sock.settimeout(PATIENCE_S)
                while sock.recv(65536):
                    pass
        self._told.clear()


@contextlib.contextmanager
def parked(appliance: Appliance, n: int) -> Iterator[Boxes]:
    """`n` boxes, known and waiting."""
    with contextlib.closing(Boxes(appliance, n)) as boxes:
        boxes.register()
        boxes.park()
        yield boxes


def _mac(number: int) -> str:
    return "02:00:00:" + ":".join(f"{byte:02x}" for byte in number.to_bytes(3, "big"))


def raise_open_files(wanted: int) -> None:
    """As far as this process may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(wanted, hard), hard))
