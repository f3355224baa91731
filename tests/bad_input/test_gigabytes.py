"""A gigabyte to every door of the real process: it is refused or taken, and fills no memory."""

from __future__ import annotations

import contextlib
import socket
import zlib
from pathlib import Path

import cbor2
import pytest

from tests.test_serve import MAC, Appliance

GIGABYTE = 2**30
PIECE = bytes(2**20)
MEMORY_BYTES = 64 * 2**20  # more than before
UNREAD = 600  # clients that ask, and read nothing
HANDSHAKE = (
    b"GET /filter HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
)

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path):
    appliance = Appliance(tmp_path)
    with appliance.config.open("a") as config:
        config.write('[accounts.ann]\nmy_email = "a@b.c"\nmy_name = "Ann"\n')
        config.write(f'my_token = "sha256:{"0" * 32}:{"0" * 64}"\n')
    appliance.start()
    yield appliance
    assert 0 == appliance.stop()
    assert "Traceback" not in (tmp_path / "log").read_text()


def resident(server):
    for line in Path(f"/proc/{server.process.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no VmHWM")


def pour(sock, head):
    """Send `head` and a gigabyte, or as much as is taken; what is answered."""
    sock.settimeout(30)
    sock.sendall(head)
    answer = b""
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(GIGABYTE // len(PIECE)):
            sock.sendall(PIECE)
    with contextlib.suppress(ConnectionError, TimeoutError):
        answer = sock.recv(65536)
    return answer


@pytest.mark.parametrize(
    ("door", "request_line"),
    [
        ("scheduler", "POST /submit_job"),
        ("scheduler", "POST /cancel_jobs"),
        ("scheduler", "POST /~lkp/cgi-bin/report_ssh_info"),
        ("scheduler", "GET /~lkp/cgi-bin/lkp-wtmp"),
        ("scheduler", f"GET /boot.ipxe/mac/{MAC}"),
        ("scheduler", "PUT /set_host_mac"),
        ("os", "GET /os/debian/none"),
        ("initrd", "POST /initrd/none"),
        ("results", "GET /result/"),
        ("upload", "PUT /result/x/y"),
        ("upload", "POST /result/x/y"),
        ("upload", "MKCOL /result/x/"),
    ],
)
def test_a_gigabyte_in_a_body_is_no_gigabyte_of_memory(server, door, request_line):
    before = resident(server)
    head = f"{request_line} HTTP/1.1\r\nHost: x\r\nContent-Length: {GIGABYTE}\r\n\r\n".encode()
    with socket.create_connection(("127.0.0.1", server.ports[door])) as sock:
        pour(sock, head)

    assert resident(server) < before + MEMORY_BYTES
    assert "box-1" in server.run("host", "add", "box-1", "--mac", "52:54:00:00:00:09").stdout


def test_a_gigabyte_on_the_control_socket_is_refused(server, tmp_path):
    before = resident(server)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(str(tmp_path / "run/control.sock"))
        pour(sock, cbor2.dumps({"appliance": 1}) + b"\x5a" + GIGABYTE.to_bytes(4, "big"))

    assert resident(server) < before + MEMORY_BYTES
    assert "lab" in server.run("status").stdout


@pytest.mark.parametrize("door", ["upload", "results"])
def test_answers_that_nobody_reads_are_no_gigabyte_of_memory(server, tmp_path, door):
    """A thousand of them cost 2.1 GB on the port of uploads."""
    folder = tmp_path / "srv/result/suite"
    folder.mkdir(parents=True)
    with (folder / "dmesg").open("wb") as file:
        file.truncate(64 * 2**20)
    before = resident(server)
    with contextlib.ExitStack() as stack:
        for _ in range(UNREAD):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.ports[door]))
            sock.sendall(b"GET /result/suite/dmesg HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(3):
            assert "lab" in server.run("status").stdout

        assert resident(server) < before + MEMORY_BYTES


def test_a_hundred_messages_that_would_inflate_to_32_mib_are_no_gigabyte_of_memory(server):
    """They cost 4.6 GB, and no account."""
    packer = zlib.compressobj(9, wbits=-15)
    packed = packer.compress(bytes(32 * 2**20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    bomb = b"\xc1\xfe" + len(packed[:-4]).to_bytes(2) + bytes(4) + packed[:-4]
    before = resident(server)
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            address = ("127.0.0.1", server.ports["monitor"])
            sock = stack.enter_context(socket.create_connection(address, 30))
            sock.sendall(HANDSHAKE)
            assert b" 101 " in sock.recv(4096)
            sock.sendall(bomb)
            with contextlib.suppress(ConnectionError):
                assert b"" == sock.recv(4096)

    assert resident(server) < before + MEMORY_BYTES
