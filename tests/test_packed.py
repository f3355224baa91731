"""A large job.cgz is made once an attempt, off the loop, and gone with it."""

from __future__ import annotations

import gzip

import pytest
import trio

from appliance.jobs import packed
from appliance.jobs.documents.document import Body
from appliance.jobs.packed import Packed, is_large
from appliance.scheduler import boot_progress
from tests import fakes
from tests.lab import open_lab

LARGE = "script: |\n" + "  echo 0123456789abcdef\n" * 4000 + "secrets:\n  word: tiramisu\n"


async def offered(lab, text):
    """A job that its box is offered, on the real clock: large ones take threads."""
    await lab.know()
    answer = await lab.ask()
    job = await lab.submit(text)
    await answer.rest()
    return f"/job_initrd_tmpfs/{job.id}/job.cgz"


async def ask(lab, method, path):
    return await fakes.fetch(
        lab.wire, method, path, client=("10.0.0.5", 4000), server=("10.0.0.1", 3000)
    )


@pytest.fixture
def made(monkeypatch):
    """In which threads job.cgz was made: True for the loop's."""
    threads, pack = [], boot_progress.pack

    def count(*arguments):
        threads.append(in_trio())
        return pack(*arguments)

    monkeypatch.setattr(boot_progress, "pack", count)
    return threads


def in_trio():
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True


async def test_however_often_a_large_one_is_asked_for_it_is_made_once_and_off_the_loop(made):
    async with open_lab() as lab:
        path = await offered(lab, LARGE)
        found = []

        async def look():
            found.append((await ask(lab, "HEAD", path)).headers)

        async with trio.open_nursery() as nursery:
            for _ in range(16):
                nursery.start_soon(look)
        got = await ask(lab, "GET", path)
        again = await ask(lab, "GET", path)

        assert [False] == made
        assert got.body == again.body
        assert b"tiramisu" in gzip.decompress(got.body)
        assert 16 == len(found)
        assert {str(len(got.body))} == {headers["content-length"] for headers in found}


async def test_a_small_one_is_made_by_the_loop_and_not_kept(made, autojump_clock):
    async with open_lab() as lab:
        path = await offered(lab, "script: echo hi\n")
        await ask(lab, "HEAD", path)
        await ask(lab, "GET", path)

        assert [True, True] == made
        assert 0 == len(lab.scheduler.packed)


async def test_what_is_kept_goes_with_its_attempt():
    async with open_lab() as lab:
        path = await offered(lab, LARGE)
        assert 200 == (await ask(lab, "HEAD", path)).status
        assert 1 == len(lab.scheduler.packed)
        await lab.scheduler.cancel("lab.1", "root")

        assert (0, 0) == (len(lab.scheduler.packed), lab.scheduler.packed.size)
        assert 404 == (await ask(lab, "HEAD", path)).status


async def test_one_whose_attempt_ends_while_it_is_made_does_not_go_out_and_is_not_kept(monkeypatch):
    async with open_lab() as lab:
        path = await offered(lab, LARGE)
        pack = boot_progress.pack

        def slow(*arguments):
            trio.from_thread.run(lab.scheduler.cancel, "lab.1", "root")
            return pack(*arguments)

        monkeypatch.setattr(boot_progress, "pack", slow)

        assert 404 == (await ask(lab, "GET", path)).status
        assert 0 == len(lab.scheduler.packed)


def test_no_more_is_kept_than_there_is_room_for(monkeypatch):
    monkeypatch.setattr(packed, "KEPT_BYTES", 100)
    monkeypatch.setattr(packed, "KEPT_MAX", 5)
    kept = Packed()
    for number in range(10):
        kept.keep(f"lab.{number}", "t", ("k",), b"x" * 30)
        assert kept.size <= 100
    assert 3 == len(kept)
    assert kept.find("lab.9", ("k",)) == b"x" * 30
    assert kept.find("lab.9", ("other",)) is None
    for number in range(10):
        kept.keep(f"lab.{number}", "t", ("k",), b"x")
        assert len(kept) <= 5
    kept.keep("lab.9", "t", ("k",), b"x" * 101)
    assert 0 == kept.size


@pytest.mark.parametrize(
    ("body", "large"),
    [
        (Body(script="x" * 100), False),
        (Body(script="x" * packed.LARGE_BYTES), True),
        (Body(job2sh={"run": ["x" * 100] * 1000}), True),
        (Body(fields={"a": [{"b": ""}] * 10_000}), True),
        (Body(secrets={"a": "b" * packed.LARGE_BYTES}), True),
        (Body(fields={"a": [1.5, None, True]}), False),
    ],
)
def test_what_is_large(body, large):
    assert large == is_large(body)
