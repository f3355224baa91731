"""A box that loses power sends no FIN: its seat must be free within a minute.

Real sockets over a real link that goes dead, so the waiting is real too (about 40 s).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import pytest

from tests.test_serve import MAC, Appliance

SEAT_FREE_WITHIN_S = 60

HOLD = """
import socket, sys
box = socket.create_connection((sys.argv[1], int(sys.argv[2])))
path = f"/boot.ipxe/mac/{sys.argv[3]}?arch=x86_64"
box.sendall(f"GET {path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n".encode())
while True:
    box.recv(65536)
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def link():
    """A namespace with one link to us: (its name, our address, the link's name)."""
    name = f"app-pl-{os.getpid()}"
    ours, theirs = f"apl{os.getpid()}", f"apm{os.getpid()}"
    ip("netns", "add", name)
    try:
        ip("link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", name)
        ip("addr", "add", "10.213.77.1/30", "dev", ours)
        ip("link", "set", ours, "up")
        ip("-n", name, "addr", "add", "10.213.77.2/30", "dev", theirs)
        # the server holds a box to the MAC that the kernel knows at its address
        ip("-n", name, "link", "set", theirs, "address", MAC.replace("-", ":"))
        ip("-n", name, "link", "set", theirs, "up")
        yield name, "10.213.77.1", theirs
    finally:
        subprocess.run(["ip", "link", "del", ours], capture_output=True)
        ip("netns", "del", name)


@pytest.mark.root
def test_a_box_that_lost_power_without_a_fin_frees_its_seat_within_a_minute(link, tmp_path):
    namespace, address, theirs = link
    server = Appliance(tmp_path, listen=address)
    server.start()
    port = str(server.ports["scheduler"])
    box = subprocess.Popen(
        ["ip", "netns", "exec", namespace, sys.executable, "-c", HOLD, address, port, MAC]
    )
    try:
        _until(lambda: states(server) == ["parked"], 10)
        ip("-n", namespace, "link", "set", theirs, "down")
        lost = time.monotonic()
        _until(lambda: states(server) == ["away"], SEAT_FREE_WITHIN_S)
        print(f"the seat was free {time.monotonic() - lost:.0f} s after the power was lost")
    finally:
        box.kill()
        box.wait()
        server.process.kill()
        server.process.wait()


def states(server: Appliance) -> list[str]:
    return [row["state"] for row in json.loads(server.run("hosts", "--json").stdout)]


def _until(true, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(1)  # the world's clock is what this test is about
