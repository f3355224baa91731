"""Pure: no clock, no socket, no await.

YAML from outside: measured before it is built.

A few hundred bytes can say endless lists: each alias stands for all that its anchor has, and a
merge (`<<`) copies it.  So a text is first walked through event by event, where nothing is built,
and every alias counts as much as what it stands for.  That bounds merges, too: what a merge copies
is never more than what its aliases stand for.  A long text has many aliases, too: where the value
is written down, each of them is the whole text again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs
import yaml

DEPTH_MAX: Final = 32  # of nested lists and maps; LKP documents use five
# Names and values of one text, aliases written out; a matrix of LKP's has some hundred.
VALUES_MAX: Final = 20_000
BYTES_MAX: Final = 2**20  # of a text that no other limit holds: a hosts file has some hundred
# Of the text that all aliases stand for: as much again as the largest document has itself.
COPIED_MAX: Final = 2**20

NUMBER_CHARS_MAX: Final = 100  # of what may be a number, or any word but text

# PyYAML's own, by another name: it resolves no path.
_tag_of: Final[Callable[..., Any]] = yaml.CSafeLoader.resolve
_PLAIN_INT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_CORE: Final = "tag:yaml.org,2002:"
# What YAML can say besides, and nobody here understands.
_FOREIGN: Final = ("binary", "timestamp", "omap", "pairs", "set")


class TooLarge(yaml.YAMLError):
    """The text says more than is taken, or nests deeper."""


class Loader(yaml.CSafeLoader):
    """SafeLoader that leaves dates and odd numbers alone, and knows JSON's types and no others.

    `2021-09-23` is a version, not a day; and a number is one only if it would be printed as it was
    written: 22.10 is a version too, 52:54:00:12:34:56 a MAC and not a count of seconds, 010 no 8.
    """

    def resolve(self, kind: type[yaml.Node], value: str, implicit: tuple[bool, bool]) -> str:
        """The tag of a node.  What is longer than any number is text, and is not asked whether it
        is one: of a megabyte of `1:1:1` Python's expressions remember seventy."""
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
    return loader.bool_values.get(text.lower(), text)  # `!!bool x` is no yes and no no


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
    """How many names and values may still be read: of one text, or of several together."""

    left: int = VALUES_MAX
    copies: int = COPIED_MAX  # characters that aliases may stand for

    def spend(self, values: int) -> None:
        """Raises TooLarge where there are not so many left."""
        self.left -= values
        if self.left < 0:
            raise TooLarge(f"holds more than {VALUES_MAX} values")

    def copy(self, characters: int) -> None:
        """Raises TooLarge where aliases stand for more text than is left."""
        self.copies -= characters
        if self.copies < 0:
            raise TooLarge(f"its aliases stand for more than {COPIED_MAX} characters")


def load(text: str, budget: Budget | None = None) -> Any:
    """What a small YAML text says.  Raises yaml.YAMLError, and ValueError for half a character."""
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
    """Spend what `text` says.  Raises yaml.YAMLError where it is too deep, or too much to be built.

    libyaml composes by recursion in C: 100 kB of `[` end the process, and the time they take
    grows with their square.  Events come one by one, so this stops at the first one too many.
    """
    sizes: dict[str, tuple[int, int]] = {}  # of what each anchor stands for: values, characters
    open_ones: list[tuple[str | None, int, int]] = []  # lists and maps not ended, as each began
    said = 0  # characters so far, aliases written out
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
            values, copied = sizes.get(named, (1, 0))  # without an anchor: the composer refuses it
            budget.spend(values)
            budget.copy(copied)
            said += copied
        elif isinstance(event, yaml.NodeEvent):
            budget.spend(1 if open_ones else 0)  # the text itself is no value in it
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
