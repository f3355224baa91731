"""Two real hosts on a real bridge, and one that takes the other's address from it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from lab.namespace import BRIDGE, SERVER, Namespace, namespace, signal_program
from tests.test_serve import make_image

A, B = "172.28.0.11", "172.28.0.12"
SERVER_6, B_6 = "fd28::1", "fd28::12"
CARDS = {"a": "52:54:00:00:00:0a", "b": "52:54:00:00:00:0b"}

# A host of its own: a network namespace on one end of a cable, held by `sleep`, whose pid it says.
HOST = """
set -e
unshare --net sleep 900 >/dev/null 2>&1 &
pid=$!
while [ "$(readlink /proc/$pid/ns/net)" = "$(readlink /proc/self/ns/net)" ]; do sleep 0.01; done
ip link add "v$1" type veth peer name eth0 address "$2" netns "$pid"
ip link set "v$1" master "$BRIDGE" up
nsenter -t "$pid" -n sh -c "ip link set lo up; ip link set eth0 up
    ip addr add $3/24 dev eth0; ip addr add fd28::$4/64 dev eth0 nodad"
echo "$pid"
wait
"""
# Says to everybody that this host has the address (gratuitous ARP, RFC 5227).
ANNOUNCE = """
import socket, sys
card, address = bytes.fromhex(sys.argv[1].replace(":", "")), socket.inet_aton(sys.argv[2])
said = b"\\0\\1\\x08\\0\\6\\4\\0\\1" + card + address + bytes(6) + address
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as link:
    link.bind(("eth0", 0x0806))
    link.send(b"\\xff" * 6 + card + b"\\x08\\x06" + said)
"""


@attrs.frozen
class Host:
    """One of them."""

    inside: Namespace
    name: str
    pid: str

    async def run(self, *command: str) -> str:
        process = await self.inside.start(
            ["nsenter", "-t", self.pid, "-n", "--", *command],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        return b"".join([bytes(chunk) async for chunk in process.stdout]).decode()

    async def curl(self, path: str, *words: str, port: int = 3000, at: str = SERVER):
        said = await self.run(
            "curl", "-sg", "--max-time", "20", "-w", "\n%{http_code}", *words,
            f"http://{at}:{port}{path}",
        )  # fmt: skip
        body, _, status = said.rpartition("\n")
        return int(status), body

    async def move(self, before: str, address: str) -> None:
        """It has another address from now on, and says so."""
        await self.run("ip", "addr", "del", f"{before}/24", "dev", "eth0")
        await self.run("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        await self.announce(address)

    async def announce(self, address: str) -> None:
        await self.run(sys.executable, "-c", ANNOUNCE, CARDS[self.name], address)


@asynccontextmanager
async def host(inside, name, address):
    words = ["sh", "-c", f"BRIDGE={BRIDGE}\n{HOST}", "sh", name, CARDS[name], address]
    process = await inside.start(
        [*words, address.rpartition(".")[2]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said = b""
    while not said.endswith(b"\n"):
        said += await process.stdout.receive_some()
    yield Host(inside, name, said.decode().strip())


@attrs.frozen
class Server:
    """The appliance in there, and its command line, which needs no network."""

    tmp: Path

    async def run(self, *words: str) -> str:
        command = [sys.executable, "-m", "appliance", "--config", str(self.tmp / "config"), *words]
        return (await trio.run_process(command, capture_stdout=True)).stdout.decode()

    def log(self) -> str:
        return (self.tmp / "log").read_text()


@asynccontextmanager
async def server(inside, tmp, listens_on):
    make_image(tmp / "srv")
    (tmp / "config").write_text(
        f'[network]\nlisten = "{listens_on}"\n[paths]\nsrv = "{tmp}/srv"\nstate = "{tmp}/state"\n'
        f'run = "{tmp}/run"\nhosts = "{tmp}/hosts"\n'
    )
    command = [sys.executable, "-m", "appliance", "--config", str(tmp / "config"), "serve"]
    with (tmp / "log").open("wb") as log:
        process = await inside.start(command, stdout=log, stderr=log)
    with trio.fail_after(30):
        while not (inside.listening(3000) and (tmp / "run/control.sock").exists()):  # noqa: ASYNC110
            await trio.sleep(0.05)
    yield Server(tmp)
    signal_program(process, 15)
    with trio.fail_after(30):
        await process.wait()


@asynccontextmanager
async def lab(tmp, listens_on):
    """A server, its hosts A and B, and a job that B has been told of."""
    async with namespace(0) as inside, server(inside, tmp, listens_on) as appliance:
        six = await inside.start(
            ["ip", "addr", "add", f"{SERVER_6}/64", "dev", BRIDGE, "nodad"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        await six.wait()
        async with host(inside, "a", A) as a, host(inside, "b", B) as b:
            for name, card in CARDS.items():
                await appliance.run("host", "add", f"box-{name}", "--mac", card)
            (tmp / "hello.yaml").write_text("script: echo hi\ntestbox: box-b\n")
            words = (await appliance.run("submit", str(tmp / "hello.yaml"))).split()
            yield appliance, a, b, words[0], words[1].removeprefix(f"{tmp}/srv")


def question(name):
    return f"/boot.ipxe/mac/{CARDS[name].replace(':', '-')}?arch=x86_64"


async def acts(box, job, root):
    """What each act in the name of the job's box is answered."""
    cgi = f"/~lkp/cgi-bin/lkp-jobfile-append-var?job_id={job}&job_state=running"
    put = ("-b", f"JOBID={job}", "-X", "PUT", "-d", "x")
    return {
        "job.cgz": (await box.curl(f"/job_initrd_tmpfs/{job}/job.cgz", "-o", "/dev/null"))[0],
        "report": (await box.curl(cgi))[0],
        "renew": (await box.curl(f"/renew_deadline?job_id={job}&time=60"))[0],
        "upload": (await box.curl(f"{root}/a", *put, port=3080))[0],
    }


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
@pytest.mark.parametrize("listens_on", ["0.0.0.0", "::"])
async def test_who_takes_a_boxes_address_gets_nothing_of_its_job(tmp_path, listens_on):
    async with lab(tmp_path, listens_on) as (appliance, a, b, job, root):
        _, script = await b.curl(question("b"))
        await a.move(A, B)
        asked, why = await a.curl(question("b"))
        stolen = await acts(a, job, root)
        left = (tmp_path / "srv" / root[1:]).exists()
        await a.move(B, A)
        await b.announce(B)
        own = await acts(b, job, root)

        assert {SERVER} == set(re.findall(r"http://([^/]*):\d+/", script))
        assert 503 == asked
        assert f"{B} is {CARDS['a']}" in why
        assert {"job.cgz": 403, "report": 403, "renew": 403, "upload": 403} == stolen
        assert not left
        assert {"job.cgz": 200, "report": 200, "renew": 200, "upload": 201} == own
        assert "::ffff" not in appliance.log()
        assert "Traceback" not in appliance.log()


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root")
async def test_a_box_that_asks_by_ipv6_is_held_to_its_card_as_well(tmp_path):
    async with lab(tmp_path, "::") as (_, a, b, job, _):
        at = f"[{SERVER_6}]"
        refused, why = await a.curl(question("b"), at=at)
        asked, script = await b.curl(question("b"), at=at)
        link = f"/job_initrd_tmpfs/{job}/job.cgz"
        elsewhere, _ = await a.curl(link, "-o", "/dev/null", at=at)
        fetched, _ = await b.curl(link, "-o", "/dev/null", at=at)

        assert (503, 200) == (refused, asked)
        assert CARDS["a"] in why
        assert {at} == set(re.findall(r"http://(\S*?):\d+/", script))
        assert (403, 200) == (elsewhere, fetched)
