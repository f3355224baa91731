"""Pure: no clock, no socket, no await.

Which words iPXE takes as they stand, wherever they stand in a line of a script.
"""

from __future__ import annotations

import re
from typing import Final

_SAFE: Final = re.compile(r"[\x21-\x7e]*\Z")
# What ends a command where it stands as a word (iPXE, src/core/exec.c); a word that begins with #
# begins a comment there, and a \ at the end of a line joins it with the next (src/image/script.c).
OPERATORS: Final = frozenset(["||", "&&", ";"])


def is_plain(word: str) -> bool:
    """Whether iPXE takes a word as it stands, wherever it stands in a line."""
    taken = word in OPERATORS or word.startswith("#") or word.endswith("\\") or "${" in word
    return not taken and _SAFE.match(word) is not None
