"""yaml_edit: what a person wrote around the keys that change stays.

What a text means is what PyYAML reads in it, here as in the server.
"""

from __future__ import annotations

import random
import re

import pytest
import yaml

from appliance import yaml_edit, yaml_text

RACK = """\
# rack 7, the one by the window: ask ann before you unplug it
mac: 52:54:00:00:00:01   # the left port

queues: [default, 'yes']
memory: 4G
# its disks
rootfs_disk:
    - /dev/sda   # slow
    - /dev/sdb
"""


def meaning(text):
    return yaml_text.load(text)


def stock(text):
    """As other people's programs read it; the MAC of the file by hand is a number to them."""
    return {**yaml.safe_load(text), "mac": meaning(text)["mac"]}


def test_comments_order_quotes_and_indents_of_the_rest_stay():
    wanted = {**meaning(RACK), "memory": "8G", "tags": ["rack-7"]}

    assert RACK.replace("4G", "8G") + "tags:\n    - rack-7\n" == yaml_edit.changed(RACK, wanted)


def test_what_is_asked_for_already_changes_no_byte():
    assert RACK == yaml_edit.changed(RACK, meaning(RACK))


def test_a_key_that_is_not_wanted_goes_and_the_comments_of_others_stay():
    wanted = {key: value for key, value in meaning(RACK).items() if key != "memory"}
    made = yaml_edit.changed(RACK, wanted)

    assert wanted == meaning(made)
    assert "memory" not in made
    assert ["# rack 7, the one by the window: ask ann before you unplug it", "# its disks"] == [
        line for line in made.splitlines() if line.startswith("#")
    ]


@pytest.mark.parametrize(
    "value",
    ["yes", "no", "on", "null", "~", "", "012", "0x1f", "1e3", "1_000", "1:30", "2026-11-30", ".5",
     "52:54:00:00:00:02",
     "- a", "a: b", "a #b", "#a", "&a", "*a", "!a", "[a", "{a", "%a", "@a", "`a", "'", '"', "\\",
     " a", "a ", "a\nb", "\t", "\u2028", "<<", "=", True, False, None, 0, 12, -1, 1.5,
     [], {}, ["yes", 1, [True]], {"a": {"b": ["012"]}}],
)  # fmt: skip
def test_each_value_reads_back_as_itself(value):
    wanted = {"mac": "52:54:00:00:00:01", "value": value}
    made = yaml_edit.changed("mac: 52:54:00:00:00:01  # left\n", wanted)

    assert "# left" in made
    for read in (meaning, stock):  # lkp's own tools are not ours
        assert [(type(one), one) for one in wanted.values()] == [
            (type(one), one) for one in read(made).values()
        ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("- a list\n", {"a": 1}),
        ("", {"a": 1}),
        ("a: [", {"a": 1}),
        ("a: 1\na: 2\n", {"a": 2}),
        ("base: &b {x: 1}\n<<: *b\n", {"base": {"x": 1}}),  # x comes from the merge and would stay
        ("a: 1\n" + "#" * yaml_edit.CHARACTERS_MAX, {"a": 2}),
    ],
)
def test_what_cannot_be_changed_in_place_is_said_so(text, wanted):
    assert None is yaml_edit.changed(text, wanted)


def test_one_zero_and_true_are_three_values():
    made = yaml_edit.changed("a: 1\nb: true\nc: 0\n", {"a": True, "b": 1, "c": False})

    assert [True, 1, False] == list(meaning(made).values())
    assert [bool, int, bool] == [type(one) for one in meaning(made).values()]


@pytest.mark.parametrize("seed", range(30))
def test_any_change_to_any_file_means_what_it_should(seed):
    draw = random.Random(seed)
    words = ["yes", "a", "012", "1.5", "x: y", "# no", "ümlaut", 3, 0, True, None, 2.5]

    def value(depth=0):
        kind = draw.randrange(5 if depth < 2 else 3)
        if kind == 3:
            return [value(depth + 1) for _ in range(draw.randrange(3))]
        if kind == 4:
            return {f"k{n}": value(depth + 1) for n in range(draw.randrange(3))}
        return draw.choice(words)

    before = {f"key{n}": value() for n in range(draw.randrange(1, 8))}
    flow = draw.choice([None, True, False])
    lines = yaml.safe_dump(before, sort_keys=False, default_flow_style=flow).splitlines()
    text = "\n".join(["# the first line", *lines, ""])
    wanted = {
        key: draw.choice([one, value()]) for key, one in before.items() if draw.random() < 0.8
    }
    wanted["new"] = value()

    made = yaml_edit.changed(text, wanted)

    print(f"seed {seed}\n{text}\n---\n{made}")
    assert made is not None
    assert wanted == meaning(made)
    assert made.startswith("# the first line")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (
            "mac:\n- a # left card\n# 8G only: bank B is broken\nmemory: 8G\n",
            {"mac": ["a", "b"], "memory": "8G"},
        ),
        ("queues:\n- a\n- b # slow\n# the last word\n", {"queues": ["b"]}),
        ("queues: # which\n  - a\n# end\n", {"queues": ["a", "b"], "new": "12"}),
        ("# first\na: [1, # one\n  2]\n# last\nb: 3\n", {"a": [1], "b": 3}),
    ],
)
def test_no_comment_goes_with_a_list_that_changes(text, wanted):
    made = yaml_edit.changed(text, wanted)

    print(made)
    assert wanted == meaning(made) == yaml.safe_load(made)
    for note in re.findall("#.*", text):
        assert note in made


def test_a_key_of_a_merge_in_flow_style_is_left_to_whoever_asks():
    text = "<<: {mac: [a], from_providers: [mac], memory: 8G}\n"

    assert None is yaml_edit.changed(text, {"memory": "8G"})
