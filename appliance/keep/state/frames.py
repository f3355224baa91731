"""Pure: no clock, no socket, no await.

The frames of state files.  A file is a header line, then records: a head of little-endian numbers,
then the payload (`records`).

    appliance journal 2\\n   a record for each write: the changes that shared it, in order
    appliance snapshot 2\\n  one record that says how many jobs and boxes, then those, in pieces

The number is the state's version (`versions`).

    head: length of the payload, its CRC32C, the record's number (64 bit), CRC32C of these 16 bytes

The head has a checksum of its own, for a flipped bit in a length would otherwise look like a
record that the end of the file cut off, and everything behind it would be gone without a word.
Records of journals are numbered from the first one of the lab, whatever file they are in, so
that none can be missing unnoticed; those of a snapshot from 0.
One write makes one record, so what a power cut tears is always the last record, and nothing whole
ever stands behind it.
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
JOURNAL_HEADER: Final = JOURNAL % versions.VERSION  # of those that are written today
SNAPSHOT: Final = b"appliance snapshot %d\n"
RECORD_BYTES_MAX: Final = 2**30  # a length beyond this is damage, not data
SECTOR_BYTES: Final = 512  # disks write whole sectors; a lost one reads as zeros
HEAD: Final = struct.Struct("<IIQI")
_SUM: Final = struct.Struct("<IIQ")  # the part of the head that its own checksum covers


def frame(payload: bytes, number: int) -> bytes:
    """One record."""
    assert len(payload) <= RECORD_BYTES_MAX
    start = _SUM.pack(len(payload), google_crc32c.value(payload), number)
    return start + struct.pack("<I", google_crc32c.value(start)) + payload


@attrs.frozen
class Part:
    """What stands at `start`: a whole record, or what is wrong there."""

    start: int
    end: int
    payload: bytes | None  # None: not whole
    number: int = -1  # of a whole record
    torn: bool = False  # the last write never ended: dropped, since nobody was told of it
    bounded: bool = False  # its head is whole, so it ends at `end` whatever its payload says
    why: str = ""


def parts(data: bytes, start: int) -> Iterator[Part]:
    """The records from `start` on; the last part may be one that is torn or damaged.

    Nothing behind damage is looked at here; `whole_behind` finds what there is.
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
    """(length, CRC, number) as the head at `offset` says; length None where it is no head."""
    length, crc, number, head_crc = HEAD.unpack_from(data, offset)
    start = data[offset : offset + _SUM.size]
    whole = google_crc32c.value(start) == head_crc and length <= RECORD_BYTES_MAX
    return (length if whole else None), crc, number


def _lost_sector(data: bytes, start: int, end: int) -> bool:
    """Whether the part of some sector within start..end is all zeros.

    A file's size can outlive a power cut that its bytes did not (ext4, XFS): then whole sectors
    read as zeros, any of those not yet synced.  A flipped bit looks different.
    """
    while start < end:
        edge = min(end, (start // SECTOR_BYTES + 1) * SECTOR_BYTES)
        if not any(data[start:edge]):
            return True
        start = edge
    return False


def whole_behind(data: bytes, offset: int) -> Iterator[Part]:
    """The whole records that stand somewhere behind `offset`, where its own is not whole."""
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
    """Everything from `start` on: whole records, and each damaged stretch between them as one.

    Inside a record whose head is whole nothing is looked for: its payload is somebody's document,
    and may hold what looks like a record.
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
    """ "journal" or "snapshot"."""
    return header.split()[1].decode()


def is_ours(data: bytes, header: bytes) -> bool:
    """Whether a file of this kind begins so, of whatever version."""
    line, newline, _ = data[:80].partition(b"\n")
    kind = kind_of(header).encode()
    return bool(newline and re.fullmatch(rb"appliance %b [1-9][0-9]{0,8}" % kind, line))


def version_of(data: bytes, header: bytes, name: str) -> int:
    """Of the program that wrote this file.  Raises BadState for one that is not ours."""
    if not is_ours(data, header):
        raise BadState(f"{name}: not a {kind_of(header)} of the appliance")
    return int(data[: data.index(b"\n")].split()[-1])


def check_header(data: bytes, header: bytes, name: str) -> int:
    """The offset of the first record.  Raises BadState for a file that is not ours, or newer."""
    versions.check(version_of(data, header, name), name, kind_of(header))
    return data.index(b"\n") + 1


def is_begun(data: bytes, header: bytes) -> bool:
    """Whether this is the beginning of such a file's header, of any version that we read."""
    headers = (header % version for version in range(versions.FIRST, versions.VERSION + 1))
    return any(len(data) < len(whole) and whole.startswith(data) for whole in headers)
