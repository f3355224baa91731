"""Makes the screen that `status` and `watch` show: the lab, and the free space of its disks."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import attrs
import trio

import appliance
from appliance import log as logs
from appliance import threads
from appliance.jobs import restart
from appliance.jobs.shown import overview
from appliance.scheduler.scheduler import Scheduler

Disks = Callable[[dict[str, Path]], Awaitable[list[dict[str, Any]]]]


class Screen:
    """Makes screens of one scheduler's lab."""

    def __init__(self, scheduler: Scheduler, disks: Disks) -> None:
        self._scheduler, self._disks = scheduler, disks
        self._making = trio.Lock()  # at most one is made in a round of the loop

    async def status(self) -> dict[str, Any]:
        """Returns what the lab does now, what is wrong, and how full its disks are."""
        scheduler = self._scheduler
        async with self._making:
            seen = overview.overview(
                scheduler.store, scheduler.lobby, scheduler.clock.now(), scheduler.gate.reasons
            )
        wrong = [*seen.wrong, *restart.wrong(scheduler.store, scheduler.clock.drift())]
        paths = scheduler.config.paths
        places = {"state": paths.state, "results": paths.srv / "result", "images": paths.srv / "os"}
        disks = await self._disks(places)
        return {
            "lab": scheduler.config.lab,
            "version": appliance.__version__,
            "since": scheduler.clock.started_utc,
            "drained": scheduler.store.drained,
            "gate": scheduler.gate.reasons,  # why no new jobs are taken
            "parked": len(scheduler.lobby),
            "late": scheduler.measures.late.worst,  # the event loop, in seconds, since the start
            "log_level": logs.threshold.now,
            "disks": disks,
            **overview.row(attrs.evolve(seen, wrong=wrong)),
        }


async def disks(places: dict[str, Path]) -> list[dict[str, Any]]:
    """Returns one row for each file system; root's reserve does not count as free."""
    return await threads.run(_disks, places)


def _disks(places: dict[str, Path]) -> list[dict[str, Any]]:
    rows: dict[int, dict[str, Any]] = {}
    for name, path in places.items():
        there = next((one for one in (path, *path.parents) if one.exists()), Path("/"))
        device = there.stat().st_dev
        if device in rows:
            rows[device]["what"].append(name)
            continue
        found = os.statvfs(there)
        free, size = found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize
        rows[device] = {"what": [name], "path": str(path), "free": free, "size": size}
    return list(rows.values())
