"""Which bytes a request asks for: known cases, and what must hold for any header."""

from __future__ import annotations

import random

import pytest

from appliance.web import ranges
from appliance.web.ranges import Unsatisfiable, parse_range

ETAG = b'"1-2-3"'
DATE = b"Sun, 06 Nov 1994 08:49:37 GMT"
THEN = 784111777  # DATE


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"bytes=0-0", (0, 1)),
        (b"bytes=0-99", (0, 100)),
        (b"bytes=10-19", (10, 20)),
        (b"bytes=99-", (99, 100)),
        (b"bytes=0-", (0, 100)),
        (b"bytes=90-1000", (90, 100)),  # RFC 9110 §14.1.2: cut to what is there
        (b"bytes=-1", (99, 100)),
        (b"bytes=-100", (0, 100)),
        (b"bytes=-101", (0, 100)),
        (b"BYTES=5-6", (5, 7)),
        (b"bytes = 5-6 ", (5, 7)),
        (b"bytes=00000000000000000000000005-6", (5, 7)),
        (b"bytes=0-" + b"9" * 10_000, (0, 100)),
    ],
)
def test_a_range_is_cut_to_the_file(header, expected) -> None:
    assert expected == parse_range(header, 100)


@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"bytes",
        b"bytes=",
        b"bytes=-",
        b"bytes=--1",
        b"bytes=5",
        b"bytes=6-5",
        b"bytes=0-1,4-5",
        b"bytes=a-b",
        b"bytes=0x1-0x2",
        b"bytes=1 -2",
        b"bytes=+1-2",
        b"bytes=1-2-3",
        b"lines=1-2",
        "bytes=٣-٤".encode(),  # digits, but not ASCII ones
        b"bytes=\xff-\xfe",
    ],
)
def test_what_is_no_single_range_is_answered_with_the_whole(header) -> None:
    assert parse_range(header, 100) is None


@pytest.mark.parametrize("header", [b"bytes=100-", b"bytes=100-200", b"bytes=-0"])
def test_a_range_without_a_byte_is_refused(header) -> None:
    with pytest.raises(Unsatisfiable):
        parse_range(header, 100)


def test_an_empty_file_has_a_last_part_but_no_first_byte() -> None:
    assert parse_range(b"bytes=-5", 0) is None

    with pytest.raises(Unsatisfiable):
        parse_range(b"bytes=0-", 0)


def test_any_header_gives_the_whole_a_refusal_or_a_span_inside_the_file() -> None:
    seed = random.randrange(2**32)
    rng = random.Random(seed)
    spans = 0
    for _ in range(5000):
        size = rng.choice([0, 1, 2, 7, 100, 2**40])
        if rng.random() < 0.5:
            numbers = [rng.choice([b"", b"%d" % rng.randrange(120)]) for _ in range(2)]
            header = b"bytes=" + b"-".join(numbers)
        else:
            header = bytes(rng.choices(b"bytes=-, 0123456789\x00\xff", k=rng.randrange(12)))
        try:
            span = parse_range(header, size)
        except Unsatisfiable:
            continue
        if span is not None:
            spans += 1
            assert 0 <= span[0] < span[1] <= size, (seed, header, size)
    assert spans > 100, seed  # else the headers drawn say nothing


def test_pieces_of_a_resumed_file_fit_together() -> None:
    data = bytes(range(256))
    for cut in range(256):
        start, stop = parse_range(b"bytes=%d-" % cut, len(data)) or (0, 0)

        assert data == data[:cut] + data[start:stop]


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, (5, 10)),
        (ETAG, (5, 10)),
        (DATE, (5, 10)),
        (b'"other"', None),
        (b"W/" + ETAG, None),  # a weak tag promises nothing about bytes
        (b"Sun, 06 Nov 1994 08:49:38 GMT", None),
    ],
)
def test_a_range_is_given_only_of_the_file_that_was_meant(condition, expected) -> None:
    headers = {b"range": b"bytes=5-"} | ({b"if-range": condition} if condition else {})

    assert expected == ranges.asked(headers, ranges.validators(ETAG, THEN), 10)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({}, False),
        ({b"if-none-match": ETAG}, True),
        ({b"if-none-match": b"W/" + ETAG}, True),
        ({b"if-none-match": b'"other", ' + ETAG}, True),
        ({b"if-none-match": b"*"}, True),
        ({b"if-none-match": b'"other"'}, False),
        ({b"if-none-match": b'"other"', b"if-modified-since": DATE}, False),  # the tag wins
        ({b"if-modified-since": DATE}, True),
        ({b"if-modified-since": b"Sun, 06 Nov 1994 08:49:36 GMT"}, False),
        ({b"if-modified-since": b"yesterday"}, False),
        ({b"if-modified-since": b"\xff"}, False),
        ({b"if-modified-since": b"Sun, 06 Nov 99999 08:49:37 GMT"}, False),
    ],
)
def test_a_copy_is_fresh_if_its_tag_or_its_date_says_so(headers, expected) -> None:
    assert expected == ranges.is_fresh(headers, ETAG, THEN)


def test_a_body_without_validators_is_never_fresh_by_them() -> None:
    assert [] == ranges.validators(b"", None)
    assert not ranges.is_fresh({b"if-none-match": b""}, b"", None)
    assert not ranges.is_fresh({b"if-modified-since": DATE}, b"", None)
