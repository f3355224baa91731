"""How jobs come in: what else goes on meanwhile."""

from __future__ import annotations

import contextlib
import threading

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from appliance.config import Limits
from appliance.errors import ApplianceError, BadDocument
from appliance.jobs.documents import document, reading
from appliance.jobs.documents.reading import PROBLEMS_MAX
from appliance.scheduler import archiver, intake
from appliance.scheduler.intake import READ_AT_ONCE_BYTES, Paper
from tests import lab as labs
from tests.lab import KEY, open_lab

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
            await trio.sleep(3 * archiver.GATHER_S)
            assert {} == lab.scheduler.store.jobs
            hangs.set()

        assert [repeat.id] == [job.id for job in found]
        assert 1 == lab.scheduler.store.counter


MERGES = (
    "script: x\nm: [&m0 {k: v}"
    + "".join(f", &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, 12))
    + "]\n"
)


@pytest.mark.parametrize(
    "paper",
    [
        Paper("job.yaml", MERGES),
        Paper("job.yaml", "script: x\n" + "a: [" + "[]," * 9000 + "]\n"),
        Paper("job.yaml", "script: x\n", {}, {"a": "[" + "[]," * 9000 + "]"}),
        Paper("job.yaml", "script: x\n", {f"k{n}": "1" for n in range(999)}, {}),
        Paper("job.yaml", "script: x\n", {"a": "&a [x, *b]"}, {}),
    ],
)
async def test_no_document_that_takes_its_time_is_read_on_the_loop(monkeypatch, paper):
    threads, examine = [], document.examine

    def note(*words):
        threads.append(threading.get_ident())
        return examine(*words)

    monkeypatch.setattr(document, "examine", note)
    async with open_lab() as lab:
        with contextlib.suppress(BadDocument):
            await intake.submit(lab.scheduler, [paper], "ann", KEY)
        await intake.submit(lab.scheduler, [Paper("job.yaml", "script: x\n")], "ann", KEY + "2")

    assert [False, True] == [thread == threading.get_ident() for thread in threads]


async def refused(lab, papers):
    with pytest.raises(ApplianceError) as caught:
        await intake.submit(lab.scheduler, papers, "ann", KEY)
    assert {} == lab.scheduler.store.jobs
    return caught.value


async def test_the_words_of_a_command_line_count_as_the_documents_own():
    most = 2000
    async with open_lab(labs.config(limits=Limits(document_bytes=most))) as lab:
        said = "script: x\n"
        for before, after in (({"k": "v" * most}, {}), ({}, {"k": "v" * most}),
                              ({}, {"k" * most: "v"}), ({"k": "é" * (most // 2)}, {})):  # fmt: skip
            error = await refused(lab, [Paper("job.yaml", said, before, after)])
            assert f"is larger than {most} bytes" in str(error)
        fits = Paper("job.yaml", said, {}, {"k": "v" * (most - len(said) - 1)})
        assert 1 == len(await intake.submit(lab.scheduler, [fits], "ann", KEY))


async def test_more_words_than_a_command_line_has_are_refused():
    async with open_lab() as lab:
        words = {f"k{n}": "1" for n in range(reading.WORDS_MAX + 1)}
        for paper in (Paper("a", "script: x\n", words), Paper("a", "script: x\n", {}, words)):
            assert "KEY=VALUE" in str(await refused(lab, [paper]))


async def test_a_submit_has_so_many_documents_and_no_more(monkeypatch):
    monkeypatch.setattr(intake, "DOCUMENTS_MAX", 3)
    paper = Paper("job.yaml", "script: x\n")
    async with open_lab() as lab:
        assert "at most 3 documents" in str(await refused(lab, [paper] * 4))
        assert 3 == len(await intake.submit(lab.scheduler, [paper] * 3, "ann", KEY))


async def test_a_submit_has_so_many_values_and_no_more(monkeypatch):
    monkeypatch.setattr(intake, "VALUES_MAX", 8)
    paper = Paper("job.yaml", "script: x\na: 1\n")  # two names, two values
    async with open_lab() as lab:
        assert "more than 8 values" in str(await refused(lab, [paper] * 3))
        assert 2 == len(await intake.submit(lab.scheduler, [paper] * 2, "ann", KEY))


async def test_the_mistakes_of_many_documents_are_no_more_than_somebody_reads():
    paper = Paper("job.yaml", "script: x\n" + "a: 1\n" * 30)  # 29 mistakes
    async with open_lab() as lab:
        error = await refused(lab, [paper] * 100)

        assert PROBLEMS_MAX + 1 == len(error.problems)
        assert "may be more mistakes" in error.problems[-1].message


async def test_nobody_waits_for_all_documents_of_a_submit():
    """Each is read at once; between two, others have their turn."""
    turns, over = 0, trio.Event()
    async with open_lab() as lab, trio.open_nursery() as nursery:

        async def look():
            nonlocal turns
            while not over.is_set():
                turns += 1
                await trio.lowlevel.checkpoint()

        nursery.start_soon(look)
        papers = [Paper("job.yaml", "script: x\n")] * 100
        await intake.submit(lab.scheduler, papers, "ann", KEY)
        over.set()

    assert turns >= 100
