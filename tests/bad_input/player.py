"""Plays attacks from another machine: `python -m tests.bad_input.player WORDS` (as JSON).

WORDS: {"server", "ports", "control", "who", "only", "addresses", "mac", "verbs"}.  It prints one
line of JSON for each attack: what it was, the worst lateness of the server's loop so far (as the
server says), the server's memory behind it, and how much more it has had in between.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import json
import math
import random
import re
import socket
import struct
import sys
from pathlib import Path
from typing import Any

import cbor2
import trio

from tests.bad_input import largest, worst
from tests.bad_input.worst import BOX, GROUP, Attack, Work

SETTLE_S = 0.1  # for what an attack left behind
ANSWER_S = 1.0  # for a handshake, by whoever takes no answer, too
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: nothing of a hundred thousand closes lingers


class Player:
    """One machine."""

    def __init__(self, words: dict[str, Any]) -> None:
        self.words = words
        self.addresses = itertools.cycle(words["addresses"])
        self.pid = 0
        self.missing, self.all_here = 0, trio.Event()  # clients that are not as far yet

    async def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """One verb over the command line's socket."""
        stream = await trio.open_unix_socket(self.words["control"])
        async with stream:
            await stream.send_all(cbor2.dumps({"appliance": 1}))
            await stream.send_all(cbor2.dumps({"verb": verb, **arguments}))
            data, found = b"", []
            while len(found) < 2:
                data += await stream.receive_some(2**20)
                file, found = io.BytesIO(data), []
                with contextlib.suppress(cbor2.CBORDecodeEOF):
                    while file.tell() < len(data):
                        found.append(cbor2.load(file))
        hello, answer = found[:2]
        self.pid = hello["pid"]
        if "result" not in answer:
            raise AssertionError(f"{verb}: {answer}")
        result: dict[str, Any] = answer["result"]
        return result

    def memory(self) -> tuple[int, int]:
        """(now, at the most) of the server, in bytes."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        now, most = (re.search(rf"{key}:\s+(\d+)", text) for key in ("VmRSS", "VmHWM"))
        assert now is not None
        assert most is not None
        return int(now[1]) * 1024, int(most[1]) * 1024

    def calm(self) -> int:
        """The server's memory now, in bytes; the most that it has had is counted anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")  # proc(5)
        return self.memory()[0]

    async def connect(self, attack: Attack) -> trio.SocketStream:
        """A connection to the attack's door, from the next of the addresses."""
        if attack.who == GROUP:
            return await trio.open_unix_socket(self.words["control"])
        port = self.words["ports"][attack.door.split()[0]]
        sock = trio.socket.socket()
        await sock.bind((next(self.addresses), 0))
        await sock.connect((self.words["server"], port))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        return trio.SocketStream(sock)

    async def client(self, attack: Attack) -> None:
        """One of its clients, until it is answered, cut off, or out of time."""
        with contextlib.suppress(OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            async with await self.connect(attack) as stream, trio.open_nursery() as nursery:
                answered = trio.Event()
                if attack.reads:
                    nursery.start_soon(_hear, stream, answered, nursery.cancel_scope)
                for piece in attack.pieces():
                    if piece:
                        await stream.send_all(piece)
                        continue
                    self.missing -= attack.together
                    if not self.missing:
                        self.all_here.set()
                    with trio.move_on_after(ANSWER_S):
                        await (self.all_here if attack.together else answered).wait()
                if attack.who == GROUP and attack.reads:
                    await stream.send_eof()  # the server ends it then; else it waits for more
                await trio.sleep_forever()  # until nobody is there any more, or the time is over

    async def play(self, attack: Attack, seconds: float) -> None:
        """All of its clients, for so long at most."""
        self.missing, self.all_here = attack.clients, trio.Event()
        with trio.move_on_after(seconds):
            async with trio.open_nursery() as nursery:
                for _ in range(attack.clients):
                    nursery.start_soon(self._alone, attack)

    async def _alone(self, attack: Attack) -> None:
        try:
            await self.client(attack)
        except BaseExceptionGroup as group:
            if group.split((OSError, trio.BrokenResourceError, trio.ClosedResourceError))[1]:
                raise

    async def boot(self) -> Work:
        """Be a testbox with a job that has a long script: what it knows once it runs."""
        address, mac = self.words["addresses"][0], self.words["mac"]
        await self.ask("host-add", name="box-1", macs=[mac])
        script = "".join(f"echo {random.Random(n).randbytes(300).hex()}\n" for n in range(1500))
        text = f"suite: x\nruntime: 1d\nscript: |\n  {script.replace(chr(10), chr(10) + '  ')}"
        await self.ask("submit", key="0" * 16, documents=[{"name": "x.yaml", "text": text}])
        path = f"/boot.ipxe/mac/{mac.replace(':', '-')}?arch=x86_64"
        script = (await self.get(path, address)).decode()
        found = re.search(r"/job_initrd_tmpfs/([^/]+)/job\.cgz", script)
        assert found is not None, script
        data = await self.get(f"/job_initrd_tmpfs/{found[1]}/job.cgz", address)
        text = gzip.decompress(data).decode("latin-1")
        token, root = re.search(r"/~lkp/(\w+)", text), re.search(r"/result/[^\s'\"]+", text)
        kernel = re.search(r"kernel http://[^/]+(/\S+)", script)
        assert token is not None
        assert root is not None, text[:3000]
        assert kernel is not None
        return Work(found[1], token[1], root[0], kernel[1])

    async def get(self, path: str, address: str) -> bytes:
        """The body of an answer."""
        sock = trio.socket.socket()
        await sock.bind((address, 0))
        await sock.connect((self.words["server"], self.words["ports"]["scheduler"]))
        async with trio.SocketStream(sock) as stream:
            await stream.send_all(worst.asked(f"GET {path}"))
            data = b""
            while more := await stream.receive_some(2**20):
                data += more
        head, _, body = data.partition(b"\r\n\r\n")
        assert b" 200 " in head.split(b"\r\n")[0], data[:300]
        return _unchunked(body) if b"chunked" in head.lower() else body


def _unchunked(data: bytes) -> bytes:
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


async def _hear(stream: trio.SocketStream, answered: trio.Event, scope: trio.CancelScope) -> None:
    while await stream.receive_some(2**20):
        answered.set()
    scope.cancel()


async def main(words: dict[str, Any]) -> None:
    """Play all that concern us, or the one that is asked for."""
    player = Player(words)
    await player.ask("status")
    print(json.dumps({"now": player.memory()[0]}), flush=True)
    if words["who"] == BOX:
        attacks = list(worst.box(await player.boot()))
    elif words["who"] == GROUP:
        attacks = [*worst.control(), *worst.verbs(tuple(words["verbs"])), *largest.papers()]
    else:
        attacks = [*worst.strangers(), *largest.strangers()]
    others = {attack.what: attack for attack in largest.strangers()}
    for attack in attacks:
        if words["only"] and attack.name not in words["only"]:
            continue
        before, began = player.calm(), trio.current_time()
        print(json.dumps({"begun": attack.name}), flush=True)
        async with trio.open_nursery() as nursery:
            if attack.meanwhile:
                nursery.start_soon(player.play, others[attack.meanwhile], math.inf)
                await trio.sleep(1)
            await player.play(attack, attack.seconds)
            nursery.cancel_scope.cancel()
        await trio.sleep(SETTLE_S)
        status = await player.ask("status")
        now, most = player.memory()
        took = round(trio.current_time() - began, 1)
        row = {"name": attack.name, "late": status["late"], "now": now, "more": most - before}
        print(json.dumps({**row, "took": took}), flush=True)


if __name__ == "__main__":
    trio.run(main, json.loads(sys.argv[1]))
