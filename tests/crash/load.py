"""Load from real sockets, and a record of what the server said: what it may never take back.

Submitters repeat a submit with the same key until it is answered.  Boxes ask, fetch the job.cgz
that their script names, report and ask again; one whose server is gone goes on where it was, as
a box that runs does.  Now and then one loses power.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import cbor2
import trio

RETRY_S = 0.05  # the server is starting, and needs the machine
PATIENCE_S = 20.0  # a busy machine; nobody is this slow
GIVES_UP = 0.1  # of all answers to a submit are thrown away, and asked for again
POWER_CUT = 0.03  # at each step of a box
PAPER = {"name": "job.yaml", "text": "script: echo hi\n", "defaults": {}, "overrides": {}}


@attrs.define
class Told:
    """What the server said, to whom."""

    jobs: dict[str, list[str]] = attrs.Factory(dict)  # by key: the ids of an acknowledged submit
    scripts: set[tuple[str, str]] = attrs.Factory(set)  # (job, box): its script came whole
    fetched: set[tuple[str, str, str]] = attrs.Factory(set)  # (job, box, token): its job.cgz did
    reports: list[tuple[str, str, str]] = attrs.Factory(list)  # (job, token, word), answered
    sometimes: Counter[str] = attrs.Factory(Counter)


@attrs.frozen
class World:
    """Where the server is, and what it said."""

    control: Path
    port: int
    told: Told


class Gone(Exception):
    """The server is not there, or went away before its answer was whole."""


# ---- people


async def submitter(world: World, name: str, rng: random.Random, pause: float) -> None:
    """Submit for ever."""
    number = 0
    while True:
        number += 1
        key = f"{name}x{number:06}"
        papers = [PAPER] * rng.choice([1, 1, 1, 2])
        await _submit(world, key, papers, rng)
        await trio.sleep(rng.random() * pause)


async def _submit(world: World, key: str, papers: list[Any], rng: random.Random) -> None:
    earlier: list[str] = []
    while True:
        try:
            answer = await _ask(world, {"verb": "submit", "documents": papers, "key": key})
        except Gone:
            world.told.sometimes["a submit was asked again"] += 1
            await trio.sleep(RETRY_S)
            continue
        assert "result" in answer, answer
        ids = [job["id"] for job in answer["result"]["jobs"]]
        assert len(ids) == len(papers), f"{key}: {ids}"
        assert earlier in ([], ids), f"{key}: {earlier}, then {ids}"
        world.told.jobs[key] = earlier = ids
        if rng.random() > GIVES_UP:
            return


async def operator(world: World) -> None:
    """Releases the boxes that were quarantined for the power cuts here."""
    while True:
        with contextlib.suppress(Gone):
            for row in (await _ask(world, {"verb": "hosts"}))["result"]["hosts"]:
                if row["kept"]:
                    await _ask(world, {"verb": "host-release", "host": row["name"]})
                    world.told.sometimes["a box was released"] += 1
        await trio.sleep(0.3)


async def _ask(world: World, message: dict[str, Any]) -> dict[str, Any]:
    try:
        with trio.fail_after(PATIENCE_S):
            async with await trio.open_unix_socket(str(world.control)) as stream:
                await stream.send_all(cbor2.dumps({"appliance": 1}) + cbor2.dumps(message))
                data = b""
                while len(items := _items(data)) < 2:
                    more = await stream.receive_some(65536)
                    if not more:
                        raise Gone
                    data += more
    except (OSError, trio.BrokenResourceError) as error:
        raise Gone from error
    answer: dict[str, Any] = items[1]
    return answer


def _items(data: bytes) -> list[Any]:
    file, found = io.BytesIO(data), []
    with contextlib.suppress(cbor2.CBORDecodeEOF):
        while file.tell() < len(data):
            found.append(cbor2.CBORDecoder(file).decode())
    return found


# ---- testboxes


@attrs.frozen
class Box:
    """One testbox with an address of its own."""

    world: World
    name: str
    mac: str
    address: str
    rng: random.Random

    async def live(self) -> None:
        """Boot for ever."""
        while True:
            with contextlib.suppress(PowerCut):
                await self._boot()

    async def _boot(self) -> None:
        told = self.world.told
        script = await self._insist(f"/boot.ipxe/mac/{self.mac}?arch=x86_64")
        named = re.search(rb"/job_initrd_tmpfs/([a-z0-9.]+)/job\.cgz", script)
        if named is None:
            return  # sent to ask again
        job = named[1].decode()
        told.scripts.add((job, self.name))
        self._maybe_cut()
        archive = await self._insist(f"/job_initrd_tmpfs/{job}/job.cgz", self._is_mine)
        found = re.search(rb"/~lkp/([0-9a-f]{32})", gzip.decompress(archive))
        assert found is not None, "job.cgz without a token"
        token = found[1].decode()
        told.fetched.add((job, self.name, token))
        for word in ("running", "post_run", "finished"):
            self._maybe_cut()
            query = f"job_id={job}&job_state={word}"
            done = await self._insist(f"/~lkp/{token}/cgi-bin/lkp-jobfile-append-var?{query}")
            assert done == b"Done", done
            told.reports.append((job, token, word))
        await self._insist(f"/~lkp/{token}/cgi-bin/lkp-post-run?job_id={job}")
        told.reports.append((job, token, "close"))

    def _maybe_cut(self) -> None:
        if self.rng.random() < POWER_CUT:
            self.world.told.sometimes["a box lost power"] += 1
            raise PowerCut

    def _is_mine(self, status: int) -> None:
        if status in (403, 404):  # the attempt is over: iPXE gives up and asks anew
            self.world.told.sometimes["a job was another's by then"] += 1
            raise PowerCut

    async def _insist(
        self, target: str, refused: Callable[[int], None] = lambda status: None
    ) -> bytes:
        """The whole body of the answer, however often it takes."""
        while True:
            try:
                status, body = await self._get(target)
            except Gone:
                await trio.sleep(RETRY_S)
                if target.startswith("/boot."):
                    self.world.told.sometimes["a parked box lost its server"] += 1
                continue
            refused(status)
            assert status == 200, f"{target}: {status} {body[:200]!r}"
            return body

    async def _get(self, target: str) -> tuple[int, bytes]:
        sock = trio.socket.socket()
        try:
            await sock.bind((self.address, 0))
            await sock.connect(("127.0.0.1", self.world.port))
            async with trio.SocketStream(sock) as stream:
                await stream.send_all(
                    f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
                )
                data = b""
                async for piece in stream:
                    data += piece
        except (OSError, trio.BrokenResourceError) as error:
            raise Gone from error
        finally:
            sock.close()
        return _parse(data)


class PowerCut(Exception):
    """The box begins anew."""


def _parse(data: bytes) -> tuple[int, bytes]:
    """(status, body).  Raises Gone for an answer that is not whole."""
    head, blank, body = data.partition(b"\r\n\r\n")
    if not blank:
        raise Gone
    status = int(head.split()[1])
    if b"chunked" in head.lower():
        whole = b""
        while True:
            size, line, rest = body.partition(b"\r\n")
            if not line or len(rest) < int(size, 16) + 2:
                raise Gone
            if int(size, 16) == 0:
                return status, whole
            whole += rest[: int(size, 16)]
            body = rest[int(size, 16) + 2 :]
    length = re.search(rb"content-length: *(\d+)", head.lower())
    if length is None or len(body) < int(length[1]):
        raise Gone
    return status, body
