"""Results come in by WebDAV as curl speaks it: PUT and MKCOL, cookie JOBID (protocol.md §4).

Cookie, path and address must fit one attempt of the job that its box holds, or has held last.
Plain ASGI, since Quart gathers a body in memory faster than a disk can take it.  Repeated slashes
are one; parents are made; `Expect: 100-continue` is Hypercorn's to answer.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Final

import structlog
import trio

from appliance.config import Config, Limits
from appliance.doors.asgi import App, Receive, Scope, Send, answer
from appliance.doors.opening import parse_path
from appliance.errors import BadRequest, NoSpace, NotFound, Refused
from appliance.jobs import decisions
from appliance.jobs.changes import Job
from appliance.jobs.job import Attempt
from appliance.jobs.scheduler import Scheduler
from appliance.keep import results

WRITE_BYTES: Final = 2**20  # gathered before a thread writes them
_DAV: Final = [(b"allow", b"PUT, MKCOL, GET, HEAD"), (b"dav", b"1")]

log = structlog.get_logger()


class HungUp(Exception):
    """The client went away within its upload."""


class TooLarge(Exception):
    """A file is larger than the operator allows."""


class Results:
    """PUT and MKCOL below /result; everything else is `files`' to answer."""

    def __init__(self, scheduler: Scheduler, files: App) -> None:
        self._scheduler = scheduler
        self._files = files
        self._used: dict[str, int] = {}  # bytes, by attempt root

    @property
    def _config(self) -> Config:
        return self._scheduler.config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["method"] in ("GET", "HEAD"):
            await self._files(scope, receive, send)
            return
        if scope["method"] not in ("PUT", "MKCOL"):
            await answer(send, 405, "results take PUT and MKCOL", _DAV)
            return
        try:
            job, attempt, root, path = self._place(scope)
        except BadRequest as error:
            await answer(send, 400, str(error))
        except (Refused, NotFound) as error:
            log.warning(
                "upload refused", path=scope["path"], client=scope["client"][0], why=str(error)
            )
            await answer(send, 403, str(error))
        else:
            if scope["method"] == "MKCOL":
                await self._make_folder(send, path)
            else:
                await self._put(scope, receive, send, job, attempt, root, path)

    def _place(self, scope: Scope) -> tuple[Job, Attempt, str, Path]:
        """Whose upload this is, and where it goes."""
        job_id = _cookie(scope)
        names = [name.decode("utf-8", "surrogateescape") for name in _names(scope)]
        url = "/" + "/".join(names)
        if any(name.startswith(results.PART) for name in names):
            raise BadRequest(f"no file is called {results.PART}...")
        job = self._scheduler.store.job(job_id)
        fits = [
            (root, attempt)
            for attempt in job.attempts
            if url == (root := decisions.attempt_root(job, attempt.number))
            or url.startswith(root + "/")
        ]
        if not fits:
            raise Refused(f"{job_id} uploads to {job.result_root}")
        root, attempt = max(fits, key=lambda fit: len(fit[0]))  # attempt-2 lies inside attempt 1's
        if attempt.address != scope["client"][0]:
            raise Refused(f"{job_id} is not {scope['client'][0]}'s")
        if not decisions.may_upload(self._scheduler.store, job, attempt):
            raise Refused(f"attempt {attempt.number} of {job_id} is over")
        return job, attempt, root, self._config.paths.srv / url[1:]

    async def _make_folder(self, send: Send, path: Path) -> None:
        try:
            await trio.to_thread.run_sync(results.make_folders, path)
        except OSError as error:
            await answer(send, 409, f"{path.name}: {error.strerror}")
        else:
            await answer(send, 201, "made\n")

    async def _put(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        job: Job,
        attempt: Attempt,
        root: str,
        path: Path,
    ) -> None:
        try:
            size = await self._receive(scope, receive, path, root)
        except HungUp:
            log.info("upload broken off", job=job.id, path=str(path))
        except TooLarge as error:
            await self._incomplete(job, attempt, str(error))
            await answer(send, 413, str(error), [(b"connection", b"close")])
        except NoSpace as error:
            await self._incomplete(job, attempt, str(error))
            await answer(send, 507, str(error), [(b"connection", b"close")])
        except Refused as error:
            await answer(send, 409, str(error), [(b"connection", b"close")])
        else:
            box = self._scheduler.store.boxes[attempt.box]
            self._scheduler.heard[box.name] = self._scheduler.clock.now()
            name = str(path.relative_to(self._config.paths.srv / root[1:]))
            now = self._scheduler.clock.now()
            job = self._scheduler.store.job(job.id)  # it may have moved since
            if job.attempt is None or job.attempt.number != attempt.number:
                name = f"late: {name} (of attempt {attempt.number})"
            step = decisions.told(box, now, "result", name, job, attempt, size)
            self._scheduler.change([step])
            await answer(send, 201, "kept\n")

    async def _receive(self, scope: Scope, receive: Receive, path: Path, root: str) -> int:
        limits = self._config.limits
        used = await self._usage(root)
        size = 0
        _check_size(int(dict(scope["headers"]).get(b"content-length", b"0")), used, path, limits)
        async with results.Upload(path) as upload:
            gathered = bytearray()
            more = True
            while more:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HungUp
                gathered += message.get("body", b"")
                more = message.get("more_body", False)
                _check_size(size + len(gathered), used, path, limits)
                if len(gathered) >= WRITE_BYTES or not more:
                    await upload.write(bytes(gathered))
                    size += len(gathered)
                    gathered.clear()
            await upload.finish()
        self._used[root] = self._used.get(root, 0) + size
        return size

    async def _usage(self, root: str) -> int:
        if root not in self._used:
            folder = self._config.paths.srv / root[1:]
            listed = await trio.to_thread.run_sync(results.listing, folder)
            self._used[root] = sum(size for _, size, _ in listed)
        return self._used[root]

    async def _incomplete(self, job: Job, attempt: Attempt, reason: str) -> None:
        log.warning("upload refused", job=job.id, box=attempt.box, why=reason)
        job = self._scheduler.store.job(job.id)
        now = self._scheduler.clock.now()
        await self._scheduler.keep(decisions.refused_upload(job, attempt.number, reason, now))


def _check_size(size: int, used: int, path: Path, limits: Limits) -> None:
    if size > limits.upload_file_bytes:
        raise TooLarge(f"{path.name} is larger than {limits.upload_file_bytes} bytes")
    if used + size > limits.upload_attempt_bytes:
        raise NoSpace(f"{path.name} takes the results over {limits.upload_attempt_bytes} bytes")


def _cookie(scope: Scope) -> str:
    """The job id in the cookie JOBID.  Raises Refused."""
    for name, value in scope["headers"]:
        if name == b"cookie":
            try:
                morsel = SimpleCookie(value.decode("latin-1")).get("JOBID")
            except CookieError:
                continue
            if morsel is not None:
                return morsel.value
    raise Refused("the cookie JOBID=<job> is missing")


def _names(scope: Scope) -> list[bytes]:
    """The names in the path.  Raises BadRequest and NotFound (doors/opening.py)."""
    raw = scope["raw_path"]
    if scope["method"] == "MKCOL":
        raw = raw.rstrip(b"/")
    return parse_path(raw)
