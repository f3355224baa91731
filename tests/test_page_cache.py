"""What was in memory a moment ago is not looked at again."""

from __future__ import annotations

import errno
import os
import time

import pytest

from appliance.web import page_cache
from appliance.web.page_cache import MOMENT_S, PROBE_EVERY, Warm

PART = 2 * PROBE_EVERY
A, B = (1, 1), (1, 2)


@pytest.fixture
def disk(monkeypatch):
    """Where bytes were looked for; those in `cold` are not in memory.  The clock stands still."""
    looked: list[int] = []
    cold: set[int] = set()
    now = [1000.0]

    def preadv(file, buffers, place, flags):
        assert os.RWF_NOWAIT == flags
        looked.append(place)
        if place in cold:
            raise BlockingIOError(errno.EAGAIN, "planted")
        return 1

    monkeypatch.setattr(os, "preadv", preadv)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return looked, cold, now


def test_a_byte_in_each_piece_of_each_part_says_whether_it_is_there(disk):
    looked, cold, _ = disk

    assert Warm(PART).holds(0, A, PART - 1, 2)

    assert [0, PROBE_EVERY, PART, PART + PROBE_EVERY] == looked
    cold.add(PART + PROBE_EVERY)
    assert not Warm(PART).holds(0, A, PART - 1, 2)
    assert Warm(PART).holds(0, A, 0, PART)


def test_what_was_there_a_moment_ago_is_not_looked_at_again(disk):
    looked, cold, now = disk
    parts = Warm(PART)
    assert parts.holds(0, A, 0, PART)
    cold.add(0)
    looked.clear()

    assert parts.holds(0, A, 10, 10)
    assert [] == looked
    assert not parts.holds(0, B, 10, 10)  # another file's part
    now[0] += MOMENT_S
    assert not parts.holds(0, A, 10, 10)


def test_what_was_not_there_is_looked_at_each_time(disk):
    _, cold, _ = disk
    parts = Warm(PART)
    cold.add(0)
    assert not parts.holds(0, A, 0, 1)
    cold.clear()

    assert parts.holds(0, A, 0, 1)


@pytest.mark.usefixtures("disk")
def test_it_remembers_no_more_than_so_many_parts(monkeypatch):
    monkeypatch.setattr(page_cache, "PARTS_MAX", 3)
    parts = Warm(PART)
    for part in range(10):
        assert parts.holds(0, A, part * PART, 1)

    assert len(parts._seen) <= 3
