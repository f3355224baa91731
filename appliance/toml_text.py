"""Pure: no clock, no socket, no await.

TOML from outside: measured before it is built, since some of it costs the square of its size.
"""

from __future__ import annotations

import re
from typing import Final

from appliance.errors import BadConfig

# Accounts are a configuration's only long part, and a hundred and fifty characters each.
CHARS_MAX: Final = 2**20
PARTS_MAX: Final = 20  # of a dotted key; ours have three
# Possessive, and only from where a part begins: linear in the text.
_PART: Final = r"""(?:(?<![A-Za-z0-9_-])[A-Za-z0-9_-]++|"[^"\n]*+"|'[^'\n]*+')"""
_LONG_KEY: Final = re.compile(rf"(?:{_PART}[ \t]*+\.[ \t]*+){{{PARTS_MAX}}}")


def measure(text: str, name: str) -> None:
    """Raises BadConfig for what is too large, or has a key of too many parts."""
    if len(text) > CHARS_MAX:
        raise BadConfig(f"{name}: is larger than {CHARS_MAX} characters")
    if (found := _LONG_KEY.search(text)) is not None:
        line = text.count("\n", 0, found.start()) + 1
        raise BadConfig(f"{name}:{line}: a key of more than {PARTS_MAX} parts")
