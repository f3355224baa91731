"""Who gets what next, and a plain model that says the same by looking at everything."""

from __future__ import annotations

import random

import pytest

from appliance.jobs.ready import Needs, Ready, Serves

Q = ("default", "x86_64")
OTHER = ("other", "x86_64")


def everything(job, box):
    return True


def lined_up(*jobs, fits=everything):
    """`jobs` are (name, submitter, priority), queued in this order."""
    ready = Ready(fits)
    for name, submitter, priority in jobs:
        ready.queue(name, Needs(Q, priority, submitter))
    return ready


def served(ready, count=99):
    """The order in which one box after another is handed the jobs."""
    order = []
    for n in range(count):
        ready.park(f"box-{n}", Serves((Q,)))
        pairs = ready.pairs(1)
        if not pairs:
            break
        order.append(pairs[0][1])
    return order


def test_the_oldest_comes_first():
    assert ["a", "b", "c"] == served(lined_up(("a", "ann", 0), ("b", "ann", 0), ("c", "ann", 0)))


def test_the_higher_priority_comes_before_the_older():
    assert ["c", "b", "a"] == served(lined_up(("a", "ann", -1), ("b", "ann", 0), ("c", "ann", 9)))


def test_submitters_take_turns():
    jobs = [(f"a{n}", "ann", 0) for n in range(3)] + [("b0", "bob", 0), ("c0", "cat", 0)]

    assert ["a0", "b0", "c0", "a1", "a2"] == served(lined_up(*jobs))


def test_a_newcomer_waits_for_one_round_and_no_longer():
    ready = lined_up(("a0", "ann", 0), ("b0", "bob", 0), ("a1", "ann", 0), ("b1", "bob", 0))
    ready.park("box", Serves((Q,)))
    assert [("box", "a0")] == ready.pairs(1)
    ready.queue("c0", Needs(Q, 0, "cat"))

    assert ["b0", "a1", "c0", "b1"] == served(ready)


def test_a_job_that_came_back_is_first_again():
    ready = lined_up(("a0", "ann", 0), ("b0", "bob", 0), ("b1", "bob", 0))
    ready.queue("b9", Needs(Q, 0, "bob"), front=True)

    assert ["b9", "a0", "b0", "b1"] == served(ready)


def test_the_front_is_the_front_of_its_own_priority():
    ready = lined_up(("a0", "ann", 5))
    ready.queue("b9", Needs(Q, 0, "bob"), front=True)

    assert ["a0", "b9"] == served(ready)


def test_a_job_that_does_not_fit_holds_nobody_up():
    ready = lined_up(
        ("a0", "ann", 9), ("b0", "bob", 0), fits=lambda job, box: (job, box) != ("a0", "box-0")
    )

    assert ["b0", "a0"] == served(ready)


def test_the_box_that_waits_longest_is_asked_first():
    ready = Ready(everything)
    for name in ("second", "first"):
        ready.park(name, Serves((Q,)))
    ready.park("second", Serves((Q,)))  # it asked again
    ready.queue("a", Needs(Q, 0, "ann"))

    assert [("first", "a")] == ready.pairs(9)


def test_the_earlier_queue_of_a_box_comes_first_among_equals_and_priority_before_it():
    ready = Ready(everything)
    ready.queue("in other", Needs(OTHER, 0, "ann"))
    ready.queue("in default", Needs(Q, 0, "ann"))
    assert "in default" == ready.best("box", Serves((Q, OTHER)))
    assert "in other" == ready.best("box", Serves((OTHER, Q)))
    ready.queue("urgent", Needs(OTHER, 1, "bob"))

    assert "urgent" == ready.best("box", Serves((Q, OTHER)))


def test_a_queue_named_after_a_box_is_served_by_it_first_and_by_others_that_serve_it():
    ready = Ready(everything)
    own = ("late", "x86_64")
    ready.park("early", Serves((("early", "x86_64"), own)))
    ready.park("late", Serves((own, Q)))
    for job in ("a", "b", "c"):
        ready.queue(job, Needs(own))

    assert [("late", "a"), ("early", "b")] == ready.pairs(9)
    ready.park("late", Serves((own,), only="bob"))
    assert [] == ready.pairs(9)
    ready.unpark("late")
    ready.park("late", Serves((("late", "aarch64"),)))
    assert [] == ready.pairs(9)


def test_a_box_without_keys_gets_nothing():
    ready = lined_up(("a", "ann", 0))
    ready.park("box", Serves(()))

    assert [] == ready.pairs(9)
    assert ready.best("box", Serves(())) is None


def test_what_was_not_looked_at_for_want_of_room_is_looked_at_later():
    ready = lined_up(*[(f"a{n}", "ann", 0) for n in range(3)])
    for n in range(3):
        ready.park(f"box-{n}", Serves((Q,)))
    assert [] == ready.pairs(0)

    assert [("box-0", "a0"), ("box-1", "a1")] == ready.pairs(2)
    assert [("box-2", "a2")] == ready.pairs(2)
    assert [] == ready.pairs(2)


def test_only_what_changed_is_looked_at():
    asked = []

    def fits(job, box):
        asked.append((job, box))
        return False

    ready = Ready(fits)
    ready.queue("a", Needs(Q, 0, "ann"))
    ready.park("box", Serves((Q,)))
    ready.pairs(9)
    asked.clear()
    ready.queue("b", Needs(OTHER, 0, "ann"))

    assert [] == ready.pairs(9)
    assert [] == asked


def test_a_box_that_left_and_a_job_that_was_cancelled_are_not_paired():
    ready = lined_up(("a", "ann", 0), ("b", "ann", 0))
    ready.park("gone", Serves((Q,)))
    ready.unpark("gone")
    ready.unpark("gone")
    ready.unqueue("a")
    ready.park("box", Serves((Q,)))

    assert [("box", "b")] == ready.pairs(9)
    assert "a" not in ready
    assert [] == list(ready.parked)


def test_a_job_with_tags_goes_to_a_box_that_has_them_all():
    ready = Ready(everything)
    for box, tags in (("plain", ""), ("half", "kvm"), ("both", "kvm nvme gpu")):
        ready.park(box, Serves((Q,), frozenset(tags.split())))
    ready.queue("picky", Needs(Q, tags=frozenset(["kvm", "nvme"])))

    assert [("both", "picky")] == ready.pairs(9)


def test_age_counts_across_jobs_with_different_tags():
    ready = Ready(everything)
    for name, tags in (("a", ""), ("b", "kvm"), ("c", ""), ("d", "kvm")):
        ready.queue(name, Needs(Q, 0, "ann", frozenset(tags.split())))
    ready.queue("z", Needs(Q, 0, "ann", frozenset(["kvm"])), front=True)
    order = []
    for n in range(5):
        ready.park(f"box-{n}", Serves((Q,), frozenset(["kvm"])))
        order += [job for _, job in ready.pairs(9)]

    assert ["z", "a", "b", "c", "d"] == order


def test_a_reserved_box_takes_the_jobs_of_one_submitter_only():
    ready = lined_up(("a", "ann", 9), ("b", "bob", 0))
    ready.park("box", Serves((Q,), only="bob"))
    assert [("box", "b")] == ready.pairs(9)
    ready.park("box", Serves((Q,), only="bob"))
    ready.queue("a2", Needs(Q, 0, "ann"))

    assert [] == ready.pairs(9)
    assert "a" in ready


def test_ten_thousand_jobs_of_one_do_not_delay_the_first_of_another():
    ready = lined_up(*[(f"a{n}", "ann", 0) for n in range(10_000)], ("b", "bob", 0))

    assert ["a0", "b", "a1"] == served(ready, 3)


def test_turns_are_taken_over_all_the_queues_of_a_box():
    """However many jobs wait in the queue of its own name, and of hers in the other."""
    ready = Ready(everything)
    serves = Serves((OTHER, Q))
    for n in range(50):
        ready.queue(f"a{n}", Needs(OTHER, 0, "ann"))
        ready.queue(f"A{n}", Needs(Q, 0, "ann"))
    ready.queue("b0", Needs(Q, 0, "bob"))
    ready.queue("b1", Needs(Q, 0, "bob"))
    order = []
    for n in range(5):
        ready.park(f"box-{n}", serves)
        order += [job for _, job in ready.pairs(1)]

    assert ["a0", "b0", "a1", "b1", "a2"] == order


def test_who_is_served_often_in_one_queue_is_not_starved_in_another_of_other_boxes():
    ready = lined_up(("b0", "bob", 0), ("a0", "ann", 0), ("b1", "bob", 0), ("a1", "ann", 0))
    order = []
    for n in range(4):
        for m in range(3):  # ann's work elsewhere
            ready.queue(f"other {n} {m}", Needs(OTHER, 0, "ann"))
            ready.park(f"other-{n}-{m}", Serves((OTHER,)))
            assert 1 == len(ready.pairs(1))
        ready.park(f"box-{n}", Serves((Q,)))
        order += [job for _, job in ready.pairs(1)]

    assert ["b0", "a0", "b1", "a1"] == order


@pytest.mark.parametrize("tags", [frozenset(), frozenset(["kvm"])])
def test_the_work_of_a_match_does_not_grow_with_the_queue(tags):
    """Neither where jobs pile up that nobody can run, nor where boxes wait that fit none."""
    asked = []

    def fits(job, box):
        asked.append((job, box))
        return True

    ready = Ready(fits)
    for n in range(1000):
        ready.queue(f"j{n}", Needs(Q, n % 3, f"user-{n % 7}", frozenset(["gpu"])))
        ready.park(f"box-{n}", Serves((Q,), tags))
    assert [] == ready.pairs(9)
    assert [] == asked
    ready.queue("new", Needs(Q, 0, "ann", tags))

    assert [("box-0", "new")] == ready.pairs(9)
    assert 3 >= len(asked)


class Model:
    """The same rules, by looking at every job and every box each time."""

    def __init__(self, fits):
        self.fits = fits
        self.jobs = {}  # name: Needs
        self.order = []  # jobs, the front first
        self.turns = {}  # (key, priority, submitter): the smaller number is sooner
        self.number = 0
        self.boxes = {}  # name: Serves

    def queue(self, job, needs, front):
        self.jobs[job] = needs
        self.order.insert(0 if front else len(self.order), job)
        line = (needs.key, needs.priority, needs.submitter)
        self.number += 1
        self.turns.setdefault(line, self.number)
        if front:
            self.turns[line] = -self.number

    def unqueue(self, job):
        needs = self.jobs.pop(job)
        self.order.remove(job)
        line = (needs.key, needs.priority, needs.submitter)
        if line not in [(other.key, other.priority, other.submitter)
                        for other in self.jobs.values()]:  # fmt: skip
            del self.turns[line]

    def best(self, box):
        serves = self.boxes[box]
        fitting = [
            (needs, n, job)
            for n, job in enumerate(self.order)
            for needs in [self.jobs[job]]
            if needs.key in serves.keys
            and needs.tags <= serves.tags
            and serves.only in (None, needs.submitter)
            and self.fits(job, box)
        ]
        turns = {}  # of the submitters with a job that fits and has the highest priority
        for needs, _, _ in fitting:
            if needs.priority == max(other.priority for other, _, _ in fitting):
                number = self.turns[needs.key, needs.priority, needs.submitter]
                turns.setdefault((needs.priority, needs.submitter), []).append(number)
        mine = [
            (serves.keys.index(needs.key), n, job)
            for needs, n, job in fitting
            if (needs.priority, needs.submitter) == min(turns, key=lambda turn: min(turns[turn]))
        ]
        return min(mine)[-1] if mine else None

    def took(self, box, job):
        needs = self.jobs[job]
        self.number += 1
        for key in self.boxes[box].keys:
            if (key, needs.priority, needs.submitter) in self.turns:
                self.turns[key, needs.priority, needs.submitter] = self.number
        self.unqueue(job)
        del self.boxes[box]


@pytest.mark.parametrize("seed", range(100))
def test_it_agrees_with_the_model_whatever_happens(seed):
    rng = random.Random(seed)
    keys = [(f"q{n}", "x86_64") for n in range(3)]
    avoided = {}

    def fits(job, box):
        return avoided[job] != box

    def some_tags(odds):
        return frozenset(tag for tag in "xy" if rng.random() < odds)

    ready, model = Ready(fits), Model(fits)
    for n in range(200):
        roll, where = rng.random(), f"seed {seed}, step {n}"
        box = f"box-{rng.randrange(8)}"
        if roll < 0.4:
            job, front = f"j{n}", rng.random() < 0.2
            avoided[job] = rng.choice([box, None])
            needs = Needs(rng.choice(keys), rng.choice([0, 0, 1]), rng.choice("abc"),
                          some_tags(0.3))  # fmt: skip
            ready.queue(job, needs, front=front)
            model.queue(job, needs, front)
        elif roll < 0.5 and model.jobs:
            job = rng.choice(sorted(model.jobs))
            ready.unqueue(job)
            model.unqueue(job)
        elif roll < 0.8:
            only = rng.choice("abc") if rng.random() < 0.2 else None
            serves = Serves(tuple(rng.sample(keys, rng.randrange(1, 4))), some_tags(0.7), only)
            ready.park(box, serves)
            model.boxes[box] = serves
        elif roll < 0.9 and model.boxes:
            box = rng.choice(sorted(model.boxes))
            ready.unpark(box)
            del model.boxes[box]
        most = rng.choice([0, 1, 1, 99])
        pairs = ready.pairs(most)
        assert len(pairs) <= most, where
        for box, job in pairs:
            assert job == model.best(box), where
            model.took(box, job)
        if len(pairs) < most:  # work and hands are never idle together
            assert [] == [box for box in model.boxes if model.best(box)], where
        assert set(model.boxes) == set(ready.parked), where
        assert all((job in ready) == (job in model.jobs) for job in avoided), where
