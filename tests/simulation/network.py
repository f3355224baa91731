"""How boxes reach the appliance: its doors called by hand, or the whole HTTP stack in memory.

Both lose what the weather loses: an answer that breaks off raises ConnectionError.
"""

from __future__ import annotations

import contextlib
import gzip
import math
import re
from typing import TYPE_CHECKING, Any, Final

import h11
import trio

from appliance.scheduler.reports import Source
from tests import fakes
from tests.simulation.determinism import sleep
from tests.simulation.oracle import demand

if TYPE_CHECKING:
    from tests.simulation.box import Box
    from tests.simulation.server import Server

SERVER: Final = "10.255.0.1"
SEEN_DEAD_S: Final = 60.0  # by then a seat whose box lost power is free (docs/firmware.md#waiting)
WATCHDOG_S: Final = 120.0  # iPXE 2.0 gives up without a body byte (docs/firmware.md#waiting)
KEEPALIVE_S: Final = 15.0  # iPXE sends one so often; a server without the connection resets it
SEND_S: Final = (None, 0.0, 0.5)  # that a send may take; None: not even a turn of the loop
_JOB: Final = re.compile(r"/job_initrd_tmpfs/([^/]+)/job\.cgz")
_TOKEN: Final = re.compile(rb"/~lkp/(token[0-9]+)")


def job_in(script: str) -> str | None:
    """The job that a script boots; None for a re-chain."""
    found = _JOB.search(script)
    return found[1] if found else None


class Direct:
    """The boot wait's own callable, and the verbs behind the other doors."""

    async def ask(self, server: Server, box: Box) -> str:
        """The script.  ConnectionError: it never came whole."""
        line = _Line(server, box)
        box.line = line
        scope = {
            "type": "http", "method": "GET", "path": f"/boot.ipxe/mac/{box.mac}",
            "headers": [], "query_string": b"arch=x86_64", "client": (box.address, 4000),
            "server": (SERVER, 3000),
        }  # fmt: skip
        if server.nursery is None or server.dead.is_set():
            raise ConnectionRefusedError
        server.nursery.start_soon(line.serve, scope)
        return await line.body()

    async def job_cgz(self, server: Server, box: Box, job: str) -> str:
        """The token in job.cgz.  LookupError where it is refused."""
        data = await server.call(server.fetches.job_cgz, job, box.address, SERVER)
        return _token_in(data)

    async def report(
        self, server: Server, box: Box, verb: str, query: dict[str, str], token: str
    ) -> Any:
        """One of the verbs of lkp's cgi-bin."""
        verbs = {"lkp-jobfile-append-var": server.reports.append, "lkp-wtmp": server.reports.wtmp,
                 "lkp-post-run": server.reports.close,
                 "still-wanted": server.reports.still_wanted}  # fmt: skip
        source = Source(token or None, box.address)
        return await server.call(verbs[verb], source, query)


class _Line:
    """One connection of the direct network, its server side and its client side."""

    def __init__(self, server: Server, box: Box) -> None:
        self._server, self._box = server, box
        self._data = b""
        self._whole = False
        self._over = trio.Event()  # the server's side of it
        self._watchdog = trio.CancelScope()  # iPXE's own: each byte winds it up again
        self._bites = box.world.size.watchdog < math.inf
        self._gone = trio.Event()  # the client's, as the server knows it
        self.silent = False  # the client lost power, and nobody knows yet

    async def serve(self, scope: dict[str, Any]) -> None:
        try:
            await self._server.boots(scope, self._receive, self._send)
        finally:
            if not self._server.vanished:
                self._over.set()
            elif not self._bites:  # else the watchdog finds out
                self._box.world.cut_off.append(self)

    async def resets(self) -> None:
        """The machine that is there now knows nothing of this connection."""
        self._over.set()

    async def _receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        if message["type"] != "http.response.body":
            return  # Hypercorn keeps the head until there is a body
        if not self._gone.is_set():
            _check_kept(self._server, message["body"].decode())
        takes = self._box.rng.choice(SEND_S)
        if takes is not None:
            await sleep(takes)
        if not self._gone.is_set() and not self.silent:
            self._data += message["body"]
            self._wind_up()
            self._whole = not message.get("more_body", False)

    async def body(self) -> str:
        self._wind_up()
        try:
            with self._watchdog if self._bites else contextlib.nullcontext():
                await self._over.wait()
        except trio.Cancelled:
            self._box.world.loses_power(self)
            raise
        if self._watchdog.cancelled_caught:
            self._box.world.sometimes["iPXE's watchdog bit"] += 1
            self.hang_up()
            raise ConnectionResetError
        if not self._whole:
            raise ConnectionResetError
        return self._data.decode()

    def _wind_up(self) -> None:
        if self._bites:
            self._watchdog.deadline = trio.current_time() + self._box.world.size.watchdog

    def hang_up(self) -> None:
        """The server learns that the client is gone."""
        self._gone.set()


def _check_kept(server: Server, text: str) -> None:
    if (name := job_in(text)) is not None:
        job = server.scheduler.store.jobs[name]
        demand(job.attempts, f"{name} left without an attempt")
        server.world.oracle.scripted(name, job.attempts[-1].number)


def _prefix(token: str) -> str:
    return f"/~lkp/{token}" if token else "/~lkp"


def _token_in(data: bytes) -> str:
    found = _TOKEN.search(gzip.decompress(data))
    assert found is not None
    return found[1].decode()


class Http:
    """The real doors behind the real Hypercorn, over connections in memory."""

    async def ask(self, server: Server, box: Box) -> str:
        """As Direct does."""
        if server.dead.is_set():
            raise ConnectionRefusedError
        answer = None
        try:
            target = f"/boot.ipxe/mac/{box.mac.replace(':', '-')}?arch=x86_64"
            answer = await _whole(fakes.begin(
                server.wire, "GET", target, client=(box.address, 4000), server=(SERVER, 3000)
            ))  # fmt: skip
            body = (await _whole(answer.rest())).decode()
        except trio.Cancelled:
            if answer is not None:
                box.world.loses_power(answer)
            raise
        _check_kept(server, body)
        return body

    async def job_cgz(self, server: Server, box: Box, job: str) -> str:
        """As Direct does."""
        answer = await self._get(server, box, f"/job_initrd_tmpfs/{job}/job.cgz")
        if answer.status != 200:
            raise LookupError(answer.status)
        return _token_in(answer.body)

    async def report(
        self, server: Server, box: Box, verb: str, query: dict[str, str], token: str
    ) -> Any:
        """As Direct does."""
        words = "&".join(f"{key}={value}" for key, value in query.items())
        answer = await self._get(server, box, f"{_prefix(token)}/cgi-bin/{verb}?{words}")
        if answer.status != 200:  # a server that is being unwound says 500, which promises nothing
            raise ConnectionResetError
        return answer.body == b"yes" if verb == "still-wanted" else None

    async def _get(self, server: Server, box: Box, target: str) -> fakes.Response:
        if server.dead.is_set():
            raise ConnectionRefusedError
        client, here = (box.address, 4001), (SERVER, 3000)
        return await _whole(fakes.fetch(server.wire, "GET", target, client=client, server=here))


async def _whole(answer: Any) -> Any:
    """What the other side sends; ConnectionResetError where it breaks off."""
    try:
        return await answer
    except (h11.RemoteProtocolError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise ConnectionResetError from error
    except AssertionError as error:  # the answer ended before it began
        raise ConnectionResetError from error
