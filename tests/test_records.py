"""State files: what is written reads back, and what is damaged is named."""

from __future__ import annotations

import random

import cbor2
import pytest

from appliance.errors import BadState
from appliance.jobs.changes import Change
from appliance.keep.state import records
from tests import rich

SEEDS = range(30)


def loaded(payloads):
    """The store in the payloads of a snapshot."""
    loading = records.Loading("snapshot")
    for payload in payloads:
        loading.add(payload)
    assert not loading.missing
    return loading.store()


@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_reads_back_as_it_was(seed):
    store, _ = rich.grow(seed, 150)
    again = loaded(records.dump_image(records.image_of(store, 7)))

    assert store.jobs == again.jobs
    assert store.boxes == again.boxes
    assert store.counter == again.counter
    assert sorted(job.id for job in store.active()) == sorted(job.id for job in again.active())
    again.check()


@pytest.mark.parametrize("seed", SEEDS)
def test_changes_read_back_and_make_the_same_store(seed):
    store, made = rich.grow(seed, 150)
    again = records.Store()
    for changes in made:
        read = records.load_changes(records.dump_changes(changes), "journal")
        assert changes == read
        for change in read:
            again.apply(change)

    assert store.jobs == again.jobs
    assert store.boxes == again.boxes


def test_the_random_stores_hold_every_state_and_every_change():
    states, changes = set(), set()
    for seed in range(60):
        store, made = rich.grow(seed, 150)
        states |= {type(job.state).__name__ for job in store.jobs.values()}
        changes |= {type(change).__name__ for several in made for change in several}

    wanted = "Queued Offered Booting Running PostRun Held Finished"
    assert set(wanted.split()) == states
    assert {kind.__name__ for kind in Change.__args__} == changes


COUNTS = {"counter": 1, "drained": "", "archived": 0, "jobs": 1, "boxes": 0, "next": 0}
FOREIGN = [
    {},
    [],
    None,
    7,
    "x",
    {"jobs": 1, "boxes": 1, "counter": 1},
    {**COUNTS, "counter": "x"},
    {"jobs": {"a": 1}},
    {"boxes": 5},
    {"jobs": [{"id": "lab.1"}]},
    {"boxes": [{"name": "x", "macs": [], "surprise": 1}]},
]


@pytest.mark.parametrize("value", FOREIGN, ids=repr)
def test_a_whole_record_that_holds_no_part_of_a_store_is_refused(value):
    with pytest.raises(BadState, match="snapshot"):
        records.Loading("snapshot").add(cbor2.dumps(value))


def test_a_snapshot_says_what_it_lacks():
    store, _ = rich.grow(1, 150)
    loading = records.Loading("snapshot")
    assert "its first record" == loading.missing
    first, *_ = records.dump_image(records.image_of(store, 3))
    loading.add(first)

    assert f"{len(store.jobs)} jobs and {len(store.boxes)} boxes" == loading.missing
    assert 3 == loading.next


def test_a_large_store_is_made_in_pieces(monkeypatch):
    monkeypatch.setattr(records, "PIECE", 4)
    store, _ = rich.grow(2, 150)
    payloads = list(records.dump_image(records.image_of(store, 0)))

    assert 1 + -(-len(store.jobs) // 4) + -(-len(store.boxes) // 4) == len(payloads)
    assert records.dump_store(store) == records.dump_store(loaded(payloads))


@pytest.mark.parametrize("seed", range(10))
def test_an_image_stays_as_it_was_while_the_store_goes_on(seed):
    _, made = rich.grow(seed, 150)
    again = records.Store()
    for changes in made[:75]:
        for change in changes:
            again.apply(change)
    image, before = records.image_of(again, 0), records.dump_store(again)
    for changes in made[75:]:
        for change in changes:
            again.apply(change)

    assert before == b"".join(records.dump_image(image))
    assert before != records.dump_store(again)


@pytest.mark.parametrize("value", [None, 7, [{}], [{"is": "Nothing"}], [{"is": "Moved"}]])
def test_a_whole_record_that_holds_no_changes_is_refused(value):
    with pytest.raises(BadState, match="journal"):
        records.load_changes(cbor2.dumps(value), "journal")


def load_piece(payload, name):
    loading = records.Loading(name)
    loading.add(payload)
    loading.store()


@pytest.mark.parametrize("seed", range(10))
def test_any_bytes_load_or_are_refused_even_where_their_checksum_fits(seed):
    rng = random.Random(seed)
    store, made = rich.grow(seed, 40)
    for payload, load in (
        (list(records.dump_image(records.image_of(store, 0)))[1], load_piece),
        (records.dump_changes(made[-1]), records.load_changes),
    ):
        for _ in range(150):
            broken = bytearray(payload)
            for _ in range(rng.randrange(1, 4)):
                broken[rng.randrange(len(broken))] = rng.randrange(256)
            try:
                load(bytes(broken), "f")
            except BadState:
                pass
            except Exception as error:
                error.add_note(f"seed {seed}")
                raise
