"""The small requests on port 3000, through Quart: reports of testboxes and a sign of life.

The paths are `/~<user>/cgi-bin/<verb>`, and `/~<user>/<token>/cgi-bin/<verb>` for clients that obey
the HTTP_PREFIX of their job.sh.  Queries come unescaped and with `&&` (docs/wire.md#reports).

The token is a secret of an attempt, sent with job.cgz only to the card of its box.  A client with
the token speaks for that attempt from any address, since a job may report from a container or by
another card.  A report without a token, such as a person's `lkp-renew` on a box, is judged by its
address and the card there.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import structlog
import trio
from quart import Response, request
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from appliance import json_text
from appliance.doors.admission import Admission
from appliance.doors.providers import Providers
from appliance.errors import (
    ApplianceError,
    BadRequest,
    NotFound,
    Refused,
)
from appliance.scheduler.reports import Reports, Source
from appliance.turns import round_for

DONE: Final = "Done"
SUCCESS: Final = '"success"'  # a JSON string: clients compare it with its quotes
# Only one report has a body, of four short fields; the log that newer clients send has some ten.
# Parsing a body of this size takes a third of a millisecond even if it consists of commas.
BODY_BYTES_MAX: Final = 2**13
VALUES_MAX: Final = 1000  # in a body; the log that newer clients send has some ten
EVENT_SHOWN: Final = 500  # characters of an event in the log
BODY_S: Final = 30.0  # time for a body to arrive: a usual one fits into one packet

Verb = Callable[[Source, Mapping[str, str]], Awaitable[str]]

log = structlog.get_logger()


class Small(QuartTrio):
    """Quart, with the Host header replaced.

    No answer depends on that header, and an invalid host name (with a label of 64 letters, say) was
    answered with 500.
    """

    async def asgi_app(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers one request."""
        headers = [(name, value) for name, value in scope["headers"] if name != b"host"]
        shown: Any = {**scope, "headers": [*headers, (b"host", b"lab")]}
        await super().asgi_app(shown, receive, send)


def make_app(reports: Reports, providers: Providers, admission: Admission) -> QuartTrio:
    """Returns the Quart application."""
    app = Small(__name__, static_folder=None)
    # Both timeouts would silently cut long answers (docs/firmware.md#libraries); each door has
    # limits of its own.
    app.config["RESPONSE_TIMEOUT"] = None
    app.config["BODY_TIMEOUT"] = None
    app.config["MAX_CONTENT_LENGTH"] = BODY_BYTES_MAX

    _add_cgi(app, _verbs(reports))
    _add_questions(app, reports)
    _add_providers(app, providers, admission)

    @app.get("/")
    async def alive() -> Response:
        return _text("the appliance is alive\n")

    @app.errorhandler(ApplianceError)
    async def wrong(error: ApplianceError) -> Response:
        # 503: the archive, which knows whose report it is, gives no answer
        log.warning("request refused", client=_client(), path=request.path[:80], why=str(error))
        return _text(f"{error}\n", error.status)

    @app.errorhandler(HTTPException)
    async def stray(error: HTTPException) -> Response:
        return _text(f"{error.name.lower()}\n", error.code or 500)

    return app


def _verbs(reports: Reports) -> dict[str, Verb]:
    """Returns the verbs behind cgi-bin/; each returns its answer (docs/wire.md#reports)."""

    def done(report: Callable[[Source, Mapping[str, str]], Awaitable[None]]) -> Verb:
        async def verb(source: Source, query: Mapping[str, str]) -> str:
            await report(source, query)
            return DONE

        return verb

    async def close(source: Source, query: Mapping[str, str]) -> str:
        if not query.get("job_id"):
            return "null"
        await reports.close(source, query)
        return SUCCESS

    async def still_wanted(source: Source, query: Mapping[str, str]) -> str:
        return "yes" if await reports.still_wanted(source, query) else "no"

    return {
        "lkp-wtmp": done(reports.wtmp),
        "lkp-jobfile-append-var": done(reports.append),
        "set-job-stage": done(reports.hold),
        "report_ssh_port": done(reports.ssh),
        "report_ssh_info": done(reports.ssh),
        "report-job-step": done(reports.step),
        "lkp-cluster-sync": reports.sync,
        "lkp-post-run": close,
        "still-wanted": still_wanted,
    }


def _add_cgi(app: QuartTrio, verbs: Mapping[str, Verb]) -> None:
    @app.route("/~<user>/cgi-bin/<verb>", methods=["GET", "POST"])
    @app.route("/~<user>/<token>/cgi-bin/<verb>", methods=["GET", "POST"])
    async def report(user: str, verb: str, token: str | None = None) -> Response:
        if verb not in verbs:
            raise NotFound(f"no such report; known: {', '.join(sorted(verbs))}")
        fields = request.args.to_dict() | (await _body() if request.method == "POST" else {})
        return _text(await verbs[verb](Source(token, _client()), fields))


def _add_questions(app: QuartTrio, reports: Reports) -> None:
    """Adds the requests outside of cgi-bin/."""

    @app.get("/renew_deadline")
    async def renew() -> Response:
        return _text(await reports.renew(Source(None, _client()), request.args.to_dict()))

    @app.get("/get_deadline")
    async def deadline() -> Response:
        return _text(await reports.deadline(request.args.to_dict()))

    @app.post("/report_event")
    async def event() -> Response:
        # The log that newer clients send; it says nothing about any job of ours.
        log.info("event reported", client=_client(), said=json.dumps(await _body())[:EVENT_SHOWN])
        return _text(DONE)

    @app.get("/get_testbox")
    async def testbox() -> Response:
        return _json(await reports.testbox(request.args.to_dict()))


def _add_providers(app: QuartTrio, providers: Providers, admission: Admission) -> None:
    """Adds the requests of providers; other machines are refused."""

    async def present(query: Mapping[str, str]) -> str:
        return providers.present(query)

    verbs = {
        "set_host_mac": providers.set_mac,
        "del_host_mac": providers.del_mac,
        "set_host2queues": providers.set_queues,
        "del_host2queues": providers.del_queues,
        "register-host2redis": present,
    }

    @app.put(f"/<any({','.join(map(repr, verbs))}):verb>")
    async def provider(verb: str) -> Response:
        server = request.scope["server"][0]  # type: ignore[index] # Hypercorn always has it
        try:
            admission.check_trusted(_client(), str(server))
        except Refused as error:
            who = "only the lab server and network.providers may"
            raise Refused(f"{_client()} may not register testboxes, {who}: {error}") from error
        return _text(await verbs[verb](request.args.to_dict()))

    @app.get("/heart-beat")
    async def heart_beat() -> Response:
        there = providers.beats(request.args.to_dict())
        return _json({"status_code": 1000 if there else 1001})


async def _body() -> dict[str, str]:
    """Returns the fields of a JSON body, whatever its content type says.  Raises BadRequest."""
    data: bytes | str = b""
    with trio.move_on_after(BODY_S) as scope:
        data = await request.get_data(cache=False)
    if scope.cancelled_caught:
        raise BadRequest(f"the body did not arrive within {BODY_S:.0f} s")
    await round_for(_client(), len(data))  # hundreds of bodies may end in one round
    try:
        fields = json_text.load(data, VALUES_MAX) if data else {}
    except BadRequest:
        fields = None
    if not isinstance(fields, dict):
        raise BadRequest('the body must be a JSON object, such as {"job_id": "lab.1"}')
    return {str(key): str(value) for key, value in fields.items()}


def _client() -> str:
    return str(request.scope["client"][0])  # type: ignore[index] # Hypercorn always has it


def _json(value: Any) -> Response:
    return Response(json.dumps(value), content_type="application/json")


def _text(text: str, status: int = 200) -> Response:
    return Response(text, status=status, content_type="text/plain; charset=utf-8")
