"""Pure: no clock, no socket, no await.

Loads the store from state files: which files count, and what their records amount to.

Only the last record of the newest journal may be torn.  Any other damage stops the start with an
error that names the file; `repair` has what a person can do about it.
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

# This file exists from before a restore moves the first file aside until the restore has written
# its last: meanwhile the state files may be parts of two states.
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
        """The number of the snapshot that a start loads; 0 without one."""
        return self.snapshots[-1] if self.snapshots else 0

    def journals_from(self, start: int) -> list[int]:
        """Returns the journals that a start from snapshot `start` applies, in order."""
        return [number for number in self.journals if number >= start]

    def gap(self) -> str:
        """Says what is missing for a start, in words; empty: nothing."""
        there = self.journals_from(self.start)
        if there and not self.snapshots:
            return f"{journal_name(there[0])} is there, but no snapshot"
        for wanted, number in enumerate(there, start=self.start):
            if wanted != number:
                return f"{journal_name(wanted)} is missing, but {journal_name(number)} is there"
        return ""

    @property
    def lone(self) -> str:
        """Why no journal follows the snapshot, in words; empty if one does."""
        if not self.snapshots or self.journals_from(self.start):
            return ""
        name = journal_name(self.start)
        return f"{name}: lost power before it was made, or was removed: no record"

    def before(self, number: int) -> list[str]:
        """Returns the files that a snapshot with this number makes superfluous."""
        old = [snapshot_name(n) for n in self.snapshots if n < number]
        return old + [journal_name(n) for n in self.journals if n < number]


def files_among(names: Iterable[str]) -> Files:
    """Returns the state files among `names`; ignores others."""
    found = [match for name in names if (match := NAME.match(name))]
    return Files(
        tuple(sorted(int(match[2]) for match in found if match[1] == "snapshot")),
        tuple(sorted(int(match[2]) for match in found if match[1] == "journal")),
    )


def snapshot_name(number: int) -> str:
    """Returns the name of the snapshot with this number."""
    return f"snapshot-{number:06}"


def journal_name(number: int) -> str:
    """Returns the name of the journal with this number."""
    return f"journal-{number:06}"


@attrs.define
class State:
    """The state that the files read so far hold."""

    store: Store = attrs.Factory(Store)
    next: int = 0  # the number of the next journal record


def load_snapshot(data: bytes, name: str) -> State:
    """Returns the state in a snapshot.  Raises BadState if it is not whole."""
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
    """Applies a journal; returns the torn part that was left out, if any.  Raises BadState."""
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
    """Whether power may have failed before a journal's header was whole and durable.

    Such a journal has no record.  It may also have been emptied, so callers report it.
    """
    empty = len(data) <= len(frames.JOURNAL_HEADER) and not any(data)
    return empty or frames.is_begun(data, frames.JOURNAL)


def _check(part: Part, number: int, name: str) -> None:
    """Raises BadState if the part is not the record with this number."""
    if part.payload is None:
        raise damaged(name, part)
    if part.number != number:
        why = f"record {number} should stand here, and {part.number} does"
        raise damaged(name, attrs.evolve(part, why=why))


def _apply(store: Store, change: Change, name: str, part: Part) -> None:
    """Applies a change.  Raises BadState if the change does not follow from the store."""
    try:
        store.apply(change)
    except (IllegalMove, KeyError, AssertionError) as error:
        why = f"{type(change).__name__} does not follow from what stands before it: {error!r}"
        raise damaged(name, attrs.evolve(part, why=why)) from error


def damaged(name: str, part: Part) -> BadState:
    """Returns the error of a start that meets a part that it cannot use."""
    why = part.why or "the record is cut off"
    return BadState(f"{name}: damaged at byte {part.start}: {why}; {HELP}")
