"""toml_lines: the line of every key, whatever TOML lets stand around it."""

from __future__ import annotations

import tomllib

from appliance.config import Config
from appliance.toml_lines import _Walk, lines_of
from lab.lab import toml

TEXT = '''\
# [not.a.table]
title = "a # b"  # comment = 1
a.b . "c" = 1

[server]  # first
ports = [ 1, 2, # three ]
  { x = 1 }, [ "]", ']' ],
]
text = """
[fake]
key = 1
"quoted" ""\\""""
raw = \'\'\'
it's = 1\'\'\'\'
when = 1979-05-27 07:32:00
inline = { one = 1, two = { three = "}" }, "four" = [] }

  [server . inner]
deep = true

[[hosts]]
name = "x"
[[hosts]]
name = "y"
'''


def test_every_key_is_found_where_it_first_stands():
    assert tomllib.loads(TEXT)  # it is what it says
    assert {
        "title": 2,
        "a": 3,
        "a.b": 3,
        "a.b.c": 3,
        "server": 5,
        "server.ports": 6,
        "server.ports.x": 7,
        "server.text": 9,
        "server.raw": 13,
        "server.when": 15,
        "server.inline": 16,
        "server.inline.one": 16,
        "server.inline.two": 16,
        "server.inline.two.three": 16,
        "server.inline.four": 16,
        "server.inner": 18,
        "server.inner.deep": 19,
        "hosts": 21,
        "hosts.name": 22,
    } == lines_of(TEXT)


def test_nothing_has_no_keys():
    assert {} == lines_of("")
    assert {} == lines_of("# only\\n\\n")


def test_every_key_of_a_whole_configuration_is_found():
    text = toml(Config())
    lines = text.splitlines()

    def keys(table, before=""):
        for key, value in table.items():
            yield before + key
            if isinstance(value, dict):
                yield from keys(value, f"{before}{key}.")

    found = lines_of(text)
    assert {*keys(tomllib.loads(text))} == {*found}
    assert all(key.rpartition(".")[2] in lines[line - 1] for key, line in found.items())


class _Counted(str):
    """Text that knows how much of it was looked through for ends of lines."""

    looked = 0

    def count(self, sub, start=0, end=None):
        self.looked += (len(self) if end is None else end) - start
        return super().count(sub, start, end)


def test_no_line_is_counted_twice():
    text = _Counted("".join(f"[t{n}]\na.b = {{c = {n}}}\n" for n in range(500)))
    walk = _Walk(text)
    walk.document()

    assert (1, 999) == (walk.lines["t0"], walk.lines["t499"])
    assert text.looked <= len(text)
