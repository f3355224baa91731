"""The verbs about the lab as a whole: status, watch, drain, resume, images in use, log level."""

from __future__ import annotations

import json
from typing import Final

import attrs
import structlog
import trio

from appliance import log as logs
from appliance.boot.images import image_gc
from appliance.control.job_verbs import row
from appliance.control.verb import Answer, Asked, verb
from appliance.errors import BadRequest, Refused
from appliance.jobs.job import Finished
from appliance.jobs.store import Store
from appliance.scheduler.queries import Query
from appliance.scheduler.watching import Group

# Nobody can read a screen that changes more often, and making one looks at every job.
SCREEN_S: Final = 0.25
# The part of the loop's time that screens may take; with 100,000 jobs a screen takes some 40 ms.
SHARE: Final = 0.05
# News in one screen.  A client that has not read it is sent no more until then, and falls behind.
NEWS_MAX: Final = 1000
LEVEL_S_MAX: Final = 7 * 86400.0

log = structlog.get_logger()


@verb("status")
@attrs.frozen(kw_only=True)
class Status:
    """Shows the lab in one screen."""

    async def do(self, asked: Asked) -> Answer:
        """Returns the screen of `control/screen.py`."""
        return await asked.lab.screen.status()


@verb("watch", waits=True, kept=True)
@attrs.frozen(kw_only=True)
class Watch:
    """Sends a screen now, and another with the news whenever something has happened."""

    async def do(self, asked: Asked) -> Answer:
        """Returns {"ended": why} when the server stops, after events {"status", "news"}.

        Raises Refused if too many clients watch.
        """
        scheduler = asked.lab.scheduler
        watcher = scheduler.watchers.join(Group.COMMANDS, asked.user)
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
                    await scheduler.caught_up()
                    began = trio.current_time()
                    status = await asked.lab.screen.status()
                    took = trio.current_time() - began
                    await asked.event({"status": status, "news": [json.loads(one) for one in told]})
                    await trio.sleep(max(SCREEN_S, took / SHARE))
                    await bell.wait()
                nursery.cancel_scope.cancel()
        finally:
            scheduler.watchers.leave(watcher)
        return {"ended": watcher.ended}


@verb("drain", waits=True)
@attrs.frozen(kw_only=True)
class Drain:
    """Stops giving out jobs.  Only root may."""

    wait: bool = False  # answer when no job holds a box

    async def do(self, asked: Asked) -> Answer:
        """Returns {"jobs": those that still hold a box}.

        With `wait`, sends an event {"running", "job"} at each change, and raises Refused if
        somebody resumes the lab meanwhile.
        """
        asked.only_root("drains the lab")
        scheduler = asked.lab.scheduler
        await scheduler.drain(asked.user)
        while self.wait and (active := scheduler.store.active()):
            job = next(iter(active))
            await asked.event({"running": len(active), "job": row(scheduler, job)})
            await scheduler.changes_of(job.id, job.moments)
            if not scheduler.store.drained:
                raise Refused("somebody resumed the lab meanwhile: jobs are given out again")
        return {"jobs": [row(scheduler, job) for job in scheduler.store.active()]}


@verb("resume")
@attrs.frozen(kw_only=True)
class Resume:
    """Gives out jobs again after a drain.  Only root may."""

    async def do(self, asked: Asked) -> Answer:
        """Returns {}."""
        asked.only_root("resumes a drained lab")
        await asked.lab.scheduler.resume()
        return {}


@verb("images-used")
@attrs.frozen(kw_only=True)
class ImagesUsed:
    """Names the snapshots that waiting and running jobs need."""

    async def do(self, asked: Asked) -> Answer:
        """Returns {"snapshots": [URL paths]}."""
        await trio.lowlevel.checkpoint()
        return {"snapshots": sorted(pinned(asked.lab.scheduler.store))}


@verb("log-level")
@attrs.frozen(kw_only=True)
class LogLevel:
    """Sets the log level, for good or for a while; without `level`, only returns it.

    Only root may set it.
    """

    level: str | None = None
    seconds: float | None = None  # how long, until the level is as before; None: for good

    async def do(self, asked: Asked) -> Answer:
        """Returns {"level", "then"}."""
        if self.level is not None:
            asked.only_root("changes what is logged")
            if self.level not in logs.LEVELS:
                levels = ", ".join(logs.LEVELS)
                raise BadRequest(f"level: {self.level!r} should be one of {levels}")
            if self.seconds is not None and not 0 < self.seconds <= LEVEL_S_MAX:
                raise BadRequest(f"for: at most {LEVEL_S_MAX / 86400:.0f} days, and more than none")
            log.warning("log level changed", by=asked.user, to=self.level, seconds=self.seconds)
            logs.threshold.set(self.level, self.seconds)
        return {"level": logs.threshold.now, "then": logs.threshold.before}


def pinned(store: Store) -> set[str]:
    """Returns the snapshots that the store's unfinished jobs need."""
    paths: set[str] = set()
    for job in store.jobs.values():
        if not isinstance(job.state, Finished):
            paths |= {job.pinned.root, job.pinned.kernel, *job.pinned.initrds}
    return {found for path in paths if (found := image_gc.snapshot_of(path)) is not None}
