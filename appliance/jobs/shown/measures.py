"""Pure: no clock, no socket, no await.

What is counted while the server runs; a restart begins at nought.  No name of a job, a person or a
testbox is a label of any of it: however long a lab lives, it has the same few hundred numbers.
"""

from __future__ import annotations

from typing import Final

import attrs

from appliance.jobs.changes import Change, Moved, Quarantined, Submitted
from appliance.jobs.job import Finished
from appliance.jobs.store import Store

# Seconds.  From a box and a job that are both there to the script: 1 ms on an idle server, more
# behind a storm; past a minute somebody should look.
DISPATCH_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0, 60.0)
# From a write of the journal to the end of its sync: 0.1 ms on NVMe, 10 ms on a disk that turns.
SYNC_BOUNDS: Final = (0.0001, 0.00025, 0.001, 0.0025, 0.01, 0.025, 0.1, 0.5, 2.0)
# How late the event loop was: below 10 ms nobody sees it, 100 ms is the most that one stranger's
# request may cost all others, a minute is systemd's watchdog.
LATE_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0)
# Those that have a label; a job may end as any other word, which is counted as OTHER.
HEALTHS: Final = frozenset(
    ["success", "failed", "incomplete", "timeout", "abnormal", "boot_failed", "crash", "OOM",
     "cancel", "soft_timeout"]
)  # fmt: skip
PLACES: Final = frozenset(["os", "initrd", "kernel", "upload-files", "result"])
OTHER: Final = "other"  # what boxes and documents make up has no label of its own


@attrs.define
class Histogram:
    """How often a value was at most each of the bounds; the last count is of those beyond."""

    bounds: tuple[float, ...]
    counts: list[int] = attrs.field(init=False)
    total: float = 0.0

    def __attrs_post_init__(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """One more."""
        place = next((n for n, bound in enumerate(self.bounds) if value <= bound), -1)
        self.counts[place] += 1
        self.total += value


@attrs.define
class Lateness(Histogram):
    """How late the event loop was, in seconds, and the worst of it since the start."""

    bounds: tuple[float, ...] = LATE_BOUNDS
    worst: float = 0.0

    def observe(self, value: float) -> None:
        """One more."""
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
        """Count a change that `store` has taken."""
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
        """Count body bytes of a URL path."""
        first = path.split("/", 2)[1] if path.startswith("/") else ""
        place = first if first in PLACES else OTHER
        self.served[place] = self.served.get(place, 0) + count
