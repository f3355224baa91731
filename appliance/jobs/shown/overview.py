"""Pure: no clock, no socket, no await.

The lab in one screen: the states of boxes, waiting jobs, running jobs, problems.
It visits every job in memory, at some 0.3 microseconds each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Final

import attrs

from appliance.jobs import job as jobs
from appliance.jobs.changes import Job
from appliance.jobs.job import Queued
from appliance.jobs.shown import views
from appliance.jobs.shown.views import Seats
from appliance.jobs.store import Store

RUNNING_SHOWN: Final = 20  # jobs that hold a box; the others are only counted
WRONG_SHOWN: Final = 10  # of each kind of problem


@attrs.frozen
class Overview:
    """The state of the lab at one moment."""

    boxes: dict[str, int]  # number of boxes by state
    jobs: dict[str, int]  # number of jobs by stage; `finish` includes the archive
    oldest: Job | None  # the oldest job waiting for a box
    running: list[Job]  # all jobs that hold a box
    longest_runtime: float  # seconds; the largest limit of all waiting and running jobs
    wrong: list[str]


def overview(store: Store, seats: Seats, now: float, gate: Sequence[str]) -> Overview:
    """Collects the overview; `gate` lists the reasons why no new jobs are taken."""
    stages: Counter[str] = Counter()
    oldest: Job | None = None
    longest = 0.0
    for job in store.jobs.values():
        stages[jobs.stage(job.state)] += 1
        if isinstance(job.state, Queued):
            longest = max(longest, job.document.runtime, job.document.timeout or 0)
            if oldest is None or job.submitted < oldest.submitted:
                oldest = job
    running = store.active()
    longest = max([longest, *(j.document.timeout or j.document.runtime for j in running)])
    if store.archived:
        stages["finish"] += store.archived
    rows = [views.host_row(store, seats, box, now) for box in store.boxes.values()]
    return Overview(
        dict(Counter(row["state"] for row in rows)),
        dict(stages),
        oldest,
        running,
        float(longest),
        [*_lab(store, gate), *_boxes(rows), *_waiting(store, oldest)],
    )


def row(seen: Overview) -> dict[str, Any]:
    """Returns `seen` as a plain map."""
    oldest = seen.oldest
    return {
        "boxes": seen.boxes,
        "jobs": seen.jobs,
        "oldest": views.job_row(oldest) if oldest is not None else None,
        "running": [views.job_row(job) for job in seen.running[:RUNNING_SHOWN]],
        "longest_runtime": seen.longest_runtime,
        "wrong": seen.wrong,
    }


def _lab(store: Store, gate: Sequence[str]) -> list[str]:
    found = [f"no new jobs are taken: {reason}" for reason in gate]
    if store.drained:
        found.append(f"drained by {store.drained}: no job is given out; see `appliance resume`")
    return found


def _boxes(rows: Sequence[dict[str, Any]]) -> list[str]:
    bad = [row for row in rows if row["state"] == "quarantined" or "quarantined" in row["kept"]]
    found = [
        f"{row['name']} {row['kept']}; `appliance host release {row['name']}`"
        for row in bad[:WRONG_SHOWN]
    ]
    more = len(bad) - WRONG_SHOWN
    return [*found, f"{more} more testboxes are quarantined"] if more > 0 else found


def _waiting(store: Store, oldest: Job | None) -> list[str]:
    """Checks only the oldest waiting job: one that fits no box ends up as the oldest."""
    if oldest is None or store.serving(oldest.match_key):
        return []
    queue, arch = oldest.match_key
    return [f"{oldest.id} waits: no known testbox serves the queue {queue} on {arch}"]
