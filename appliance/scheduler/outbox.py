"""The hand-overs decided for boxes, in order, each until its box has been told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import attrs
import trio

from appliance.scheduler.lobby import DISMISSED, WAITED, Seat

WAITING_MAX: Final = 2**20  # more than there are boxes: `put` never waits


@attrs.frozen
class HandOver:
    """A job for a box."""

    box: str
    job: str
    number: int  # of the attempt
    position: int  # in the journal: handed over only once this is on disk
    seat: Seat | None = None  # the box's seat at the time

    @property
    def sent_back(self) -> bool:
        """Whether we ended the box's wait, so that the box did not leave by itself."""
        return self.seat is not None and self.seat.ended in (WAITED, DISMISSED)


class Outbox:
    """The hand-overs that `dispatch` has not handled yet."""

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[HandOver](WAITING_MAX)
        self._untold: dict[tuple[str, int], HandOver] = {}

    def offer(self, new: HandOver) -> None:
        """Queues the hand-over of a new attempt, of which no box has been told."""
        self._untold[new.job, new.number] = new
        self.put(new)

    def put(self, hand_over: HandOver) -> None:
        """Queues a hand-over of which its box was told before."""
        self._in.send_nowait(hand_over)

    def untold(self, job: str, number: int) -> HandOver | None:
        """Returns the hand-over of an attempt of which no box has been told."""
        return self._untold.get((job, number))

    def told(self, hand_over: HandOver) -> None:
        """Notes that the box was told, or is gone."""
        self._untold.pop((hand_over.job, hand_over.number), None)

    def __aiter__(self) -> AsyncIterator[HandOver]:
        """Yields each hand-over in its turn, for ever."""
        return self._out
