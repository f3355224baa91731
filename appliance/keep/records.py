"""Pure: no clock, no socket, no await.

The bytes of state files.  A file is a header line, then records: length and CRC32C of the payload
(both unsigned 32 bit, little-endian), then the payload, CBOR (RFC 8949).

    appliance journal 1\\n   one record for each list of changes that were decided together
    appliance snapshot 1\\n  one record: the whole store
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from typing import Any, Final

import cattrs.preconf.cbor2
import cbor2
import google_crc32c
from cattrs.strategies import configure_tagged_union

from appliance.errors import BadState
from appliance.jobs import job as jobs
from appliance.jobs.box import Box
from appliance.jobs.store import Change, Job, Store

VERSION: Final = 1
JOURNAL: Final = b"appliance journal %d\n"
SNAPSHOT: Final = b"appliance snapshot %d\n"
RECORD_BYTES_MAX: Final = 2**30  # a length beyond this is damage, not data
_HEAD: Final = struct.Struct("<II")

_converter = cattrs.preconf.cbor2.make_converter(forbid_extra_keys=True)
configure_tagged_union(jobs.State, _converter, tag_name="is")
configure_tagged_union(jobs.Event, _converter, tag_name="is")
configure_tagged_union(Change, _converter, tag_name="is")


def frame(payload: bytes) -> bytes:
    """One record."""
    return _HEAD.pack(len(payload), google_crc32c.value(payload)) + payload


def unframe(data: bytes, start: int, name: str) -> Iterator[tuple[int, bytes]]:
    """(offset behind the record, payload) of each whole record from `start` on.

    Ends at the end, or before a last record that is torn.  Raises BadState for a damaged record
    that others follow: what stands behind it cannot be trusted to be a torn write.
    """
    offset = start
    while offset < len(data):
        head = data[offset : offset + _HEAD.size]
        if len(head) < _HEAD.size:
            return
        length, crc = _HEAD.unpack(head)
        if length == 0 and not any(data[offset:]):
            return  # a file's size can outlive a power cut that its bytes did not
        end = offset + _HEAD.size + length
        if length > RECORD_BYTES_MAX:
            raise BadState(f"{name}: damaged at byte {offset}: a record of {length} bytes")
        if end > len(data):
            return
        payload = data[offset + _HEAD.size : end]
        if google_crc32c.value(payload) != crc:
            if end == len(data):
                return
            raise BadState(f"{name}: damaged at byte {offset}: the checksum does not fit")
        yield end, payload
        offset = end


def check_header(data: bytes, header: bytes, name: str) -> int:
    """The offset of the first record.  Raises BadState for a file that is not ours, or newer."""
    kind = header.split()[1].decode()
    line, newline, _ = data[:80].partition(b"\n")
    if not newline or not re.fullmatch(rb"appliance %b [1-9][0-9]{0,8}" % kind.encode(), line):
        raise BadState(f"{name}: not a {kind} of the appliance")
    version = int(line.split()[-1])
    if version > VERSION:
        raise BadState(f"{name}: {kind} version {version} is newer than this program's")
    return len(line) + 1


def dump_changes(changes: list[Change]) -> bytes:
    """The payload of one journal record."""
    return cbor2.dumps(_converter.unstructure(changes, unstructure_as=list[Change]))


def load_changes(payload: bytes, name: str) -> list[Change]:
    """Raises BadState."""
    return _structure(payload, list[Change], name)  # type: ignore[no-any-return]


def dump_store(store: Store) -> bytes:
    """The payload of a snapshot."""
    return cbor2.dumps(
        {
            "counter": store.counter,
            "jobs": _converter.unstructure(list(store.jobs.values()), list[Job]),
            "boxes": _converter.unstructure(list(store.boxes.values()), list[Box]),
        }
    )


def load_store(payload: bytes, name: str) -> Store:
    """Raises BadState."""
    parts = _structure(payload, dict[str, Any], name)
    try:
        jobs_kept = _converter.structure(parts["jobs"], list[Job])
        boxes = _converter.structure(parts["boxes"], list[Box])
        counter = _converter.structure(parts["counter"], int)
        return Store({job.id: job for job in jobs_kept}, {box.name: box for box in boxes}, counter)
    except Exception as error:
        raise BadState(f"{name}: does not hold a store: {error!r}") from error


def _structure(payload: bytes, kind: Any, name: str) -> Any:
    try:
        return _converter.structure(cbor2.loads(payload), kind)
    except Exception as error:  # whatever a foreign payload makes cbor2 and cattrs say
        raise BadState(f"{name}: holds a record that is none of ours: {error!r}") from error
