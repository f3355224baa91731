"""Tells which parts of files are in memory; other parts are read in a thread, never on the loop.

A part that was in memory a moment ago is assumed to be there still: a room of boxes loads the same
files side by side, and checking each part again for each box took a twentieth of the whole time.
"""

from __future__ import annotations

import math
import os
import time
from typing import Final

# The kernel reads from disk in pieces of at least this size (Linux's default read-ahead), so
# probing one byte in each is enough.
PROBE_EVERY: Final = 128 * 1024
MOMENT_S: Final = 1.0  # much less than a page that was just read stays in memory
PARTS_MAX: Final = 10_000  # parts that are remembered, 200 bytes each

Which = tuple[int, int]  # a file: device and inode

_one_byte: Final = memoryview(bytearray(1))


class Warm:
    """The parts of files, `part_bytes` each, that were in memory a moment ago."""

    def __init__(self, part_bytes: int) -> None:
        self._part_bytes = part_bytes
        self._seen: dict[tuple[Which, int], float] = {}  # when each part was last found in memory

    def holds(self, file: int, which: Which, offset: int, count: int) -> bool:
        """Returns whether `count` bytes of an open file seem to be in memory, by probing bytes."""
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
