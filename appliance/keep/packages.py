"""Packages of clients' repositories: <srv>/upload-files/<repo>/<md5[:2]>/<md5>.cgz.

The content must have the md5 in the name: checked before a file is kept, and again before use.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
from functools import partial
from pathlib import Path
from typing import Final

import trio

from appliance import threads
from appliance.errors import BadRequest
from appliance.jobs.documents.checks import Package
from appliance.json_text import Long
from appliance.keep.results import Upload

_new_md5: Final = partial(hashlib.md5, usedforsecurity=False)
# Decoding holds up to three copies of a package in memory, so packages are decoded one at a time.
_DECODERS: Final = trio.CapacityLimiter(1)


def place(srv: Path, package: Package) -> Path:
    """Returns the package's path; `checks.packages` has ensured that it stays inside its root."""
    return srv / "upload-files" / package.repo / package.md5[:2] / f"{package.md5}.cgz"


async def keep(srv: Path, package: Package, content: str | Long) -> None:
    """Stores base64 `content`, durably.  Raises BadRequest if its md5 is wrong, and NoSpace."""
    data = await threads.run(_decoded, content, package, limiter=_DECODERS)
    path = place(srv, package)
    if await is_there(srv, package):
        return
    async with Upload(path) as upload:
        await upload.write(data)
        await upload.finish()


async def is_there(srv: Path, package: Package) -> bool:
    """Whether the package's file is there, with the right md5."""
    return await threads.run(_fits, place(srv, package), package.md5)


def _decoded(content: str | Long, package: Package) -> bytes:
    try:
        said = content.plain() if isinstance(content, Long) else content.encode()
        data = base64.b64decode(said.translate(None, b" \t\r\n"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"check pkg integrity failed.\n{package.repo}: no base64") from error
    if _md5(data) != package.md5:
        raise BadRequest(f"check pkg integrity failed.\n{package.repo}: its md5 is {_md5(data)}")
    return data


def _fits(path: Path, md5: str) -> bool:
    with contextlib.suppress(OSError), path.open("rb") as file:
        return hashlib.file_digest(file, _new_md5).hexdigest() == md5
    return False


def _md5(data: bytes) -> str:
    return _new_md5(data).hexdigest()
