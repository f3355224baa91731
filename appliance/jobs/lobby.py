"""Where idle testboxes wait: one seat and one cancel scope per testbox.

The scope owns the whole wait: the deadline, a job handed over, and "the same box asked again" all
end that one scope.  With two scopes, a hand-over and a deadline on the same tick lose the job
(style.md, habit 4: 215 of 400 seeds).  It covers no send: who sits here sends nothing; comment
lines are dripped by a task beside (doors/boxes.py).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, TypeVar

import attrs
import trio

T = TypeVar("T")

ASKED_AGAIN: Final = "asked again"
DISMISSED: Final = "dismissed"
WAITED: Final = "waited"
HUNG_UP: Final = "hung up"


@attrs.define(eq=False)
class Seat:
    """One box's wait, from its question to whatever ends it."""

    box: str
    since: float  # UTC
    reached: str  # our address, as the box sees it: the host in its script's URLs
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _script: str | None = None
    handed: tuple[str, int] | None = None  # the job and attempt that the script is about
    _sent_away: str | None = None
    hung_up: bool = False  # even if a script had been handed by then: it was not delivered

    def hand(self, script: str, job: str, number: int) -> None:
        """End the wait with a script.  At most once, and not after it was sent away."""
        assert self.open, f"{self.box} was told already"
        self._script, self.handed = script, (job, number)
        self._scope.cancel()

    def send_away(self, why: str) -> None:
        """End the wait without one; a script handed already stands."""
        if self.open:
            self._sent_away = why
            self._scope.cancel()

    def hang_up(self) -> None:
        """The box's connection is gone."""
        self.hung_up = True
        self.send_away(HUNG_UP)

    @property
    def open(self) -> bool:
        """Whether a script can still be handed."""
        return self._script is None and self._sent_away is None

    async def wait(self, patience: float) -> str | None:
        """The script handed over, or None after `patience` seconds or when sent away.

        `patience` is a parameter, not a caller's timeout: one wait has one scope.
        """
        with self._scope:
            self._scope.deadline = trio.current_time() + patience
            await trio.sleep_forever()
        if self._script is None and self._sent_away is None:
            self._sent_away = WAITED  # nobody may hand over what would not be sent
        return self._script

    @property
    def ended(self) -> str:
        """Why the wait brought no script."""
        return self._sent_away or ""


class Lobby:
    """The seats, by testbox."""

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<Lobby {len(self._seats)} waiting>"

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, box: str) -> bool:
        return box in self._seats

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._seats.values()))

    def sit(self, box: str, now: float, reached: str) -> Seat:
        """A seat for `box`; its older one, if any, is sent away: the box has rebooted."""
        if box in self._seats:
            self._seats[box].send_away(ASKED_AGAIN)
        seat = self._seats[box] = Seat(box, now, reached)
        if self._closed:
            seat.send_away(DISMISSED)
        return seat

    def leave(self, seat: Seat) -> bool:
        """Give the seat back.  False where a newer seat of the same box has taken its place."""
        if self._seats.get(seat.box) is not seat:
            return False
        del self._seats[seat.box]
        return True

    def seat(self, box: str) -> Seat | None:
        """The open seat of `box`."""
        seat = self._seats.get(box)
        return seat if seat is not None and seat.open else None

    def rename(self, old: str, new: str) -> None:
        """A box got its name while it waited."""
        seat = self._seats.pop(old, None)
        if seat is not None:
            if new in self._seats:
                self._seats[new].send_away(ASKED_AGAIN)
            seat.box = new
            self._seats[new] = seat

    def dismiss(self) -> None:
        """Send everybody away, and whoever comes from now on."""
        self._closed = True
        for seat in self:
            seat.send_away(DISMISSED)
