"""Lists folders of results, for people and for `lftp mirror`, as HTML like nginx's.

A folder is judged as open_files.py judges a file: by the folder that the path resolves to, not by
its name.  Files that are still being written or being removed are not shown.  A page is sent while
it is being made (index_page.py); a HEAD request does not read the folder.

Must not: read files, which `files` sends; read a folder on the loop.
"""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes

import structlog
import trio

from appliance import threads
from appliance.doors import index_page
from appliance.errors import BadRequest, NoSpace, NotFound
from appliance.turns import Turn, Turns
from appliance.web.asgi import App, Receive, Scope, Send, answer
from appliance.web.open_files import LeavesRoots, parse_path

# Folders that are read at the same time: a second thread would only make the loop wait longer for
# the interpreter, which all of them share.
_READERS: Final = 1
_OPENERS: Final = 4  # threads in which folders are opened
# Pages whose next names are in memory: some 20 MiB.  Other pages wait, with at most one page of
# each address at a time.
PAGES_MAX: Final = 8
# If a client takes longer for a piece of a page, its names are dropped and others get its turn.
SLOW_S: Final = 1.0
_HTML: Final = [
    (b"content-type", b"text/html; charset=utf-8"),
    # The names come from a testbox, and so perhaps from a stranger.
    (b"content-security-policy", b"default-src 'none'"),
]

log = structlog.get_logger()


class Index:
    """Lists folders below `root`, which has the URL prefix `prefix`; `files` sends files."""

    def __init__(self, prefix: str, root: Path, files: App) -> None:
        self._prefix = prefix.encode()
        self._root = root
        self._files = files
        self._turns = Turns(PAGES_MAX)
        self._readers = trio.CapacityLimiter(_READERS)
        self._openers = trio.CapacityLimiter(_OPENERS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request.  A folder's path without a final slash is redirected."""
        if scope["method"] not in ("GET", "HEAD"):
            await self._files(scope, receive, send)
            return
        try:
            names = self._names(scope)
            folder = await self._open(scope, names)
        except NotADirectoryError:
            await self._files(scope, receive, send)
            return
        except BadRequest as error:
            log.warning(
                "no path", client=scope["client"][0], path=scope["path"][:300], why=str(error)
            )
            await answer(send, 400, str(error))
            return
        except (NotFound, OSError) as error:
            if isinstance(error, LeavesRoots):
                log.warning("no such folder", client=scope["client"][0], why=str(error))
            await answer(send, 404, "no such file")
            return
        try:
            await self._answer(scope, receive, send, names, folder)
        finally:
            folder.close()

    def _names(self, scope: Scope) -> list[bytes]:
        names = parse_path(scope["raw_path"].rstrip(b"/") or b"/")
        if not names or b"/" + names[0] != self._prefix:
            raise NotFound("no such root")
        return names

    async def _open(self, scope: Scope, names: list[bytes]) -> index_page.Folder:
        """Opens the folder.  Raises NotFound, OSError; NotADirectoryError: it may be a file."""
        plain = not scope["raw_path"].endswith(b"/")
        look = partial(index_page.open_folder, self._root, names[1:], may_be_file=plain)
        return await threads.run(look, limiter=self._openers)

    async def _answer(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        names: list[bytes],
        folder: index_page.Folder,
    ) -> None:
        if not scope["raw_path"].endswith(b"/"):
            await _elsewhere(send, names)
            return
        if scope["method"] == "HEAD":
            await _begin(send, _HTML)
            await send({"type": "http.response.body", "body": b""})
            return
        client = scope["client"][0]
        reader = _Reader(folder, client, self._turns, self._readers)
        try:
            await self._page(client, receive, send, names, reader)
        finally:
            reader.rest()

    async def _page(
        self, client: str, receive: Receive, send: Send, names: list[bytes], reader: _Reader
    ) -> None:
        told = {"client": client, "path": _readable(names)}
        if not await reader.begin(receive):
            return
        try:
            lines, more = await reader.piece()
        except OSError as error:
            log.warning("folder not read", **told, why=str(error))
            await answer(send, 503, "the folder cannot be read: try again")
        except NoSpace as error:
            await answer(send, 500, str(error))
        else:
            text = index_page.head(names) + lines
            if more:
                await _stream(receive, send, reader, text, told)
            else:  # the whole page is here, so its length is known
                text += index_page.FOOT
                await _begin(send, [*_HTML, (b"content-length", b"%d" % len(text))])
                await send({"type": "http.response.body", "body": text})


class _Reader:
    """Reads a folder while it holds a slot for its client; a slow client loses the slot."""

    def __init__(
        self, folder: index_page.Folder, client: str, turns: Turns, readers: trio.CapacityLimiter
    ) -> None:
        self._folder, self._client = folder, client
        self._turns, self._readers = turns, readers
        self._turn: Turn | None = None
        self._since = math.inf  # when the client was given a piece to take

    async def begin(self, receive: Receive) -> bool:
        """Waits for a slot; returns False if the client hung up meanwhile."""
        self._turn = self._turns.begin_nowait(self._client)
        if self._turn is None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_until_hung_up, receive, nursery.cancel_scope)
                self._turn = await self._turns.begin(self._client)
                nursery.cancel_scope.cancel("its turn has come")
        return self._turn is not None

    async def piece(self) -> tuple[bytes, bool]:
        """Returns the next lines and whether there are more.  Raises OSError, NoSpace."""
        self._since = math.inf
        if self._turn is None:
            self._turn = await self._turns.begin(self._client)
        found = await threads.run(self._folder.piece, limiter=self._readers)
        self._since = trio.current_time()
        if not self._folder.holds:
            self.rest()
        return found

    def rest(self) -> None:
        """Drops the names in memory and gives the slot back."""
        self._folder.forget()
        if self._turn is not None:
            self._turn.give_back()
            self._turn = None

    async def watch(self) -> None:
        """Calls rest() whenever the client is slow; never returns."""
        while True:
            await trio.sleep(SLOW_S)
            if trio.current_time() - self._since >= SLOW_S:
                self.rest()


async def _stream(
    receive: Receive, send: Send, reader: _Reader, text: bytes, told: dict[str, str]
) -> None:
    """Sends a page of several pieces, of which `text` is the first.

    If the folder can no longer be read, the answer ends short, which the client notices.
    """
    more = True
    await _begin(send, _HTML)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_hung_up, receive, nursery.cancel_scope)
        nursery.start_soon(reader.watch)
        while more:
            try:
                await send({"type": "http.response.body", "body": text, "more_body": True})
                text, more = await reader.piece()
            except ConnectionError:  # file_server.py says so at once; Hypercorn tells `receive`
                break
            except (OSError, NoSpace) as error:
                log.warning("page not sent to its end", **told, why=str(error))
                break
        nursery.cancel_scope.cancel("the page is over")
    if not more:
        await send({"type": "http.response.body", "body": text + index_page.FOOT})


async def _until_hung_up(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the body of a GET means nothing
    scope.cancel("the client hung up")


async def _elsewhere(send: Send, names: list[bytes]) -> None:
    """Redirects to the folder's path with a final slash."""
    where = quote_from_bytes(b"/" + b"/".join(names) + b"/").encode()
    start = {"status": 301, "headers": [(b"location", where), (b"content-length", b"0")]}
    await send({"type": "http.response.start", **start})
    await send({"type": "http.response.body", "body": b""})


async def _begin(send: Send, headers: list[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": headers})


def _readable(names: list[bytes]) -> str:
    return "/" + b"/".join(names).decode("utf-8", "backslashreplace")[:300]
