"""Pure: no clock, no socket, no await.

Makes text of strangers safe for a terminal: a file name of a result, a word of a request, a box's
message.  Unprintable characters (controls, escapes that move the cursor or set the title, marks
that change the direction of writing, lone surrogates) are written as Python's escapes.
"""

from __future__ import annotations


def printable(text: str, keep: str = "") -> str:
    """Escapes the unprintable characters of `text`, except those in `keep`."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    code = ord(character)
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
