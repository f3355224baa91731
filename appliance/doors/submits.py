"""Takes jobs over the network, as LKP's `submit` sends them: one job, as JSON, in a POST.

docs/wire.md#submitting-a-job specifies it.
A failure is 202 with the reason in JSON, since clients read no other answer.  The header
`Idempotency-Key: <8 to 64 letters and digits>` may name a submit; a request with the same key finds
the same job.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import structlog

from appliance import json_text, threads, yaml_text
from appliance.errors import ApplianceError, BadRequest, NotFound, Refused
from appliance.jobs.documents import checks, cluster_spec, document
from appliance.json_text import Long
from appliance.keep import packages
from appliance.scheduler import accounts, hosts_files, intake
from appliance.scheduler.intake import Paper
from appliance.scheduler.scheduler import Scheduler
from appliance.turns import Pace, Turns
from appliance.web.asgi import Receive, Scope, Send, answer
from appliance.web.berths import Berth, Berths
from appliance.web.bodies import HungUp, check_told, gather, told_bytes

SUBMIT: Final = "/submit_job"
CANCEL: Final = "/cancel_jobs"
BODY_BYTES_MAX: Final = 10 * 2**20  # the limit of the load balancer in front of the original
BODY_S: Final = 60.0  # time for a body to arrive, at 170 kB/s
# Limits of all large bodies together, whether or not they have arrived, and of those of one
# address.  Half of the first is room for one body of the largest size from a stranger.
GATHERED_BYTES_MAX: Final = 20 * 2**20
ADDRESS_BYTES_MAX: Final = BODY_BYTES_MAX + 2**20
# Limit of a body without its packages: twice a document, since JSON needs more bytes than YAML.  In
# memory it takes four times that if it has a wide character, and its values as much again.
TEXT_BYTES_MAX: Final = 2 * 2**20
# Names and values in a body: those of a document, its packages and the nodes of its cluster.
VALUES_MAX: Final = yaml_text.VALUES_MAX + 5000
CANCELS_MAX: Final = 1000  # in one request
JOB_CHARS_MAX: Final = 100  # of a job's name; ours have some ten
# Bodies are parsed one after the other, so that only one of them is in memory twice: as text and
# as objects.
PARSED_MAX: Final = 1
_ACCOUNT: Final = ("my_email", "my_name", "my_token", "my_account", "my_uuid")

log = structlog.get_logger()


class NeedsContent(ApplianceError):
    """A package is not here and its content was not sent."""


class Submits:
    """Answers POST /submit_job and /cancel_jobs."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._berths = Berths(GATHERED_BYTES_MAX, ADDRESS_BYTES_MAX)
        self._parsing = Turns(PARSED_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["path"] not in (SUBMIT, CANCEL) or scope["method"] != "POST":
            await answer(send, 404, f"POST {SUBMIT} or {CANCEL}")
            return
        failed: Callable[[str], Any] = _no_job if scope["path"] == SUBMIT else _no_cancel
        try:
            if not self._scheduler.config.accounts:
                raise Refused(accounts.OFF)
            check_told(scope, BODY_BYTES_MAX)
            # A client that does not declare a length may send the longest body.
            client, size = scope["client"][0], told_bytes(scope) or BODY_BYTES_MAX
            async with self._berths.berth(client, size) as berth:
                said = await _read(scope, receive, berth, self._parsing)
                user = accounts.verify(self._scheduler.config.accounts, said)
                self._berths.prove(client)
                if scope["path"] == SUBMIT:
                    shown = await self._submit(said, user, _key(scope))
                else:
                    shown = await self._cancel(said, user)
        except HungUp:
            return
        except NeedsContent as error:
            await _say(send, 202, [{**_no_job(str(error))[0], "errcode": "RETRY_UPLOAD"}])
        except ApplianceError as error:
            client = scope["client"][0]
            log.warning("refused", path=scope["path"], client=client, why=str(error)[:300])
            await _say(send, 202, failed(str(error)))
        else:
            await _say(send, 200, shown)

    async def _submit(self, said: dict[str, Any], user: str, key: str) -> Any:
        for field in ("suite", "testbox"):
            if not said.get(field) and not (field == "testbox" and said.get("tbox_group")):
                raise BadRequest(f"Missing required job key: '{field}'.")
        await self._keep_packages(said)
        papers = await threads.run(partial(self._papers, said), limiter=intake.READERS)
        row = {"message": "", "job_state": "submit"}
        return [
            {"job_id": job.id, **row, "result_root": f"/srv{job.result_root}"}
            for job in await intake.submit(self._scheduler, papers, user, key)
        ]

    def _papers(self, said: dict[str, Any]) -> list[Paper]:
        """Returns a document for each machine; checks sizes first.  Raises BadRequest."""
        config = self._scheduler.config
        said = json_text.written_out(said)
        fields = {name: value for name, value in said.items() if name not in _ACCOUNT}
        if isinstance(fields.get("secrets", {}), dict):
            fields["secrets"] = {"my_email": said["my_email"]} | (fields.get("secrets") or {})
        documents = [fields]
        name, spec = fields.get("cluster"), fields.get("cluster_spec")
        if name is not None and name != checks.ALONE:
            if spec is None:
                spec = hosts_files.cluster(config.paths.clusters, str(name))
            documents = cluster_spec.documents(fields, spec)
        values, size = _extent(documents[0])
        if size > config.limits.document_bytes:
            raise BadRequest(f"the job is larger than {config.limits.document_bytes} bytes")
        if values * len(documents) > intake.VALUES_MAX:
            raise BadRequest(
                f"the jobs of {len(documents)} machines hold more than {intake.VALUES_MAX} values"
            )
        return [Paper(f"{str(said['suite'])[:100]}.yaml", _dump(one)) for one in documents]

    async def _keep_packages(self, said: dict[str, Any]) -> None:
        """Stores the packages sent with the job; its `pkg_data` keeps only tags and checksums.

        Raises BadRequest, NeedsContent, and what `packages.keep` raises.
        """
        if said.get("pkg_data") is None:
            return
        try:
            named = checks.packages(said["pkg_data"])
        except ValueError as error:
            raise BadRequest(f"pkg_data: {error}") from error
        srv, missing = self._scheduler.config.paths.srv, []
        for package in named:
            content = said["pkg_data"][package.repo].get("content")
            if isinstance(content, str | Long) and content:
                await packages.keep(srv, package, content)
            elif not await packages.is_there(srv, package):
                missing.append(package.repo)
        if missing:
            raise NeedsContent(json.dumps(missing))
        said["pkg_data"] = {p.repo: {"tag": p.tag, "md5": p.md5} for p in named}

    async def _cancel(self, said: Mapping[str, Any], user: str) -> Any:
        asked = said.get("job_ids")
        if not isinstance(asked, list) or len(asked) > CANCELS_MAX:
            raise BadRequest(f"job_ids must be a list of at most {CANCELS_MAX} jobs")
        results = []
        for job_id in (str(one)[:JOB_CHARS_MAX] for one in asked):
            result, message = await self._cancel_one(job_id, user)
            results.append({"result": result, "job_id": job_id, "message": message})
        return {"results": results}

    async def _cancel_one(self, job_id: str, user: str) -> tuple[str, str]:
        try:
            job = await self._scheduler.find(job_id)
            if job.submitter != user:
                return "forbidden", "can only cancel the job submitted by yourself"
            await self._scheduler.cancel(job_id, user)
        except NotFound:
            return "failed", "can't find job from es"
        except Refused as error:
            return "unsupported", str(error)
        return "success", ""


async def _read(scope: Scope, receive: Receive, berth: Berth, parsing: Turns) -> dict[str, Any]:
    """Returns the JSON object in a body, whatever its content type says.

    Raises BadRequest, NoRoom, HungUp, Stalled, TooLarge.
    """
    reader, size = json_text.Reader(VALUES_MAX, TEXT_BYTES_MAX), 0

    async def take(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        berth.took(len(piece))
        pace = Pace(berth.who)
        for at in range(0, len(piece), json_text.SLICE_BYTES):
            await pace.step()
            reader.feed(piece[at : at + json_text.SLICE_BYTES])

    try:
        await gather(scope, partial(berth.wait, receive), take, BODY_BYTES_MAX, BODY_S)
        berth.settle(size)
        async with parsing.turn(berth.who):
            said = await threads.run(reader.value)
    except BadRequest as error:
        raise BadRequest(f"the body {error}") from error
    if not isinstance(said, dict):
        raise BadRequest("the body must be one job as a JSON object")
    return said


def _extent(value: Any) -> tuple[int, int]:
    """Returns how many names and values `value` holds, and the least size of its YAML in bytes."""
    if isinstance(value, str):
        return 1, len(value)
    if isinstance(value, list | dict):
        parts = value if isinstance(value, list) else [*value.keys(), *value.values()]
        extents = [_extent(part) for part in parts]
        return 1 + sum(values for values, _ in extents), sum(size for _, size in extents)
    return 1, 1


def _dump(fields: Mapping[str, Any]) -> str:
    try:
        return document.dump(fields)
    except UnicodeEncodeError as error:
        raise BadRequest("the job holds half a character, which is no text") from error


def _key(scope: Scope) -> str:
    """Returns the Idempotency-Key of this submit; a new one if the client gives none."""
    said = dict(scope["headers"]).get(b"idempotency-key", b"").decode("latin-1")
    return said or secrets.token_hex(16)


def _no_job(message: str) -> list[dict[str, Any]]:
    return [{"job_id": "0", "message": message, "job_state": "submit"}]


def _no_cancel(message: str) -> dict[str, str]:
    return {"error_msg": message}


async def _say(send: Send, status: int, value: Any) -> None:
    # The rest of a body that was not read to its end would be taken for the next request.
    close = [(b"connection", b"close")]
    await answer(send, status, json.dumps(value), close, b"application/json")
