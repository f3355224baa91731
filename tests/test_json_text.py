"""JSON from outside: as it arrives, measured; once it is whole, what json itself would say."""

from __future__ import annotations

import json
import random
import time
import tracemalloc

import pytest

from appliance import json_text
from appliance.errors import BadRequest
from appliance.json_text import DEPTH_MAX, LONG_BYTES, NUMBER_CHARS_MAX, Long, Reader

SEED = 20260102
MEGABYTE = 2**20


def read(text, *, values=10_000, most=MEGABYTE, pieces=None, depth=DEPTH_MAX):
    reader = Reader(values, most, depth)
    data = text if isinstance(text, bytes) else text.encode()
    for piece in pieces or [data]:
        reader.feed(piece)
    return reader.value()


def cut(data, rng):
    """`data` in pieces, most of them short."""
    pieces = []
    while data:
        size = rng.choice([0, 1, 1, 2, 3, 50])
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def anything(rng, depth=0):
    words = ["", "a", 'q"q', "b\\", "\\\\", "\n\t\x00\x1f", "é", "漢", "🐧", "[{,:}]", "NaN",
             "\ud800", 0, -1, 2**70, 1.5, -1e300, True, False, None]  # fmt: skip
    if depth < 4 and rng.random() < 0.5:
        parts = [anything(rng, depth + 1) for _ in range(rng.randrange(5))]
        return parts if rng.random() < 0.5 else {str(part): part for part in parts}
    return rng.choice(words)


def test_whatever_json_says_is_read_wherever_it_is_cut():
    print("seed", SEED)
    rng = random.Random(SEED)
    for _ in range(1000):
        said = anything(rng)
        ascii_only, indent = rng.random() < 0.5, rng.choice([None, None, 1])
        text = json.dumps(said, ensure_ascii=ascii_only, indent=indent)
        data = text.encode(errors="replace")

        assert json.loads(data) == read(data, pieces=cut(data, rng)), data


def test_what_json_does_not_take_is_refused_wherever_it_is_cut():
    print("seed", SEED)
    rng = random.Random(SEED)
    for _ in range(2000):
        data = bytearray(json.dumps(anything(rng)).encode())
        for _ in range(rng.randrange(1, 4)):
            data[rng.randrange(len(data))] = rng.choice(b'"\\[]{},: 0aN\x00\x80')
        data = bytes(data)
        try:
            said = json.loads(data, parse_constant=no_constant)
        except ValueError:
            with pytest.raises(BadRequest):
                read(data, pieces=cut(data, rng))
        else:
            assert said == read(data, pieces=cut(data, rng)), data


def no_constant(word):
    raise ValueError(word)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1,]", "NaN", "[Infinity]", "-Infinity", '"a', '"a\\', '{"a"}', "1 2", "]", "[}",
     '"\x00"', '"\n"', b'"\xff"', b"\xff", b'[1\x00]', "[1]]"],
)  # fmt: skip
def test_what_is_no_json_is_refused_with_that_word(text):
    with pytest.raises(BadRequest, match="is no JSON"):
        read(text)


FORMS = {
    "lists": lambda n: "[" + ",".join(["[]"] * (n // 2) * 4) + "]",
    "numbers": lambda n: "[" + ",".join("0" * n) + "]",
    "maps": lambda n: "[" + ",".join(['{"":0}'] * (n // 3)) + "]",
    "names": lambda n: "{" + ",".join(f'"k{i}":0' for i in range(n // 2)) + "}",
    "strings": lambda n: "[" + ",".join(['""'] * n) + "]",
    "strings and nothing between": lambda n: '""' * (n + 1),
    "colons": lambda n: ":" * (n + 1),
    "open lists": lambda n: "[[],[" * n,
}


@pytest.mark.parametrize("form", FORMS)
def test_more_than_so_many_values_are_refused_before_they_are_made(form):
    data = FORMS[form](400_000).encode()
    tracemalloc.start()
    began, fed = time.process_time(), 0
    reader = Reader(40_000, 10 * MEGABYTE)

    def feed():
        nonlocal fed
        for at in range(0, len(data), 2**13):
            fed += 2**13
            reader.feed(data[at : at + 2**13])

    with pytest.raises(BadRequest, match=r"names and values|nested"):
        feed()
    taken = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert fed < 300_000 < len(data)
    assert taken < 1
    assert peak < 3 * MEGABYTE


def test_so_many_values_are_taken_and_not_one_more():
    assert [0] * 100 == read("[" + ",".join("0" * 100) + "]", values=100)
    with pytest.raises(BadRequest, match="more than 100 names and values"):
        read("[" + ",".join("0" * 101) + "]", values=100)


def test_lists_nest_so_deep_and_no_deeper():
    read("[" * 5 + "]" * 5, depth=5)
    read('{"a":' * 5 + "0" + "}" * 5, depth=5)
    read("[" + "[[]]," * 50 + "0]", depth=3)
    for deep in ("[" * 6 + "]" * 6, '{"a":' * 6 + "0" + "}" * 6, "[" * 10**6):
        with pytest.raises(BadRequest, match="nested more than 5 deep"):
            read(deep, depth=5)


def test_what_looks_like_structure_in_a_string_is_none():
    said = {"script": '[{,:"\\' * 1000}

    assert said == read(json.dumps(said), values=3, depth=1)


def test_a_long_number_is_refused_and_takes_no_time():
    assert [10**99, 1.5] == read("[1" + "0" * 99 + ", 1.5]")
    for number in ("1" * 10**6, "0." + "1" * 10**6, "1" * (NUMBER_CHARS_MAX + 1)):
        began = time.process_time()
        with pytest.raises(BadRequest, match="a number of more than"):
            read(number)
        assert time.process_time() - began < 0.2


def test_a_long_string_is_kept_as_it_came_and_a_shorter_one_is_text():
    text = "x" * LONG_BYTES
    rng = random.Random(SEED)
    data = json.dumps({"a": text, "b": [text + "\n" + text, "c"], "d": "é" + text}).encode()
    for pieces in ([data], [data[at : at + 999] for at in range(0, len(data), 999)],
                   cut(data, rng)):  # fmt: skip
        said = read(data, pieces=pieces)

        assert text == said["a"]
        assert isinstance(said["b"][0], Long)
        assert (text + "\n" + text).encode() == said["b"][0].plain()
        assert json.loads(data) == json_text.written_out(said)


def test_a_long_strings_escapes_are_read_as_json_has_them():
    long = "y" * LONG_BYTES
    for raw, meant in (("\\t", "\t"), ("\\n", "\n"), ("\\/", "/"), ("\\r", "\r"), ("\\u0041", "A"),
                       ("\\\\n", "\\n"), ('\\"', '"')):  # fmt: skip
        said = read(f'["{raw}{long}{raw}"]')[0]

        assert meant + long + meant == said.text()
        assert (meant + long + meant).encode() == said.plain()
    for wrong in (f'["{long}\\x"]', f'["{long}\\u12"]'):
        with pytest.raises(BadRequest, match="is no JSON"):
            read(wrong)[0].text()


def test_a_long_string_is_no_name():
    with pytest.raises(BadRequest, match="is no JSON"):
        read(f'{{"{"x" * (LONG_BYTES + 1)}": 1}}')


def test_text_besides_long_strings_has_a_limit_of_its_own():
    long = "x" * (3 * LONG_BYTES)
    assert isinstance(read(f'["{long}"]', most=LONG_BYTES + 3)[0], Long)
    short = "x" * (LONG_BYTES // 2)
    with pytest.raises(BadRequest, match="besides its packages"):
        read(f'["{short}", "{short}", "{short}"]', most=LONG_BYTES)
    with pytest.raises(BadRequest, match="besides its packages"):
        read(" " * (LONG_BYTES + 1), most=LONG_BYTES)


def test_a_wide_character_in_ten_megabytes_is_no_forty():
    data = b'{"a": "\xf0\x9f\x90\xa7", "b": "' + b"x" * (10 * MEGABYTE) + b'"}'
    reader = Reader(100, MEGABYTE)
    tracemalloc.start()
    for at in range(0, len(data), 2**16):
        reader.feed(data[at : at + 2**16])
    said = reader.value()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert "🐧" == said["a"]
    assert 10 * MEGABYTE == len(said["b"].raw)
    assert peak < 15 * MEGABYTE


def test_a_small_text_is_read_at_once():
    assert {"a": ["é"]} == json_text.load('{"a": ["é"]}', 10)
    with pytest.raises(BadRequest, match="is larger"):
        json_text.load('"' + "x" * LONG_BYTES + '"', 10)
    with pytest.raises(BadRequest, match="more than 10 names"):
        json_text.load("[" + "0," * 11 + "0]", 10)
