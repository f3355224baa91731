"""The one ASGI application: sends each request to the door of the port it came to.

Each door answers only its own requests (docs/wire.md#ports).  Plain ASGI callables do the boot
wait, the files and the results; all small requests go through Quart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

from appliance import log as logs

log = structlog.get_logger()

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT: Final = b"text/plain; charset=utf-8"
# Headers of one request; curl sends five, a browser behind two proxies thirty.  A head has room for
# three thousand, which would take 200 kB of memory for as long as their request waits for anything.
HEADERS_MAX: Final = 100
_WANTED: Final = "ask for a path, which begins with a slash: GET /name HTTP/1.1"


class Doors:
    """Sends each request to the door of the port it came to."""

    def __init__(self, by_port: Mapping[int, App | Paths]) -> None:
        self._by_port = by_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif not scope["raw_path"].startswith(b"/"):
            await _no_path(scope, receive, send)
        elif len(scope["headers"]) > HEADERS_MAX:
            why = f"a request has at most {HEADERS_MAX} headers"
            await _refuse(scope, receive, send, 431, "too many headers", why)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        elif (door := self._by_port.get(scope["server"][1])) is not None:
            if logs.threshold.lets("debug"):
                _tell(scope)
            app, scope = door.choose(scope) if isinstance(door, Paths) else (door, scope)
            await app(scope, receive, send)
        else:
            await answer(send, 404, "no door of the appliance")

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        door = self._by_port.get(scope["server"][1])
        app: App = no_socket
        if isinstance(door, Paths):
            app, scope = door.choose(scope)
        await app(scope, receive, send)


class Paths:
    """A door with several apps, chosen by the end of the path, else by the longest prefix.

    All of them answer beneath `also` as well.  This class chooses the app but does not call it:
    another stack frame would cost memory for each parked box.
    """

    def __init__(
        self,
        by_prefix: Mapping[str, App],
        other: App,
        also: str = "",
        by_end: Mapping[str, App] | None = None,
        sockets: Mapping[str, App] | None = None,
    ) -> None:
        self._by_prefix = sorted(by_prefix.items(), key=lambda item: -len(item[0]))
        self._by_end = by_end or {}
        self._sockets = sockets or {}  # WebSockets, by prefix
        self._other, self._also = other, also

    def choose(self, scope: Scope) -> tuple[App, Scope]:
        """Returns the app that answers, and the request with `also` removed from its path."""
        if self._also and scope["path"].startswith(self._also + "/"):
            shorter = scope["path"].removeprefix(self._also)
            raw = scope["raw_path"].removeprefix(self._also.encode())
            scope = {**scope, "path": shorter, "raw_path": raw}
        path = scope["path"]
        if scope["type"] == "websocket":
            fits = [app for prefix, app in self._sockets.items() if path.startswith(prefix)]
            return (fits[0] if fits else no_socket), scope
        fits = [app for end, app in self._by_end.items() if path.endswith(end)]
        fits += [app for prefix, app in self._by_prefix if path.startswith(prefix)]
        return (fits[0] if fits else self._other), scope


def _tell(scope: Scope) -> None:
    client, port = scope["client"][0], scope["server"][1]
    log.debug("request", method=scope["method"], path=scope["path"], client=client, port=port)


async def _no_path(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses a target that is no path: `?x`, `*`, `host:port`, and requests meant for a proxy.

    h11 lets them through, and Quart takes an empty path for an error of the server.
    """
    await _refuse(scope, receive, send, 400, "no path", _WANTED)


async def _refuse(
    scope: Scope, receive: Receive, send: Send, status: int, what: str, why: str
) -> None:
    """Refuses a request before any door is asked; `what` is the event in the log."""
    log.warning(what, client=scope["client"][0], target=scope["path"][:100], why=why)
    if scope["type"] == "websocket":
        await no_socket(scope, receive, send)
    else:
        await answer(send, status, why)


async def no_socket(scope: Scope, receive: Receive, send: Send) -> None:
    """Refuses a WebSocket."""
    await receive()
    await send({"type": "websocket.close", "code": 1000})


def forget_headers(scope: Scope, query_max: int = 0) -> None:
    """Frees the headers of a request: thousands that wait may have sent 16 KiB each.

    A query of more than `query_max` bytes is freed, too; the caller does not use such a query.
    """
    scope["headers"].clear()
    if len(scope["query_string"]) > query_max:
        assert isinstance(scope, dict)  # as ASGI has it
        scope["query_string"] = b""


async def answer(
    send: Send,
    status: int,
    text: str,
    headers: list[tuple[bytes, bytes]] | None = None,
    content_type: bytes = TEXT,
) -> None:
    """Sends a whole short answer; an error gets a newline, so that it reads well with curl."""
    body = text.encode()
    if status >= 400:
        body += b"\n"
    about = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
    await send(
        {"type": "http.response.start", "status": status, "headers": about + (headers or [])}
    )
    await send({"type": "http.response.body", "body": body})


async def _lifespan(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})
