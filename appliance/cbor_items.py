"""Pure: no clock, no socket, no await.

Decodes the CBOR sequences (RFC 8742) of the control socket, at both ends, as bytes arrive.  Each
byte is read once.  The items may hold:

    maps, whose names are texts; lists; texts; bytes; whole numbers of 64 bits; floats; true, false,
    null; each with its length before it

The rest of CBOR (tags, bignums, decimals, items without a length) is refused: no client sends it,
and a full decoder can take seconds for a few such bytes.  Limits are checked before an object that
would exceed them is made.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any, Final

import attrs

from appliance.errors import BadRequest

VALUE_BYTES: Final = 96  # mean bytes in memory of a number, of a list, or of a pair in a map
WIDE: Final = 4  # bytes in memory of each character of a text that is not ASCII

_FLOATS: Final = {25: ">e", 26: ">f", 27: ">d"}
_SIMPLE: Final = {20: False, 21: True, 22: None}
_NOT_OURS: Final = "not CBOR as it is spoken here"
_TOO_LONG: Final = "the message is too long"
_NUMBER, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _TAG, _OTHER = range(8)


@attrs.frozen
class Limits:
    """Limits of one item; the defaults are no limits, for a sender that we trust."""

    held: float = float("inf")  # bytes in memory
    text: float = float("inf")  # bytes of one text
    values: float = float("inf")
    depth: float = float("inf")


@attrs.define
class _Open:
    """A list or a map that is not complete."""

    made: list[Any] | dict[str, Any]
    left: int  # how many values are missing; of a map, names and values
    name: str = ""  # of the next value of a map


class Decoder:
    """Takes bytes, yields items.  `held`: the bytes of memory of the incomplete item."""

    def __init__(self, limits: Limits | None = None) -> None:
        self._limits = limits or Limits()
        self._head = b""  # incomplete head of a value
        self._string: bytearray | None = None  # incomplete text or bytes
        self._is_text, self._missing = False, 0
        self._open: list[_Open] = []
        self._whole: list[Any] = []  # complete items; never more than one
        self._values = self.held = 0

    def feed(self, data: bytes) -> Iterator[tuple[Any, int]]:
        """Yields each item that ends in `data`, and its bytes in memory.

        Exhaust the iterator before the next call.  Raises BadRequest.
        """
        data, at = self._head + data, 0
        self._head = b""
        while at < len(data):
            if self._string is not None:
                at = self._go_on(data, at, self._string)
            elif (end := self._begin(data, at)) is not None:
                at = end
            else:
                self._head = data[at:]
                return
            if self._whole:
                held, self.held, self._values = self.held, 0, 0
                yield self._whole.pop(), held

    def _begin(self, data: bytes, at: int) -> int | None:
        """Reads a value, or the head of a long one; returns its end, None if it is incomplete."""
        kind, number = data[at] >> 5, data[at] & 31
        end = at + 1
        if number >= 24:
            if number > 27:
                raise BadRequest(f"{_NOT_OURS}: nothing without its length")
            end += 1 << number - 24
            if end > len(data):
                return None
        if kind == _OTHER:
            self._spend(1, VALUE_BYTES)
            self._put(_plain(number, data[at + 1 : end]))
            return end
        if number >= 24:
            number = int.from_bytes(data[at + 1 : end], "big")
        if kind in (_TEXT, _BYTES):
            if number > self._limits.text:
                raise BadRequest(f"{_TOO_LONG}: a text has at most {self._limits.text} bytes")
            self._spend(1, VALUE_BYTES + number)
            if end + number > len(data):
                self._string, self._is_text, self._missing = bytearray(), kind == _TEXT, number
                return end
            string = data[end : end + number]
            self._put(self._text(string) if kind == _TEXT else string)
            return end + number
        self._spend(1, VALUE_BYTES)
        if kind == _NUMBER:
            self._put(number)
        elif kind == _NEGATIVE:
            self._put(-1 - number)
        elif kind == _TAG:
            raise BadRequest(f"{_NOT_OURS}: no tags")
        else:
            self._begin_parts({} if kind == _MAP else [], number)
        return end

    def _go_on(self, data: bytes, at: int, string: bytearray) -> int:
        """Appends the part of `data` that belongs to the string; returns where that part ends."""
        piece = data[at : at + self._missing]
        string += piece
        self._missing -= len(piece)
        if not self._missing:
            self._string = None
            self._put(self._text(string) if self._is_text else bytes(string))
        return at + len(piece)

    def _text(self, string: bytes | bytearray) -> str:
        if not string.isascii():
            self._spend(0, (WIDE - 1) * len(string))
        try:
            return string.decode()
        except UnicodeDecodeError as error:
            raise BadRequest("not CBOR: a text in it is no UTF-8") from error

    def _begin_parts(self, made: list[Any] | dict[str, Any], size: int) -> None:
        left = size * (2 if isinstance(made, dict) else 1)
        if self._values + left > self._limits.values:
            raise BadRequest(f"the message holds more than {self._limits.values} values")
        if not size:
            self._put(made)
            return
        self._open.append(_Open(made, left))
        if len(self._open) > self._limits.depth:
            raise BadRequest(f"the message is nested more than {self._limits.depth} deep")

    def _spend(self, values: int, size: int) -> None:
        self._values += values
        self.held += size
        if self._values > self._limits.values:
            raise BadRequest(f"the message holds more than {self._limits.values} values")
        if self.held > self._limits.held:
            raise BadRequest(f"{_TOO_LONG}: it may take {self._limits.held} bytes of memory")

    def _put(self, value: Any) -> None:
        """Stores a complete value, and each list or map that it completes."""
        while self._open:
            there = self._open[-1]
            there.left -= 1
            if isinstance(there.made, list):
                there.made.append(value)
            elif there.left % 2:  # after a name its value is left
                if not isinstance(value, str):
                    raise BadRequest(f"{_NOT_OURS}: a map's names are texts")
                there.name = value
            else:
                there.made[there.name] = value
            if there.left:
                return
            self._open.pop()
            value = there.made
        self._whole.append(value)


def _plain(info: int, data: bytes) -> Any:
    if info in _FLOATS:
        return struct.unpack(_FLOATS[info], data)[0]
    if info in _SIMPLE:
        return _SIMPLE[info]
    raise BadRequest(
        "not CBOR as it is spoken here: true, false and null are all the words there are"
    )
