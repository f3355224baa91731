"""Pure: no clock, no socket, no await.

Changes some keys of a YAML mapping that a person wrote; keeps comments, order, quotes and anchors
of the rest.  ruamel.yaml reads and writes the text; PyYAML, as elsewhere, decides what it means.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import yaml
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.error import YAMLError
from ruamel.yaml.scalarstring import SingleQuotedScalarString
from ruamel.yaml.util import load_yaml_guess_indent

from appliance import yaml_text

CHARACTERS_MAX: Final = 2**16  # of a text; ruamel.yaml, in Python, takes 10 s for a million
_PLAIN_MAX: Final = 100  # of a word that may go without quotes; checking reads the word twice
_COMMENT: Final = re.compile(r"(?:^|[ \t])(#[^\n]*)", re.MULTILINE)
_WIDTH: Final = 10_000  # characters of a line; more than people write, so no line is broken


def changed(text: str, wanted: Mapping[str, Any]) -> str | None:
    """Edits `text` into a mapping with exactly the keys and values of `wanted`.

    Returns None if it cannot: the text is no mapping, a key comes from a merge (`<<`), ruamel.yaml
    reads the text differently from PyYAML, or it has more than CHARACTERS_MAX.  The caller then
    writes the file anew.
    """
    if len(text) > CHARACTERS_MAX:
        return None
    writer = YAML()
    writer.preserve_quotes = True
    writer.width = _WIDTH
    try:
        before = yaml_text.load(text)
        tree, indent, offset = load_yaml_guess_indent(text, yaml=writer)
    except (yaml.YAMLError, YAMLError, ValueError, IndexError):  # IndexError: its guess at a `-`
        return None
    if not isinstance(before, dict) or not isinstance(tree, CommentedMap):
        return None
    gone = [key for key in tree if key not in wanted]
    if gone and not tree.fa.flow_style():
        # ruamel.yaml would remove the comment of the next key, too.
        try:
            return changed(_without(text, tree, gone), wanted)
        except (KeyError, TypeError):  # the key comes from a merge, and has no line of its own
            return None
    for key in gone:
        del tree[key]
    for key, value in wanted.items():
        if key not in before or not _same(before[key], value):
            tree[key] = _plain(value)
    writer.indent(mapping=2, sequence=indent or 2, offset=offset or 0)
    made = io.StringIO()
    try:
        writer.dump(tree, made)
        after = yaml_text.load(made.getvalue())
    except (yaml.YAMLError, YAMLError, ValueError):
        return None
    if not _same(after, dict(wanted)):
        return None
    if not _comments(text) - _comments(made.getvalue()):
        return made.getvalue()
    # ruamel.yaml drops the comments in and behind a list that is replaced.
    return _line_by_line(text, tree, before, wanted)


def _without(text: str, tree: CommentedMap, gone: Sequence[Any]) -> str:
    """Removes the lines of some keys of a block mapping; comments after them stay."""
    lines = text.splitlines(keepends=True)
    starts = sorted(tree.lc.key(key)[0] for key in tree)
    for start in sorted((tree.lc.key(key)[0] for key in gone), reverse=True):
        del lines[start : _end(lines, starts, start)]
    return "".join(lines) or "{}\n"


def _line_by_line(
    text: str, tree: CommentedMap, before: Mapping[Any, Any], wanted: Mapping[str, Any]
) -> str | None:
    """Like changed(), but replaces whole lines; comments in them come to stand above the key."""
    lines = text.splitlines(keepends=True)
    try:
        starts = {key: tree.lc.key(key)[0] for key in before}
    except (KeyError, TypeError):  # a key comes from a merge
        return None
    for key, start in sorted(starts.items(), key=lambda item: -item[1]):
        if key in wanted and not _same(before[key], wanted[key]):
            end = _end(lines, starts.values(), start)
            notes = [f"{note}\n" for note in _comments("".join(lines[start:end]))]
            lines[start:end] = [*notes, _dumped({key: wanted[key]})]
    new = {key: value for key, value in wanted.items() if key not in before}
    made = "".join(lines)
    made = (made if made.endswith("\n") else f"{made}\n") + (_dumped(new) if new else "")
    try:
        after = yaml_text.load(made)
    except (yaml.YAMLError, ValueError):
        return None
    return made if _same(after, dict(wanted)) and not _comments(text) - _comments(made) else None


def _dumped(fields: Mapping[str, Any]) -> str:
    text: str = yaml.safe_dump(
        dict(fields), default_flow_style=False, sort_keys=False, allow_unicode=True, width=_WIDTH
    )
    return text


def _comments(text: str) -> Counter[str]:
    """Counts the comments; a `#` behind a blank in a quoted text counts as one, too."""
    return Counter(found.strip() for found in _COMMENT.findall(text))


def _end(lines: Sequence[str], starts: Iterable[int], start: int) -> int:
    """Returns the line behind the value whose key is in line `start`; comments there stay."""
    end = min((other for other in starts if other > start), default=len(lines))
    while end > start + 1 and (not (line := lines[end - 1].strip()) or line.startswith("#")):
        end -= 1
    return end


def _same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types: 1, 1.0 and true differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_same, one, other))
    return bool(one == other)


def _plain(value: Any) -> Any:
    """Adds quotes that PyYAML needs; ruamel.yaml would omit them for `yes` and `012` (YAML 1.2)."""
    if isinstance(value, dict):
        return {_plain(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return SingleQuotedScalarString(value) if isinstance(value, str) and _quoted(value) else value


def _quoted(word: str) -> bool:
    """Whether a word needs quotes: YAML 1.1 might read it as another type, a MAC as a number."""
    if len(word) > _PLAIN_MAX:
        return True
    try:
        return not word == yaml_text.load(word) == yaml.safe_load(word)
    except (yaml.YAMLError, ValueError):
        return True
