"""Pure: no clock, no socket, no await.

A cache of large job.cgz archives: each is built once and kept while its attempt is under way.
An archive may hold secrets, so it is dropped in the same step in which its attempt ends.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import attrs

from appliance.jobs.changes import Job
from appliance.jobs.documents.document import Body
from appliance.jobs.job import Finished

# Size of a document's body.  Packing less takes 1 ms; a document of 1 MiB takes 60 ms.
LARGE_BYTES: Final = 32 * 1024
_ITEM_BYTES: Final = 16  # counted for each item besides its text
KEPT_BYTES: Final = 32 * 2**20  # thirty of the largest archives
KEPT_MAX: Final = 256

Key = tuple[Any, ...]  # the inputs of the archive: token, address, ...


@attrs.define
class Packed:
    """The archives, by job."""

    _kept: OrderedDict[str, tuple[str, Key, bytes]] = attrs.field(factory=OrderedDict)
    _size: int = 0  # bytes

    def __len__(self) -> int:
        """Returns the number of archives."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes of all archives together."""
        return self._size

    def find(self, job: str, key: Key) -> bytes | None:
        """Returns the job's archive if it was built for `key`."""
        kept = self._kept.get(job)
        if kept is None or kept[1] != key:
            return None
        self._kept.move_to_end(job)
        return kept[2]

    def keep(self, job: str, token: str, key: Key, data: bytes) -> None:
        """Caches an archive while the attempt with `token` is under way and there is room."""
        self._drop(job)
        self._kept[job] = token, key, data
        self._size += len(data)
        while len(self._kept) > KEPT_MAX or self._size > KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def follow(self, job: Job) -> None:
        """Drops the job's archive if its attempt is over."""
        kept = self._kept.get(job.id)
        if kept is not None:
            attempt = None if isinstance(job.state, Finished) else job.attempt
            if attempt is None or attempt.token != kept[0]:
                self._drop(job.id)

    def _drop(self, job: str) -> None:
        kept = self._kept.pop(job, None)
        if kept is not None:
            self._size -= len(kept[2])


def is_large(body: Body) -> bool:
    """Tells whether packing takes too long to do in the event loop."""
    left = LARGE_BYTES
    parts: list[Any] = [body.script or "", body.job2sh or {}, body.secrets, body.fields]
    while parts and left >= 0:
        part = parts.pop()
        left -= _ITEM_BYTES
        if isinstance(part, str):
            left -= len(part)
        elif isinstance(part, Mapping):
            parts += part.keys()
            parts += part.values()
        elif isinstance(part, list | tuple):
            parts += part
    return left < 0
