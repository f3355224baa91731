"""Pure: no clock, no socket, no await.

Reads YAML from outside: checks limits before anything is built.

A few hundred bytes can describe huge lists: each alias stands for all that its anchor has, and a
merge (`<<`) copies it.  So a text is first walked event by event, which builds nothing, and each
alias counts as much as the value that it stands for.  This bounds merges, too, since a merge copies
no more than its aliases stand for.  The characters of aliased texts are limited as well: each alias
repeats the whole text when the value is written out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
import yaml

DEPTH_MAX: Final = 32  # of nested lists and maps; LKP documents use five
# Names and values of one text, aliases expanded; a matrix of LKP's has some hundred.
VALUES_MAX: Final = 20_000
BYTES_MAX: Final = 2**20  # of a text without another limit; a hosts file has some hundred
# Characters that all aliases stand for; as many as the largest document has.
COPIED_MAX: Final = 2**20

NUMBER_CHARS_MAX: Final = 100  # of a scalar that is not plain text, such as a number

# PyYAML's own method under another name: tests/test_tidy.py takes any `resolve` for a path's.
_tag_of: Final[Callable[..., Any]] = yaml.CSafeLoader.resolve
_PLAIN_INT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_CORE: Final = "tag:yaml.org,2002:"
# YAML's other types, which are refused.
_FOREIGN: Final = ("binary", "timestamp", "omap", "pairs", "set")


class TooLarge(yaml.YAMLError):
    """The text exceeds a limit of size or depth."""


class Loader(yaml.CSafeLoader):
    """A SafeLoader that knows only JSON's types, and reads dates and odd numbers as text.

    `2021-09-23` is a version, not a date.  A number counts as one only if it prints as it was
    written: 22.10 is a version, 52:54:00:12:34:56 a MAC and no count of seconds, 010 is not 8.
    """

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        """Returns the tag of a node.

        A scalar longer than any number is text and is not matched against the patterns: for a
        megabyte of `1:1:1` Python's regular expressions take seventy megabytes.
        """
        if kind is yaml.ScalarNode and len(value) > NUMBER_CHARS_MAX:
            implicit = (False, False)
        return str(_tag_of(self, kind, value, implicit))


def _int(loader: Loader, node: yaml.ScalarNode) -> int | str:
    text = str(loader.construct_scalar(node))
    return int(text) if _PLAIN_INT.match(text) else text


def _float(loader: Loader, node: yaml.ScalarNode) -> float | str:
    text = str(loader.construct_scalar(node))
    try:
        value = float(text)
    except ValueError:  # .inf, 1:30.5
        return text
    return value if repr(value) == text else text


def _bool(loader: Loader, node: yaml.ScalarNode) -> bool | str:
    text = str(loader.construct_scalar(node))
    return loader.bool_values.get(text.lower(), text)  # `!!bool x` is text


def _foreign(loader: Loader, node: yaml.Node) -> None:
    kind = node.tag.removeprefix(_CORE)
    said = f"is a {kind}; only text, numbers, lists and maps are understood"
    raise yaml.constructor.ConstructorError(None, None, said, node.start_mark)


Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != f"{_CORE}timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _make in {"int": _int, "float": _float, "bool": _bool}.items():
    Loader.add_constructor(_CORE + _tag, _make)
for _tag in _FOREIGN:
    Loader.add_constructor(_CORE + _tag, _foreign)


@attrs.define
class Budget:
    """How many names and values may still be read, from one text or from several together."""

    left: int = VALUES_MAX
    copies: int = COPIED_MAX  # characters that aliases may still stand for

    def spend(self, values: int) -> None:
        """Takes `values` from the budget.  Raises TooLarge if fewer are left."""
        self.left -= values
        if self.left < 0:
            raise TooLarge(f"holds more than {VALUES_MAX} values")

    def copy(self, characters: int) -> None:
        """Takes the characters of an alias from the budget.  Raises TooLarge if fewer are left."""
        self.copies -= characters
        if self.copies < 0:
            raise TooLarge(f"its aliases stand for more than {COPIED_MAX} characters")


def load(text: str, budget: Budget | None = None) -> Any:
    """Parses a small YAML text.  Raises yaml.YAMLError, and ValueError for a lone surrogate."""
    if len(text) > BYTES_MAX:
        raise TooLarge(f"is larger than {BYTES_MAX} bytes")
    measure(text, budget or Budget())
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else loader.construct_object(node, deep=True)
    finally:
        loader.dispose()


def measure(text: str, budget: Budget) -> None:
    """Takes the size of `text` from the budget.  Raises yaml.YAMLError if too deep or too large.

    libyaml composes by recursion in C: 100 kB of `[` crash the process, and its time grows
    quadratically.  Events come one by one, so this function stops at the first one too many.
    """
    sizes: dict[str, tuple[int, int]] = {}  # by anchor: values and characters
    open_ones: list[tuple[str | None, int, int]] = []  # lists and maps that have not ended
    said = 0  # characters so far, aliases expanded
    for event in _events(text):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, began, before = open_ones.pop()
            if anchor is not None:
                sizes[anchor] = began - budget.left, said - before
        elif isinstance(event, yaml.AliasEvent):
            named = event.anchor or ""
            if any(anchor == named for anchor, _, _ in open_ones):
                why = f"*{named[:40]} stands for something that it is in itself"
                where: Any = event.start_mark  # libyaml's marks are as good
                raise yaml.MarkedYAMLError(None, None, why, where)
            values, copied = sizes.get(named, (1, 0))  # no anchor: the composer refuses it
            budget.spend(values)
            budget.copy(copied)
            said += copied
        elif isinstance(event, yaml.NodeEvent):
            budget.spend(1 if open_ones else 0)  # the outermost value does not count
            if isinstance(event, yaml.CollectionStartEvent):
                open_ones.append((event.anchor, budget.left + 1, said))
            elif isinstance(event, yaml.ScalarEvent):
                said += len(event.value)
                if event.anchor is not None:
                    sizes[event.anchor] = 1, len(event.value)
        if len(open_ones) > DEPTH_MAX:
            raise TooLarge(f"nested more than {DEPTH_MAX} deep")


def _events(text: str) -> Iterator[yaml.Event]:
    events: Iterator[yaml.Event] = yaml.parse(text, Loader=Loader)
    return events
