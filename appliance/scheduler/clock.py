"""UTC for stored times, trio's clock for waiting.

Within one run all times come from trio's clock, so that setting the system's clock moves no
deadline, and a test's mock clock moves all of them.  Between two runs the kernel's own count of
seconds tells how much time has passed, whatever the system's clock says (jobs/restart.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import trio

from appliance.jobs.changes import Clocked


@attrs.frozen
class Clock:
    """Relates the two: the system's clock said `started_utc` when trio's clock said `started`."""

    started: float
    started_utc: float
    boot: str = ""  # the id of the kernel's boot; empty: unknown
    uptime: float = 0.0  # the kernel's seconds since it booted, at `started`
    wall: Callable[[], float] | None = None  # the system's clock, for `drift`

    @classmethod
    def of_this_run(cls, boot: str = "") -> Clock:
        """Makes the clock of this run; reads the system's clock once.  Call inside `trio.run`."""
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return cls(trio.current_time(), time.time(), boot, uptime, time.time)

    def now(self) -> float:
        """Returns UTC in seconds."""
        return self.started_utc + trio.current_time() - self.started

    def trio_time(self, utc: float) -> float:
        """Returns the trio time of the moment `utc`."""
        return utc - self.started_utc + self.started

    def reading(self) -> Clocked:
        """Returns what the clocks say now."""
        return Clocked(self.now(), self.boot, self.uptime + trio.current_time() - self.started)

    def drift(self) -> float:
        """Returns by how many seconds the system's clock was moved since the start."""
        return self.wall() - self.now() if self.wall is not None else 0.0
