"""The frames of state files: what is whole, what is torn, what is damaged."""

from __future__ import annotations

import random

import pytest

from appliance.errors import BadState
from appliance.keep.state import frames

FRAMES = b"".join(frames.frame(bytes([65 + n]) * n, n) for n in (3, 1, 7))
ENDS = [0, 23, 44, 71]


def whole(data, start=0):
    return [part.payload for part in frames.parts(data, start) if part.payload is not None]


def last(data):
    return list(frames.parts(data, 0))[-1]


def test_frames_read_back_with_their_numbers():
    assert [b"DDD", b"B", b"HHHHHHH"] == whole(FRAMES)
    assert [3, 1, 7] == [part.number for part in frames.parts(FRAMES, 0)]
    assert ENDS[1:] == [part.end for part in frames.parts(FRAMES, 0)]
    assert [] == whole(b"")


@pytest.mark.parametrize("cut", range(len(FRAMES) + 1))
def test_every_prefix_ends_before_its_torn_record(cut):
    kept = max(end for end in ENDS if end <= cut)

    assert whole(FRAMES)[: ENDS.index(kept)] == whole(FRAMES[:cut])
    assert cut == kept or last(FRAMES[:cut]).torn


def test_a_tail_of_zeros_is_a_torn_record():
    """A file whose size was made durable before its bytes, as ext4 and XFS may after power loss."""
    for zeros in (1, 7, 8, 9, 4096):
        assert whole(FRAMES) == whole(FRAMES + bytes(zeros))
        assert last(FRAMES + bytes(zeros)).torn


def test_a_last_record_that_lacks_any_of_its_sectors_is_torn():
    payload = random.Random(1).randbytes(4000).replace(b"\0", b"x")
    data = frames.frame(b"x", 0) + frames.frame(payload, 1)
    for start in range(0, len(data), frames.SECTOR_BYTES):
        begin, end = max(start, 21), min(start + frames.SECTOR_BYTES, len(data))
        lost = data[:begin] + bytes(end - begin) + data[end:]
        assert [b"x"] == whole(lost)
        assert last(lost).torn, start


@pytest.mark.parametrize("place", range(len(FRAMES)))
@pytest.mark.parametrize("bit", range(8))
def test_any_flipped_bit_is_damage_where_it_is_and_never_a_torn_record(place, bit):
    data = bytearray(FRAMES)
    data[place] ^= 1 << bit
    at = max(end for end in ENDS if end <= place)
    part = last(bytes(data))

    assert (at, None, False) == (part.start, part.payload, part.torn)
    assert "checksum" in part.why
    assert whole(FRAMES)[: ENDS.index(at)] == whole(bytes(data))


def test_a_head_of_zeros_before_whole_records_is_damage():
    assert not last(bytes(600) + FRAMES).torn
    assert last(bytes(600)).torn


def test_what_is_whole_behind_damage_is_found():
    data = FRAMES[:10] + b"?" + FRAMES[11:] + b"rubbish" + frames.frame(b"far", 9)
    found = list(frames.whole_behind(data, 0))

    assert [(23, b"B", 1), (44, b"HHHHHHH", 7), (78, b"far", 9)] == [
        (part.start, part.payload, part.number) for part in found
    ]


def test_a_length_that_no_record_has_is_damage():
    assert "head does not fit" in last(b"\xff" * 40).why


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
        (b"appliance journal 3\n", "a newer appliance: journal version 3 is newer than this"),
        (b"appliance journal 99999\n", "is newer"),
    ],
)
def test_a_header_that_is_not_ours_is_refused(data, word):
    with pytest.raises(BadState, match=word):
        frames.check_header(data, frames.JOURNAL, "f")


def test_the_headers_and_frames_are_these_bytes():
    assert b"appliance journal 2\n" == frames.JOURNAL_HEADER
    assert 20 == frames.check_header(b"appliance journal 1\nrest", frames.JOURNAL, "f")
    # CRC32C of "123456789" is e3069283, as every catalogue of checksums says
    head = b"\x09\0\0\0" + bytes.fromhex("839206e3") + b"\x05" + bytes(7)
    framed = frames.frame(b"123456789", 5)

    assert head == framed[:16]
    assert b"123456789" == framed[20:]
