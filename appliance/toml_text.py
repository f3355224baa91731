"""Pure: no clock, no socket, no await.

Reads TOML from outside: checks limits before parsing, and names lines in messages.
"""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Mapping
from typing import Any, Final

import attrs

from appliance.errors import BadConfig
from appliance.toml_lines import lines_of

# Accounts are the only long part of a configuration; each has some 150 characters.
CHARS_MAX: Final = 2**20
PARTS_MAX: Final = 20  # of a dotted key; ours have three
# Possessive quantifiers, and matches only where a part begins: the search takes linear time.
_PART: Final = r"""(?:(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY: Final = re.compile(rf"(?:{_PART}[ \t]*+\.[ \t]*+){{{PARTS_MAX}}}")


@attrs.frozen
class File:
    """A TOML text, and its name in messages."""

    name: str
    text: str

    def at(self, *keys: str) -> str:
        """Returns `file:line` of the first of `keys` in the text; without any, only the file."""
        found = (f"{self.name}:{self._lines[key]}" for key in keys if key in self._lines)
        return next(found, self.name)

    def table(self) -> dict[str, Any]:
        """Parses the text.  Raises BadConfig with the line."""
        measure(self.text, self.name)
        try:
            return tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise BadConfig(_syntax(str(error), self.text, self.name)) from error
        except (RecursionError, ValueError) as error:  # nested deeply; a number of 4,300 digits
            raise BadConfig(f"{self.name}: it is no TOML that can be read: {error}") from error

    @functools.cached_property
    def _lines(self) -> Mapping[str, int]:
        return lines_of(self.text)


def measure(text: str, name: str) -> None:
    """Raises BadConfig for text that would take tomllib or `lines_of` quadratic time."""
    if len(text) > CHARS_MAX:
        raise BadConfig(f"{name}: is larger than {CHARS_MAX} characters")
    if (found := _LONG_KEY.search(text)) is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise BadConfig(f"{name}:{line}: a key of more than {PARTS_MAX} parts")


def _syntax(said: str, text: str, name: str) -> str:
    """Rewrites tomllib's message so that the line comes first, as `file:line`."""
    found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", said)
    if found is None:
        return f"{name}: {said}"
    line = found[1] or text.count("\n") + 1
    return f"{name}:{line}: {said[: found.start()]}; it is no TOML"
