"""Pure: no clock, no socket, no await.

Reads state files, damaged or not: what a start would make of them, why it would refuse, and what
a repair can save.

A repair continues where a start stops.  It takes every whole record; a change that no longer
follows, because records before it are lost, is left out and named.
Of lost records only known facts are reported: their numbers, and the job ids still found in
their bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from appliance.errors import BadState
from appliance.jobs import job as jobs
from appliance.jobs.changes import Change, Moved, Submitted
from appliance.jobs.store import Store
from appliance.keep.repair import salvage
from appliance.keep.state import frames, records, replay
from appliance.keep.state.frames import Part

MISSING_MAX: Final = 10  # missing journals in a row that are named
Contents = Mapping[str, bytes | OSError]  # by name; an error: the file cannot be read


@attrs.frozen
class Damage:
    """One reason for a start to refuse the state."""

    file: str
    offset: int | None  # None: the file as a whole
    why: str
    lost: str = ""  # what a repair loses because of it, in words; empty: nothing
    jobs: tuple[str, ...] = ()  # job ids found in the lost bytes, as far as can be told

    def __str__(self) -> str:
        where = "" if self.offset is None else f"damaged at byte {self.offset}: "
        return f"{self.file}: {where}{self.why}"


@attrs.frozen
class File:
    """One state file."""

    name: str
    size: int
    records: int  # whole ones
    used: bool  # read by a start; other files wait to be removed


@attrs.define
class Survey:
    """Everything that was found."""

    store: Store = attrs.Factory(Store)
    next: int = 0  # the number of the next journal record
    newest: int = 0  # the highest number of a state file
    files: list[File] = attrs.Factory(list)
    damage: list[Damage] = attrs.Factory(list)
    torn: str = ""  # the torn last record, which a start drops: it was never acknowledged

    @property
    def losses(self) -> list[Damage]:
        """The damage that makes a repair lose something."""
        return [damage for damage in self.damage if damage.lost]


def survey(contents: Contents, lab: str) -> Survey:
    """Reads these files.  Raises BadState for files of a newer program.

    If the newest snapshot is damaged, an older one that is still there may lose less.
    """
    _check_versions(contents)
    files = replay.files_among(contents)
    found = _from(contents, files, files.start, lab)
    if found.damage:
        others = [_from(contents, files, number, lab) for number in files.snapshots[:-1]]
        best = min([found, *reversed(others)], key=lambda one: len(one.losses))
        if best is not found and found.losses:
            found = attrs.evolve(best, damage=[*found.damage[:1], *best.damage])
            found.damage[0] = attrs.evolve(found.damage[0], lost="", jobs=())
    return found


def _check_versions(contents: Contents) -> None:
    for name, data in contents.items():
        header = frames.SNAPSHOT if name.startswith("snapshot") else frames.JOURNAL
        if isinstance(data, bytes) and frames.is_ours(data, header):
            frames.check_header(data, header, name)


def _from(contents: Contents, files: replay.Files, start: int, lab: str) -> Survey:
    """Returns what a start from snapshot `start` would find."""
    found = Survey(newest=files.newest, torn=files.lone)
    surveyor = _Surveyor(found, contents, lab)
    if files.snapshots:
        surveyor.take_snapshot(replay.snapshot_name(start))
    there = files.journals_from(start)
    wanted = start
    for number in there:
        # Without a snapshot nothing says which journal is the first.
        most = MISSING_MAX if files.snapshots else 0
        for missing in range(wanted, min(number, wanted + most)):
            surveyor.take_journal(replay.journal_name(missing), newest=False)
        surveyor.take_journal(replay.journal_name(number), newest=number == there[-1])
        wanted = number + 1
    surveyor.end(files, start)
    return found


class _Surveyor:
    """Reads one file after another into a Survey."""

    def __init__(self, found: Survey, contents: Contents, lab: str) -> None:
        self._found, self._contents = found, contents
        self._labs = {lab}
        self._whole: dict[str, int] = {}  # records, by file
        self._pending: list[Damage] = []  # in journals: what is lost is not known yet
        self._known_next = True  # whether the next record's number is known

    # ---- the newest snapshot

    def take_snapshot(self, name: str) -> None:
        data = self._data(name)
        loading = records.Loading(name)
        broken: list[Damage] = []
        start = self._start(data, frames.SNAPSHOT, name, broken)
        for part in frames.stretches(data, start):
            try:
                if part.payload is None:
                    raise replay.damaged(name, part)
                loading.add(part.payload)
                self._whole[name] = self._whole.get(name, 0) + 1
            except BadState:
                why = part.why or "the record is cut off" if part.payload is None else _FOREIGN
                broken.append(Damage(name, part.start, why, jobs=self._ids(data, part)))
        lacks = loading.missing
        if lacks and not broken:
            broken.append(Damage(name, len(data), f"it lacks {lacks}"))
        for n, damage in enumerate(broken):
            lost = lacks if n == 0 and lacks else ""
            self._found.damage.append(attrs.evolve(damage, lost=lost))
        self._found.store = salvage.store_of(loading)
        self._found.next = loading.next
        self._known_next = loading.counts is not None
        self._labs |= {job.id.rpartition(".")[0] for job in self._found.store.jobs.values()}

    # ---- journals

    def take_journal(self, name: str, *, newest: bool) -> None:
        data = self._data(name)
        if newest and isinstance(self._contents.get(name), bytes) and replay.is_just_made(data):
            self._found.torn = f"{name}: lost power as it was made, or was emptied: no record"
            return
        broken: list[Damage] = []
        start = self._start(data, frames.JOURNAL, name, broken)
        self._pending += broken
        for part in frames.stretches(data, start):
            if part.torn and newest:
                self._found.torn = f"{name}: torn at byte {part.start}: a start drops the rest"
            elif part.payload is None:
                why = part.why or "torn, but a newer journal follows"
                self._pending.append(Damage(name, part.start, why, jobs=self._ids(data, part)))
            else:
                self._take(name, part)

    def _take(self, name: str, part: Part) -> None:
        found = self._found
        assert part.payload is not None
        if not self._known_next:
            found.next, self._known_next = part.number, True
        if part.number < found.next:
            why = f"record {found.next} should stand here, and {part.number} does"
            found.damage.append(Damage(name, part.start, why))  # it was applied already
            return
        if part.number > found.next and not self._pending:
            why = f"record {found.next} should stand here, and {part.number} does"
            self._pending.append(Damage(name, part.start, why))
        self._settle(_numbers(found.next, part.number))
        found.next = part.number + 1
        try:
            changes = records.load_changes(part.payload, name)
        except BadState:
            lost = f"record {part.number}"
            damage = Damage(name, part.start, _FOREIGN, lost, self._ids(part.payload, None))
            found.damage.append(damage)
            return
        self._whole[name] = self._whole.get(name, 0) + 1
        self._apply(name, part, changes)

    def _apply(self, name: str, part: Part, changes: list[Change]) -> None:
        found, left = self._found, []
        for change in changes:
            if isinstance(change, Submitted):
                self._labs.add(change.job.id.rpartition(".")[0])
            if found.damage and isinstance(change, Moved) and isinstance(change.event, jobs.Offer):
                found.store = salvage.caught_up(found.store, change, change.event.attempt)
            if (why := salvage.make(found.store, change)) is not None:
                left.append((change, why))
        if left:
            words = ", ".join(dict.fromkeys(type(change).__name__ for change, _ in left))
            names = dict.fromkeys(_job_of(change) for change, _ in left)
            change, reason = left[0]
            why = f"{type(change).__name__} does not follow from what stands before it: {reason}"
            many = "change" if len(left) == 1 else "changes"
            lost = f"{len(left)} {many} ({words}) of record {part.number}"
            jobs_ = tuple(name for name in names if name)
            found.damage.append(Damage(name, part.start, why, lost, jobs_))

    def _settle(self, lost: str) -> None:
        """Reports the pending damage, which together has cost `lost`."""
        for n, damage in enumerate(self._pending):
            self._found.damage.append(attrs.evolve(damage, lost=lost if n == 0 else ""))
        self._pending.clear()

    def end(self, files: replay.Files, start: int) -> None:
        """Finishes the survey after the last file."""
        found = self._found
        self._settle(f"record {found.next}, and whatever stood behind it")
        gap = files.gap() if files.snapshots else ""
        if files.journals and not files.snapshots:
            gap = f"{replay.journal_name(files.journals[0])} is there, but no snapshot"
            lost = f"everything before record {self._first_number(files)}"
            found.damage.insert(0, Damage("snapshot", None, gap, lost))
        for name in sorted(name for name in self._contents if replay.NAME.match(name)):
            data = self._contents[name]
            number = int(name.rpartition("-")[2])
            used = number >= start if name.startswith("journal") else False
            used = used or name == replay.snapshot_name(start)
            size = len(data) if isinstance(data, bytes) else 0
            found.files.append(File(name, size, self._whole.get(name, 0), used))
        found.store.check()

    def _first_number(self, files: replay.Files) -> int:
        data = self._data(replay.journal_name(files.journals[0]))
        part = next((part for part in frames.stretches(data, 0) if part.payload is not None), None)
        return part.number if part is not None else 0

    # ---- bytes

    def _data(self, name: str) -> bytes:
        data = self._contents.get(name)
        return data if isinstance(data, bytes) else b""

    def _start(self, data: bytes, header: bytes, name: str, broken: list[Damage]) -> int:
        """Returns where a file's records begin; notes damage to the file as a whole in `broken`."""
        there = self._contents.get(name)
        if there is None:
            broken.append(Damage(name, None, "is missing"))
        elif isinstance(there, OSError):
            broken.append(Damage(name, None, f"cannot be read: {there.strerror}"))
        elif frames.is_ours(data, header):
            return frames.check_header(data, header, name)
        else:
            broken.append(Damage(name, 0, f"not a {frames.kind_of(header)} of the appliance"))
        first = next(frames.whole_behind(data, -1), None)
        return first.start if first is not None else len(data)

    def _ids(self, data: bytes, part: Part | None) -> tuple[str, ...]:
        """Returns job ids in damaged bytes: separate strings, or the ends of result roots."""
        stretch = data if part is None else data[part.start : part.end]
        labs = "|".join(map(re.escape, sorted(self._labs))).encode()
        ids: dict[str, None] = {}
        for match in re.finditer(rb"(?:%b)\.\d{1,9}" % labs, stretch):
            name, before = match[0], stretch[max(0, match.start() - 2) : match.start()]
            if not before.endswith(b"/"):  # CBOR puts a string's length before it
                name = name[: max(0, _length(before))]
            if re.fullmatch(rb"(?:%b)\.\d+" % labs, name):
                ids[name.decode()] = None
        return tuple(ids)


def _length(head: bytes) -> int:
    """Returns the length of the CBOR string that follows `head`."""
    if len(head) == 2 and head[0] == 0x78:
        return head[1]
    return head[-1] - 0x60 if head else 0


_FOREIGN: Final = "it holds a record that is none of ours"


def _numbers(first: int, following: int) -> str:
    """Returns the records from `first` up to, but not with, `following`, in words."""
    if first == following:
        return ""
    if first + 1 == following:
        return f"record {first}"
    return f"records {first} to {following - 1}"


def _job_of(change: Change) -> str | None:
    if isinstance(change, Submitted):
        return change.job.id
    name = getattr(change, "job", None)
    return name if isinstance(name, str) else None


def ids(damage: Iterable[Damage]) -> list[str]:
    """Returns the job ids in all the damage, each once."""
    return list(dict.fromkeys(name for one in damage for name in one.jobs))
