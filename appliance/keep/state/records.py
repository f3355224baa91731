"""Pure: no clock, no socket, no await.

The payloads of state files' records: CBOR (RFC 8949) of changes, or of a store in pieces.
`frames` adds the bytes around them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any, Final, TypeVar

import attrs
import cattrs.preconf.cbor2
import cbor2
from cattrs.strategies import configure_tagged_union

from appliance.errors import BadState
from appliance.jobs import job as jobs
from appliance.jobs.box import BootLog, Box
from appliance.jobs.changes import Change, Clocked, Job, Submitted
from appliance.jobs.store import Store
from appliance.keep.state import frames, versions

T = TypeVar("T")

# Highest number of a job, and of anything counted: a row's number in SQLite is at most 2^63, and
# job ids with more digits are not looked up.
NUMBER_MAX: Final = 10**15 - 1
# Highest number that an import or a restore may bring, so that no lab runs out of numbers: at a
# thousand jobs a second this is thirty years.
GIVEN_MAX: Final = 10**12
PIECE: Final = 10  # jobs or boxes in one record of a snapshot: the most that one flipped bit costs


def _make_converter(*, for_people: bool) -> cattrs.preconf.cbor2.Cbor2Converter:
    """Makes a converter; for people with all fields and explained errors, in 1.5 times the time."""
    made = cattrs.preconf.cbor2.make_converter(
        forbid_extra_keys=True, omit_if_default=not for_people, detailed_validation=for_people
    )
    for kinds in (jobs.State, jobs.Event, Change):
        configure_tagged_union(kinds, made, tag_name="is")
    return made


_converter = _make_converter(for_people=False)
_for_people = _make_converter(for_people=True)
_plain_change = _converter.get_unstructure_hook(Change)


def unstructure(value: Any, kind: Any = None) -> Any:
    """Converts a job, box or change to plain values for people, with all its fields."""
    return _for_people.unstructure(value, kind)


def structure(value: Any, kind: Any) -> Any:
    """Undoes `unstructure`.  Raises errors that cattrs.transform_error explains."""
    return _for_people.structure(value, kind)


def dumps(value: Any, kind: Any) -> bytes:
    """Returns the CBOR of a value of this kind."""
    return cbor2.dumps(_converter.unstructure(value, kind))


def loads(payload: bytes, kind: type[T], name: str) -> T:
    """Returns the value of this kind in `payload`, from the file `name`.  Raises BadState."""
    return _structure(payload, kind, name)  # type: ignore[no-any-return]


def dump_changes(changes: list[Change]) -> bytes:
    """Returns the payload of one journal record: the changes that share a write."""
    return joined([dump_change(change) for change in changes])


def dump_change(change: Change) -> bytes:
    """Returns the CBOR of one change."""
    return cbor2.dumps(_plain_change(change))


def joined(parts: list[bytes]) -> bytes:
    """Joins changes that were dumped one by one into the payload that `dump_changes` returns."""
    count = len(parts)
    head = bytes([0x80 | count]) if count < 24 else b"\x9a" + count.to_bytes(4)  # RFC 8949, 3.
    return b"".join([head, *parts])


def load_changes(payload: bytes, name: str) -> list[Change]:
    """Returns the changes in the payload of a journal record.  Raises BadState."""
    changes: list[Change] = _structure(payload, list[Change], name)
    for change in changes:
        if isinstance(change, Submitted):
            check_number("a job's number", change.job.number, name, least=1)
    return changes


def check_number(what: str, number: int, name: str, *, least: int = 0) -> None:
    """Raises BadState for a number that no lab reaches."""
    if not least <= number <= NUMBER_MAX:
        raise BadState(f"{name}: {what} = {number} is no number that a lab reaches")


@attrs.frozen
class StoreImage:
    """A store as it was at one moment; it stays the same while the store changes."""

    counter: int
    drained: str
    archived: int
    jobs: list[Job]
    boxes: list[Box]
    next: int  # the number of the first journal record after this image
    clocked: Clocked | None = None
    moment: float = 0.0


def image_of(store: Store, following: int) -> StoreImage:
    """Copies a store, quickly, as it blocks the loop: only boxes and last boots need a copy."""
    boxes = [_copy(box) for box in store.boxes.values()]
    jobs = list(store.jobs.values())
    return StoreImage(
        store.counter, store.drained, store.archived, jobs, boxes, following,
        store.clocked, store.moment,
    )  # fmt: skip


# attrs.evolve would take twenty times as long: a fifth of a second for 5,000 boxes.
_of_box: Final = operator.attrgetter(*(field.name for field in attrs.fields(Box)))
_of_boot: Final = operator.attrgetter(*(field.name for field in attrs.fields(BootLog)))


def _copy(box: Box) -> Box:
    copy = Box(*_of_box(box))
    copy.boots = list(box.boots)
    for boot in copy.boots[-1:]:
        copy.boots[-1] = BootLog(*_of_boot(boot))
        copy.boots[-1].steps = list(boot.steps)
    return copy


def dump_image(image: StoreImage) -> Iterator[bytes]:
    """Yields the payloads of a snapshot, each made when it is asked for."""
    yield cbor2.dumps(
        {
            "counter": image.counter,
            "drained": image.drained,
            "archived": image.archived,
            "jobs": len(image.jobs),
            "boxes": len(image.boxes),
            "next": image.next,
            **_clock_of(image),
        }
    )
    for n in range(0, len(image.jobs), PIECE):
        piece = _converter.unstructure(image.jobs[n : n + PIECE], list[Job])
        yield cbor2.dumps({"jobs": piece})
    for n in range(0, len(image.boxes), PIECE):
        piece = _converter.unstructure(image.boxes[n : n + PIECE], list[Box])
        yield cbor2.dumps({"boxes": piece})


def _clock_of(image: StoreImage) -> dict[str, Any]:
    """Returns the last reading of the clocks, if there is one: version 1 wrote none."""
    if image.clocked is None:
        return {}
    return {_CLOCK: [_converter.unstructure(image.clocked), image.moment]}


def snapshot(image: StoreImage) -> Iterator[bytes]:
    """Yields the bytes of a snapshot file, in pieces."""
    yield frames.SNAPSHOT % versions.VERSION
    for number, payload in enumerate(dump_image(image)):
        yield frames.frame(payload, number)


def dump_store(store: Store) -> bytes:
    """Returns all of a snapshot's payloads: equal bytes for equal stores."""
    return b"".join(dump_image(image_of(store, 0)))


_FIRST: Final = {"counter", "drained", "archived", "jobs", "boxes", "next"}
_CLOCK: Final = "clock"


@attrs.define
class Loading:
    """A snapshot being loaded.  `add` each payload; it is whole when `missing` is empty."""

    name: str
    counts: dict[str, int] | None = None
    drained: str = ""
    clocked: Clocked | None = None
    moment: float = 0.0
    jobs: dict[str, Job] = attrs.Factory(dict)
    boxes: dict[str, Box] = attrs.Factory(dict)

    def add(self, payload: bytes) -> None:
        """Takes one payload.  Raises BadState."""
        parts = _structure(payload, dict[str, Any], self.name)
        if self.counts is None and parts.keys() - {_CLOCK} == _FIRST:
            if _CLOCK in parts:
                kind = tuple[Clocked, float]
                self.clocked, self.moment = _made(parts.pop(_CLOCK), kind, self.name)
            self.drained = _made(parts.pop("drained"), str, self.name)
            counts: dict[str, int] = _made(parts, dict[str, int], self.name)
            for key, number in counts.items():
                check_number(key, number, self.name)
            self.counts = counts
        elif parts.keys() == {"jobs"}:
            jobs: list[Job] = _made(parts["jobs"], list[Job], self.name)
            for job in jobs:
                check_number("a job's number", job.number, self.name, least=1)
            self.jobs.update((job.id, job) for job in jobs)
        elif parts.keys() == {"boxes"}:
            boxes = _made(parts["boxes"], list[Box], self.name)
            self.boxes.update((box.name, box) for box in boxes)
        else:
            raise BadState(f"{self.name}: holds a record that is none of ours")

    @property
    def missing(self) -> str:
        """What is still missing, in words."""
        if self.counts is None:
            return "its first record"
        lacks = {
            "jobs": self.counts["jobs"] - len(self.jobs),
            "boxes": self.counts["boxes"] - len(self.boxes),
        }
        return " and ".join(f"{n} {word}" for word, n in lacks.items() if n)

    @property
    def next(self) -> int:
        """The number of the first journal record after the snapshot."""
        return (self.counts or {}).get("next", 0)

    def store(self) -> Store:
        """Returns the store.  Raises BadState if its jobs and boxes contradict each other."""
        newest = max((job.number for job in self.jobs.values()), default=0)
        counts = self.counts or {}
        counter = max(newest, counts.get("counter", 0))
        try:
            return Store(
                self.jobs, self.boxes, counter, self.drained, counts.get("archived", 0),
                self.clocked, self.moment,
            )  # fmt: skip
        except Exception as error:  # a job on a box that is not there
            raise BadState(f"{self.name}: does not hold a store: {error!r}") from error


def _structure(payload: bytes, kind: Any, name: str) -> Any:
    try:
        value = cbor2.loads(payload)
    except Exception as error:  # cbor2 may raise anything for foreign bytes
        raise BadState(f"{name}: holds a record that is not CBOR: {error!r}") from error
    return _made(value, kind, name)


def _made(value: Any, kind: Any, name: str) -> Any:
    try:
        return _converter.structure(value, kind)
    except Exception as error:  # cattrs may raise anything for a foreign value
        raise BadState(f"{name}: holds a record that is none of ours: {error!r}") from error
