"""Pure: no clock, no socket, no await.

YAML with line numbers: what a document's fields are and where each stands, and the list of what
is wrong with them so far.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, TypeVar

import attrs
import yaml

from appliance.errors import BadDocument, Problem

T = TypeVar("T")

# An answer must stay readable: past this many problems the rest only repeat the first.
PROBLEMS_MAX: Final = 50
DEPTH_MAX: Final = 32  # of nested lists and maps; LKP documents use five
# Aliases can make a small text an endless document; a matrix of LKP's has some hundred values.
VALUES_MAX: Final = 20_000


_PLAIN_INT: Final = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


class _Loader(yaml.CSafeLoader):
    """SafeLoader that leaves dates and odd numbers alone.

    `2021-09-23` is a version, not a day; and a number is one only if it would be printed as it was
    written: 22.10 is a version too, 52:54:00:12:34:56 a MAC and not a count of seconds, 010 no 8.
    """


def _int(loader: _Loader, node: yaml.ScalarNode) -> int | str:
    return int(node.value) if _PLAIN_INT.match(node.value) else str(node.value)


def _float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    try:
        value = float(node.value)
    except ValueError:  # .inf, 1:30.5
        return str(node.value)
    return value if repr(value) == node.value else str(node.value)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:int", _int)
_Loader.add_constructor("tag:yaml.org,2002:float", _float)


@attrs.define
class Reading:
    """A document being read: what it says, where, and what is wrong with it."""

    fields: dict[str, Any]
    lines: dict[str, int]
    problems: list[Problem] = attrs.Factory(list)

    def take(
        self, field: str, check: Callable[[Any], T], default: Any, *, secret: bool = False
    ) -> Any:
        """The checked value, or `default` where the document has none or a wrong one."""
        if self.fields.get(field) is None:
            return default
        try:
            value = check(self.fields[field])
        except ValueError as error:
            self.wrong(field, str(error) if secret else f"{_short(self.fields[field])} {error}")
            return default
        if not isinstance(value, tuple | dict):
            self.fields[field] = value
        return value

    def wrong(self, field: str, message: str) -> None:
        """Note one mistake."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(field, self.lines.get(field), message))

    def ok(self, field: str) -> bool:
        """Nothing is wrong with `field` so far."""
        return all(problem.field != field for problem in self.problems)

    def nearest(self, word: str) -> str | None:
        """The field that was perhaps meant to be `word`."""
        near = difflib.get_close_matches(word, list(self.fields), n=1)
        return near[0] if near else None


def read(text: str, before: Mapping[str, str], after: Mapping[str, str]) -> Reading:
    """The fields of YAML `text`.  Raises BadDocument where it is not one mapping of fields."""
    reading = Reading({}, {})
    nodes = _compose(text)
    for key, value in before.items():
        reading.fields[_plain(key)] = _scalar(key, value)
    if nodes is not None:
        _fields(nodes, reading)
    for key, value in after.items():
        reading.fields[_plain(key)] = _scalar(key, value)
        reading.lines.pop(key, None)
    budget = iter(range(VALUES_MAX))
    for key, value in reading.fields.items():
        if (flaw := _flaw(value, DEPTH_MAX, budget)) is not None:
            reading.wrong(key, flaw)
    if next(budget, None) is None:  # it may not even be printed
        raise BadDocument([Problem("yaml", None, f"holds more than {VALUES_MAX} values")])
    return reading


def load(text: str) -> Any:
    """What a small YAML text says.  Raises yaml.YAMLError."""
    _measure(text)
    return yaml.load(text, Loader=_Loader)  # a SafeLoader


def _measure(text: str) -> None:
    """Raises yaml.YAMLError where `text` is too deep or too large to be composed.

    libyaml composes by recursion in C: 100 kB of `[` end the process, and the time they take
    grows with their square.  Events come one by one, so this stops at the first one too many.
    """
    depth = nodes = 0
    for event in yaml.parse(text, Loader=_Loader):
        if isinstance(event, yaml.NodeEvent):
            nodes += 1
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > DEPTH_MAX:
            raise yaml.YAMLError(f"nested more than {DEPTH_MAX} deep")
        if nodes > 2 * VALUES_MAX:  # names count here, too
            raise yaml.YAMLError(f"holds more than {VALUES_MAX} values")


def _compose(text: str) -> yaml.Node | None:
    try:
        loader = _Loader(text)
    except UnicodeEncodeError as error:
        raise BadDocument([Problem("yaml", None, "not YAML: is no UTF-8")]) from error
    try:
        _measure(text)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        raise BadDocument(
            [Problem("yaml", mark.line + 1 if mark else None, _explain(error))]
        ) from error
    except yaml.reader.ReaderError as error:
        line = text.encode()[: error.position].count(b"\n") + 1  # libyaml counts bytes
        said = f"not YAML: holds the control character {chr(error.character)!r}"
        raise BadDocument([Problem("yaml", line, said)]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadDocument([Problem("yaml", None, f"not YAML: {error}")]) from error
    finally:
        loader.dispose()
    if node is not None and not isinstance(node, yaml.MappingNode):
        raise BadDocument([Problem("yaml", 1, "must be a mapping of fields, such as `suite: x`")])
    return node


def _explain(error: yaml.MarkedYAMLError) -> str:
    if "single document" in str(error.context):
        return "more than one document: put each job into a file of its own"
    context = f"{error.context}: " if error.context else ""
    return f"not YAML: {context}{error.problem}"


def _fields(mapping: yaml.Node, reading: Reading) -> None:
    loader = _Loader("")
    try:
        for key_node, value_node in mapping.value:
            line = key_node.start_mark.line + 1
            if (
                not isinstance(key_node, yaml.ScalarNode)
                or not key_node.value.isprintable()
                or not key_node.value
            ):
                reading.problems.append(Problem("yaml", line, "a field's name must be one word"))
                continue
            key = key_node.value
            if key in reading.lines:
                first = reading.lines[key]
                reading.problems.append(Problem(key, line, f"is there already, in line {first}"))
                continue
            reading.lines[key] = line
            try:
                reading.fields[key] = loader.construct_object(value_node, deep=True)
            except (yaml.YAMLError, ValueError, RecursionError) as error:
                reading.wrong(key, f"cannot be read: {str(error).splitlines()[0]}")
    finally:
        loader.dispose()


def _plain(key: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]*", key):
        raise BadDocument([Problem(key, None, "is no field's name: write KEY=VALUE")])
    return key


def _scalar(key: str, value: str) -> Any:
    """A command line's value, read as YAML would read it."""
    try:
        return load(value)
    except (yaml.YAMLError, ValueError) as error:
        raise BadDocument([Problem(key, None, f"{_short(value)} is not YAML")]) from error


def _flaw(value: Any, depth: int, budget: Iterator[int]) -> str | None:
    """What no field may hold: other types than JSON's, or control characters but tab, newline."""
    if next(budget, None) is None:
        return "is too large"
    if depth == 0:
        return f"is nested more than {DEPTH_MAX} deep"
    if isinstance(value, str):
        bad = _CONTROL.search(value)
        return f"holds the control character {bad[0]!r}" if bad else None
    if isinstance(value, list):
        parts: list[Any] = value
    elif isinstance(value, dict):
        parts = [*value.keys(), *value.values()]
    elif value is None or isinstance(value, bool | int | float):
        return None
    else:
        return f"is a {type(value).__name__}; only text, numbers, lists and maps are understood"
    return next(
        (flaw for part in parts if (flaw := _flaw(part, depth - 1, budget)) is not None), None
    )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
