"""`/filter` on port 20001: what happens to jobs, as it happens, by WebSocket.

docs/wire.md#the-monitor specifies it.
The client says which messages it wants, as one JSON object, and is sent those from then on.
Nothing is looked up for it: messages are the scheduler's own changes, sent once they are on disk.
Anybody in the lab can read them, like results; they contain no document's text and no secret.
"""

from __future__ import annotations

from typing import Any, Final

import structlog
import trio

from appliance import addresses, json_text
from appliance.doors.boot_wait_ws import turn_away
from appliance.errors import BadRequest, Refused
from appliance.scheduler.queries import JOBS_MAX, Query
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.watching import DISMISSED, Group, Watcher
from appliance.web.asgi import Receive, Scope, Send, forget_headers

FILTER: Final = "/filter"
QUERY_S: Final = 30.0  # time for the query to arrive
VALUES_MAX: Final = 2 * JOBS_MAX  # in a query: jobs, expressions and their names
WATCH_S: Final = 86400.0  # a monitor that was forgotten ends after a day, as in the original
CLOSE_S: Final = 5.0  # time for the client to close its side, too
GONE: Final = "the client hung up"
A_DAY: Final = "a day is over: connect again"
_REASON_BYTES_MAX: Final = 123  # RFC 6455, 5.5
_CODES: Final = {DISMISSED: 1001, A_DAY: 1000}  # RFC 6455, 7.4.1; anything else is 1008
_AS_EXPECTED: Final = {GONE, *_CODES}

log = structlog.get_logger()


class Monitor:
    """Sends each client the messages that it asked for."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one client."""
        await receive()  # websocket.connect
        client = scope["client"][0]
        local = addresses.is_own(client, scope["server"][0])
        group = Group.SERVER if local else Group.NETWORK
        if scope["path"] != FILTER:
            await turn_away(send, 404, f"the monitor is at {FILTER}")
            return
        try:
            watcher = self._scheduler.watchers.join(group, client)
        except Refused as error:
            log.warning("monitor turned away", client=client, why=str(error))
            await turn_away(send, 503, str(error))
            return
        forget_headers(scope)
        try:
            await send({"type": "websocket.accept"})
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._listen, receive, watcher)
                with trio.move_on_after(WATCH_S):
                    await self._tell(send, watcher)
                watcher.end(A_DAY)
                nursery.cancel_scope.cancel()
        finally:
            self._scheduler.watchers.leave(watcher)
        tell = log.info if watcher.ended in _AS_EXPECTED else log.warning
        tell("monitor ended", client=client, why=watcher.ended)
        if watcher.ended != GONE:
            await _close(receive, send, watcher.ended)

    async def _tell(self, send: Send, watcher: Watcher) -> None:
        while texts := await watcher.read():
            await self._scheduler.durable()  # nothing is sent before it is on disk
            for text in texts:
                await send({"type": "websocket.send", "text": text})

    async def _listen(self, receive: Receive, watcher: Watcher) -> None:
        """Reads the client's query, and later ones, which replace it, until the client is gone."""
        with trio.move_on_after(QUERY_S) as waiting:
            while (event := await receive())["type"] != "websocket.disconnect":
                waiting.deadline = float("inf")  # the query has come: there is no timeout any more
                try:
                    async with self._scheduler.watchers.turns[watcher.group].query():
                        watcher.ask(Query(_parse(event.get("text"))))
                except (BadRequest, Refused) as error:
                    watcher.end(str(error))
                    return
            watcher.end(GONE)
        if waiting.cancelled_caught:
            watcher.end(f"no query came within {QUERY_S:.0f} s")


def _parse(text: str | None) -> Any:
    try:
        return json_text.load(text or "", VALUES_MAX)
    except BadRequest as error:
        raise BadRequest(f"a query is JSON text; this {error}") from error


async def _close(receive: Receive, send: Send, why: str) -> None:
    reason = why.encode()[:_REASON_BYTES_MAX].decode(errors="ignore")
    await send({"type": "websocket.close", "code": _CODES.get(why, 1008), "reason": reason})
    with trio.move_on_after(CLOSE_S):
        while (await receive())["type"] != "websocket.disconnect":
            pass
