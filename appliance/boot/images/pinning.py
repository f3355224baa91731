"""Looks up the files that boot a document, in threads.

Files are pinned at submit, as they are then (docs/wire.md#files), and checked again at dispatch.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final, Protocol

import trio

from appliance import threads
from appliance.boot.images import catalogue
from appliance.errors import BadImage
from appliance.jobs.changes import Pinned
from appliance.jobs.documents.document import Document

# Seconds for which a lookup is reused by other submits: a thread for each was most of the cost of a
# submit.  A rebuilt image is seen after this time, and dispatch checks the files anyway.
FRESH_S: Final = 1.0
FOUND_MAX: Final = 1000  # images cached; a lab has some ten

# os, arch, version, os_mount, kernel_version, programs
_Image = tuple[str, str, str, str, str | None, tuple[catalogue.Program, ...]]


class Images(Protocol):
    """The image tree; both calls may use a thread."""

    async def pin(self, document: Document) -> Pinned:
        """Returns the files that boot `document`.  Raises BadImage."""

    async def missing(self, pinned: Pinned) -> list[str]:
        """Returns the pinned files that are gone."""


class ImageFolder:
    """The tree under /srv."""

    def __init__(self, srv: Path) -> None:
        self._srv = srv
        self._found: dict[_Image, tuple[float, catalogue.Boot]] = {}  # with the time of the lookup

    async def pin(self, document: Document) -> Pinned:
        """Returns the files that boot `document`, up to FRESH_S seconds old.  Raises BadImage."""
        image = (
            document.os,
            document.arch,
            document.os_version,
            document.os_mount,
            document.kernel_version,
            document.body.programs if document.body is not None else (),
        )
        boot = await self._boot(image)
        packages: tuple[str, ...] = ()
        if document.packages:
            packages = await threads.run(self._packages, document)
        return _pinned(document, boot, packages)

    async def _boot(self, image: _Image) -> catalogue.Boot:
        at, known = self._found.pop(image, (0.0, None))
        now = trio.current_time()
        if known is not None:
            self._found[image] = (at if now - at <= FRESH_S else now, known)
            if now - at <= FRESH_S:
                return known
        try:  # requests that come meanwhile get the old entry
            boot = await threads.run(catalogue.resolve, self._srv, *image)
        except BadImage:
            self._found.pop(image, None)
            raise
        self._found[image] = (now, boot)
        while len(self._found) > FOUND_MAX:
            del self._found[next(iter(self._found))]  # the least recently used
        return boot

    async def missing(self, pinned: Pinned) -> list[str]:
        """Returns the pinned files that are gone; files on other servers are not checked."""
        boot = catalogue.Boot(
            kernel=pinned.kernel if pinned.kernel.startswith("/") else "",
            initrds=tuple(path for path in pinned.initrds if path.startswith("/")),
            root=pinned.root,
            kernel_version=pinned.kernel_version,
            deps=pinned.deps,
            pkgs=pinned.pkgs,
        )
        return await threads.run(self._missing, boot, pinned.packages)

    def _packages(self, document: Document) -> tuple[str, ...]:
        paths: list[str] = []
        for package in document.packages:
            folder = f"/upload-files/{package.repo}"
            paths.append(f"{folder}/{document.arch}/{package.tag}.cgz")
            paths.append(f"{folder}/{package.md5[:2]}/{package.md5}.cgz")
        for path in paths:
            if not os.path.isfile(self._srv / path[1:]):
                raise BadImage(f"{path} is not on this server", "pkg_data")
        return tuple(paths)

    def _missing(self, boot: catalogue.Boot, packages: tuple[str, ...]) -> list[str]:
        gone = [path for path in packages if not os.path.isfile(self._srv / path[1:])]
        return gone + catalogue.missing(self._srv, boot)


def _pinned(document: Document, boot: catalogue.Boot, packages: tuple[str, ...]) -> Pinned:
    initrds = boot.initrds
    if document.modules_uri and initrds:
        initrds = (initrds[0], *document.modules_uri, *initrds[2:])
    return Pinned(
        document.kernel_uri or boot.kernel,
        initrds,
        boot.root,
        boot.kernel_version,
        packages,
        boot.deps,
        boot.pkgs,
    )
