"""Pure: no clock, no socket, no await.

What the records of state files hold: CBOR (RFC 8949) of changes, or of a store in pieces.
`frames` has the bytes around them.
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

# Of a job, and of whatever is counted: a row's number in SQLite is at most 2^63, and nobody looks
# for an id of more digits.
NUMBER_MAX: Final = 10**15 - 1
# What an import or a restore may bring, so that no lab gets to the end of its numbers: at a
# thousand jobs a second this is thirty years.
GIVEN_MAX: Final = 10**12
PIECE: Final = 10  # jobs or boxes in one record of a snapshot: all that one flipped bit can cost


def _make_converter(*, for_people: bool) -> cattrs.preconf.cbor2.Cbor2Converter:
    """For people every field is written, and what is wrong is said: half as much time again."""
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
    """A job, box or change as plain values, for people: all its fields."""
    return _for_people.unstructure(value, kind)


def structure(value: Any, kind: Any) -> Any:
    """The way back.  Raises what cattrs.transform_error explains."""
    return _for_people.structure(value, kind)


def dumps(value: Any, kind: Any) -> bytes:
    """CBOR of a value of this kind."""
    return cbor2.dumps(_converter.unstructure(value, kind))


def loads(payload: bytes, kind: type[T], name: str) -> T:
    """The value of this kind in `payload`, from the file `name`.  Raises BadState."""
    return _structure(payload, kind, name)  # type: ignore[no-any-return]


def dump_changes(changes: list[Change]) -> bytes:
    """The payload of one journal record: the changes that share a write."""
    return joined([dump_change(change) for change in changes])


def dump_change(change: Change) -> bytes:
    """One of them."""
    return cbor2.dumps(_plain_change(change))


def joined(parts: list[bytes]) -> bytes:
    """The same payload, of changes that were dumped one by one: their array."""
    count = len(parts)
    head = bytes([0x80 | count]) if count < 24 else b"\x9a" + count.to_bytes(4)  # RFC 8949, 3.
    return b"".join([head, *parts])


def load_changes(payload: bytes, name: str) -> list[Change]:
    """Raises BadState."""
    changes: list[Change] = _structure(payload, list[Change], name)
    for change in changes:
        if isinstance(change, Submitted):
            check_number("a job's number", change.job.number, name, least=1)
    return changes


def check_number(what: str, number: int, name: str, *, least: int = 0) -> None:
    """Raises BadState for one that no lab reaches."""
    if not least <= number <= NUMBER_MAX:
        raise BadState(f"{name}: {what} = {number} is no number that a lab reaches")


@attrs.frozen
class Image:
    """A store as it was at one moment: it stays so while the store goes on."""

    counter: int
    drained: str
    archived: int
    jobs: list[Job]
    boxes: list[Box]
    next: int  # the number of the first journal record that comes after
    clocked: Clocked | None = None
    moment: float = 0.0


def image_of(store: Store, following: int) -> Image:
    """Quick, for nothing else runs meanwhile: jobs are frozen, of a box its last boot is not."""
    boxes = [_copy(box) for box in store.boxes.values()]
    jobs = list(store.jobs.values())
    return Image(
        store.counter, store.drained, store.archived, jobs, boxes, following,
        store.clocked, store.moment,
    )  # fmt: skip


# attrs.evolve takes twenty times as long: a fifth of a second for 5,000 boxes.
_of_box: Final = operator.attrgetter(*(field.name for field in attrs.fields(Box)))
_of_boot: Final = operator.attrgetter(*(field.name for field in attrs.fields(BootLog)))


def _copy(box: Box) -> Box:
    copy = Box(*_of_box(box))
    copy.boots = list(box.boots)
    for boot in copy.boots[-1:]:
        copy.boots[-1] = BootLog(*_of_boot(boot))
        copy.boots[-1].steps = list(boot.steps)
    return copy


def dump_image(image: Image) -> Iterator[bytes]:
    """The payloads of a snapshot, made one by one as they are asked for."""
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


def _clock_of(image: Image) -> dict[str, Any]:
    """What the clocks said, if they ever did: version 1 wrote nothing down."""
    if image.clocked is None:
        return {}
    return {_CLOCK: [_converter.unstructure(image.clocked), image.moment]}


def snapshot(image: Image) -> Iterator[bytes]:
    """The bytes of a snapshot file, in pieces."""
    yield frames.SNAPSHOT % versions.VERSION
    for number, payload in enumerate(dump_image(image)):
        yield frames.frame(payload, number)


def dump_store(store: Store) -> bytes:
    """All of a snapshot's payloads: equal bytes for equal stores."""
    return b"".join(dump_image(image_of(store, 0)))


_FIRST: Final = {"counter", "drained", "archived", "jobs", "boxes", "next"}
_CLOCK: Final = "clock"


@attrs.define
class Loading:
    """A snapshot on its way in.  `add` each payload; it is whole when `missing` is empty."""

    name: str
    counts: dict[str, int] | None = None
    drained: str = ""
    clocked: Clocked | None = None
    moment: float = 0.0
    jobs: dict[str, Job] = attrs.Factory(dict)
    boxes: dict[str, Box] = attrs.Factory(dict)

    def add(self, payload: bytes) -> None:
        """Raises BadState."""
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
        """What is not there yet, in words."""
        if self.counts is None:
            return "its first record"
        lacks = {
            "jobs": self.counts["jobs"] - len(self.jobs),
            "boxes": self.counts["boxes"] - len(self.boxes),
        }
        return " and ".join(f"{n} {word}" for word, n in lacks.items() if n)

    @property
    def next(self) -> int:
        """The number of the journal record that follows."""
        return (self.counts or {}).get("next", 0)

    def store(self) -> Store:
        """What was added.  Raises BadState where its jobs and boxes contradict each other."""
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
    except Exception as error:  # whatever foreign bytes make cbor2 say
        raise BadState(f"{name}: holds a record that is not CBOR: {error!r}") from error
    return _made(value, kind, name)


def _made(value: Any, kind: Any, name: str) -> Any:
    try:
        return _converter.structure(value, kind)
    except Exception as error:  # whatever a foreign value makes cattrs say
        raise BadState(f"{name}: holds a record that is none of ours: {error!r}") from error
