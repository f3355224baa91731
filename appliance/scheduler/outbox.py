"""What was decided to be handed to a box, in that order, until its box has been told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

import attrs
import trio

from appliance.scheduler.lobby import DISMISSED, WAITED, Seat

WAITING_MAX: Final = 2**20  # more than there are boxes: whoever decides never waits


@attrs.frozen
class HandOver:
    """A job for a box."""

    box: str
    job: str
    number: int  # of the attempt
    position: int  # in the journal: nothing is handed over before the disk knows it
    seat: Seat | None = None  # where the box sat then

    @property
    def sent_back(self) -> bool:
        """Whether it was we who ended the box's wait: then it did not leave by itself."""
        return self.seat is not None and self.seat.ended in (WAITED, DISMISSED)


class Outbox:
    """The hand-overs that `dispatch` has not come to yet."""

    def __init__(self) -> None:
        self._in, self._out = trio.open_memory_channel[HandOver](WAITING_MAX)
        self._untold: dict[tuple[str, int], HandOver] = {}

    def offer(self, new: HandOver) -> None:
        """A new attempt, of which nobody has been told anything."""
        self._untold[new.job, new.number] = new
        self.put(new)

    def put(self, hand_over: HandOver) -> None:
        """One that its box has been told of before."""
        self._in.send_nowait(hand_over)

    def untold(self, job: str, number: int) -> HandOver | None:
        """The hand-over of an attempt that nobody has been told of."""
        return self._untold.get((job, number))

    def told(self, hand_over: HandOver) -> None:
        """Its box knows, or is gone."""
        self._untold.pop((hand_over.job, hand_over.number), None)

    def __aiter__(self) -> AsyncIterator[HandOver]:
        """Each when its turn comes, for ever."""
        return self._out
