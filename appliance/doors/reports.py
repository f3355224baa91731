"""The small requests on port 3000, through Quart: reports of testboxes and a sign of life.

`/~<user>/cgi-bin/<verb>`, and `/~<user>/<token>/cgi-bin/<verb>` for clients that obey the
HTTP_PREFIX of their job.sh.  Queries come unescaped and with `&&` (protocol.md §3).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog
from quart import Response, request
from quart_trio import QuartTrio

from appliance.errors import BadRequest, BadState, DiskTrouble
from appliance.jobs.reports import Reports, Source

DONE: Final = "Done"
SUCCESS: Final = '"success"'  # a JSON string, with its quotes: clients compare it so
BODY_BYTES_MAX: Final = 2**20  # reports have no body; this is for what strays here

log = structlog.get_logger()

Verb = Callable[[Source, Mapping[str, str]], Awaitable[str]]


def make_app(reports: Reports) -> QuartTrio:
    """The Quart application."""
    app = QuartTrio(__name__, static_folder=None)
    # Both would cut long answers without a word (facts.md §4); each door has limits of its own.
    app.config["RESPONSE_TIMEOUT"] = None
    app.config["BODY_TIMEOUT"] = None
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX

    async def wtmp(source: Source, query: Mapping[str, str]) -> str:
        await reports.wtmp(source, query)
        return DONE

    async def append(source: Source, query: Mapping[str, str]) -> str:
        await reports.append(source, query)
        return DONE

    async def hold(source: Source, query: Mapping[str, str]) -> str:
        await reports.hold(source, query)
        return DONE

    async def close(source: Source, query: Mapping[str, str]) -> str:
        if not query.get("job_id"):
            return "null"
        await reports.close(source, query)
        return SUCCESS

    async def still_wanted(source: Source, query: Mapping[str, str]) -> str:
        return "yes" if await reports.still_wanted(source, query) else "no"

    verbs: dict[str, Verb] = {
        "lkp-wtmp": wtmp,
        "lkp-jobfile-append-var": append,
        "set-job-stage": hold,
        "lkp-post-run": close,
        "still-wanted": still_wanted,
    }

    @app.get("/~<user>/cgi-bin/<verb>")
    @app.get("/~<user>/<token>/cgi-bin/<verb>")
    async def report(user: str, verb: str, token: str | None = None) -> Response:
        if verb not in verbs:
            return _text(f"no such report; known: {', '.join(sorted(verbs))}", 404)
        source = Source(token, request.scope["client"][0])  # type: ignore[index]
        try:
            return _text(await verbs[verb](source, request.args.to_dict()))
        except BadRequest as error:
            return _text(str(error), 400)
        except (DiskTrouble, BadState) as error:  # of the archive: whose report it is
            log.error("report not kept", verb=verb, client=source.client, why=str(error))
            return _text(str(error), 503)

    @app.get("/")
    async def alive() -> Response:
        return _text("the appliance is alive\n")

    return app


def _text(text: str, status: int = 200) -> Response:
    return Response(text, status=status, content_type="text/plain; charset=utf-8")
