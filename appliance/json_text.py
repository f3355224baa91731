"""Pure: no clock, no socket, no await.

Reads JSON from outside with limits that are checked as bytes arrive, before anything is parsed.

Ten megabytes of `[{"":0},...]` become a gigabyte of Python objects, and a text with one wide
character takes four times its bytes in memory.  So the reader counts the marks that make objects
(outside of strings) while bytes arrive.  A long string, which only a package has
(docs/wire.md#packages), is kept as raw bytes and left out of the text that is parsed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any, Final

import attrs

from appliance.errors import BadRequest

DEPTH_MAX: Final = 32  # of nested lists and maps, as in a document
# A longer string is kept as raw bytes.  People write shorter ones; base64 need not be parsed.
LONG_BYTES: Final = 2**16
NUMBER_CHARS_MAX: Final = 100  # of one number; a longer one is slow to parse
SLICE_BYTES: Final = 2**13  # takes at most 10 ms, whatever the bytes are

_IN_STRING: Final = re.compile(rb'(?:[^"\\\x00-\x1f]++|\\.)*+', re.DOTALL)
_MARKS: Final = b"[]{},:"
_NO_MARK: Final = bytes(byte for byte in range(256) if byte not in _MARKS)
_PAUSES: Final = (b",", b":", b", ", b": ")  # nearly always the text between two strings
_STAND_IN: Final = b"NaN"  # replaces a long string: no word of JSON, but `json` has a hook for it


@attrs.frozen
class Long:
    """A long string, as raw bytes."""

    raw: bytearray = attrs.field(repr=False)  # between its quotes

    def text(self) -> str:
        """Decodes the string.  Raises BadRequest."""
        try:
            said: str = json.loads(b'"' + self.raw + b'"')
        except ValueError as error:
            raise BadRequest(f"is no JSON: {error}") from error
        return said

    def plain(self) -> bytes | bytearray:
        """Returns the string as UTF-8.

        Unescapes the line ends of base64 by itself: json would make an object for each.
        """
        data = self.raw
        for escape, meant in ((b"\\n", b"\n"), (b"\\r", b"\r"), (b"\\/", b"/")):
            data = data.replace(escape, meant)
        return self.text().encode(errors="replace") if b"\\" in data else data


class Reader:
    """Takes the bytes of one JSON text, in pieces; raises BadRequest as soon as a limit is passed.

    `values`: the maximum of names and values; `text`: of bytes, not counting long strings.
    """

    def __init__(self, values: int, text: int, depth: int = DEPTH_MAX) -> None:
        self._values, self._text, self._depth = values, text, depth
        self._seen = self._strings = self._open = 0
        self._kept = bytearray()  # the text without long strings
        self._longs: list[Long] = []
        self._string: bytearray | None = None  # the incomplete string
        self._half = b""  # a backslash at the end of a piece

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes; pass at most SLICE_BYTES where others wait for the loop."""
        piece, at = self._half + piece, 0
        self._half = b""
        while at < len(piece):
            if self._string is None:
                end = piece.find(b'"', at)
                self._outside(piece[at:] if end < 0 else piece[at:end])
                if end < 0:
                    break
                self._string, at = bytearray(), end + 1
                self._strings += 1
            at = self._inside(piece, at, self._string)
        if len(self._kept) + min(len(self._string or b""), LONG_BYTES) > self._text:
            raise BadRequest(f"holds more than {self._text} bytes besides its packages")

    def _inside(self, piece: bytes, at: int, string: bytearray) -> int:
        """Appends the part of `piece` that belongs to the string; returns where to continue."""
        found = _IN_STRING.match(piece, at)
        assert found is not None  # it may be empty
        end = found.end()
        string += piece[at:end]
        if end == len(piece):
            return end
        if piece[end] == ord("\\"):
            self._half = piece[end:]
        elif piece[end] != ord('"'):
            raise BadRequest("is no JSON: it holds a control character in a string")
        else:
            self._ended(string)
        return end + 1

    def _ended(self, string: bytearray) -> None:
        if len(string) > LONG_BYTES:
            self._longs.append(Long(string))
            self._kept += _STAND_IN
        else:
            self._kept += b'"' + string + b'"'
        self._string = None

    def _outside(self, piece: bytes) -> None:
        self._kept += piece
        if piece in _PAUSES:
            self._seen += 1
        else:
            if b"N" in piece or b"I" in piece:
                raise BadRequest("is no JSON: NaN and Infinity are no numbers")
            for mark in piece.translate(None, _NO_MARK).decode():
                if mark in "]}":
                    self._open -= 1
                    continue
                self._seen += 1
                if mark in "[{":
                    self._open += 1
                    if self._open > self._depth:
                        raise BadRequest(f"is nested more than {self._depth} deep")
        if max(self._seen, self._strings) > self._values:
            raise BadRequest(f"holds more than {self._values} names and values")

    def value(self) -> Any:
        """Parses the whole text, long strings as Long, and forgets it.  Raises BadRequest."""
        longs: Iterator[Long] = iter(self._longs)
        whole = self._string is None and not self._half
        try:
            text = self._kept.decode()
            self._kept, self._longs = bytearray(), []
            if not whole:
                raise ValueError("it ends within a string")
            return json.loads(
                text,
                parse_constant=lambda word: next(longs),
                parse_int=_number(int),
                parse_float=_number(float),
            )
        except (ValueError, RecursionError) as error:
            raise BadRequest(f"is no JSON: {error}") from error


def _number(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        if len(text) > NUMBER_CHARS_MAX:
            raise ValueError(f"a number of more than {NUMBER_CHARS_MAX} digits")
        return kind(text)

    return read


def load(text: bytes | str, values: int, depth: int = DEPTH_MAX) -> Any:
    """Parses a text of at most LONG_BYTES.  Raises BadRequest."""
    data = text.encode(errors="surrogatepass") if isinstance(text, str) else text
    if len(data) > LONG_BYTES:
        raise BadRequest(f"is larger than {LONG_BYTES} bytes")
    reader = Reader(values, len(data), depth)
    reader.feed(data)
    return reader.value()


def written_out(value: Any) -> Any:
    """Returns `value` with each Long decoded; only for clients we know.  Raises BadRequest."""
    if isinstance(value, Long):
        return value.text()
    if isinstance(value, list):
        return [written_out(part) for part in value]
    if isinstance(value, dict):
        return {key: written_out(part) for key, part in value.items()}
    return value
