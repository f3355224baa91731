"""Work in a thread: what it held is let go of, also when it fails."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio

from appliance import threads
from appliance.errors import BadRequest


class Text(str):
    """One that can be looked for."""


async def refuse(seen):
    def work():
        text = Text("a stranger's")
        seen.append(weakref.ref(text))
        try:
            raise ValueError(text)
        except ValueError as error:
            raise BadRequest("it is none") from error

    await threads.run(work)


async def test_what_a_refused_text_held_is_let_go_of_at_once():
    seen = []
    gc.disable()
    try:
        with pytest.raises(BadRequest, match="it is none"):
            await refuse(seen)
        await trio.lowlevel.checkpoint()
        for _ in range(100):  # the thread forgets its last work with the next
            await trio.to_thread.run_sync(int)
            if seen[0]() is None:
                break

        assert seen[0]() is None
    finally:
        gc.enable()


async def test_work_that_ends_well_is_answered_and_a_fault_of_ours_keeps_its_frames():
    async with trio.open_nursery():
        assert 7 == await threads.run(lambda: 7)
    with pytest.raises(ZeroDivisionError) as caught:
        await threads.run(lambda: 1 // 0)

    assert "<lambda>" in [entry.name for entry in caught.traceback]
