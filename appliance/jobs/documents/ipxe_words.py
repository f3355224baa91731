"""Pure: no clock, no socket, no await.

Which words iPXE takes literally, at any position in a line of a script.
"""

from __future__ import annotations

import re
from typing import Final

_SAFE: Final = re.compile(r"[\x21-\x7e]*\Z")
# Words that end a command (iPXE, src/core/exec.c).  A word that begins with # also starts a comment
# there, and a \ at the end of a line joins it with the next line (src/image/script.c).
OPERATORS: Final = frozenset(["||", "&&", ";"])


def is_plain(word: str) -> bool:
    """Tells whether iPXE takes the word literally, at any position in a line."""
    taken = word in OPERATORS or word.startswith("#") or word.endswith("\\") or "${" in word
    return not taken and _SAFE.match(word) is not None
