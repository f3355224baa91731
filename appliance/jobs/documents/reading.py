"""Pure: no clock, no socket, no await.

YAML with line numbers: a document's fields, the line of each, and the list of mistakes found so
far.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import attrs
import yaml

from appliance import yaml_text
from appliance.errors import BadDocument, Problem
from appliance.yaml_text import DEPTH_MAX, VALUES_MAX, Budget, Loader, TooLarge

T = TypeVar("T")

# Keeps an answer readable: further problems mostly repeat the first ones.
PROBLEMS_MAX: Final = 50
WORDS_MAX: Final = 1000  # KEY=VALUE words of a command line before its files, and after them

_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


@attrs.define
class Reading:
    """A document being read: its fields, their lines, and its mistakes so far."""

    fields: dict[str, Any]
    lines: dict[str, int]
    problems: list[Problem] = attrs.Factory(list)
    values: int = 0  # number of values and names, with aliases expanded

    def take(
        self, field: str, check: Callable[[Any], T], default: Any, *, secret: bool = False
    ) -> Any:
        """Returns the field's checked value, or `default` if it is absent or wrong."""
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

    def wrong(self, field: str, message: str, line: int | None = None) -> None:
        """Notes one mistake; `line` is given if it differs from the field's line."""
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(field, line or self.lines.get(field), message))

    def ok(self, field: str) -> bool:
        """Tells whether no mistake is noted for `field` so far."""
        return all(problem.field != field for problem in self.problems)

    def nearest(self, word: str) -> str | None:
        """Returns the document's field that may be a misspelt `word`."""
        near = difflib.get_close_matches(word, list(self.fields), n=1)
        return near[0] if near else None


def read(text: str, before: Mapping[str, str], after: Mapping[str, str]) -> Reading:
    """Reads the fields of YAML `text`.  Raises BadDocument if it is not one mapping of fields."""
    reading, budget = Reading({}, {}), Budget()
    if len(before) > WORDS_MAX or len(after) > WORDS_MAX:
        raise BadDocument([Problem("yaml", None, f"comes with more than {WORDS_MAX} KEY=VALUE")])
    nodes = _compose(text, budget)
    for key, value in before.items():
        reading.fields[_plain(key)] = _scalar(key, value, budget)
    if nodes is not None:
        _fields(nodes, reading)
    for key, value in after.items():
        reading.fields[_plain(key)] = _scalar(key, value, budget)
        reading.lines.pop(key, None)
    for key, value in reading.fields.items():
        if (flaw := _flaw(value, DEPTH_MAX)) is not None:
            reading.wrong(key, flaw)
    reading.values = VALUES_MAX - budget.left
    return reading


def _compose(text: str, budget: Budget) -> yaml.Node | None:
    try:
        loader = Loader(text)
    except UnicodeEncodeError as error:
        raise BadDocument([Problem("yaml", None, "not YAML: is no UTF-8")]) from error
    try:
        yaml_text.measure(text, budget)
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
    except TooLarge as error:
        raise BadDocument([Problem("yaml", None, str(error))]) from error
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
    loader = Loader("")
    try:
        for key_node, value_node in mapping.value:
            line = key_node.start_mark.line + 1
            if (
                not isinstance(key_node, yaml.ScalarNode)
                or not key_node.value.isprintable()
                or not key_node.value
            ):
                reading.wrong("yaml", "a field's name must be one word", line)
                continue
            key = key_node.value
            if key in reading.lines:
                first = reading.lines[key]
                reading.wrong(key, f"is there already, in line {first}", line)
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


def _scalar(key: str, value: str, budget: Budget) -> Any:
    """Parses a value from the command line as YAML."""
    try:
        return yaml_text.load(value, budget)
    except TooLarge as error:
        said = f"{_short(value)} is not YAML that is taken: {error}"
        raise BadDocument([Problem(key, None, said)]) from error
    except (yaml.YAMLError, ValueError) as error:
        raise BadDocument([Problem(key, None, f"{_short(value)} is not YAML")]) from error


def _flaw(value: Any, depth: int) -> str | None:
    """Describes a forbidden part: a type not in JSON, or a control character but tab, newline."""
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
    return next((flaw for part in parts if (flaw := _flaw(part, depth - 1)) is not None), None)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
