"""Folders of results, for people and for `lftp mirror`: an HTML page as nginx would write it.

A folder is judged as opening.py judges a file: by where the kernel landed, not by its name.  What
is still being written, or on its way out, is not shown.

Must not: read files, which are `files`' to send.
"""

from __future__ import annotations

import errno
import html
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import quote_from_bytes

import attrs
import structlog
import trio

from appliance.doors.asgi import App, Receive, Scope, Send, answer
from appliance.doors.opening import LeavesRoots, parse_path
from appliance.errors import BadRequest, NoSpace, NotFound
from appliance.keep.results import HIDDEN

# A line each, of some 150 bytes: a page of 15 MB.  An attempt may have fewer (config.Limits).
NAMES_MAX: Final = 100_000
_HIDDEN: Final = tuple(map(os.fsencode, HIDDEN))
_HTML: Final = [
    (b"content-type", b"text/html; charset=utf-8"),
    # The names are a testbox's, and so perhaps a stranger's.
    (b"content-security-policy", b"default-src 'none'"),
]

log = structlog.get_logger()


@attrs.frozen
class Entry:
    """One line of a page."""

    name: bytes
    is_folder: bool
    size: int  # bytes
    modified: float  # UTC


class Index:
    """Lists folders below `root`, which is the URL prefix `prefix`; files are `files`' to send."""

    def __init__(self, prefix: str, root: Path, files: App) -> None:
        self._prefix = prefix.encode()
        self._root = root
        self._files = files

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request.  A folder's address ends in a slash; without it, it is shown where."""
        raw = scope["raw_path"]
        if scope["method"] not in ("GET", "HEAD"):
            await self._files(scope, receive, send)
            return
        try:
            names = parse_path(raw.rstrip(b"/") or b"/")
            if not names or b"/" + names[0] != self._prefix:
                raise NotFound("no such root")
            look = partial(_look, self._root, names[1:], list_it=raw.endswith(b"/"))
            found = await trio.to_thread.run_sync(look)
        except BadRequest as error:
            log.warning(
                "no path", client=scope["client"][0], path=scope["path"][:300], why=str(error)
            )
            await answer(send, 400, str(error))
        except (NotFound, OSError) as error:
            if isinstance(error, LeavesRoots):
                log.warning("no such folder", client=scope["client"][0], why=str(error))
            await answer(send, 404, "no such file")
        except NoSpace as error:
            await answer(send, 500, str(error))
        else:
            await self._answer(scope, receive, send, names, found)

    async def _answer(
        self, scope: Scope, receive: Receive, send: Send, names: list[bytes], found: object
    ) -> None:
        if found is None:
            await self._files(scope, receive, send)
        elif isinstance(found, list):
            page = _page(names, found)
            length = (b"content-length", b"%d" % len(page))
            head = {"status": 200, "headers": [*_HTML, length]}
            await send({"type": "http.response.start", **head})
            body = b"" if scope["method"] == "HEAD" else page
            await send({"type": "http.response.body", "body": body})
        else:
            where = quote_from_bytes(b"/" + b"/".join(names) + b"/").encode()
            start = {"status": 301, "headers": [(b"location", where), (b"content-length", b"0")]}
            await send({"type": "http.response.start", **start})
            await send({"type": "http.response.body", "body": b""})


def _look(root: Path, names: list[bytes], *, list_it: bool) -> list[Entry] | bool | None:
    """The entries of a folder; True for one that is not to be listed; None for what is none.

    Raises NotFound, OSError, and NoSpace for one of more than NAMES_MAX names.
    """
    if any(name.startswith(_HIDDEN) for name in names):
        raise NotFound("not shown")
    path = os.path.join(os.fsencode(root), *names)
    try:
        folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno == errno.ENOTDIR and not list_it:
            return None
        raise NotFound(os.strerror(error.errno or 0)) from error
    try:
        landed = os.readlink(b"/proc/self/fd/%d" % folder)
        real = os.fsencode(os.path.realpath(root))
        if landed != real and not landed.startswith(real + b"/"):
            raise LeavesRoots(f"leads outside, to {os.fsdecode(landed)!r}")
        return sorted(_entries(folder), key=lambda entry: entry.name) if list_it else True
    finally:
        os.close(folder)


def _entries(folder: int) -> Iterator[Entry]:
    """Files and folders; links and the like are no results."""
    with os.scandir(folder) as found:
        for count, entry in enumerate(found):
            if count >= NAMES_MAX:
                raise NoSpace(f"more than {NAMES_MAX} names here: too many to list")
            name = os.fsencode(entry.name)
            is_folder = entry.is_dir(follow_symlinks=False)
            if name.startswith(_HIDDEN) or not (is_folder or entry.is_file(follow_symlinks=False)):
                continue
            try:
                facts = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # it took another name just now
                continue
            yield Entry(name, is_folder, facts.st_size, facts.st_mtime)


def _page(names: list[bytes], entries: list[Entry]) -> bytes:
    title = html.escape("/" + b"/".join(names).decode("utf-8", "replace") + "/")
    lines = "".join(_line(entry) for entry in entries)
    page = (
        f"<html>\n<head><title>Index of {title}</title></head>\n<body>\n<h1>Index of {title}</h1>"
        f'<hr><pre><a href="../">../</a>\n{lines}</pre><hr></body>\n</html>\n'
    )
    return page.encode()


def _line(entry: Entry) -> str:
    slash = "/" if entry.is_folder else ""
    link = quote_from_bytes(entry.name, safe="") + slash
    shown = html.escape(entry.name.decode("utf-8", "replace")) + slash
    at = time.strftime("%d-%b-%Y %H:%M", time.gmtime(entry.modified))
    size = "-" if entry.is_folder else str(entry.size)
    return f'<a href="./{link}">{shown}</a> {at} {size:>19}\n'
