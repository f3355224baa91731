"""The one ASGI application: which door a request came through is its port.

Each door answers only what is its own (design.md §7).  Plain ASGI callables do the boot wait, the
files and the results; everything small goes through Quart.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog

log = structlog.get_logger()

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Mapping[str, Any]]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

TEXT: Final = b"text/plain; charset=utf-8"


class Doors:
    """Sends each request to the door of the port it came through."""

    def __init__(self, by_port: Mapping[int, App | Paths]) -> None:
        self._by_port = by_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection's request."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1000})
        elif (door := self._by_port.get(scope["server"][1])) is not None:
            app = door.app(scope["path"]) if isinstance(door, Paths) else door
            await app(scope, receive, send)
        else:
            await answer(send, 404, "no door of the appliance")


class Paths:
    """A door with several apps: the longest prefix of the path that fits says which; else `other`.

    It chooses and does not call, since what a parked box waits in costs memory.
    """

    def __init__(self, by_prefix: Mapping[str, App], other: App) -> None:
        self._by_prefix = sorted(by_prefix.items(), key=lambda item: -len(item[0]))
        self._other = other

    def app(self, path: str) -> App:
        """Who answers for this path."""
        fits = (app for prefix, app in self._by_prefix if path.startswith(prefix))
        return next(fits, self._other)


async def answer(
    send: Send,
    status: int,
    text: str,
    headers: list[tuple[bytes, bytes]] | None = None,
    content_type: bytes = TEXT,
) -> None:
    """A whole short answer; errors end in a newline, so that people can read them with curl."""
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
