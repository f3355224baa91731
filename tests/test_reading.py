"""YAML with line numbers, and what no document may hold."""

from __future__ import annotations

import contextlib
import time
import tracemalloc

import pytest
import yaml

from appliance import yaml_text
from appliance.errors import BadDocument
from appliance.jobs.documents import reading
from appliance.jobs.documents.reading import PROBLEMS_MAX
from appliance.yaml_text import DEPTH_MAX, VALUES_MAX


def fields(text, before=None, after=None):
    found = reading.read(text, before or {}, after or {})
    assert [] == found.problems
    return found.fields


def problems(text, before=None, after=None):
    try:
        found = reading.read(text, before or {}, after or {}).problems
    except BadDocument as error:
        found = error.problems
    return [(problem.field, problem.line, problem.message) for problem in found]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("12", 12),
        ("-3", -3),
        ("0", 0),
        ("0.5", 0.5),
        ("22.10", "22.10"),
        ("1e3", "1e3"),
        ("1.0e+3", "1.0e+3"),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("010", "010"),
        ("0x1f", "0x1f"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),
        ("999999999999999999", 999999999999999999),
        ("9999999999999999999", "9999999999999999999"),
        ("2021-09-23", "2021-09-23"),
        ("yes", True),
        ("~", None),
        ("'12'", "12"),
        ("[1, 22.10, a]", [1, "22.10", "a"]),
        ("{a: 010}", {"a": "010"}),
    ],
)
def test_a_number_is_one_only_if_it_prints_as_it_was_written(written, read):
    assert {"a": read} == fields(f"a: {written}\n")


def test_nothing_at_all_has_no_fields():
    assert {} == fields("")
    assert {} == fields("# only a comment\n")


@pytest.mark.parametrize("text", ["[a]", "word", "3", "- a\n- b\n"])
def test_what_is_no_mapping_is_refused(text):
    assert [("yaml", 1, "must be a mapping of fields, such as `suite: x`")] == problems(text)


def test_a_second_document_in_the_same_text_is_refused():
    [(field, line, message)] = problems("a: 1\n---\nb: 2\n")

    assert ("yaml", 2) == (field, line)
    assert "file of its own" in message


@pytest.mark.parametrize(
    "text", ["a: [1\n", "a: 'x\n", "a: b: c\n", "\ta: 1\n", "a: *nowhere\n", "%\n", "a: \x01\n"]
)
def test_what_is_no_yaml_is_refused_with_that_word(text):
    [(field, _, message)] = problems(text)

    assert "yaml" == field
    assert message.startswith("not YAML")


@pytest.mark.parametrize("character", ["\0", "\x01", "\x7f", "\ufffe"])
def test_a_character_that_no_yaml_holds_is_named_with_its_line(character):
    [(field, line, message)] = problems(f"a: 1\nb: \U0001f600\nc: é{character}\n")

    assert ("yaml", 3) == (field, line)
    assert f"not YAML: holds the control character {character!r}" == message


def test_text_that_is_no_utf_8_is_refused():
    assert [("yaml", None, "not YAML: is no UTF-8")] == problems("a: \udcff\n")


def test_a_field_given_twice_names_both_lines_and_the_first_stands():
    found = reading.read("a: 1\nb: 2\na: 3\n", {}, {})

    assert ["line 3: a: is there already, in line 1"] == [str(p) for p in found.problems]
    assert {"a": 1, "b": 2} == found.fields


@pytest.mark.parametrize("key", ['"a\\nb"', '"\\e[31m"', '""', "[a]", "{a: b}"])
def test_a_fields_name_is_one_printable_word(key):
    [(field, line, message)] = problems(f"x: 1\n? {key}\n: 2\n")

    assert ("yaml", 2, "a field's name must be one word") == (field, line, message)


@pytest.mark.parametrize("character", ["\\0", "\\a", "\\r", "\\e", "\\x7f", "\\x85", "\\x9b"])
@pytest.mark.parametrize("place", ['"{}"', '[x, "{}"]', '{{x: "{}"}}', '{{"{}": x}}'])
def test_a_control_character_is_refused_wherever_it_hides(character, place):
    [(field, line, message)] = problems("x: 1\na: " + place.format(f"b{character}c") + "\n")

    assert ("a", 2) == (field, line)
    assert "control character" in message


def test_tabs_newlines_and_every_other_script_of_the_world_are_text():
    assert {"a": "x\ty\nz ü 漢 🐧"} == fields('a: "x\\ty\\nz ü 漢 🐧"\n')


@pytest.mark.parametrize(
    "value", ["!!binary aGk=", "!!timestamp 2021-01-01", "!!set {a, b}", "!!omap [a: 1]"]
)
def test_only_json_types_are_understood(value):
    [(field, line, message)] = problems(f"a: {value}\n")

    assert ("a", 1) == (field, line)
    assert "only text, numbers, lists and maps" in message


@pytest.mark.parametrize(
    "value", ["!!python/object/apply:os.system [id]", "!x y", "!!int {=: [5]}"]
)
def test_what_cannot_be_built_is_refused_with_its_field(value):
    [(field, line, message)] = problems(f"a: {value}\n")

    assert ("a", 1) == (field, line)
    assert message.startswith("cannot be read")


def nested(depth):
    return "a: " + "[" * depth + "1" + "]" * depth + "\n"


def test_lists_nest_as_deep_as_allowed_and_no_deeper():
    fields(nested(DEPTH_MAX - 1))

    assert "nested more than" in problems(nested(DEPTH_MAX))[0][2]
    assert "nested more than" in problems(nested(DEPTH_MAX + 1))[0][2]


@pytest.mark.parametrize("opening", ["a: " + "[" * 10**5, "a:\n  " + "- " * 10**6, "{a: " * 10**5])
def test_a_text_that_would_overflow_the_c_stack_is_refused(opening):
    [(field, _, message)] = problems(opening)

    assert "yaml" == field
    assert "nested more than 32 deep" in message


def test_a_command_lines_value_is_measured_too():
    [(field, _, message)] = problems("", after={"a": "[" * 10**5})

    assert "a" == field
    assert "is not YAML" in message
    assert "nested more than" in message
    assert len(message) < 150


def test_as_many_values_as_allowed_are_read_and_one_more_is_refused():
    line = "a: [" + "1," * (VALUES_MAX - 2)
    assert VALUES_MAX - 2 == len(fields(line + "]\n")["a"])

    assert [("yaml", None, f"holds more than {VALUES_MAX} values")] == problems(line + "1,1]\n")


def test_a_bomb_of_aliases_is_refused():
    layers = "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))

    assert [("yaml", None, f"holds more than {VALUES_MAX} values")] == problems(
        "a0: &a0 [x, x]\n" + layers
    )


# Small texts that each level makes so many times larger: a forest of forms of the same trick.
DOUBLES = {
    "merges in a list": lambda n: (
        "m: [&m0 {k: v}"
        + "".join(f", &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}" for i in range(1, n))
        + "]"
    ),
    "merges of fields": lambda n: (
        "m0: &m0 {k: v}\n"
        + "".join(f"m{i}: &m{i} {{<<: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, n))
    ),
    "merges by tag": lambda n: (
        "m0: &m0 {k: v}\n"
        + "".join(f"m{i}: &m{i} {{!!merge x: [*m{i - 1}, *m{i - 1}]}}\n" for i in range(1, n))
    ),
    "merges within merges": lambda n: (
        "m0: &m0 {k: v}\n"
        + "".join(
            f"m{i}: &m{i} {{<<: {{<<: *m{i - 1}}}, b: {{<<: *m{i - 1}, c: *m{i - 1}}}}}\n"
            for i in range(1, n)
        )
    ),
    "aliases as values": lambda n: (
        "m0: &m0 [x]\n"
        + "".join(f"m{i}: &m{i} {{a: *m{i - 1}, b: *m{i - 1}}}\n" for i in range(1, n))
    ),
}  # fmt: skip


@pytest.mark.parametrize("trick", DOUBLES)
def test_a_text_that_doubles_with_each_level_is_refused_before_it_is_built(trick):
    """Twenty-six levels are 700 bytes, and would take minutes."""
    for levels in (16, 26, 200):
        began = time.process_time()
        told = problems(DOUBLES[trick](levels) + "\n")

        assert [("yaml", None, f"holds more than {VALUES_MAX} values")] == told
        assert time.process_time() - began < 1
        with pytest.raises(yaml.YAMLError, match="holds more than"):
            yaml_text.load(DOUBLES[trick](levels) + "\n")


@pytest.mark.parametrize("trick", DOUBLES)
def test_what_doubles_a_few_times_only_is_read(trick):
    text = DOUBLES[trick](5) + "\n"

    assert yaml.safe_load(text) == fields(text) == yaml_text.load(text)


@pytest.mark.parametrize(
    "value",
    ["&a [*a]", "&a {b: *a}", "&a {k: v, <<: *a}", "&a [{b: [*a]}]", "&a {k: v"
     + ", <<: *a" * 60 + "}", "&a {k: v, <<: [" + "*a," * 60 + "]}", "&a [&a [*a, *a], *a]"],
)  # fmt: skip
def test_what_is_within_itself_is_refused(value):
    """It has no end to be measured, and a merge of it doubles with each time."""
    [(field, line, message)] = problems(f"x: 1\na: {value}\n")

    assert ("yaml", 2) == (field, line)
    assert "stands for something that it is in itself" in message
    with pytest.raises(yaml.YAMLError, match="in itself"):
        yaml_text.load(value)


def test_a_command_lines_value_has_no_more_room_than_the_document():
    trick = DOUBLES["merges in a list"](26).removeprefix("m: ")

    assert [("a", None)] == [(f, line) for f, line, _ in problems("", after={"a": trick})]
    assert "holds more than" in problems("", before={f"k{n}": "[" + "x," * 9000 + "]"
                                                     for n in range(5)})[0][2]  # fmt: skip


ODD = ["!!bool x", "!!bool [a]", "!!int [1]", "!!int {=: 5}", "!!float {a: b}", "!!float x",
       "!!null {a: b}", "!!timestamp x", "!!timestamp 2021-99-99", "!!binary [a]", "!!binary é",
       "!!str [a]", "!!seq x", "!!map x", "!!omap {a: b}", "!!pairs [a]", "!!set [a]", "!!merge x",
       "!!value x", "{<<: x}", "{<<: [x]}", "{<<: {<<: x}}", "&a {<<: *a}", "&a {<<: [*a]}",
       "&a {*a : b}", "{=: x}", "{[a]: b}", "{{a: b}: c}", "!<> x", "!!python/name:os.system x",
       "!!python/tuple [1]", "! x", "=", "<<", "!!merge [a]"]  # fmt: skip


@pytest.mark.parametrize("value", ODD)
def test_a_tag_that_does_not_fit_is_a_mistake_and_no_failure_of_ours(value):
    text = f"a: {value}\n"
    try:
        found = reading.read(text, {}, {})
    except BadDocument as error:
        found = error

    assert found.problems or "a" in found.fields
    with contextlib.suppress(yaml.YAMLError):
        yaml_text.load(text)


def test_a_flood_of_problems_is_cut():
    floods = [
        "".join(f'k{n}: "\\0"\n' for n in range(200)),
        "a: 1\n" * 200,
        "[x]: 1\n" * 200,
        "".join(f"k{n}: !x y\n" for n in range(200)),
    ]
    for text in floods:
        found = reading.read(text, {}, {})

        assert PROBLEMS_MAX == len(found.problems)


def test_a_mistake_is_told_in_few_words_whatever_it_is_about():
    long = "x" * 300_000
    for text in (f"? {long}\n: '\\0'\n? {long}\n: 1\n", f'a: !{long} b\n', f"a: *{long}\n",
                 f'? {long}\n: "\\0"\n'):  # fmt: skip
        told = problems(text)

        assert told
        assert len(str(told)) < 1500


def test_before_fills_what_is_missing_and_after_overrides():
    text = "a: text\nb: text\n"

    assert {"a": "text", "b": "text", "c": "before"} == fields(text, {"a": "x", "c": "before"})
    assert {"a": "text", "b": "after", "d": 4} == fields(text, None, {"b": "after", "d": "4"})
    assert {"a": "after"} == fields("", {"a": "before"}, {"a": "after"})


def test_an_empty_field_in_the_text_hides_what_came_before():
    assert {"a": None} == fields("a:\n", {"a": "before"})


def test_a_command_lines_value_is_read_as_yaml_and_has_no_line():
    found = reading.read("a: 1\n", {"b": "[x, y]"}, {"a": "22.10", "c": "''"})

    assert {"a": "22.10", "b": ["x", "y"], "c": ""} == found.fields
    assert {} == found.lines


@pytest.mark.parametrize("key", ["", "a b", "1a", "a\nb", "a=b", "$x", "ä", "-x"])
def test_a_command_lines_key_that_is_no_fields_name_is_refused(key):
    assert "no field's name" in problems("", {key: "1"})[0][2]
    assert "no field's name" in problems("", None, {key: "1"})[0][2]


def test_the_nearest_field_is_found_and_none_where_nothing_is_near():
    found = reading.read("scirpt: x\nos: y\n", {}, {})

    assert "scirpt" == found.nearest("script")
    assert found.nearest("kernel_uri") is None


def test_load_reads_a_small_text_and_refuses_a_deep_one():
    assert {"mac": "52:54:00:12:34:56"} == yaml_text.load("mac: 52:54:00:12:34:56\n")
    with pytest.raises(yaml.YAMLError, match="nested more than"):
        yaml_text.load("[" * 10**5)


def test_a_long_text_is_not_asked_whether_it_is_a_number():
    """Python's expressions remember 70 MB of a megabyte of `1:1:1`, and hold the interpreter."""
    text = "1" + ":1" * 200_000
    tracemalloc.start()
    try:
        said = reading.read(f"x: {text}\n", {}, {}).fields["x"]
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert text == said
    assert most < 20 * len(text)
    assert 7 == reading.read("x: 7\n", {}, {}).fields["x"]
