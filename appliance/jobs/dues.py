"""Pure: no clock, no socket, no await.

A timer queue: which jobs and boxes to check, and when.  A check may come too early, since a box
that fetches bytes extends its deadline all the time: the checker then asks for a later check.
So the cost of a wake-up is that of what is due: of 5,000 busy boxes, one.
"""

from __future__ import annotations

import heapq
import math
from typing import Final

import attrs

Due = tuple[str, str]  # kind, name

JOB: Final = "job"  # a job: the deadline of its stage
REST: Final = "rest"  # a box: the end of its back-off
KEPT: Final = "kept"  # a box: the end of a person's reservation
# Outdated heap entries allowed before a rebuild, on top of one per due.
STALE_MAX: Final = 64


@attrs.define
class Dues:
    """When to check each job or box: one moment (UTC) each."""

    _when: dict[Due, float] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, Due]] = attrs.field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._when)

    def by(self, kind: str, name: str, moment: float) -> None:
        """Schedules a check at `moment` at the latest; an earlier one stands."""
        due = (kind, name)
        if moment < self._when.get(due, math.inf):
            self._when[due] = moment
            heapq.heappush(self._heap, (moment, due))
            self._tidy()

    def forget(self, kind: str, name: str) -> None:
        """Cancels the check."""
        self._when.pop((kind, name), None)
        self._tidy()

    def take(self, now: float) -> list[Due]:
        """Removes and returns the dues up to `now`, earliest first."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            moment, due = heapq.heappop(self._heap)
            if self._when.get(due) == moment:
                del self._when[due]
                taken.append(due)
        return taken

    @property
    def next(self) -> float:
        """The time of the next check; infinity if there is none."""
        while self._heap and self._when.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._when) + STALE_MAX:
            self._heap = [(moment, due) for due, moment in self._when.items()]
            heapq.heapify(self._heap)
