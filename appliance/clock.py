"""UTC for what is kept, trio's clock for what is waited for.

Inside a run all moments come from trio's clock, so that a step of the system's clock moves no
deadline, and a test's mock clock moves all of them.
"""

from __future__ import annotations

import time

import attrs
import trio


@attrs.frozen
class Clock:
    """Joins the two: `started_utc` is what the wall said when trio's clock said `started`."""

    started: float
    started_utc: float

    @classmethod
    def of_this_run(cls) -> Clock:
        """Reads the wall once.  Call inside `trio.run`."""
        return cls(trio.current_time(), time.time())

    def now(self) -> float:
        """UTC in seconds."""
        return self.started_utc + trio.current_time() - self.started

    def trio_time(self, utc: float) -> float:
        """When trio's clock will say that it is `utc`."""
        return utc - self.started_utc + self.started
