"""Pure: no clock, no socket, no await.

What must be looked at, and when.  A look may come too early, since a box that fetches bytes pushes
its deadline on with each of them: who looks finds that, and asks for a later look.  So a wake-up
costs what is due, not what is under way: of 5,000 boxes that work, one.
"""

from __future__ import annotations

import heapq
import math
from typing import Final

import attrs

Due = tuple[str, str]  # what kind of thing, and its name

JOB: Final = "job"  # the stage of its attempt
REST: Final = "rest"  # a box that backs off
KEPT: Final = "kept"  # a box that a person keeps
# Places in the heap that nobody waits for any more, beyond as many as somebody does.
STALE_MAX: Final = 64


@attrs.define
class Dues:
    """The moments (UTC), one for each thing."""

    _when: dict[Due, float] = attrs.field(factory=dict, init=False)
    _heap: list[tuple[float, Due]] = attrs.field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._when)

    def by(self, kind: str, name: str, moment: float) -> None:
        """Look at it at `moment` at the latest; an earlier look stands."""
        due = (kind, name)
        if moment < self._when.get(due, math.inf):
            self._when[due] = moment
            heapq.heappush(self._heap, (moment, due))
            self._tidy()

    def forget(self, kind: str, name: str) -> None:
        """Nobody need look."""
        self._when.pop((kind, name), None)
        self._tidy()

    def take(self, now: float) -> list[Due]:
        """Those to look at by `now`, earliest first; they are not here any more."""
        taken = []
        while self._heap and self._heap[0][0] <= now:
            moment, due = heapq.heappop(self._heap)
            if self._when.get(due) == moment:
                del self._when[due]
                taken.append(due)
        return taken

    @property
    def next(self) -> float:
        """When to look next; infinity with nothing to wait for."""
        while self._heap and self._when.get(self._heap[0][1]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._when) + STALE_MAX:
            self._heap = [(moment, due) for due, moment in self._when.items()]
            heapq.heapify(self._heap)
