"""Serves kernels, initrds and all other files to the boxes.

A plain ASGI callable beside Quart, whose own file sending is some thirty times slower
(DESIGN.md#libraries-and-what-was-rejected).  It answers GET and HEAD, with one Range, ETag and
dates, and reports exactly what each box got.
Two things Hypercorn does not do for us.  It silently drops data that is sent after a client hung
up, so a task here listens for hang-ups.  And an answer that cannot be completed must end short of
its Content-Length; for that the callable returns without sending its last message.

Must not: know what the files are, open one itself (open_files.py), let the loop wait for a disk.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final, Protocol

import attrs
import structlog
import trio

from appliance.errors import BadRequest, NotFound, Refused
from appliance.web import ranges
from appliance.web.open_files import (
    CHUNK_BYTES,
    Body,
    Bytes,
    Disk,
    Gone,
    LeavesRoots,
    RealDisk,
    parse_path,
)

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

OCTETS: Final = "application/octet-stream"
# Longer than a burst of boots, far below iPXE's 120 s; iPXE obeys it (docs/firmware.md#chaining).
RETRY_AFTER_S: Final = 5

# Bytes of a file that one message hands to sendfile.  A lease is renewed after each message: even
# over a link of 25 kB/s that is sooner than the 180 s of an offer.
HANDED_BYTES: Final = 4 * 2**20

logger = structlog.get_logger()


class Progress(Protocol):
    """Is told what was sent to which client.  Called on the loop, so it must be quick."""

    def moved(self, client: str, path: str, n: int) -> None:
        """Is told that `n` more body bytes of `path` went to the address `client`."""

    def done(self, client: str, path: str, size: int, seconds: float) -> None:
        """Is told that the last byte of `path` went to `client`, in an answer of `seconds`.

        A `size` of 0 means that the client already has the current file.
        """

    def missing(self, client: str, path: str, reached: str) -> None:
        """Is told that `client` sent a GET for `path`, which is not on the disk.

        `reached` is our address as the client knows it.
        """


class Unwatched:
    """A Progress that ignores everything."""

    def moved(self, client: str, path: str, n: int) -> None: ...

    def done(self, client: str, path: str, size: int, seconds: float) -> None: ...

    def missing(self, client: str, path: str, reached: str) -> None: ...


class Files:
    """Serves the files below `roots`, a map of URL prefix ("/os") to directory."""

    def __init__(
        self, roots: Mapping[str, Path], progress: Progress, disk: Disk | None = None
    ) -> None:
        self._roots = frozenset(roots)
        self._progress = progress
        self._disk = disk or RealDisk(roots)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = _Request.of(scope)
        if request.method not in ("GET", "HEAD"):
            await _not_allowed(request, send)
            return
        try:
            names = parse_path(scope["raw_path"])
            request = attrs.evolve(request, path=_readable(names))
            body = await self._open(names)
        except BadRequest as error:
            logger.warning(
                "no path", client=request.client, path=request.path[:300], why=f"{error}"
            )
            await _refuse(request, send, error.status, str(error))
        except NotFound as error:
            # Only the log says why: a client need not learn where a symlink leads.
            log = logger.warning if isinstance(error, LeavesRoots) else logger.info
            log("no such file", client=request.client, path=request.path, why=str(error))
            if isinstance(error, Gone) and request.method == "GET":
                self._progress.missing(request.client, request.path, request.reached)
            await _refuse(request, send, error.status, "no such file")
        except Refused as error:
            logger.warning("file not readable", client=request.client, path=request.path)
            await _refuse(request, send, error.status, str(error))
        except OSError as error:
            logger.warning("file not opened", path=request.path, why=str(error))
            await _refuse(request, send, 503, "try again", [_retry_after()])
        else:
            try:
                await _answer(request, receive, send, body, OCTETS, self._progress)
            finally:
                body.close()

    async def _open(self, names: list[bytes]) -> Body:
        root = "/" + names[0].decode("utf-8", "replace")
        if root not in self._roots or len(names) < 2:
            raise NotFound("no such root")
        return await self._disk.open(root, names[1:])


async def send_bytes(
    scope: Scope,
    receive: Receive,
    send: Send,
    data: bytes,
    *,
    path: str,
    progress: Progress | None = None,
    content_type: str = OCTETS,
) -> None:
    """Answers with `data` as if it were a file: GET, HEAD, Range, and reports to `progress`.

    `path` is the name under which `progress` is told.
    """
    request = attrs.evolve(_Request.of(scope), path=path)
    if request.method not in ("GET", "HEAD"):
        await _not_allowed(request, send)
        return
    await _answer(request, receive, send, Bytes(data), content_type, progress or Unwatched())


@attrs.frozen
class _Request:
    method: str
    path: str
    client: str
    reached: str  # our address, as the client knows it
    headers: Mapping[bytes, bytes]
    zero_copy: bool  # the server can send from an open file by itself

    @classmethod
    def of(cls, scope: Scope) -> _Request:
        client = scope["client"]
        return cls(
            scope["method"],
            scope["raw_path"].decode("latin-1"),
            client[0] if client else "",
            (scope.get("server") or [""])[0],
            {name.lower(): value for name, value in scope["headers"]},
            "http.response.zerocopysend" in scope.get("extensions", {}),
        )


async def _answer(
    request: _Request,
    receive: Receive,
    send: Send,
    body: Body,
    content_type: str,
    progress: Progress,
) -> None:
    began = trio.current_time()
    headers = ranges.validators(body.etag, body.modified)
    start, stop, status = 0, body.size, 200
    if ranges.is_fresh(request.headers, body.etag, body.modified):
        await _head(send, 304, headers)
        await send({"type": "http.response.body", "body": b""})
        if request.method == "GET":  # hosts of virtual boxes keep files
            progress.done(request.client, request.path, 0, trio.current_time() - began)
        logger.debug("file", client=request.client, path=request.path, status=304)
        return
    try:
        span = (
            ranges.asked(request.headers, headers, body.size) if request.method == "GET" else None
        )
        if span is not None:
            start, stop, status = *span, 206
            headers.append((b"content-range", b"bytes %d-%d/%d" % (start, stop - 1, body.size)))
    except ranges.Unsatisfiable:
        headers.append((b"content-range", b"bytes */%d" % body.size))
        await _refuse(request, send, 416, "there is no such range", headers)
        return
    headers += [(b"content-type", content_type.encode()), (b"accept-ranges", b"bytes")]
    headers.append((b"content-length", b"%d" % (stop - start)))
    await _head(send, status, headers)
    reached = start
    if request.method == "GET":
        reached = await _stream(request, receive, send, body, start, stop, progress)
        if reached < stop:
            return  # without the last message: the connection closes short
        if stop == body.size:
            seconds = trio.current_time() - began
            progress.done(request.client, request.path, body.size, seconds)
    await send({"type": "http.response.body", "body": b""})
    logger.debug("file", client=request.client, path=request.path, status=status, start=start)


async def _stream(
    request: _Request,
    receive: Receive,
    send: Send,
    body: Body,
    start: int,
    stop: int,
    progress: Progress,
) -> int:
    """Sends a part of `body`; returns where it ended.

    That is `stop`, or less if the client hung up or the file could not be read so far.
    """
    reached = start
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_until_hung_up, receive, nursery.cancel_scope)
        while reached < stop:
            try:
                piece, length = await _piece(request, body, reached, stop)
                await send(piece)
            except ConnectionError:  # file_server.py says so at once; Hypercorn does not
                break
            except OSError as error:
                told = {"client": request.client, "path": request.path, "at": reached}
                logger.warning("file not sent to its end", **told, why=str(error))
                break
            if reached + length < stop and not request.zero_copy:
                # A send into a closed connection returns as if it had worked, and makes `receive`
                # return a disconnect; by the next tick _until_hung_up has cancelled this loop.
                # After the last byte a hang-up does not matter: the client has everything.
                await trio.lowlevel.checkpoint()
            reached += length
            progress.moved(request.client, request.path, length)
        # Before the last message: Hypercorn reports a disconnect after that one, too, and a
        # cancellation there would catch it while it makes the connection ready for reuse.
        nursery.cancel_scope.cancel("the body is over")
    return reached


async def _piece(
    request: _Request, body: Body, start: int, stop: int
) -> tuple[Mapping[str, Any], int]:
    """Returns the message with the next part of the body, and its length.  Raises OSError."""
    if request.zero_copy and (file := body.descriptor) is not None:
        length = min(HANDED_BYTES, stop - start)
        if os.fstat(file).st_size < start + length:
            raise OSError(errno.ENODATA, "the file has become shorter")
        place = {"file": file, "offset": start, "count": length}
        return {"type": "http.response.zerocopysend", **place, "more_body": True}, length
    chunk = await body.read(start, min(CHUNK_BYTES, stop - start))
    if not chunk:
        raise OSError(errno.ENODATA, "the file has become shorter")
    return {"type": "http.response.body", "body": chunk, "more_body": True}, len(chunk)


async def _until_hung_up(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass  # the body of a GET means nothing
    scope.cancel("the client hung up")


async def _head(send: Send, status: int, headers: Headers) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})


async def _refuse(
    request: _Request, send: Send, status: int, words: str, headers: Headers | None = None
) -> None:
    text = words.encode() + b"\n"
    about = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", b"%d" % len(text)),
    ]
    await _head(send, status, about + (headers or []))
    await send({"type": "http.response.body", "body": text})
    logger.debug("file", client=request.client, path=request.path, status=status)


async def _not_allowed(request: _Request, send: Send) -> None:
    await _refuse(request, send, 405, "files are only read", [(b"allow", b"GET, HEAD")])


def _retry_after() -> tuple[bytes, bytes]:
    return (b"retry-after", b"%d" % RETRY_AFTER_S)


def _readable(names: list[bytes]) -> str:
    """Returns the path as text that can be logged, shown and kept, whatever its bytes are."""
    return "/" + "/".join(name.decode("utf-8", "backslashreplace") for name in names)
