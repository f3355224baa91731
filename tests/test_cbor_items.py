"""The control socket's CBOR: what cbor2 says, wherever it is cut, and nothing that costs more."""

from __future__ import annotations

import random
import time
import tracemalloc

import cbor2
import pytest

from appliance.cbor_items import VALUE_BYTES, Decoder, Limits
from appliance.errors import BadRequest

SEED = 20260103
MEGABYTE = 2**20
LIMITS = Limits(held=12 * MEGABYTE, text=4 * MEGABYTE, values=50_000, depth=8)


def items(data, limits=None, size=2**14):
    decoder = Decoder(limits)
    found = []
    for at in range(0, len(data), size):
        found += [item for item, _ in decoder.feed(data[at : at + size])]
    return found


def anything(rng, depth=0):
    plain = ["", "a", "é" * 9, "🐧", "x" * 300, b"", b"\xff" * 70_000, 0, 23, 24, 255, 256, 65536,
             2**64 - 1, -1, -24, -(2**63), -(2**64), 1.5, 1e308, float("inf"), True, False,
             None]  # fmt: skip
    if depth < 4 and rng.random() < 0.5:
        parts = [anything(rng, depth + 1) for _ in range(rng.choice([0, 1, 2, 3, 30 >> depth]))]
        return parts if rng.random() < 0.5 else {str(part)[:99]: part for part in parts}
    return rng.choice(plain)


def test_whatever_is_sent_arrives_wherever_it_is_cut():
    print("seed", SEED)
    rng = random.Random(SEED)
    for _ in range(200):
        said = [anything(rng) for _ in range(rng.randrange(4))]
        data = b"".join(cbor2.dumps(one, canonical=rng.random() < 0.5) for one in said)

        assert said == items(data, size=rng.choice([1, 2, 7, 1000, 10**7]))


def test_a_message_that_is_not_whole_is_none():
    data = cbor2.dumps({"verb": "submit", "documents": [{"text": "x" * 300}, 1.5, -1000]})
    for end in range(len(data)):
        assert [] == items(data[:end])
    assert 1 == len(items(data))


def test_bytes_that_mean_nothing_are_refused_or_waited_for_and_never_a_failure():
    print("seed", SEED)
    rng = random.Random(SEED)
    refused = 0
    for _ in range(1000):
        data = bytearray(cbor2.dumps(anything(rng, 3)))
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert len(items(bytes(data), LIMITS)) <= len(data)
        except BadRequest:
            refused += 1

    assert 100 < refused < 900


FOREIGN = [
    2**64, -(2**64) - 1, cbor2.CBORTag(4000, 1), cbor2.undefined, cbor2.CBORSimpleValue(99),
    {1: 2}, {b"a": 1}, [{None: 1}],
]  # fmt: skip
ENDLESS = [b"\x9f\x01\xff", b"\xbf\xff", b"\x7f\x61a\xff", b"\x5f\x41a\xff", b"\xff", b"\x1c",
           b"\xfc", b"\xf8\x14", b"\x62\xff\xff", b"\xc4\x82\x01\x01",
           b"\xd8\x1c\x81\xd8\x1d\x00"]  # fmt: skip


@pytest.mark.parametrize("data", [*map(cbor2.dumps, FOREIGN), *ENDLESS])
@pytest.mark.parametrize("size", [1, 100])
def test_what_nobody_here_says_is_refused(data, size):
    with pytest.raises(BadRequest, match="not CBOR"):
        items(data, size=size)


HEADS = {  # of what promises more than is taken
    "a text": b"\x7a\x00\x40\x00\x01",
    "bytes": b"\x5b\x7f\xff\xff\xff\xff\xff\xff\xff",
    "a list": b"\x9a\x00\x00\xc3\x51",
    "a map": b"\xba\x00\x00\x61\xa9",
    "an endless map": b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff",
}


@pytest.mark.parametrize("head", HEADS)
def test_a_promise_of_too_much_is_refused_at_its_head(head):
    with pytest.raises(BadRequest, match=r"too long|more than"):
        items(HEADS[head], LIMITS)


def test_at_each_limit_it_is_taken_and_one_past_it_is_not():
    def fits(value, **limits):
        return items(cbor2.dumps(value), Limits(**limits))

    for good, bad, limits in (
        ("x" * 10, "x" * 11, {"text": 10}),
        ([0] * 9, [0] * 10, {"values": 10}),
        ([[[]]], [[[[0]]]], {"depth": 3}),
        ({"a": {"b": {}}}, {"a": {"b": {"c": 0}}}, {"depth": 2}),
        (["x" * 100], ["x" * 101], {"held": 2 * VALUE_BYTES + 100}),
        (["é" * 50], ["é" * 51], {"held": 2 * VALUE_BYTES + 400}),
    ):
        assert [good] == fits(good, **limits)
        with pytest.raises(BadRequest, match="the message"):
            fits(bad, **limits)


def test_what_an_item_takes_is_told_and_forgotten_with_it():
    decoder = Decoder()
    whole = cbor2.dumps(["x" * 1000])
    assert [] == list(decoder.feed(whole[:500]))
    assert 1000 <= decoder.held <= 1000 + 2 * VALUE_BYTES
    [(_, held)] = decoder.feed(whole[500:])
    assert 1000 <= held
    assert 0 == decoder.held


WORST = {
    "empty lists": b"\x9a\x00\x80\x00\x00" + b"\x80" * 8 * MEGABYTE,
    "lists in lists": b"\x81" * 8 * MEGABYTE,
    "maps": b"\x99\xc0\x00" + b"\xa1\x60\x00" * 49152 * 16,
    "texts": (b"\x99\xff\xff" + b"\x61a" * 65535) * 60,
    "a decimal": cbor2.dumps(cbor2.CBORTag(4, [-1, cbor2.CBORTag(2, b"\xff" * 150_000)])),
    "wide texts": b"\x8c" + (b"\x7a\x00\x10\x00\x00" + b"\xf0\x9f\x90\xa7" + b"x" * 1048572) * 12,
}


@pytest.mark.parametrize("form", WORST)
def test_the_worst_message_is_refused_within_its_first_bytes(form):
    data, decoder, fed = WORST[form], Decoder(LIMITS), 0

    def feed():
        nonlocal fed
        for at in range(0, len(data), 2**14):
            fed += 2**14
            for _ in decoder.feed(data[at : at + 2**14]):
                pass

    tracemalloc.start()
    began = time.process_time()
    try:
        feed()
    except BadRequest:
        refused = True
    else:
        refused = False
    taken = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert refused
    assert taken < 2  # under tracemalloc
    assert peak < 20 * MEGABYTE
    assert fed < 4 * MEGABYTE


def test_a_long_message_takes_as_long_for_each_byte_as_a_short_one():
    """It was decoded anew for each piece of it: 16 s for 30 MiB."""

    def seconds(size):
        data = cbor2.dumps({"documents": [{"text": "x" * 2**20}] * size})
        began = time.process_time()
        assert 1 == len(items(data))
        return time.process_time() - began

    assert seconds(30) < 2
