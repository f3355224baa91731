"""Jobs over the network, as LKP's `submit` sends them (protocol.md §5): one job, JSON, a POST.

A failure is 202 with the reason in JSON: clients read no other.  `Idempotency-Key: <8 to 64 letters
and digits>` may name a submit; said again, it finds the same job.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import structlog
import trio

from appliance.doors.asgi import Receive, Scope, Send, answer
from appliance.doors.bodies import HungUp, Stalled, TooLarge, whole
from appliance.errors import ApplianceError, BadRequest, NotFound, Refused
from appliance.jobs import accounts, checks, document, hosts, intake, nodes
from appliance.jobs.intake import Paper
from appliance.jobs.scheduler import Scheduler
from appliance.keep import packages

SUBMIT: Final = "/submit_job"
CANCEL: Final = "/cancel_jobs"
BODY_BYTES_MAX: Final = 10 * 2**20  # as the load balancer before the original has it
BODY_S: Final = 60.0  # to arrive, at 170 kB/s
# Bodies that are read at once: strangers may fill 80 MB of memory and no more.
BODIES_MAX: Final = 8
CANCELS_MAX: Final = 1000  # in one request
_ACCOUNT: Final = ("my_email", "my_name", "my_token", "my_account", "my_uuid")

log = structlog.get_logger()


class NeedsContent(ApplianceError):
    """A package is not here and its content was not sent."""


class Submits:
    """POST /submit_job and /cancel_jobs."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._reading = trio.CapacityLimiter(BODIES_MAX)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["path"] not in (SUBMIT, CANCEL) or scope["method"] != "POST":
            await answer(send, 404, f"POST {SUBMIT} or {CANCEL}")
            return
        failed: Callable[[str], Any] = _no_job if scope["path"] == SUBMIT else _no_cancel
        try:
            if not self._scheduler.config.accounts:
                raise Refused(accounts.OFF)
            async with self._reading:
                said = await _read(scope, receive)
                user = accounts.verify(self._scheduler.config.accounts, said)
                if scope["path"] == SUBMIT:
                    shown = await self._submit(said, user, _key(scope))
                else:
                    shown = await self._cancel(said, user)
        except HungUp:
            return
        except NeedsContent as error:
            await _say(send, 202, [{**_no_job(str(error))[0], "errcode": "RETRY_UPLOAD"}])
        except (ApplianceError, Stalled, TooLarge) as error:
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
        fields = {name: value for name, value in said.items() if name not in _ACCOUNT}
        if isinstance(fields.get("secrets", {}), dict):
            fields["secrets"] = {"my_email": said["my_email"]} | (fields.get("secrets") or {})
        papers = [
            Paper(f"{str(said['suite'])[:100]}.yaml", await trio.to_thread.run_sync(_dump, one))
            for one in await self._nodes(fields)
        ]
        row = {"message": "", "job_state": "submit"}
        return [
            {"job_id": job.id, **row, "result_root": f"/srv{job.result_root}"}
            for job in await intake.submit(self._scheduler, papers, user, key)
        ]

    async def _nodes(self, fields: dict[str, Any]) -> list[dict[str, Any]]:
        """The documents of a job for several machines; else the one.  Raises BadRequest."""
        name = fields.get("cluster")
        if name is None or name == checks.ALONE:
            return [fields]
        if (spec := fields.get("cluster_spec")) is None:
            folder = self._scheduler.config.paths.clusters
            spec = await trio.to_thread.run_sync(hosts.cluster, folder, str(name))
        return nodes.documents(fields, spec)

    async def _keep_packages(self, said: dict[str, Any]) -> None:
        """Keep what came with the job; of its `pkg_data` only names stay."""
        if said.get("pkg_data") is None:
            return
        try:
            named = checks.packages(said["pkg_data"])
        except ValueError as error:
            raise BadRequest(f"pkg_data: {error}") from error
        srv, missing = self._scheduler.config.paths.srv, []
        for package in named:
            content = said["pkg_data"][package.repo].get("content")
            if isinstance(content, str) and content:
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
        for job_id in map(str, asked):
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


async def _read(scope: Scope, receive: Receive) -> dict[str, Any]:
    """The JSON object in a body, whatever its content type says.  Raises BadRequest."""
    body = await whole(scope, receive, BODY_BYTES_MAX, BODY_S)
    said = await trio.to_thread.run_sync(_parse, body)
    if not isinstance(said, dict):
        raise BadRequest("the body must be one job as a JSON object")
    return said


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest(f"the body is no JSON: {error}") from error


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no number")


def _dump(fields: Mapping[str, Any]) -> str:
    try:
        return document.dump(fields)
    except RecursionError as error:
        raise BadRequest("the job is nested too deep") from error
    except UnicodeEncodeError as error:
        raise BadRequest("the job holds half a character, which is no text") from error


def _key(scope: Scope) -> str:
    """The name of this submit; a new one where the client gives none."""
    said = dict(scope["headers"]).get(b"idempotency-key", b"").decode("latin-1")
    return said or secrets.token_hex(16)


def _no_job(message: str) -> list[dict[str, Any]]:
    return [{"job_id": "0", "message": message, "job_state": "submit"}]


def _no_cancel(message: str) -> dict[str, str]:
    return {"error_msg": message}


async def _say(send: Send, status: int, value: Any) -> None:
    # Not read to its end, a body would be taken for the next request.
    close = [(b"connection", b"close")]
    await answer(send, status, json.dumps(value), close, b"application/json")
