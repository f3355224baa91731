"""Which files boot a document: the image tree, asked in threads.

Files are pinned at submit, as they are then (protocol.md §1.6), and looked at again at dispatch.
"""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import attrs
import trio

from appliance.boot import images
from appliance.errors import BadImage
from appliance.jobs.changes import Pinned
from appliance.jobs.document import Document


class ImageFolder:
    """The tree under /srv."""

    def __init__(self, srv: Path) -> None:
        self._srv = srv

    async def pin(self, document: Document) -> Pinned:
        """The files that boot `document`.  Raises BadImage."""
        return await trio.to_thread.run_sync(self._pin, document)

    async def missing(self, pinned: Pinned) -> list[str]:
        """Those of its files that are gone."""
        boot = images.Boot(
            kernel=pinned.kernel,
            initrds=pinned.initrds,
            root=pinned.root,
            kernel_version=pinned.kernel_version,
        )
        ours = attrs.evolve(
            boot, initrds=tuple(path for path in pinned.initrds if path.startswith("/"))
        )
        return await trio.to_thread.run_sync(
            partial(self._missing, ours, pinned.kernel, pinned.packages)
        )

    def _pin(self, document: Document) -> Pinned:
        boot = images.resolve(
            self._srv,
            document.os,
            document.arch,
            document.os_version,
            document.os_mount,
            document.kernel_version,
        )
        initrds = boot.initrds
        if document.modules_uri is not None:
            initrds = (initrds[0], document.modules_uri, *initrds[2:])
        return Pinned(
            document.kernel_uri or boot.kernel,
            initrds,
            boot.root,
            boot.kernel_version,
            self._packages(document),
        )

    def _packages(self, document: Document) -> tuple[str, ...]:
        paths: list[str] = []
        for package in document.packages:
            folder = f"/upload-files/{package.repo}"
            paths.append(f"{folder}/{document.arch}/{package.tag}.cgz")
            paths.append(f"{folder}/{package.md5[:2]}/{package.md5}.cgz")
        for path in paths:
            if not os.path.isfile(self._srv / path[1:]):
                raise BadImage(f"pkg_data: {path} is not on this server")
        return tuple(paths)

    def _missing(self, boot: images.Boot, kernel: str, packages: tuple[str, ...]) -> list[str]:
        gone = [path for path in packages if not os.path.isfile(self._srv / path[1:])]
        if kernel.startswith("/"):
            gone += images.missing(self._srv, boot)
        return gone
