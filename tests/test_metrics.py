"""`/metrics`: what operators count, with labels that stay few."""

from __future__ import annotations

import subprocess
import sys

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.jobs.shown import overview
from appliance.jobs.shown.measures import DISPATCH_BOUNDS, Histogram, Measures
from tests import fakes
from tests.lab import open_lab


def samples(text):
    """What a scrape says: a sample's name with its labels, and its value."""
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}


async def scrape(lab):
    answer = await lab.get("/metrics")
    assert 200 == answer.status
    return samples(answer.body.decode())


async def test_a_scrape_counts_boxes_jobs_and_how_fast_they_came_together():
    async with open_lab() as lab:
        await lab.know()
        await lab.ask()
        await wait_all_tasks_blocked()
        await lab.submit()
        with trio.fail_after(10):
            while not sum(lab.scheduler.measures.dispatch.counts):  # noqa: ASYNC110
                await trio.sleep(0.001)
        await lab.submit("script: x\nqueue: elsewhere\n", key="l" * 16)
        found = await scrape(lab)

    assert 1 == found['appliance_boxes{state="offered"}']
    assert 1 == found['appliance_jobs{stage="offered"}']
    assert 1 == found['appliance_jobs{stage="submit"}']
    assert 2 == found["appliance_jobs_submitted_total"]
    assert 1 == found["appliance_dispatch_seconds_count"]
    assert 1 == found['appliance_dispatch_seconds_bucket{le="+Inf"}']
    assert found["appliance_journal_sync_seconds_count"] >= 3
    assert found["appliance_oldest_wait_seconds"] >= 0
    assert any(name.startswith("appliance_disk_free_bytes{") for name in found)


async def test_a_wait_that_was_nobodys_delay_is_no_dispatch_latency(autojump_clock):
    """A box that waited for an hour was not served slowly, nor a job that had no box."""
    async with open_lab() as lab:
        await lab.know()
        await lab.ask()
        await trio.sleep(1000)
        await lab.submit()
        await trio.sleep(1)

        assert 1 == sum(lab.scheduler.measures.dispatch.counts[:3])


async def test_jobs_that_end_are_counted_by_health(autojump_clock):
    async with open_lab() as lab:
        for n in range(3):
            job = await lab.submit(key=f"{n}" * 16)
            if n:
                await lab.scheduler.cancel(job.id, "ann")

        assert ({"cancel": 2}, 3) == (
            lab.scheduler.measures.ended,
            lab.scheduler.measures.submitted,
        )


def test_bytes_are_counted_by_place_and_no_path_of_a_box_is_a_label():
    measures = Measures()
    for path in ("/os/a/b", "/os/c", "/upload-files/x", "/weird/y", "nothing", "/job.cgz"):
        measures.sent(path, 10)

    assert {"os": 20, "upload-files": 10, "other": 30} == measures.served


@pytest.mark.parametrize(
    ("value", "place"), [(0.0, 0), (0.001, 0), (0.0011, 1), (60.0, 9), (61.0, 10)]
)
def test_a_value_is_counted_at_the_first_bound_that_holds_it(value, place):
    histogram = Histogram(DISPATCH_BOUNDS)
    histogram.observe(value)

    assert place == histogram.counts.index(1)
    assert value == histogram.total


async def test_who_asks_again_at_once_is_told_the_same():
    async with open_lab() as lab:
        before = await scrape(lab)
        await lab.submit()
        assert before == await scrape(lab)


async def test_all_who_ask_at_once_cost_one_look_at_the_jobs(monkeypatch):
    """Strangers among them; where there are 100,000 jobs it takes 40 ms."""
    looks, look = [], overview.overview
    monkeypatch.setattr(overview, "overview", lambda *args: looks.append(1) or look(*args))
    async with open_lab() as lab, trio.open_nursery() as nursery:
        for _ in range(20):
            nursery.start_soon(scrape, lab)

    assert [1] == looks


async def test_only_metrics_are_there():
    async with open_lab() as lab:
        assert 404 == (await lab.get("/metrics/x")).status
        posted = await fakes.fetch(lab.wire, "POST", "/metrics")
        assert (405, b"ask for /metrics by GET\n") == (posted.status, posted.body)


def test_a_server_and_a_client_start_without_the_library():
    """It is imported when somebody asks: a start does not wait for it."""
    code = "import sys, appliance.run, appliance.cli; sys.exit('prometheus_client' in sys.modules)"

    assert 0 == subprocess.run([sys.executable, "-c", code], check=False).returncode
