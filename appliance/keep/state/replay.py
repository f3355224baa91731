"""Pure: no clock, no socket, no await.

The way back from state files to the store: which files count, and what they say together.

Only the last record of the newest journal may be torn.  Anything else that is not whole stops
here by name: what a person may want to do about it is in `repair`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

from appliance.errors import BadState, IllegalMove
from appliance.jobs.changes import Change
from appliance.jobs.store import Store
from appliance.keep.state import frames, records
from appliance.keep.state.frames import Part

# There from before a restore moves the first file aside until its last is written: what lies there
# meanwhile is part of one state, or of two.
RESTORING: Final = "restoring"
BROKEN_OFF: Final = "a restore was broken off: say the same `appliance restore --yes` again"
NAME: Final = re.compile(r"(snapshot|journal)-(\d{6,})\Z")
HELP: Final = "`appliance state repair` says what can be saved"


@attrs.frozen
class Files:
    """The numbers of the state files in a folder."""

    snapshots: tuple[int, ...]
    journals: tuple[int, ...]

    @property
    def newest(self) -> int:
        """The highest number of all; 0 for an empty folder."""
        return max([0, *self.snapshots, *self.journals])

    @property
    def start(self) -> int:
        """The number that a start begins from."""
        return self.snapshots[-1] if self.snapshots else 0

    def journals_from(self, start: int) -> list[int]:
        """Those that a start from snapshot `start` applies, in order."""
        return [number for number in self.journals if number >= start]

    def gap(self) -> str:
        """What is missing for a start, in words; empty where nothing is."""
        there = self.journals_from(self.start)
        if there and not self.snapshots:
            return f"{journal_name(there[0])} is there, but no snapshot"
        for wanted, number in enumerate(there, start=self.start):
            if wanted != number:
                return f"{journal_name(wanted)} is missing, but {journal_name(number)} is there"
        return ""

    @property
    def lone(self) -> str:
        """Why no journal stands behind the snapshot, in words; empty where one does."""
        if not self.snapshots or self.journals_from(self.start):
            return ""
        name = journal_name(self.start)
        return f"{name}: lost power before it was made, or was removed: no record"

    def before(self, number: int) -> list[str]:
        """The files that a snapshot with this number makes superfluous."""
        old = [snapshot_name(n) for n in self.snapshots if n < number]
        return old + [journal_name(n) for n in self.journals if n < number]


def files_among(names: Iterable[str]) -> Files:
    """The state files among `names`; others are none of ours."""
    found = [match for name in names if (match := NAME.match(name))]
    return Files(
        tuple(sorted(int(match[2]) for match in found if match[1] == "snapshot")),
        tuple(sorted(int(match[2]) for match in found if match[1] == "journal")),
    )


def snapshot_name(number: int) -> str:
    """The file of this number."""
    return f"snapshot-{number:06}"


def journal_name(number: int) -> str:
    """The file of this number."""
    return f"journal-{number:06}"


@attrs.define
class State:
    """What files say so far."""

    store: Store = attrs.Factory(Store)
    next: int = 0  # the number of the journal record that comes next


def load_snapshot(data: bytes, name: str) -> State:
    """The state in a snapshot.  Raises BadState where it is not whole."""
    loading = records.Loading(name)
    parts = frames.parts(data, frames.check_header(data, frames.SNAPSHOT, name))
    for number, part in enumerate(parts):
        _check(part, number, name)
        assert part.payload is not None
        loading.add(part.payload)
    if loading.missing:
        raise damaged(name, Part(len(data), len(data), None, why=f"it lacks {loading.missing}"))
    return State(loading.store(), loading.next)


def replay(state: State, data: bytes, name: str, *, newest: bool) -> Part | None:
    """Apply a journal.  The torn part that was left out, if there is one.  Raises BadState."""
    if newest and is_just_made(data):
        return Part(0, len(data), None, torn=True)
    for part in frames.parts(data, frames.check_header(data, frames.JOURNAL, name)):
        if part.torn and newest:
            return part
        if part.torn:
            raise damaged(name, attrs.evolve(part, why="torn, but a newer journal follows"))
        _check(part, state.next, name)
        assert part.payload is not None
        for change in records.load_changes(part.payload, f"{name}: byte {part.start}"):
            _apply(state.store, change, name, part)
        state.next += 1
    return None


def is_just_made(data: bytes) -> bool:
    """Whether a journal can have lost power before its header was whole, and durable.

    No record stands in it then.  It may also have been emptied, so it is told of.
    """
    empty = len(data) <= len(frames.JOURNAL_HEADER) and not any(data)
    return empty or frames.is_begun(data, frames.JOURNAL)


def _check(part: Part, number: int, name: str) -> None:
    """Raises BadState for a part that is not the record of this number."""
    if part.payload is None:
        raise damaged(name, part)
    if part.number != number:
        why = f"record {number} should stand here, and {part.number} does"
        raise damaged(name, attrs.evolve(part, why=why))


def _apply(store: Store, change: Change, name: str, part: Part) -> None:
    """Raises BadState where the change does not follow from the store."""
    try:
        store.apply(change)
    except (IllegalMove, KeyError, AssertionError) as error:
        why = f"{type(change).__name__} does not follow from what stands before it: {error!r}"
        raise damaged(name, attrs.evolve(part, why=why)) from error


def damaged(name: str, part: Part) -> BadState:
    """What a start says of a part that it cannot pass."""
    why = part.why or "the record is cut off"
    return BadState(f"{name}: damaged at byte {part.start}: {why}; {HELP}")
