"""Takes results by WebDAV as curl speaks it: PUT and MKCOL, cookie JOBID (docs/wire.md#uploads).

Newer clients POST a form: the file is kept beside the name in the path, under its own name.  Most
of these clients are hosts of virtual boxes, which upload the console output of a box.

The cookie, the path, the address and the card at that address must match one attempt of the job
that its box holds, or held last.
Plain ASGI, since Quart gathers a body in memory faster than a disk can take it.  Repeated slashes
count as one; parent folders are made; Hypercorn answers `Expect: 100-continue`.
"""

from __future__ import annotations

import contextlib
import json
from collections import OrderedDict
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Final

import attrs
import structlog

from appliance import threads
from appliance.config import Config, Limits
from appliance.doors.admission import Admission
from appliance.errors import (
    ApplianceError,
    BadRequest,
    BadState,
    DiskTrouble,
    NoSpace,
    NotFound,
    Refused,
    Unproven,
)
from appliance.jobs import decisions, places
from appliance.jobs.changes import Job
from appliance.jobs.job import Attempt
from appliance.keep import results
from appliance.scheduler.scheduler import Scheduler
from appliance.turns import Turns
from appliance.web.asgi import App, Receive, Scope, Send, answer
from appliance.web.bodies import Form, HungUp, Stalled, TooLarge, pieces, told_bytes
from appliance.web.open_files import parse_path

# Bytes of an upload that are gathered before a thread writes them, and of all uploads together, so
# that hundreds at once do not fill the memory.
WRITE_BYTES: Final = 2**20
GATHERED_BYTES: Final = 32 * 2**20
# Names in one path.  Otherwise a box could make a tree so deep that Python could not walk it.
NAMES_MAX: Final = 100
# Attempts whose files are counted at the same time, each in a thread: after a restart hundreds go
# on uploading, and one may have a hundred thousand files.
COUNTED_MAX: Final = 2
USED_MAX: Final = 1000  # attempts whose sizes are remembered; others are counted from the disk
_CLOSE: Final = [(b"connection", b"close")]  # the rest of the body is not read
_DAV: Final = [(b"allow", b"PUT, MKCOL, POST, GET, HEAD"), (b"dav", b"1")]


log = structlog.get_logger()


@attrs.define
class _Used:
    """Counts what an attempt has uploaded."""

    size: int  # bytes, including uploads under way
    names: int = 0  # names in the paths of all files, since a disk has a limited number of inodes
    uploads: int = 0  # under way


class Results:
    """Answers PUT, MKCOL and POST below /result; `files` answers GET and HEAD."""

    def __init__(self, scheduler: Scheduler, admission: Admission, files: App) -> None:
        self._scheduler = scheduler
        self._admission = admission
        self._files = files
        self._under_way = 0  # uploads
        self._counting = Turns(COUNTED_MAX)
        self._used: OrderedDict[str, _Used] = OrderedDict()  # by attempt root

    @property
    def _config(self) -> Config:
        return self._scheduler.config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["method"] in ("GET", "HEAD"):
            await self._files(scope, receive, send)
            return
        if scope["method"] not in ("PUT", "MKCOL", "POST"):
            await answer(send, 405, "results take PUT, MKCOL and POST", _DAV)
            return
        try:
            job, attempt, root, path = await self._place(scope)
        except (BadRequest, Refused, NotFound, DiskTrouble, BadState, Unproven) as error:
            # 503: the archive or the kernel gives no answer; the box tries for ten minutes
            if isinstance(error, BadRequest):
                await self._misplaced(scope, str(error))
            await _refuse(send, scope, error, 403 if isinstance(error, NotFound) else 0)
        else:
            try:
                self._check_names(scope, attempt, root, path)
            except BadRequest as error:
                await self._incomplete(job, attempt, str(error))
                await _refuse(send, scope, error)
            else:
                await self._take(scope, receive, send, job, attempt, root, path)

    async def _take(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        job: Job,
        attempt: Attempt,
        root: str,
        path: Path,
    ) -> None:
        if scope["method"] == "MKCOL":
            await self._make_folder(scope, send, job, attempt, root, path)
        elif scope["method"] == "POST":
            await self._post(scope, receive, send, job, attempt, root, path)
        else:
            body, size = pieces(receive), told_bytes(scope)
            if await self._put(scope, body, size, send, job, attempt, root, path):
                await answer(send, 201, "kept\n")

    def _check_names(self, scope: Scope, attempt: Attempt, root: str, path: Path) -> None:
        """Raises BadRequest if a file would have a name that is reserved for the server."""
        names = self._names_below(path, root)
        if not names and scope["method"] == "PUT":
            raise BadRequest("a file is put under a name below the result root, which is a folder")
        places.check_names(attempt.number, names)

    async def _place(self, scope: Scope) -> tuple[Job, Attempt, str, Path]:
        """Returns the job and the attempt of an upload, the attempt root, and the file path."""
        job_id = _cookie(scope)
        names = _names(scope)
        url = "/" + "/".join(names)
        if scope["method"] == "PUT" and b"content-range" in dict(scope["headers"]):
            raise BadRequest("a file is put as a whole, not as a range")  # RFC 9110, 14.5
        if any(name.startswith(results.HIDDEN) for name in names):
            raise BadRequest(f"no name begins with {' or '.join(results.HIDDEN)}: those are ours")
        job = await self._scheduler.find(job_id)
        fits = [
            (root, attempt)
            for attempt in job.attempts
            if url == (root := decisions.attempt_root(job, attempt.number))
            or url.startswith(root + "/")
        ]
        if not fits:
            raise Refused(f"{job_id} uploads to {job.result_root}")
        root, attempt = max(fits, key=lambda fit: len(fit[0]))  # attempt-2 lies inside attempt 1's
        if scope["method"] == "POST" and url == root:
            raise Refused("a form is posted to a name below the result root")
        no_host = self._no_host(scope)
        if no_host and not self._is_from(attempt, scope["client"][0]):
            raise Refused(f"{job_id} is not {scope['client'][0]}'s: {no_host}")
        if not decisions.may_upload(self._scheduler.store, job, attempt, host=not no_host):
            raise Refused(f"attempt {attempt.number} of {job_id} is over")
        path = self._config.paths.srv / url[1:]
        await results.check_inside(path, self._config.paths.srv / "result")
        return job, attempt, root, path

    async def _misplaced(self, scope: Scope, reason: str) -> None:
        """Notes in the results, found by cookie and address, that an upload had no usable path."""
        with contextlib.suppress(Refused, NotFound, DiskTrouble, BadState, Unproven):
            job = await self._scheduler.find(_cookie(scope))
            for attempt in reversed(job.attempts):
                theirs = self._is_from(attempt, scope["client"][0])
                if theirs and decisions.may_upload(self._scheduler.store, job, attempt):
                    await self._incomplete(job, attempt, reason)
                    break

    def _is_from(self, attempt: Attempt, client: str) -> bool:
        """Returns whether the box of `attempt` is at `client`, perhaps with another of its cards.

        Raises Refused if somebody else has its address, Unproven if that cannot be told.
        """
        box = self._scheduler.store.boxes.get(attempt.box)
        if box is None:
            return False
        if attempt.address == client:
            self._admission.check(box, client)
            return True
        return self._admission.is_registered(box, client)

    def _no_host(self, scope: Scope) -> str:
        """Returns why an upload comes from no host of virtual boxes; empty: it does come from one.

        Raises Unproven.
        """
        if scope["method"] != "POST":
            return "its box puts files, and hosts of virtual boxes post forms"
        try:
            self._admission.check_trusted(scope["client"][0], str(scope["server"][0]))
        except Refused as error:
            return str(error)
        return ""

    async def _make_folder(
        self, scope: Scope, send: Send, job: Job, attempt: Attempt, root: str, path: Path
    ) -> None:
        try:
            used = await self._count(root)
            names = self._depth(path, root)
            _check_count(used.names + names, path, self._config.limits)
            if await results.make_folder(path):
                used.names += names
        except (Refused, NoSpace) as error:
            await self._incomplete(job, attempt, str(error))
            await _refuse(send, scope, error, 409 if isinstance(error, Refused) else 0)
        else:
            await answer(send, 201, "made\n")

    async def _post(
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
            form = Form(scope, receive)
            path = path.with_name(await form.name())
            self._check_names(scope, attempt, root, path)
        except HungUp:
            return
        except (BadRequest, Stalled) as error:
            if isinstance(error, BadRequest):
                await self._incomplete(job, attempt, str(error))
            await _refuse(send, scope, error)
            return
        if await self._put(scope, form.data(), 0, send, job, attempt, root, path):
            said = json.dumps({"status": 0, "msg": "success", "filename": path.name})
            await answer(send, 200, said, content_type=b"application/json")

    async def _put(
        self,
        scope: Scope,
        body: AsyncGenerator[bytes, None],
        told: int,
        send: Send,
        job: Job,
        attempt: Attempt,
        root: str,
        path: Path,
    ) -> bool:
        """Returns whether the file was kept; if not, the client was told why.

        `told`: bytes that the client declared, 0 for unknown.
        """
        try:
            async with contextlib.aclosing(body):
                size = await self._receive(body, told, path, root)
        except HungUp:
            log.info("upload broken off", job=job.id, path=str(path))
        except Stalled as error:
            await _refuse(send, scope, error)
        except (BadRequest, TooLarge, NoSpace, Refused) as error:
            await self._incomplete(job, attempt, str(error))
            await _refuse(send, scope, error, 409 if isinstance(error, Refused) else 0)
        else:
            await self._note(job, attempt, root, path, size)
            return True
        return False

    async def _note(self, job: Job, attempt: Attempt, root: str, path: Path, size: int) -> None:
        box = self._scheduler.store.boxes[attempt.box]
        self._scheduler.heard[box.name] = self._scheduler.clock.now()
        name = str(path.relative_to(self._config.paths.srv / root[1:]))
        now = self._scheduler.clock.now()
        # The job may have moved on since; a job that only the archive has is over.
        there = self._scheduler.store.jobs.get(job.id)
        if there is None or there.attempt is None or there.attempt.number != attempt.number:
            name = f"late: {name} (of attempt {attempt.number})"
        current = there is not None and decisions.is_current(there, attempt)
        step = decisions.step(box, now, "result", name, size, job=there if current else None)
        self._scheduler.change([step])

    async def _receive(
        self, body: AsyncGenerator[bytes, None], told: int, path: Path, root: str
    ) -> int:
        limits = self._config.limits
        used = await self._count(root)
        _check_size(told, used.size + told, path, limits)
        names = self._depth(path, root)
        _check_count(used.names + names, path, limits)
        size = 0
        self._under_way += 1
        used.uploads += 1
        used.names += names
        try:
            async with results.Upload(path) as upload:
                gathered = bytearray()
                async for piece in body:
                    gathered += piece
                    size += len(piece)
                    used.size += len(piece)
                    _check_size(size, used.size, path, limits)
                    if len(gathered) >= min(WRITE_BYTES, GATHERED_BYTES // self._under_way):
                        await upload.write(gathered)
                        gathered = bytearray()
                await upload.write(gathered)
                replaced = await upload.finish()
        except BaseException:
            replaced = size
            raise
        finally:
            self._under_way -= 1
            used.uploads -= 1
            if replaced is not None:
                used.size -= replaced
                used.names -= names
        return size

    def _depth(self, path: Path, root: str) -> int:
        return len(self._names_below(path, root))

    def _names_below(self, path: Path, root: str) -> tuple[str, ...]:
        return path.relative_to(self._config.paths.srv / root[1:]).parts

    async def _count(self, root: str) -> _Used:
        if root not in self._used:
            turn = await self._counting.begin(root)
            try:
                if root not in self._used:  # another upload has had it counted meanwhile
                    folder = self._config.paths.srv / root[1:]
                    await self._make_way(folder)
                    size, names = await threads.run(results.used, folder)
                    self._used.setdefault(root, _Used(size, names))
            finally:
                turn.give_back()
            idle = (name for name, used in self._used.items() if not used.uploads and name != root)
            if len(self._used) > USED_MAX and (oldest := next(idle, None)) is not None:
                del self._used[oldest]  # counted anew if this attempt uploads again
        self._used.move_to_end(root)
        return self._used[root]

    async def _make_way(self, folder: Path) -> None:
        """Moves aside a file that has the name of this folder; an older server allowed such."""
        with contextlib.suppress(OSError):  # then there is no folder, and the upload is refused
            if aside := await threads.run(results.make_way, folder):
                log.warning("a file had the name of a folder of results", is_now=str(aside))

    async def _incomplete(self, job: Job, attempt: Attempt, reason: str) -> None:
        scheduler = self._scheduler
        try:
            job = await scheduler.find(job.id)  # the job may have moved on since
            now = scheduler.clock.now()
            for change in decisions.refused_upload(job, attempt.number, reason, now):
                await scheduler.mark(job, change)
        except (DiskTrouble, BadState) as error:  # from the archive: the job ended long ago
            log.error("what its results lack is not kept", job=job.id, why=str(error))
        await scheduler.durable()


async def _refuse(send: Send, scope: Scope, error: ApplianceError, status: int = 0) -> None:
    """Answers with the error; `status`, if not 0, replaces the error's own."""
    status = status or error.status
    path, client = scope["path"][:300], scope["client"][0]
    log.warning("upload refused", path=path, client=client, status=status, why=str(error)[:300])
    await answer(send, status, str(error), _CLOSE)


def _check_size(size: int, used: int, path: Path, limits: Limits) -> None:
    """Raises TooLarge, NoSpace.  `used`: bytes of the attempt, including this file's `size`."""
    if size > limits.upload_file_bytes:
        raise TooLarge(f"{path.name} is larger than {limits.upload_file_bytes} bytes")
    if used > limits.upload_attempt_bytes:
        raise NoSpace(f"{path.name} takes the results over {limits.upload_attempt_bytes} bytes")


def _check_count(names: int, path: Path, limits: Limits) -> None:
    """Raises NoSpace.  `names`: those of the whole attempt, including this path's."""
    if names > limits.upload_attempt_names:
        raise NoSpace(f"{path.name} takes the results over {limits.upload_attempt_names} names")


def _cookie(scope: Scope) -> str:
    """Returns the job id in the cookie JOBID.  Raises Refused.

    http.cookies is not used: it takes seconds for a header full of backslashes, and ids have none.
    """
    for header, value in scope["headers"]:
        for pair in value.split(b";") if header == b"cookie" else ():
            name, equals, said = pair.partition(b"=")
            if equals and name.strip() == b"JOBID":
                return str(said.strip().strip(b'"').decode("latin-1"))
    raise Refused("the cookie JOBID=<job> is missing")


def _names(scope: Scope) -> list[str]:
    """Returns the names in the path.  Raises BadRequest."""
    raw = scope["raw_path"]
    if scope["method"] == "MKCOL":
        raw = raw.rstrip(b"/")
    elif scope["method"] == "POST" and raw.endswith(b"/"):
        raw += b"file"  # a placeholder: the form has the file's name
    if scope["method"] == "PUT" and raw.endswith(b"/"):
        raise BadRequest("a file is put under a name: this path ends with a folder's")
    try:
        names = parse_path(raw)
    except NotFound as error:  # `..`: nothing could ever be there
        raise BadRequest(str(error)) from error
    if len(names) > NAMES_MAX:
        raise BadRequest(f"more than {NAMES_MAX} names in one path")
    try:
        return [name.decode() for name in names]
    except UnicodeDecodeError as error:
        # The name is kept in the journal and shown to people; neither can hold such bytes.
        raise BadRequest("the path is no UTF-8") from error
