"""Whatever strangers left open on all doors of the real process, it stops when it is told."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.test_serve import MAC, Appliance

STOP_S = 5.0  # a third of a second here; what is under way would get 60 s
ANSWER_S = 0.2  # for an answer, after which the client stays, and says nothing
HANDSHAKE = (
    "GET {} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: {}\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n\r\n"
)
LIES = " HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000000\r\n\r\n{}"
EVERYWHERE = [
    b"", b"\xffrandom bytes", b"GET /x HTTP/1.1\r\nHo", b"\x16\x03\x01\x02\x00\x01",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    HANDSHAKE.format("/filter", 1).encode(), HANDSHAKE.format("/nowhere", 13).encode(),
    (HANDSHAKE.format("/filter", 13).encode() + b"\x81\x80\0\0\0\0"),
]  # fmt: skip
LIARS = {
    "scheduler": [
        "POST /submit_job", "POST /cancel_jobs", "POST /~lkp/cgi-bin/report_ssh_info",
        "GET /~lkp/cgi-bin/lkp-wtmp?x=1", "POST /~lkp/cgi-bin/none", "POST /nowhere",
        "PUT /set_host_mac", "GET /renew_deadline", "POST /metrics", "GET /metrics",
        "GET /job_initrd_tmpfs/lab.1/job.cgz", f"GET /boot.grub/mac/{MAC}",
    ],
    "os": ["GET /os/none", "POST /os/none"],
    "initrd": ["GET /initrd/none"],
    "results": ["GET /result/none", "DELETE /result/"],
    "upload": ["PUT /result/x", "POST /result/x/y", "MKCOL /result/x/", "GET /result/none"],
    "monitor": ["POST /filter"],
}  # fmt: skip

pytestmark = pytest.mark.slow


def hear(sock):
    with contextlib.suppress(ConnectionError, TimeoutError):
        while sock.recv(65536):
            pass


def test_a_stop_waits_for_nobody_who_was_refused_or_has_not_asked(tmp_path):
    server = Appliance(tmp_path)
    with server.config.open("a") as config:
        config.write('[accounts.ann]\nmy_email = "a@b.c"\nmy_name = "Ann"\n')
        config.write(f'my_token = "sha256:{"0" * 32}:{"0" * 64}"\n')
    server.start()
    with contextlib.ExitStack() as stack:
        opened = []

        def leave(sock, sent):
            stack.enter_context(sock)
            sock.settimeout(ANSWER_S)
            with contextlib.suppress(ConnectionError):
                sock.sendall(sent)
            opened.append(sock)

        for door, port in server.ports.items():
            for sent in [*EVERYWHERE, *((line + LIES).encode() for line in LIARS[door])]:
                leave(socket.create_connection(("127.0.0.1", port)), sent)
        for sent in (b"", b"\xff" * 4096, b"\xa1", b"\xa1\x69appliance\x01"):
            door = socket.socket(socket.AF_UNIX)
            door.connect(str(tmp_path / "run/control.sock"))
            leave(door, sent)
        for sock in opened:
            hear(sock)
        began = time.monotonic()
        ended = server.stop()
        took = time.monotonic() - began

    assert 0 == ended
    assert took < STOP_S
    assert "Traceback" not in (tmp_path / "log").read_text()
