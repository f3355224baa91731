"""When the reaper wakes up; `dues` has what it then looks at."""

from __future__ import annotations

import trio


class Alarm:
    """The time at which the reaper must look again; trio's time."""

    def __init__(self) -> None:
        self._scope = trio.CancelScope()

    def by(self, moment: float) -> None:
        """Makes the alarm ring at `moment` at the latest."""
        self._scope.deadline = min(self._scope.deadline, moment)

    async def ring(self) -> None:
        """Returns at the earliest moment that was asked for since the last ring."""
        with self._scope:
            await trio.sleep_forever()
        self._scope = trio.CancelScope()
