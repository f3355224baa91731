"""How jobs come in: what else goes on meanwhile."""

from __future__ import annotations

import threading

import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Limits
from appliance.jobs import document, filing
from appliance.jobs.intake import READ_AT_ONCE_BYTES
from tests import lab as labs
from tests.lab import open_lab

WITHIN_S = 10.0


async def test_nobody_waits_while_a_large_document_is_read(monkeypatch):
    """It takes most of a second, and a submit brings thirty of them."""
    read, examine = threading.Event(), document.examine

    def slowly(*words):
        assert read.wait(WITHIN_S), "the loop stood still meanwhile"
        return examine(*words)

    monkeypatch.setattr(document, "examine", slowly)
    async with open_lab() as lab, trio.open_nursery() as nursery:
        nursery.start_soon(lab.submit, "script: |\n" + "  echo hi\n" * (READ_AT_ONCE_BYTES // 8))
        await wait_all_tasks_blocked()
        assert {} == lab.scheduler.store.jobs
        read.set()


async def test_a_submit_that_was_slow_finds_the_jobs_of_its_repeat_even_in_the_archive(
    autojump_clock, monkeypatch
):
    """Its image's disk hangs; the repeat is quick, and so is whoever cancels its job."""
    async with open_lab(labs.config(limits=Limits(finished_in_memory=0))) as lab:
        hangs, pin, found = trio.Event(), lab.images.pin, []

        async def slow(fits):
            await hangs.wait()
            return await pin(fits)

        async def first():
            found.append(await lab.submit())

        async with trio.open_nursery() as nursery:
            with monkeypatch.context() as patch:
                patch.setattr(lab.images, "pin", slow)
                nursery.start_soon(first)
                await wait_all_tasks_blocked()
            repeat = await lab.submit()
            await lab.scheduler.cancel(repeat.id, "ann")
            await trio.sleep(3 * filing.GATHER_S)
            assert {} == lab.scheduler.store.jobs
            hangs.set()

        assert [repeat.id] == [job.id for job in found]
        assert 1 == lab.scheduler.store.counter
