"""Pure: no clock, no socket, no await.

Finds the line of each key of a TOML text, since tomllib keeps no lines.  It walks only text that
tomllib has accepted, so it need not find mistakes: it follows headers, dotted keys, inline tables,
arrays and strings of several lines.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import attrs

_SPACE: Final = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_BLANK: Final = re.compile(r"[ \t]*")
_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'[^']*'")
_LONG: Final = re.compile(
    r'"""(?:[^"\\]|\\.|"(?!"")|"{1,2}(?="""))*"{3,5}' + r"|'''(?:[^']|'(?!''))*'{3,5}", re.DOTALL
)
_OTHER: Final = re.compile(r"[^,\]}#\n]*")  # numbers, dates, true and false


def lines_of(text: str) -> Mapping[str, int]:
    """Returns the 1-based line of each key and table, by dotted name.  `text` is valid TOML."""
    walk = _Walk(text)
    walk.document()
    return walk.lines


@attrs.define
class _Walk:
    text: str
    at: int = 0
    lines: dict[str, int] = attrs.field(factory=dict)
    _line: int = attrs.field(default=1, init=False)  # of the character at `_counted`
    _counted: int = attrs.field(default=0, init=False)

    def document(self) -> None:
        table: tuple[str, ...] = ()
        self._skip(_SPACE)
        while self.at < len(self.text):
            if self.text[self.at] == "[":
                while self.text[self.at] == "[":
                    self.at += 1
                table = self._key(())
                while self.text[self.at : self.at + 1] == "]":
                    self.at += 1
            else:
                self._pair(table)
            self._skip(_SPACE)

    def _pair(self, table: tuple[str, ...]) -> None:
        path = self._key(table)
        self.at += 1  # "="
        self._skip(_BLANK)
        self._value(path)

    def _key(self, table: tuple[str, ...]) -> tuple[str, ...]:
        """Reads a dotted key below `table`; notes this line for each part that is new."""
        self._line += self.text.count("\n", self._counted, self.at)
        self._counted, line = self.at, self._line
        path = table
        while True:
            self._skip(_BLANK)
            found = _QUOTED.match(self.text, self.at) or _BARE_KEY.match(self.text, self.at)
            assert found is not None, f"no key at {self.at}"
            self.at = found.end()
            path = (*path, found[0].strip("\"'"))
            self.lines.setdefault(".".join(path), line)
            self._skip(_BLANK)
            if self.text[self.at : self.at + 1] != ".":
                return path
            self.at += 1

    def _value(self, path: tuple[str, ...]) -> None:
        first = self.text[self.at]
        if first == "[":
            self._several("]", path)
        elif first == "{":
            self._several("}", path)
        else:
            string = _LONG.match(self.text, self.at) or _QUOTED.match(self.text, self.at)
            self.at = (string or _OTHER.match(self.text, self.at)).end()  # type: ignore[union-attr] # _OTHER always matches

    def _several(self, end: str, path: tuple[str, ...]) -> None:
        """Reads an array (`]`) or an inline table (`}`)."""
        self.at += 1
        self._skip(_SPACE)
        while self.text[self.at] != end:
            if end == "}":
                self._pair(path)
            else:
                self._value(path)
            self._skip(_SPACE)
            if self.text[self.at] == ",":
                self.at += 1
                self._skip(_SPACE)
        self.at += 1

    def _skip(self, what: re.Pattern[str]) -> None:
        found = what.match(self.text, self.at)
        assert found is not None
        self.at = found.end()
