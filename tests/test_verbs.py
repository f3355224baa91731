"""What people and programs are told was read in memory: it is told once the disk knows it."""

from __future__ import annotations

import errno

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.control.verb import VERBS
from appliance.errors import ApplianceError, Unknown
from tests.lab import config, open_lab

# Verbs that answer once what they have changed is kept, or that never end.
CHANGES = {
    "submit", "cancel", "renew", "drain", "resume", "host-add", "host-remove", "host-edit",
    "host-reserve", "host-release", "results-keep",
}  # fmt: skip
ENDLESS = {"wait", "watch", "backup"}  # test_filing, test_overview and test_backup hold them to it
# Each reads: of the store, of what is on disk for a job of it, or of what the server is like.
READS = {
    "jobs": {}, "show": {"job": "lab.1"}, "results": {"job": "lab.1"},
    "read": {"job": "lab.1", "path": "no such"}, "results-gc": {"older": 0.0, "dry_run": True},
    "hosts": {}, "host-show": {"host": "box-1"}, "host-preview": {"host": "box-1"},
    "host-file": {"host": "box-1"}, "status": {}, "images-used": {}, "log-level": {},
}  # fmt: skip
QUESTIONS = ["/get_testbox?testbox=box-1", "/get_deadline?testbox=box-1"]


class SlowDisk:
    """The lab's journal is written when we say so."""

    def __init__(self, lab) -> None:
        self.kept, self._append = trio.Event(), lab.disk.append
        lab.disk.append = self._wait

    async def _wait(self, name, data):
        await self.kept.wait()
        await self._append(name, data)


@pytest.fixture
def no_threads(monkeypatch):
    """Virtual time knows nothing of threads: what would run in one runs at once."""

    async def at_once(function, *arguments, **options):
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr(trio.to_thread, "run_sync", at_once)


async def asked(lab, what, told):
    """A verb, or a testbox's question by HTTP."""
    if what in QUESTIONS:
        told.append((await lab.get(what)).body)
        return
    try:
        told.append(await lab.people.do(what, READS[what], "root", None))
    except ApplianceError as error:  # there is no such file, and that is an answer, too
        told.append(str(error))


def test_every_verb_is_one_of_these():
    assert {*VERBS} == CHANGES | ENDLESS | {*READS}


@pytest.mark.parametrize("what", [*READS, *QUESTIONS])
async def test_what_is_told_stays_true_after_a_kill(autojump_clock, no_threads, tmp_path, what):
    """While a write is under way; a disk that refuses has people see what memory knows."""
    async with open_lab(config(tmp_path)) as lab:
        await lab.know()
        job = await lab.submit()
        slow, told = SlowDisk(lab), []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lab.scheduler.cancel, job.id, "ann")
            await wait_all_tasks_blocked()
            nursery.start_soon(asked, lab, what, told)
            await wait_all_tasks_blocked()
            assert ("finish", []) == (lab.stage(job), told)
            slow.kept.set()
        assert 1 == len(told)

        lab.disk.calls.broken = errno.EIO
        with pytest.raises(Unknown):
            await lab.submit(key="another00")
        before = trio.current_time()
        await asked(lab, what, told)
        assert before == trio.current_time()
