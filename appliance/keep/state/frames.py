"""Pure: no clock, no socket, no await.

The frames of state files.  A file is a header line, then records: each a head of little-endian
numbers, then the payload (`records`).

    appliance journal 2\\n   one record for each write: the changes that share the write, in order
    appliance snapshot 2\\n  one record with the number of jobs and boxes, then those, in pieces

The number in the header line is the state's version (`versions`).

    head: length of the payload, its CRC32C, the record's number (64 bit), CRC32C of these 16 bytes

The head has a checksum of its own: otherwise a flipped bit in a length would look like a record
cut off by the end of the file, and everything after it would be lost silently.
Records of journals are numbered from the lab's first one, across files, so that a missing record
is always noticed; records of a snapshot are numbered from 0.
One write makes one record, so a power cut can tear only the last record, and no whole record
ever follows a torn one.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Final

import attrs
import google_crc32c

from appliance.errors import BadState
from appliance.keep.state import versions

JOURNAL: Final = b"appliance journal %d\n"
JOURNAL_HEADER: Final = JOURNAL % versions.VERSION  # of journals that this version writes
SNAPSHOT: Final = b"appliance snapshot %d\n"
RECORD_BYTES_MAX: Final = 2**30  # a length beyond this is damage, not data
SECTOR_BYTES: Final = 512  # disks write whole sectors; a lost one reads as zeros
HEAD: Final = struct.Struct("<IIQI")
_SUM: Final = struct.Struct("<IIQ")  # the part of the head that its own checksum covers


def frame(payload: bytes, number: int) -> bytes:
    """Returns the bytes of one record."""
    assert len(payload) <= RECORD_BYTES_MAX
    start = _SUM.pack(len(payload), google_crc32c.value(payload), number)
    return start + struct.pack("<I", google_crc32c.value(start)) + payload


@attrs.frozen
class Part:
    """A whole record at `start`, or what is wrong there."""

    start: int
    end: int
    payload: bytes | None  # None: not whole
    number: int = -1  # of a whole record
    torn: bool = False  # an unfinished last write: dropped, as it was never acknowledged
    bounded: bool = False  # its head is whole: it ends at `end`, however damaged its payload
    why: str = ""


def parts(data: bytes, start: int) -> Iterator[Part]:
    """Yields the records from `start` on; the last part may be torn or damaged.

    Stops at damage; `whole_behind` finds the whole records after it.
    """
    offset = start
    while offset < len(data):
        part = _part(data, offset)
        yield part
        if part.payload is None:
            return
        offset = part.end


def _part(data: bytes, offset: int) -> Part:
    size = len(data)
    if size - offset < HEAD.size:
        return Part(offset, size, None, torn=True)
    length, crc, number = _head(data, offset)
    if length is None:
        if _lost_sector(data, offset, size) and next(whole_behind(data, offset), None) is None:
            return Part(offset, size, None, torn=True)
        return Part(offset, size, None, why="the checksum of a record's head does not fit")
    end = offset + HEAD.size + length
    if end > size:
        return Part(offset, size, None, torn=True)
    payload = data[offset + HEAD.size : end]
    if google_crc32c.value(payload) == crc:
        return Part(offset, end, payload, number)
    if end == size and _lost_sector(data, offset, end):
        return Part(offset, end, None, torn=True)
    return Part(offset, end, None, why="the checksum of a record does not fit", bounded=True)


def _head(data: bytes, offset: int) -> tuple[int | None, int, int]:
    """Returns (length, CRC, number) from the head at `offset`; length None if it is no head."""
    length, crc, number, head_crc = HEAD.unpack_from(data, offset)
    start = data[offset : offset + _SUM.size]
    whole = google_crc32c.value(start) == head_crc and length <= RECORD_BYTES_MAX
    return (length if whole else None), crc, number


def _lost_sector(data: bytes, start: int, end: int) -> bool:
    """Whether some sector between start and end is all zeros, as far as it lies between them.

    After a power cut a file may have its new size but not its new bytes (ext4, XFS): sectors not
    yet synced then read as zeros, all or any of them.  A flipped bit looks different.
    """
    while start < end:
        edge = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if not any(data[start:edge]):
            return True
        start = edge
    return False


def whole_behind(data: bytes, offset: int) -> Iterator[Part]:
    """Yields the whole records somewhere after `offset`, where no whole record begins."""
    offset += 1
    while offset + HEAD.size <= len(data):
        length, crc, number = _head(data, offset)
        end = offset + HEAD.size + (length or 0)
        if length is not None and end <= len(data):
            payload = data[offset + HEAD.size : end]
            if google_crc32c.value(payload) == crc:
                yield Part(offset, end, payload, number)
                offset = end
                continue
        offset += 1


def stretches(data: bytes, start: int) -> Iterator[Part]:
    """Yields everything from `start` on: whole records, and each damaged stretch as one part.

    Does not search inside a record whose head is whole: its payload is users' documents, which may
    hold bytes that look like a record.
    """
    offset = start
    while offset < len(data):
        part = next(parts(data, offset))
        if part.payload is None and not part.torn and not part.bounded:
            behind = next(whole_behind(data, offset), None)
            part = attrs.evolve(part, end=behind.start if behind is not None else len(data))
        yield part
        offset = part.end


def kind_of(header: bytes) -> str:
    """Returns "journal" or "snapshot"."""
    return header.split()[1].decode()


def is_ours(data: bytes, header: bytes) -> bool:
    """Whether `data` begins with a header of this kind, of any version."""
    line, newline, _ = data[:80].partition(b"\n")
    kind = kind_of(header).encode()
    return bool(newline and re.fullmatch(rb"appliance %b [1-9][0-9]{0,8}" % kind, line))


def version_of(data: bytes, header: bytes, name: str) -> int:
    """Returns the state version of a file.  Raises BadState for one that is not ours."""
    if not is_ours(data, header):
        raise BadState(f"{name}: not a {kind_of(header)} of the appliance")
    return int(data[: data.index(b"\n")].split()[-1])


def check_header(data: bytes, header: bytes, name: str) -> int:
    """Returns the first record's offset.  Raises BadState for a file that is not ours, or newer."""
    versions.check(version_of(data, header, name), name, kind_of(header))
    return data.index(b"\n") + 1


def is_begun(data: bytes, header: bytes) -> bool:
    """Whether `data` is an incomplete header of this kind, of any version that we read."""
    headers = (header % version for version in range(versions.FIRST, versions.VERSION + 1))
    return any(len(data) < len(whole) and whole.startswith(data) for whole in headers)
