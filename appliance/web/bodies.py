"""Reads bodies of requests: piece by piece, as a whole, or the file in a form.

A client that sends nothing for STALL_S has lost power or means harm; its request is given up.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Final

import trio
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header
from werkzeug.sansio import multipart

from appliance.errors import ApplianceError, BadRequest
from appliance.keep.results import HIDDEN
from appliance.turns import own_round
from appliance.web.asgi import Receive, Scope

STALL_S: Final = 300.0  # between two pieces; a client's disk that stalls has recovered by then
HEAD_BYTES_MAX: Final = 2**16  # of a form before its file: a few headers of a few hundred bytes
PARTS_MAX: Final = 8  # of a form; clients send one
_NAME: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f/\\]{1,255}\Z")


class HungUp(Exception):
    """The client hung up before its body was complete."""


class Stalled(ApplianceError):
    """The client no longer sends, or its body took too long."""

    status = 408


class TooLarge(ApplianceError):
    """The body is larger than allowed."""

    status = 413


async def _piece(receive: Receive) -> tuple[bytes, bool]:
    """Returns the next piece and whether more will come.  Raises HungUp and Stalled."""
    with trio.move_on_after(STALL_S) as scope:
        message = await receive()
    if scope.cancelled_caught:
        raise Stalled(f"nothing came for {STALL_S:.0f} s")
    if message["type"] == "http.disconnect":
        raise HungUp
    return message.get("body", b""), message.get("more_body", False)


async def pieces(receive: Receive) -> AsyncGenerator[bytes, None]:
    """Yields the body as it arrives.  Raises HungUp and Stalled."""
    more = True
    while more:
        piece, more = await _piece(receive)
        yield piece


def told_bytes(scope: Scope) -> int:
    """Returns the Content-Length of the body; 0 if the client does not say."""
    return int(dict(scope["headers"]).get(b"content-length", b"0"))  # h11 accepts digits only


def check_told(scope: Scope, most: int) -> None:
    """Raises TooLarge if the Content-Length exceeds `most`, however much really comes."""
    if told_bytes(scope) > most:
        raise TooLarge(f"the body is larger than {most} bytes")


async def gather(
    scope: Scope,
    receive: Receive,
    take: Callable[[bytes], Awaitable[None]],
    most: int,
    seconds: float,
) -> None:
    """Passes a body to `take`, in pieces: at most `most` bytes, within at most `seconds`.

    Raises HungUp, Stalled, TooLarge.
    """
    check_told(scope, most)
    size, more = 0, True
    with trio.move_on_after(seconds) as arriving:
        while more:
            piece, more = await _piece(receive)
            size += len(piece)
            if size > most:
                raise TooLarge(f"the body is larger than {most} bytes")
            await take(piece)
    if arriving.cancelled_caught:
        raise Stalled(f"the body did not arrive within {seconds:.0f} s")


class Form:
    """A multipart form; only its first file is used, the rest is dropped."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        """Raises BadRequest if the body is no multipart form."""
        content_type = dict(scope["headers"]).get(b"content-type", b"")
        kind, options = parse_options_header(content_type.decode("latin-1"))
        boundary = options.get("boundary", "").encode("latin-1", "replace")
        if kind != "multipart/form-data" or not 0 < len(boundary) <= 200:
            raise BadRequest("send the file in a form: curl -F file=@x")
        self._receive, self._client = receive, scope["client"][0]
        self._more = True
        self._decoder = multipart.MultipartDecoder(boundary, HEAD_BYTES_MAX, max_parts=PARTS_MAX)

    async def name(self) -> str:
        """Returns the file's name, a single path component.

        Raises BadRequest, HungUp, Stalled.
        """
        while not isinstance(event := await self._next(), multipart.File):
            if isinstance(event, multipart.Epilogue):
                raise BadRequest("there is no file in the form")
        name = event.filename
        if not _NAME.match(name) or name in (".", "..") or name.startswith(HIDDEN):
            raise BadRequest("the form's file has no usable name")
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise BadRequest("the form's file has a name that is no UTF-8") from error
        return name

    async def data(self) -> AsyncGenerator[bytes, None]:
        """Yields the file in pieces, and reads the form to its end.

        Raises BadRequest, HungUp, Stalled.
        """
        ours = True
        while not isinstance(event := await self._next(), multipart.Epilogue):
            if isinstance(event, multipart.Data) and ours:
                yield event.data
                ours = event.more_data

    async def _next(self) -> multipart.Event:
        """Returns the next event other than NeedData.  Raises BadRequest, HungUp, Stalled."""
        try:
            while isinstance(event := self._decoder.next_event(), multipart.NeedData):
                data = None
                if self._more:
                    data, self._more = await _piece(self._receive)
                if data != b"":
                    await own_round(self._client)  # finding the parts in it may take milliseconds
                    self._decoder.receive_data(data)
        except (ValueError, RequestEntityTooLarge) as error:
            raise BadRequest("this is no form") from error
        return event
