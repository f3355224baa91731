"""What the operator asks about the lab as a whole: how it is, how it goes on, what the log says."""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import attrs
import structlog
import trio

import appliance
from appliance import log as logs
from appliance import threads
from appliance.boot.images import image_gc
from appliance.errors import BadRequest, Refused
from appliance.jobs import restart
from appliance.jobs.job import Finished
from appliance.jobs.shown import overview
from appliance.jobs.store import Store
from appliance.scheduler.queries import Query
from appliance.scheduler.scheduler import Scheduler
from appliance.scheduler.watching import Group

# A screen that changes oftener is not read, and each is a look at every job.
SCREEN_S: Final = 0.25
# The part of the loop's time that screens may take: with 100,000 jobs one is some 40 ms.
SHARE: Final = 0.05
# In one screen.  Who does not read it is shown no more until then, and falls behind.
NEWS_MAX: Final = 1000
LEVEL_S_MAX: Final = 7 * 86400.0

log = structlog.get_logger()

Event = Callable[[dict[str, Any]], Awaitable[None]]
Arguments = dict[str, Any]
Disks = Callable[[dict[str, Path]], Awaitable[list[dict[str, Any]]]]


class Operators:
    """The verbs, for one scheduler."""

    def __init__(self, scheduler: Scheduler, disks: Disks) -> None:
        self._scheduler, self._disks = scheduler, disks
        self._screen = trio.Lock()  # one is made in each round of the loop, however many look

    async def status(self) -> dict[str, Any]:
        """The lab in one screen."""
        scheduler = self._scheduler
        async with self._screen:
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

    async def watch(self, user: str, event: Event) -> dict[str, Any]:
        """A screen now, and another whenever something has happened, with what it was.

        Raises Refused where too many watch.  Ends with the server.
        """
        scheduler = self._scheduler
        watcher = scheduler.watchers.join(Group.COMMANDS, user)
        watcher.ask(Query({}))
        news: list[str] = []
        bell, shown = trio.Event(), trio.Event()

        async def listen() -> None:
            while texts := await watcher.read():
                news.extend(texts)
                bell.set()
                if len(news) >= NEWS_MAX:
                    await shown.wait()
            bell.set()

        async def look_at_the_lobby() -> None:
            while True:
                await scheduler.lobby.stirred.wait()
                bell.set()

        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(listen)
                nursery.start_soon(look_at_the_lobby)
                while not watcher.ended:
                    told, news = news, []
                    shown.set()
                    bell, shown = trio.Event(), trio.Event()
                    await scheduler.shown()
                    began = trio.current_time()
                    status = await self.status()
                    took = trio.current_time() - began
                    await event({"status": status, "news": [json.loads(text) for text in told]})
                    await trio.sleep(max(SCREEN_S, took / SHARE))
                    await bell.wait()
                nursery.cancel_scope.cancel()
        finally:
            scheduler.watchers.leave(watcher)
        return {"ended": watcher.ended}

    async def images_used(self) -> dict[str, Any]:
        """The snapshots that jobs which wait or run have pinned, as URL paths."""
        await trio.lowlevel.checkpoint()
        return {"snapshots": sorted(pinned(self._scheduler.store))}

    async def log_level(self, arguments: Arguments, user: str) -> dict[str, Any]:
        """`level` from now on, or for `seconds`; without one it is only told."""
        level, seconds = arguments.get("level"), arguments.get("seconds")
        if level is not None:
            if user != "root":
                raise Refused("only root changes what is logged")
            if level not in logs.LEVELS:
                raise BadRequest(f"level: {level!r} should be one of {', '.join(logs.LEVELS)}")
            if seconds is not None and not 0 < float(seconds) <= LEVEL_S_MAX:
                raise BadRequest(f"for: at most {LEVEL_S_MAX / 86400:.0f} days, and more than none")
            log.warning("log level changed", by=user, to=level, seconds=seconds)
            logs.threshold.set(str(level), None if seconds is None else float(seconds))
        return {"level": logs.threshold.now, "then": logs.threshold.before}


def pinned(store: Store) -> set[str]:
    """The snapshots that its jobs need which are not over."""
    paths: set[str] = set()
    for job in store.jobs.values():
        if not isinstance(job.state, Finished):
            paths |= {job.pinned.root, job.pinned.kernel, *job.pinned.initrds}
    return {found for path in paths if (found := image_gc.snapshot_of(path)) is not None}


async def disks(places: dict[str, Path]) -> list[dict[str, Any]]:
    """One row for each file system; what anybody may take of it, not root's own reserve."""
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
