"""What must be looked at: each thing once, at the earliest moment that anybody named."""

from __future__ import annotations

import math
import random

from appliance.jobs.dues import JOB, REST, STALE_MAX, Dues


def test_what_is_due_is_taken_once_and_the_earliest_first():
    dues = Dues()
    dues.by(JOB, "lab.1", 20.0)
    dues.by(REST, "box-1", 10.0)
    dues.by(JOB, "lab.2", 30.0)

    assert 10.0 == dues.next
    assert [(REST, "box-1"), (JOB, "lab.1")] == dues.take(20.0)
    assert [] == dues.take(20.0)
    assert 30.0 == dues.next


def test_an_earlier_moment_wins_and_a_later_one_changes_nothing():
    dues = Dues()
    dues.by(JOB, "lab.1", 20.0)
    dues.by(JOB, "lab.1", 10.0)
    dues.by(JOB, "lab.1", 30.0)

    assert [(JOB, "lab.1")] == dues.take(10.0)
    assert [] == dues.take(40.0)


def test_what_is_forgotten_is_not_due():
    dues = Dues()
    dues.by(JOB, "lab.1", 20.0)
    dues.forget(JOB, "lab.1")
    dues.forget(JOB, "lab.2")

    assert math.inf == dues.next
    assert [] == dues.take(99.0)


def test_one_of_a_name_that_was_forgotten_may_come_later():
    dues = Dues()
    dues.by(JOB, "lab.1", 20.0)
    dues.forget(JOB, "lab.1")
    dues.by(JOB, "lab.1", 40.0)

    assert 40.0 == dues.next
    assert [] == dues.take(39.0)
    assert [(JOB, "lab.1")] == dues.take(40.0)


def test_what_came_and_went_leaves_no_memory():
    dues = Dues()
    for n in range(10_000):
        dues.by(JOB, f"lab.{n}", 3600.0 + n)
        dues.forget(JOB, f"lab.{n}")

    assert 0 == len(dues)
    assert len(dues._heap) <= STALE_MAX


def test_it_agrees_with_a_plain_table_whatever_happens():
    rng, dues, table = random.Random(1), Dues(), {}
    for now in range(3000):
        name, moment = f"lab.{rng.randrange(50)}", now + rng.uniform(0, 100)
        if rng.random() < 0.7:
            dues.by(JOB, name, moment)
            table[name] = min(moment, table.get(name, math.inf))
        else:
            dues.forget(JOB, name)
            table.pop(name, None)
        due = sorted((when, name) for name, when in table.items() if when <= now)
        for _, name in due:
            del table[name]

        assert [(JOB, name) for _, name in due] == dues.take(now)
        assert min(table.values(), default=math.inf) == dues.next
