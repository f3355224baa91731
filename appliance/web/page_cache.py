"""Which parts of files are in memory; the others are read in a thread: the loop never waits.

What was there a moment ago is there: a room of boxes loads the same files side by side, and to look
at each part again for each of them took a twentieth of the whole.
"""

from __future__ import annotations

import math
import os
import time
from typing import Final

# What is read from disk comes in pieces of at least this (Linux's default read-ahead), so that one
# byte in each says enough.
PROBE_EVERY: Final = 128 * 1024
MOMENT_S: Final = 1.0  # much less than a page stays that somebody has just read
PARTS_MAX: Final = 10_000  # that are remembered, 200 bytes each

Which = tuple[int, int]  # a file: device and inode

_one_byte: Final = memoryview(bytearray(1))


class Warm:
    """The parts of files, `part_bytes` each, that were in memory a moment ago."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._seen: dict[tuple[Which, int], float] = {}  # a part, and when it was

    def holds(self, file: int, which: Which, offset: int, count: int) -> bool:
        """Whether `count` bytes of an open file need no disk, as far as single bytes can tell."""
        now = time.monotonic()
        last = (offset + count - 1) // self._part_bytes
        return all(
            self._is_here(file, which, part, now)
            for part in range(offset // self._part_bytes, last + 1)
        )

    def _is_here(self, file: int, which: Which, part: int, now: float) -> bool:
        if now - self._seen.get((which, part), -math.inf) < MOMENT_S:
            return True
        start = part * self._part_bytes
        try:
            for place in range(start, start + self._part_bytes, PROBE_EVERY):
                os.preadv(file, [_one_byte], place, os.RWF_NOWAIT)
        except OSError:
            return False
        if len(self._seen) >= PARTS_MAX:
            self._seen.clear()
        self._seen[which, part] = now
        return True
