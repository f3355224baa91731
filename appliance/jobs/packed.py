"""Pure: no clock, no socket, no await.

The job.cgz of attempts under way, as far as they are large: made once, and kept for as long as the
attempt.  There may be secrets in it, so what is over is let go of in the same step.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import attrs

from appliance.jobs.changes import Job
from appliance.jobs.documents.document import Body
from appliance.jobs.job import Finished

# Of a document's body.  Less is packed in a millisecond; a document of 1 MiB takes sixty of them.
LARGE_BYTES: Final = 32 * 1024
_ITEM_BYTES: Final = 16  # what an item costs besides its text
KEPT_BYTES: Final = 32 * 2**20  # thirty of the largest
KEPT_MAX: Final = 256

Key = tuple[Any, ...]  # what it was made for: token, address, ...


@attrs.define
class Packed:
    """What is kept, by job."""

    _kept: OrderedDict[str, tuple[str, Key, bytes]] = attrs.field(factory=OrderedDict)
    _size: int = 0  # bytes

    def __len__(self) -> int:
        """How many."""
        return len(self._kept)

    @property
    def size(self) -> int:
        """Bytes."""
        return self._size

    def find(self, job: str, key: Key) -> bytes | None:
        """What was made for `key`."""
        kept = self._kept.get(job)
        if kept is None or kept[1] != key:
            return None
        self._kept.move_to_end(job)
        return kept[2]

    def keep(self, job: str, token: str, key: Key, data: bytes) -> None:
        """Keep it while the attempt with `token` is under way, and there is room."""
        self._drop(job)
        self._kept[job] = token, key, data
        self._size += len(data)
        while len(self._kept) > KEPT_MAX or self._size > KEPT_BYTES:
            self._drop(next(iter(self._kept)))

    def follow(self, job: Job) -> None:
        """Let go of what belongs to an attempt that is over."""
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
    """Whether to pack it takes so long that the loop should not."""
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
