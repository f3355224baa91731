"""Pure: no clock, no socket, no await.

Counters and histograms of a running server; they start at zero after a restart.  No label is the
name of a job, a person or a testbox, so their number stays at a few hundred for good.
"""

from __future__ import annotations

from typing import Final

import attrs

from appliance.jobs.changes import Change, Moved, Quarantined, Submitted
from appliance.jobs.job import Finished
from appliance.jobs.store import Store

# Seconds from the moment when a box and a fitting job are both there to the sending of the script:
# 1 ms on an idle server, more under a burst of requests; over a minute needs attention.
DISPATCH_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0)
# Seconds from a journal write to the end of its sync: 0.1 ms on NVMe, 10 ms on a hard disk.
SYNC_BOUNDS: Final = (0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.5, 2.0)
# Seconds by which the event loop was late: below 10 ms nobody notices, 100 ms is the most that one
# client's request may delay all others, a minute is systemd's watchdog.
LATE_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0)
# Healths with a label of their own; any other word that a job ends with is counted as OTHER.
HEALTHS: Final = frozenset(
    ["success", "failed", "incomplete", "timeout", "abnormal", "boot_failed", "crash", "OOM",
     "cancel", "soft_timeout"]
)  # fmt: skip
PLACES: Final = frozenset(["os", "initrd", "kernel", "upload-files", "result"])
OTHER: Final = "other"  # words that boxes and documents invent get no label of their own


@attrs.define
class Histogram:
    """How many values fell under each bound; the last count is of values above all bounds."""

    bounds: tuple[float, ...]
    counts: list[int] = attrs.field(init=False)
    total: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Counts one value."""
        place = next((n for n, bound in enumerate(self.bounds) if value <= bound), -1)
        self.counts[place] += 1
        self.total += value


@attrs.define
class Lateness(Histogram):
    """How late the event loop was, in seconds, and the worst of it since the start."""

    bounds: tuple[float, ...] = LATE_BOUNDS
    worst: float = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        super().observe(value)
        self.worst = max(self.worst, value)


@attrs.define
class Measures:
    """The counts of one server."""

    syncs: Histogram = attrs.field(factory=lambda: Histogram(SYNC_BOUNDS))
    dispatch: Histogram = attrs.field(factory=lambda: Histogram(DISPATCH_BOUNDS))
    late: Lateness = attrs.field(factory=Lateness)
    submitted: int = 0
    ended: dict[str, int] = attrs.field(factory=dict)  # by health
    quarantines: int = 0
    served: dict[str, int] = attrs.field(factory=dict)  # body bytes, by the first name of the path

    def note(self, change: Change, store: Store) -> None:
        """Counts a change that `store` has applied."""
        match change:
            case Submitted():
                self.submitted += 1
            case Moved(job_id):
                state = store.jobs[job_id].state
                if isinstance(state, Finished):
                    health = state.health if state.health in HEALTHS else OTHER
                    self.ended[health] = self.ended.get(health, 0) + 1
            case Quarantined(_, why) if why:
                self.quarantines += 1

    def sent(self, path: str, count: int) -> None:
        """Counts the body bytes sent for a URL path."""
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        place = first if first in PLACES else OTHER
        self.served[place] = self.served.get(place, 0) + count
