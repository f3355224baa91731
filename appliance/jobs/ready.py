"""Pure: no clock, no socket, no await.

Who gets what next: queued jobs on one side, parked testboxes on the other, and the pairs between.

Work grows with what changed: a key is a (queue, arch), and only keys that a new job or a new box
made dirty are looked at.  Among the jobs that fit a box: priority, then submitters in turn, then
age (design.md §5).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable

import attrs

Key = tuple[str, str]  # queue, arch


@attrs.define
class _Line:
    """The queued jobs of one key."""

    # {priority: {submitter, whose turn is next first: {job id, oldest first}}}
    by_priority: dict[int, OrderedDict[str, OrderedDict[str, None]]] = attrs.Factory(dict)

    def add(self, job: str, priority: int, submitter: str, *, front: bool) -> None:
        turns = self.by_priority.setdefault(priority, OrderedDict())
        jobs = turns.setdefault(submitter, OrderedDict())
        jobs[job] = None
        if front:
            jobs.move_to_end(job, last=False)
            turns.move_to_end(submitter, last=False)

    def remove(self, job: str, priority: int, submitter: str) -> None:
        turns = self.by_priority[priority]
        del turns[submitter][job]
        if not turns[submitter]:
            del turns[submitter]
        if not turns:
            del self.by_priority[priority]

    def first(self, fits: Callable[[str], bool]) -> tuple[int, str] | None:
        """(priority, job) of the job whose turn it is, among those that fit."""
        for priority in sorted(self.by_priority, reverse=True):
            for jobs in self.by_priority[priority].values():
                for job in jobs:
                    if fits(job):
                        return priority, job
        return None


@attrs.define
class Ready:
    """Both sides of the match."""

    fits: Callable[[str, str], bool]  # (job, box): what keys cannot say: tags, boxes to avoid
    _lines: dict[Key, _Line] = attrs.field(factory=dict, init=False)
    _queued: dict[str, tuple[Key, int, str]] = attrs.field(factory=dict, init=False)
    _parked: dict[Key, dict[str, None]] = attrs.field(factory=dict, init=False)  # oldest first
    _keys: dict[str, tuple[Key, ...]] = attrs.field(factory=dict, init=False)  # of a parked box
    _dirty: dict[Key, None] = attrs.field(factory=dict, init=False)

    def __contains__(self, job: str) -> bool:
        return job in self._queued

    @property
    def parked(self) -> Iterable[str]:
        """The boxes that could be handed a job."""
        return self._keys.keys()

    def queue(
        self, job: str, key: Key, priority: int, submitter: str, *, front: bool = False
    ) -> None:
        """A job waits; at the `front` of its queue if it was given out and came back."""
        assert job not in self._queued, f"{job} is queued already"
        self._queued[job] = (key, priority, submitter)
        self._lines.setdefault(key, _Line()).add(job, priority, submitter, front=front)
        self._dirty[key] = None

    def unqueue(self, job: str) -> None:
        """The job waits no longer."""
        key, priority, submitter = self._queued.pop(job)
        line = self._lines[key]
        line.remove(job, priority, submitter)
        if not line.by_priority:
            del self._lines[key]

    def park(self, box: str, keys: tuple[Key, ...]) -> None:
        """A box waits for work on any of `keys`."""
        self.unpark(box)
        self._keys[box] = keys
        for key in keys:
            self._parked.setdefault(key, {})[box] = None
            self._dirty[key] = None

    def unpark(self, box: str) -> None:
        """The box waits no longer; nothing happens if it did not."""
        for key in self._keys.pop(box, ()):
            del self._parked[key][box]
            if not self._parked[key]:
                del self._parked[key]

    def pairs(self, most: int) -> list[tuple[str, str]]:
        """Up to `most` (box, job) pairs, taken off both sides.

        Keys that could not be looked at because `most` was reached stay dirty.
        """
        made: list[tuple[str, str]] = []
        while self._dirty and len(made) < most:
            key = next(iter(self._dirty))
            pair = self._pair(key)
            if pair is None:
                del self._dirty[key]
                continue
            box, job = pair
            self._take_turn(job)
            self.unpark(box)
            self.unqueue(job)
            made.append(pair)
        return made

    def _pair(self, key: Key) -> tuple[str, str] | None:
        if key not in self._lines:
            return None
        for box in self._parked.get(key, {}):
            job = self.best(box, self._keys[box])
            if job is not None:
                return box, job
        return None

    def best(self, box: str, keys: tuple[Key, ...]) -> str | None:
        """The job whose turn it is on a box that serves `keys`."""
        firsts = [
            first
            for key in keys
            if key in self._lines
            and (first := self._lines[key].first(lambda job: self.fits(job, box))) is not None
        ]
        # the first of equals: a box's own name comes before its group and its other queues
        return max(firsts, key=lambda first: first[0])[1] if firsts else None

    def _take_turn(self, job: str) -> None:
        key, priority, submitter = self._queued[job]
        self._lines[key].by_priority[priority].move_to_end(submitter)
