"""State files: what is written reads back, and what is damaged is named."""

from __future__ import annotations

import random

import cbor2
import pytest

from appliance.errors import BadState
from appliance.keep import records
from tests import rich

SEEDS = range(30)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_store_reads_back_as_it_was(seed):
    store, _ = rich.grow(seed, 150)
    again = records.load_store(records.dump_store(store), "snapshot")

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
    assert {"Submitted", "Moved", "Known", "Seen", "Missed", "Stepped"} == changes


FRAMES = b"".join(records.frame(bytes([65 + n]) * n) for n in (3, 1, 7))


def whole(data, start=0):
    return [payload for _, payload in records.unframe(data, start, "f")]


def test_frames_read_back():
    assert [b"DDD", b"B", b"HHHHHHH"] == whole(FRAMES)
    assert [] == whole(b"")


@pytest.mark.parametrize("cut", range(len(FRAMES) + 1))
def test_every_prefix_ends_before_its_torn_record(cut):
    ends = [0, 11, 20, 35]
    kept = max(end for end in ends if end <= cut)

    assert whole(FRAMES)[: ends.index(kept)] == whole(FRAMES[:cut])


def test_a_tail_of_zeros_is_a_torn_record():
    """A file whose size was made durable before its bytes, as ext4 and XFS may after power loss."""
    for zeros in (1, 7, 8, 9, 4096):
        assert whole(FRAMES) == whole(FRAMES + bytes(zeros))


def test_a_damaged_last_record_is_dropped_and_an_earlier_one_named():
    assert [b"DDD", b"B"] == whole(FRAMES[:-1] + b"x")
    with pytest.raises(BadState, match="f: damaged at byte 11: the checksum does not fit"):
        whole(FRAMES[:19] + b"x" + FRAMES[20:])


def test_a_length_that_no_record_has_is_damage():
    with pytest.raises(BadState, match="f: damaged at byte 0: a record of 4294967295 bytes"):
        whole(b"\xff" * 40)


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "not a journal"),
        (b"appliance journal 1", "not a journal"),
        (b"appliance snapshot 1\n", "not a journal"),
        (b"appliance journal\n", "not a journal"),
        (b"appliance journal x\n", "not a journal"),
        (b"appliance journal 1 2\n", "not a journal"),
        (b"appliance journal 0\n", "not a journal"),
        (b"appliance journal -1\n", "not a journal"),
        (b"x" * 200 + b"\n", "not a journal"),
        (b"appliance journal 2\n", "journal version 2 is newer than this program's"),
        (b"appliance journal 99999\n", "is newer"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(data, word):
    with pytest.raises(BadState, match=word):
        records.check_header(data, records.JOURNAL, "f")


def test_the_headers_are_these_bytes():
    assert b"appliance journal 1\n" == records.JOURNAL % records.VERSION
    assert 20 == records.check_header(b"appliance journal 1\nrest", records.JOURNAL, "f")
    # CRC32C of "123456789" is e3069283, as every catalogue of checksums says
    assert b"\x09\0\0\0" + bytes.fromhex("839206e3") + b"123456789" == records.frame(b"123456789")


FOREIGN = [
    {},
    [],
    None,
    7,
    "x",
    {"jobs": [], "boxes": []},
    {"jobs": [], "boxes": [], "counter": "x"},
    {"jobs": {}, "boxes": 5, "counter": 1},
    {"jobs": [{"id": "lab.1"}], "boxes": [], "counter": 1},
    {"jobs": [], "boxes": [{"name": "x", "macs": [], "surprise": 1}], "counter": 1},
]


@pytest.mark.parametrize("value", FOREIGN, ids=repr)
def test_a_whole_record_that_holds_no_store_is_refused(value):
    with pytest.raises(BadState, match="snapshot"):
        records.load_store(cbor2.dumps(value), "snapshot")


@pytest.mark.parametrize("value", [None, 7, [{}], [{"is": "Nothing"}], [{"is": "Moved"}]])
def test_a_whole_record_that_holds_no_changes_is_refused(value):
    with pytest.raises(BadState, match="journal"):
        records.load_changes(cbor2.dumps(value), "journal")


@pytest.mark.parametrize("seed", range(10))
def test_any_bytes_load_or_are_refused_even_where_their_checksum_fits(seed):
    rng = random.Random(seed)
    store, made = rich.grow(seed, 40)
    for payload, load in (
        (records.dump_store(store), records.load_store),
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
