"""`GET /metrics` on port 3000: metrics for Prometheus.

The counts are the scheduler's own; prometheus-client only formats them.  It is imported at the
first request (in a thread, since that takes some 50 ms).
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import trio

import appliance
from appliance import threads
from appliance.control.screen import Disks, disks
from appliance.jobs.shown import overview
from appliance.jobs.shown.measures import Histogram
from appliance.jobs.shown.overview import Overview
from appliance.scheduler.scheduler import Scheduler
from appliance.web.asgi import Receive, Scope, Send, answer

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

METRICS: Final = "/metrics"
# How long an answer is reused, since making one looks at every job.
FRESH_S: Final = 5.0
_LIBRARY: Final = "prometheus_client"
_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Answers scrapes."""

    def __init__(self, scheduler: Scheduler, look: Disks = disks) -> None:
        self._scheduler, self._look = scheduler, look
        self._text, self._at = "", -FRESH_S
        self._writing = trio.Lock()  # requests that come meanwhile wait for the same answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one scrape."""
        if scope["path"] != METRICS:
            await answer(send, 404, f"ask for {METRICS}")
            return
        if scope["method"] not in ("GET", "HEAD"):
            await answer(send, 405, f"ask for {METRICS} by GET", [(b"allow", b"GET, HEAD")])
            return
        async with self._writing:
            if trio.current_time() >= self._at + FRESH_S:
                self._text, self._at = await self._write(), trio.current_time()
        await answer(send, 200, self._text, content_type=_TYPE)

    async def _write(self) -> str:
        scheduler = self._scheduler
        seen = overview.overview(
            scheduler.store, scheduler.lobby, scheduler.clock.now(), scheduler.gate.reasons
        )
        paths = scheduler.config.paths
        places: dict[str, Path] = {"state": paths.state, "srv": paths.srv}
        free = await self._look(places)
        if _LIBRARY not in sys.modules:
            await threads.run(importlib.import_module, _LIBRARY)
        return _text(partial(_families, scheduler, seen, free))


def _text(families: Callable[[], Iterator[Metric]]) -> str:
    from prometheus_client import CollectorRegistry, generate_latest

    class Collected:
        def collect(self) -> Iterator[Metric]:
            return families()

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collected())
    return generate_latest(registry).decode()


def _families(scheduler: Scheduler, seen: Overview, free: list[dict[str, Any]]) -> Iterator[Metric]:
    from prometheus_client.metrics_core import (
        CounterMetricFamily,
        GaugeMetricFamily,
        HistogramMetricFamily,
    )

    def gauge(name: str, what: str, by: str, values: dict[str, float]) -> Metric:
        family = GaugeMetricFamily(f"appliance_{name}", what, labels=[by] if by else [])
        for word, value in sorted(values.items()):
            family.add_metric([word] if by else [], value)
        return family

    def counter(name: str, what: str, by: str, values: dict[str, int]) -> Metric:
        family = CounterMetricFamily(f"appliance_{name}", what, labels=[by] if by else [])
        for word, value in sorted(values.items()):
            family.add_metric([word] if by else [], value)
        return family

    def histogram(name: str, what: str, counts: Histogram) -> Metric:
        family = HistogramMetricFamily(f"appliance_{name}", what)
        family.add_metric([], buckets=_buckets(counts), sum_value=counts.total)
        return family

    measures, now = scheduler.measures, scheduler.clock.now()
    yield gauge("info", "The running version.", "version", {appliance.__version__: 1})
    since = {"": scheduler.clock.started_utc}
    yield gauge("start_time_seconds", "When the server started, UTC.", "", since)
    yield gauge("boxes", "Testboxes, by what they do.", "state", dict(seen.boxes))
    yield gauge("jobs", "Jobs, by stage.", "stage", dict(seen.jobs))
    waits = now - seen.oldest.submitted if seen.oldest is not None else 0.0
    yield gauge("oldest_wait_seconds", "How long the oldest job waits for a box.", "", {"": waits})
    shut, drained = len(scheduler.gate.reasons), int(bool(scheduler.store.drained))
    yield gauge("gate_shut", "Reasons for which no new jobs are taken.", "", {"": shut})
    yield gauge("drained", "1 while no jobs are given out.", "", {"": drained})
    yield counter("jobs_submitted", "Jobs taken since the start.", "", {"": measures.submitted})
    yield counter("jobs_ended", "Jobs over since the start.", "health", measures.ended)
    yield counter("quarantines", "Testboxes quarantined.", "", {"": measures.quarantines})
    yield counter("served_bytes", "Body bytes of files.", "place", measures.served)
    what = "From a box and a job that are both there to its script."
    yield histogram("dispatch_seconds", what, measures.dispatch)
    what = "From a write of the journal to the end of its sync."
    yield histogram("journal_sync_seconds", what, measures.syncs)
    what = "How late the event loop was, looked at fifty times a second."
    yield histogram("loop_late_seconds", what, measures.late)
    worst = {"": measures.late.worst}
    yield gauge("loop_late_worst_seconds", "The latest it was since the start.", "", worst)
    by_place = {",".join(row["what"]): float(row["free"]) for row in free}
    yield gauge("disk_free_bytes", "What may still be written.", "of", by_place)


def _buckets(counts: Histogram) -> list[tuple[str, float]]:
    """Returns cumulative buckets for Prometheus: each bound with the count of values up to it."""
    sums, so_far = [], 0
    for bound, count in zip((*counts.bounds, "+Inf"), counts.counts, strict=True):
        so_far += count
        sums.append((str(bound), float(so_far)))
    return sums
