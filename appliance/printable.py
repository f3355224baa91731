"""Pure: no clock, no socket, no await.

Text of strangers as a terminal may show it.  A name in a result, a word in a request, a message
of a box: what is no printable character (controls, escapes that move the cursor or set the title,
marks that turn the direction of writing, lone halves of UTF-16) is written as Python writes it.
"""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """`text` without what a terminal would obey; characters in `keep` stay."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
