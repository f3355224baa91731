"""The verbs about the lab as a whole: how it is, how it goes on, what the log says."""

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

# A screen that changes oftener is not read, and each is a look at every job.
SCREEN_S: Final = 0.25
# The part of the loop's time that screens may take: with 100,000 jobs one is some 40 ms.
SHARE: Final = 0.05
# In one screen.  Who does not read it is shown no more until then, and falls behind.
NEWS_MAX: Final = 1000
LEVEL_S_MAX: Final = 7 * 86400.0

log = structlog.get_logger()


@verb("status")
@attrs.frozen(kw_only=True)
class Status:
    """The lab in one screen."""

    async def do(self, asked: Asked) -> Answer:
        """The rows of `control/screen.py`."""
        return await asked.lab.screen.status()


@verb("watch", waits=True, kept=True)
@attrs.frozen(kw_only=True)
class Watch:
    """A screen now, and another whenever something has happened, with what it was."""

    async def do(self, asked: Asked) -> Answer:
        """{"ended": why}, after events {"status", "news"}; it ends with the server.

        Raises Refused where too many watch.
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
    """Gives out no more jobs.  Only root may."""

    wait: bool = False  # answer when no job holds a box any more

    async def do(self, asked: Asked) -> Answer:
        """{"jobs": those that still hold a box}.

        With `wait`, an event {"running", "job"} at each change; raises Refused where somebody
        resumed the lab meanwhile.
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
        """{}."""
        asked.only_root("resumes a drained lab")
        await asked.lab.scheduler.resume()
        return {}


@verb("images-used")
@attrs.frozen(kw_only=True)
class ImagesUsed:
    """Names the snapshots that jobs which wait or run have pinned."""

    async def do(self, asked: Asked) -> Answer:
        """{"snapshots": [URL paths]}."""
        await trio.lowlevel.checkpoint()
        return {"snapshots": sorted(pinned(asked.lab.scheduler.store))}


@verb("log-level")
@attrs.frozen(kw_only=True)
class LogLevel:
    """Logs from this level on, for good or for a while; without one it only tells.

    Only root changes it.
    """

    level: str | None = None
    seconds: float | None = None  # then it is as before

    async def do(self, asked: Asked) -> Answer:
        """{"level", "then"}."""
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
    """The snapshots that its jobs need which are not over."""
    paths: set[str] = set()
    for job in store.jobs.values():
        if not isinstance(job.state, Finished):
            paths |= {job.pinned.root, job.pinned.kernel, *job.pinned.initrds}
    return {found for path in paths if (found := image_gc.snapshot_of(path)) is not None}
