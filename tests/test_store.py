"""The store: what changes do to it, whatever their order, and what its indexes answer."""

from __future__ import annotations

import attrs
import pytest

from appliance.errors import IllegalMove, NotFound
from appliance.jobs import decisions, registry
from appliance.jobs import job as jobs
from appliance.jobs.box import BOOTS_KEPT, STEPS_MAX, Identity, Step
from appliance.jobs.changes import (
    ATTEMPTS_KEPT,
    HISTORY_MAX,
    Known,
    Missed,
    Moved,
    Seen,
    Stepped,
    Submitted,
)
from appliance.jobs.store import Store
from appliance.keep.state import records
from tests import rich
from tests.lab import open_lab
from tests.test_decisions import ADDRESS, MAC, NOW, WAITS, a_job, a_store, facts, make, offered

OTHER = "52:54:00:00:00:02"
UUID = "01234567-0000-0000-0000-000000000001"


def seen(store, name="box-1", mac=MAC, address=ADDRESS, at=NOW, **more):
    store.apply(Seen(name, Identity(mac, address, **more), at))


@pytest.mark.parametrize("seed", range(100, 130))
def test_every_invariant_holds_through_a_random_history(seed):
    again = records.Store()
    for changes in rich.grow(seed, 120)[1]:
        for change in changes:
            again.apply(change)
        again.check()


def test_an_illegal_move_changes_nothing():
    store = a_store()
    job, box = store.job("lab.1"), attrs.asdict(store.box("box-1"))
    with pytest.raises(IllegalMove):
        store.apply(Moved("lab.1", jobs.Begin(NOW), NOW))

    assert job is store.job("lab.1")
    assert box == attrs.asdict(store.box("box-1"))
    store.check()


@pytest.mark.parametrize("question", ["job", "box"])
def test_what_is_not_there_is_named_and_cut(question):
    with pytest.raises(NotFound, match=r"no \w+ xxx") as caught:
        getattr(a_store(), question)("x" * 1000)

    assert len(str(caught.value)) < 100


def test_the_counter_never_goes_back():
    store = a_store()
    store.apply(Submitted(a_job(9)))
    store.apply(Submitted(a_job(5)))

    assert 9 == store.counter


def test_a_box_on_its_second_nic_is_said_to_be_it_and_is_not_taken_for_it():
    store = a_store()
    store.apply(Known(facts(uuid=UUID), NOW))
    assert store.box_of(Identity(OTHER, "10.0.0.6", uuid=UUID)) is None

    seen(store, "unknown-x", OTHER, "10.0.0.6", uuid=UUID)
    assert "box-1" == store.said_to_be(store.box("unknown-x")).name
    assert (MAC,) == store.box("box-1").macs


def test_a_mac_says_more_than_a_uuid():
    store = a_store()
    store.apply(Known(facts("box-2", OTHER, uuid=UUID), NOW))

    assert "box-1" == store.box_of(Identity(MAC, ADDRESS, uuid=UUID)).name


def test_a_uuid_of_the_hosts_file_is_not_overwritten_by_what_a_box_says():
    store = a_store()
    store.apply(Known(facts(uuid=UUID), NOW))
    seen(store, uuid=UUID.replace("1", "2"))

    assert UUID == store.box("box-1").uuid


def test_an_address_is_whose_box_asked_from_it_last_also_after_a_restart():
    store = a_store()
    store.apply(Known(facts("a-box", OTHER), NOW))
    seen(store, "a-box", OTHER, "10.0.0.6", NOW + 1)
    seen(store, "box-1", MAC, "10.0.0.6", NOW + 2)
    loading = records.Loading("f")
    for payload in records.dump_image(records.image_of(store, 0)):
        loading.add(payload)
    again = loading.store()

    assert ["box-1", "box-1"] == [one.box_at("10.0.0.6").name for one in (store, again)]
    assert store.box_at(ADDRESS) is None


def test_a_box_that_becomes_known_keeps_what_was_seen_of_it():
    store = a_store()
    seen(store, "unknown-x", OTHER, "10.0.0.6", NOW + 1, serial="S1", arch="x86_64")
    store.apply(Known(facts("box-2", OTHER, arch=None), NOW + 2))

    box = store.box("box-2")
    assert ("S1", "x86_64", "10.0.0.6", 1) == (
        box.serial,
        box.runs_arch,
        box.address,
        len(box.boots),
    )
    assert "unknown-x" not in store.boxes
    assert "box-2" == store.box_at("10.0.0.6").name


def test_an_unknown_box_that_is_a_known_ones_second_nic_is_no_more():
    store = a_store()
    seen(store, "unknown-x", OTHER, "10.0.0.6", NOW + 1)
    store.apply(Known(attrs.evolve(facts(), macs=(MAC, OTHER)), NOW + 2))

    assert ["box-1"] == list(store.boxes)
    assert "box-1" == store.box_of(Identity(OTHER, "")).name
    assert "10.0.0.6" == store.box("box-1").address  # it waits there for the next job


def test_a_hosts_file_without_a_mac_takes_it_away():
    store = a_store()
    store.apply(Known(facts(mac=OTHER), NOW))

    assert store.box_of(Identity(MAC, ADDRESS)) is None
    assert (OTHER,) == store.box("box-1").macs


def test_what_a_box_serves_follows_its_hosts_file():
    store = a_store()
    assert ["box-1"] == store.serving(("default", "x86_64"))
    store.apply(Known(facts(queues=["other"]), NOW))

    assert [] == store.serving(("default", "x86_64"))
    assert ["box-1"] == store.serving(("other", "x86_64"))
    assert ["box-1"] == store.serving(("box-1", "x86_64"))


def test_an_unknown_box_or_arch_serves_nothing():
    store = a_store()
    seen(store, "unknown-x", OTHER, "10.0.0.6", arch="x86_64")
    store.apply(Known(facts("box-3", "52:54:00:00:00:03", arch=None), NOW))

    assert () == registry.keys_of(store.box("unknown-x"))
    assert () == registry.keys_of(store.box("box-3"))


def test_the_tokens_of_the_last_attempts_are_known_and_older_ones_forgotten():
    store = a_store()
    for n in range(ATTEMPTS_KEPT + 5):
        offered(store, now=NOW + n)
        make(store, decisions.asked(store, Identity(MAC, ADDRESS), NOW + n, WAITS, 9))
    job = store.job("lab.1")

    assert ATTEMPTS_KEPT == len(job.attempts)
    assert store.attempt_with(f"token-{NOW}") is None
    assert (job, job.attempts[-1]) == store.attempt_with(f"token-{NOW + ATTEMPTS_KEPT + 4}")


def test_a_history_is_cut_at_its_beginning_and_counts_on():
    store = a_store()
    for n in range(HISTORY_MAX):
        offered(store, now=NOW + n)
        make(store, decisions.undelivered(store, "lab.1", n + 1, NOW + n, WAITS))
    job = store.job("lab.1")

    assert HISTORY_MAX == len(job.history)
    assert 2 * HISTORY_MAX == job.moments
    assert NOW + HISTORY_MAX - 1 == job.history[-1].at


def test_a_box_keeps_its_last_boots_and_the_first_and_newest_steps_of_each():
    store = a_store()
    for n in range(BOOTS_KEPT + 5):
        seen(store, at=NOW + n)
        store.apply(Stepped("box-1", Step(NOW, "file", "0")))
    for n in range(1, STEPS_MAX + 5):
        store.apply(Stepped("box-1", Step(NOW, "file", str(n))))
    box = store.box("box-1")

    assert (BOOTS_KEPT, NOW + BOOTS_KEPT + 4) == (len(box.boots), box.boot.began)
    kept = [*range(STEPS_MAX // 2), *range(STEPS_MAX // 2 + 5, STEPS_MAX + 5)]
    assert [str(n) for n in kept] == [step.detail for step in box.boot.steps]
    assert "asked again" == box.boots[-2].ended


def test_a_lost_boot_avoids_its_box_while_another_is_there():
    store = a_store()
    store.apply(Known(facts("box-2", OTHER), NOW))
    offered(store)
    make(store, decisions.fetched_job(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.loaded(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.asked(store, Identity(MAC, ADDRESS), NOW, WAITS, 9))
    assert "lab.1" == store.next_for(store.box("box-1")).id  # box-2 was never seen

    seen(store, "box-2", OTHER, "10.0.0.6", NOW - 3000)
    assert store.next_for(store.box("box-1")) is None
    assert "lab.1" == store.next_for(store.box("box-2")).id


@pytest.mark.parametrize(("park", "waits_for_it"), [(1800.0, True), (600.0, False), (60.0, False)])
def test_a_box_is_taken_to_be_there_for_two_of_the_waits_that_are_configured(park, waits_for_it):
    store = a_store()
    store.park = park
    store.apply(Known(facts("box-2", OTHER), NOW))
    offered(store)
    make(store, decisions.fetched_job(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.loaded(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.asked(store, Identity(MAC, ADDRESS), NOW, WAITS, 9))

    seen(store, "box-2", OTHER, "10.0.0.6", NOW - 3000)

    assert waits_for_it == (store.next_for(store.box("box-1")) is None)


def test_a_box_that_went_away_since_is_waited_for_no_longer():
    """Else the job would wait for it for ever, while the box that lost it asks every half hour."""
    store = a_store()
    store.apply(Known(facts("box-2", OTHER), NOW))
    seen(store, "box-2", OTHER, "10.0.0.6", NOW - 60)
    offered(store)
    make(store, decisions.fetched_job(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.loaded(store, store.job("lab.1"), NOW, WAITS))
    make(store, decisions.asked(store, Identity(MAC, ADDRESS), NOW, WAITS, 9))
    assert store.next_for(store.box("box-1")) is None
    seen(store, at=NOW + 1800)
    assert store.next_for(store.box("box-1")) is None
    seen(store, at=NOW + 3600)

    assert "lab.1" == store.next_for(store.box("box-1")).id


def test_tags_must_all_be_there():
    store = a_store(job_text="script: x\ntags: [ssd, ib]\n")
    assert store.next_for(store.box("box-1")) is None
    store.apply(Known(facts(tags=["ssd"]), NOW))
    assert store.next_for(store.box("box-1")) is None
    store.apply(Known(facts(tags=["ib", "ssd", "x"]), NOW))

    assert "lab.1" == store.next_for(store.box("box-1")).id


def test_boots_in_flight_are_those_that_load():
    store = a_store()
    counts = [store.boots_in_flight()]
    offered(store)
    counts.append(store.boots_in_flight())
    make(store, decisions.fetched_job(store, store.job("lab.1"), NOW, WAITS))
    counts.append(store.boots_in_flight())
    make(store, decisions.loaded(store, store.job("lab.1"), NOW, WAITS))
    counts.append(store.boots_in_flight())

    assert [0, 1, 1, 0] == counts


def test_a_store_says_what_it_holds():
    store = a_store()
    offered(store)

    assert "<Store 1 jobs, 1 active, 1 boxes>" == repr(store)


async def test_a_list_of_changes_is_made_whole_or_not_at_all(autojump_clock):
    async with open_lab() as lab:
        await lab.know()
        job = await lab.submit()
        scheduler, now = lab.scheduler, lab.scheduler.clock.now()
        before = records.dump_store(scheduler.store)
        box = scheduler.store.boxes["box-1"]
        for several in (
            [Missed("box-1", now + 9), Moved(job.id, jobs.Begin(now), now)],
            [Moved(job.id, jobs.Cancel("ann"), now), Moved(job.id, jobs.Cancel("bob"), now)],
            [decisions.step(box, now, "file", "x"), Moved(job.id, jobs.Begin(now), now)],
        ):
            position = scheduler._journal.appended
            with pytest.raises(IllegalMove):
                scheduler.change(several)

            assert before == records.dump_store(scheduler.store)
            assert position == scheduler._journal.appended
            assert {} == scheduler.resting


def test_what_is_foreseen_begins_with_what_was_submitted_in_the_same_list():
    store, job = Store(), next(iter(rich.grow(1, 40)[0].jobs.values()))
    fresh = attrs.evolve(job, state=jobs.Queued())
    store.foresee([Submitted(fresh), Moved(job.id, jobs.Cancel("ann"), 1.0)])
    with pytest.raises(IllegalMove):
        store.foresee([Submitted(fresh), Moved(job.id, jobs.Begin(1.0), 1.0)])

    assert {} == store.jobs
