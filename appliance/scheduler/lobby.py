"""Where idle testboxes wait: one seat and one cancel scope per testbox.

The seat owns the whole wait: the deadline, a handed job, and "the same box asked again" all cancel
the one scope in which the seat sleeps.  With two scopes, a hand-over and a deadline on the same
tick lose the job (DESIGN.md#one-cancel-scope-for-one-wait).  The scope covers no send: between two
sleeps a comment line is sent, and events during the send are noticed before the next sleep.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import attrs
import trio

Step = Callable[[], Awaitable[None]]

ASKED_AGAIN: Final = "asked again"
DISMISSED: Final = "dismissed"
WAITED: Final = "waited"
HUNG_UP: Final = "hung up"
# A host that looked for memory this long in vain is excused; one that gave up earlier is not.
TRIED_S: Final = 10.0


@attrs.define(eq=False)
class Seat:
    """One box's wait, from its request to whatever ends the wait."""

    box: str
    since: float  # UTC
    reached: str  # our address, as the box sees it: the host in its script's URLs
    ipxe: str | None = None  # its version; empty: not told; None: the client is no iPXE
    _scope: trio.CancelScope | None = None  # of its present or last sleep
    _script: str | None = None
    handed: tuple[str, int] | None = None  # the job and attempt of the script
    _sent_away: str | None = None
    leaving: bool = False  # holds a slot of `turns`; the caller of `wait` releases it
    looks_since: float | None = None  # when its host was asked for memory; trio's time
    hung_up: bool = False  # then a script handed before was not delivered

    def hand(self, script: str, job: str, number: int) -> None:
        """Ends the wait with a script.  Call at most once, and not after `send_away`."""
        assert self.open, f"{self.box} was told already"
        self._script, self.handed = script, (job, number)
        self._wake()

    def send_away(self, why: str) -> None:
        """Ends the wait without a script, unless one was handed already."""
        if self.open:
            self._sent_away = why
            self._wake()

    def hang_up(self) -> None:
        """Ends the wait because the box's connection is gone."""
        self.hung_up = True
        self.send_away(HUNG_UP)

    @property
    def open(self) -> bool:
        """Whether a script can still be handed."""
        return self._script is None and self._sent_away is None

    @property
    def tried(self) -> bool:
        """Whether its host has looked for memory for TRIED_S, in vain so far."""
        since = self.looks_since
        return since is not None and trio.current_time() - since >= TRIED_S

    async def wait(
        self,
        patience: float,
        drip: Step | None = None,
        every: float = math.inf,
        until_gone: Step = trio.sleep_forever,
        turns: trio.CapacityLimiter | None = None,
    ) -> str | None:
        """Returns the handed script, or None after `patience` seconds or when sent away.

        Calls `drip` every `every` seconds, outside of the scope; `until_gone` returns when the
        connection is gone, and may be cancelled and called again.  `patience` is a parameter, not a
        caller's timeout: one wait has one scope.  When `patience` is over the box waits for a slot
        of `turns`; until it has one, a script can still be handed.
        """
        ends = trio.current_time() + patience
        while self.open:
            next_drip = trio.current_time() + every
            with trio.CancelScope(deadline=min(ends, next_drip)) as self._scope:
                await until_gone()
                self.hang_up()
            if self.open and next_drip < ends and drip is not None:
                await drip()
            elif self.open and turns is not None and not self.leaving:
                with trio.CancelScope() as self._scope:
                    await turns.acquire_on_behalf_of(self)
                    self.leaving = True
            elif self.open:
                self._sent_away = WAITED  # from here a script would not be sent
        return self._script

    def _wake(self) -> None:
        if self._scope is not None:
            self._scope.cancel()

    @property
    def ended(self) -> str:
        """Why the wait brought no script."""
        return self._sent_away or ""


class Lobby:
    """The seats of idle testboxes, by name."""

    def __init__(self) -> None:
        self._seats: dict[str, Seat] = {}
        self._closed = False
        self.stirred = trio.Event()  # set, and replaced by a new one, when a box comes or goes

    def __repr__(self) -> str:
        return f"<Lobby {len(self._seats)} waiting>"

    def __len__(self) -> int:
        return len(self._seats)

    def __contains__(self, box: str) -> bool:
        return box in self._seats

    def __iter__(self) -> Iterator[Seat]:
        return iter(list(self._seats.values()))

    def sit(self, box: str, now: float, reached: str, ipxe: str | None = None) -> Seat:
        """Returns a new seat for `box`; sends its older one away: the box has rebooted."""
        if box in self._seats:
            self._seats[box].send_away(ASKED_AGAIN)
        seat = self._seats[box] = Seat(box, now, reached, ipxe)
        self._stir()
        if self._closed:
            seat.send_away(DISMISSED)
        return seat

    def leave(self, seat: Seat) -> bool:
        """Removes the seat; returns False if a newer seat of the same box has replaced it."""
        if self._seats.get(seat.box) is not seat:
            return False
        del self._seats[seat.box]
        self._stir()
        return True

    def _stir(self) -> None:
        self.stirred.set()
        self.stirred = trio.Event()

    def looking(self, box: str, handed: tuple[str, int]) -> Seat | None:
        """Returns the seat of `box` if its host looks for memory for what it was `handed`."""
        seat = self._seats.get(box)
        if seat is None or seat.looks_since is None or seat.handed != handed:
            return None
        return seat

    def seat(self, box: str) -> Seat | None:
        """Returns the seat of `box` if it is open."""
        seat = self._seats.get(box)
        return seat if seat is not None and seat.open else None

    def rename(self, old: str, new: str) -> None:
        """Renames a box that waits."""
        seat = self._seats.pop(old, None)
        if seat is not None:
            if new in self._seats:
                self._seats[new].send_away(ASKED_AGAIN)
            seat.box = new
            self._seats[new] = seat

    def dismiss(self) -> None:
        """Sends all boxes away, and each that comes from now on."""
        self._closed = True
        for seat in self:
            seat.send_away(DISMISSED)
