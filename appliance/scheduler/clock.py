"""UTC for what is kept, trio's clock for what is waited for.

Inside a run all moments come from trio's clock, so that a step of the system's clock moves no
deadline, and a test's mock clock moves all of them.  From one run to the next the kernel's own
count of seconds tells what has passed, whatever the wall says (jobs/restart.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import attrs
import trio

from appliance.jobs.changes import Clocked


@attrs.frozen
class Clock:
    """Joins the two: `started_utc` is what the wall said when trio's clock said `started`."""

    started: float
    started_utc: float
    boot: str = ""  # which boot of the kernel this is; empty: nobody knows
    uptime: float = 0.0  # the kernel's seconds since it booted, at `started`
    wall: Callable[[], float] | None = None  # the system's clock, for `drift`

    @classmethod
    def of_this_run(cls, boot: str = "") -> Clock:
        """Reads the wall once.  Call inside `trio.run`."""
        uptime = time.clock_gettime(time.CLOCK_BOOTTIME)
        return cls(trio.current_time(), time.time(), boot, uptime, time.time)

    def now(self) -> float:
        """UTC in seconds."""
        return self.started_utc + trio.current_time() - self.started

    def trio_time(self, utc: float) -> float:
        """When trio's clock will say that it is `utc`."""
        return utc - self.started_utc + self.started

    def reading(self) -> Clocked:
        """What the clocks say now."""
        return Clocked(self.now(), self.boot, self.uptime + trio.current_time() - self.started)

    def drift(self) -> float:
        """By how many seconds the system's clock was moved since the start."""
        return self.wall() - self.now() if self.wall is not None else 0.0
