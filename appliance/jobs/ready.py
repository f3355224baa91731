"""Pure: no clock, no socket, no await.

Matches queued jobs with parked testboxes.

The cost grows with the number of changes, not with the length of the queue.  Jobs that ask for the
same tags are grouped in a pile, boxes with the same tags likewise, and piles are compared instead
of single jobs and boxes.  After a call of `pairs` no waiting job fits a parked box, so the next
call compares only new jobs with the boxes and new boxes with the jobs.

Jobs that fit a box are ordered by priority, then by submitters in turn, then by age
(DESIGN.md#who-gets-what).  A submitter who gets a box has had a turn in all queues that this box
serves, and in no other queue.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping

import attrs

Key = tuple[str, str]  # queue, platform
Tags = frozenset[str]


@attrs.frozen
class Needs:
    """What a queued job asks of a box, and whose turn it takes."""

    key: Key
    priority: int = 0
    submitter: str = ""
    tags: Tags = frozenset()


@attrs.frozen
class Serves:
    """What a parked box serves; among one submitter's jobs, an earlier key comes first."""

    keys: tuple[Key, ...]
    tags: Tags = frozenset()
    only: str | None = None  # the submitter it is reserved for

    def take(self, needs: Needs) -> bool:
        """Tells whether a job with these needs could run on the box."""
        mine = self.only in (None, needs.submitter)
        return mine and needs.key in self.keys and needs.tags <= self.tags


Pile = OrderedDict[str, int]  # job -> its place in the order of all jobs
Idle = dict[str, int]  # box -> its place; thousands of boxes, so a dict: half the memory


@attrs.define
class _Submitter:
    """One submitter's turn in a line."""

    number: int  # the smallest is next, compared across all lines
    piles: dict[Tags, Pile] = attrs.Factory(dict)

    def oldest(self, serves: Serves, fits: Callable[[str], bool]) -> str | None:
        """Returns the submitter's oldest job that fits."""
        return _first((p for tags, p in self.piles.items() if tags <= serves.tags), fits)


_Submitters = OrderedDict[str, _Submitter]  # by submitter, next turn first; numbers only grow


@attrs.define
class _Line:
    """The queued jobs of one key."""

    by_priority: dict[int, _Submitters] = attrs.Factory(dict)

    def add(self, job: str, needs: Needs, place: int, *, front: bool) -> None:
        turns = self.by_priority.setdefault(needs.priority, OrderedDict())
        if needs.submitter not in turns:
            turns[needs.submitter] = _Submitter(place)
        turn = turns[needs.submitter]
        pile = turn.piles.setdefault(needs.tags, OrderedDict())
        pile[job] = place
        if front:
            turn.number = place
            pile.move_to_end(job, last=False)
            turns.move_to_end(needs.submitter, last=False)

    def served(self, needs: Needs, number: int) -> None:
        """Records that the submitter had a turn, in any line; all others come before the next."""
        turn = self.turn(needs.priority, needs.submitter)
        if turn is not None:
            turn.number = number
            self.by_priority[needs.priority].move_to_end(needs.submitter)

    def turn(self, priority: int, submitter: str) -> _Submitter | None:
        """Returns the submitter's turn; None without a job of this priority in this line."""
        turns = self.by_priority.get(priority)
        return turns.get(submitter) if turns is not None else None

    def remove(self, job: str, needs: Needs) -> None:
        turns = self.by_priority[needs.priority]
        piles = turns[needs.submitter].piles
        del piles[needs.tags][job]
        if not piles[needs.tags]:
            del piles[needs.tags]
        if not piles:
            del turns[needs.submitter]
        if not turns:
            del self.by_priority[needs.priority]

    def first(self, serves: Serves, fits: Callable[[str], bool]) -> tuple[int, int, str] | None:
        """Returns (-priority, number, submitter) of the next turn that has a job that fits."""
        for priority in sorted(self.by_priority, reverse=True):
            for submitter, turn in self.by_priority[priority].items():
                if serves.only in (None, submitter) and turn.oldest(serves, fits) is not None:
                    return -priority, turn.number, submitter
        return None


def _shared(box: str, serves: Serves) -> Iterable[Key]:
    """Returns the keys that other boxes may serve too: all but the box's own name."""
    return (key for key in serves.keys if key[0] != box)


def _first(piles: Iterable[Mapping[str, int]], fits: Callable[[str], bool]) -> str | None:
    """Returns the name with the lowest place that fits, over all piles."""
    found: tuple[int, str] | None = None
    for pile in piles:
        for name, place in pile.items():
            if found is not None and place > found[0]:
                break
            if fits(name):
                found = (place, name)
                break
    return found[1] if found else None


@attrs.define
class Ready:
    """Both sides of the match."""

    fits: Callable[[str, str], bool]  # (job, box): a check beyond Needs and Serves; seldom False
    _lines: dict[Key, _Line] = attrs.field(factory=dict, init=False)
    _queued: dict[str, Needs] = attrs.field(factory=dict, init=False)
    _parked: dict[str, Serves] = attrs.field(factory=dict, init=False)
    _idle: dict[Key, dict[tuple[Tags, str | None], Idle]] = attrs.field(factory=dict, init=False)
    # Not a dict: to find its first key it walks over the slots of all keys removed before.
    _new_jobs: OrderedDict[str, None] = attrs.field(factory=OrderedDict, init=False)
    _new_boxes: OrderedDict[str, None] = attrs.field(factory=OrderedDict, init=False)
    _places: int = attrs.field(default=0, init=False)

    def __contains__(self, job: str) -> bool:
        return job in self._queued

    @property
    def parked(self) -> Iterable[str]:
        """The boxes that could be handed a job."""
        return self._parked.keys()

    def queue(self, job: str, needs: Needs, *, front: bool = False) -> None:
        """Adds a waiting job; at the `front` if it was given out and came back."""
        assert job not in self._queued, f"{job} is queued already"
        self._queued[job] = needs
        self._places += 1
        place = -self._places if front else self._places
        self._lines.setdefault(needs.key, _Line()).add(job, needs, place, front=front)
        self._new_jobs[job] = None

    def unqueue(self, job: str) -> None:
        """Removes a job that waits no longer."""
        needs = self._queued.pop(job)
        line = self._lines[needs.key]
        line.remove(job, needs)
        if not line.by_priority:
            del self._lines[needs.key]
        self._new_jobs.pop(job, None)

    def park(self, box: str, serves: Serves) -> None:
        """Adds a box that waits for work."""
        self.unpark(box)
        self._parked[box] = serves
        self._places += 1
        for key in _shared(box, serves):
            piles = self._idle.setdefault(key, {})
            piles.setdefault((serves.tags, serves.only), {})[box] = self._places
        self._new_boxes[box] = None

    def unpark(self, box: str) -> None:
        """Removes a box that waits no longer; does nothing if it is not parked."""
        serves = self._parked.pop(box, None)
        if serves is None:
            return
        for key in _shared(box, serves):
            piles, which = self._idle[key], (serves.tags, serves.only)
            del piles[which][box]
            if not piles[which]:
                del piles[which]
            if not piles:
                del self._idle[key]
        self._new_boxes.pop(box, None)

    def pairs(self, most: int) -> list[tuple[str, str]]:
        """Removes and returns up to `most` (box, job) pairs.

        New jobs and boxes not looked at because `most` was reached stay for the next call.
        """
        made: list[tuple[str, str]] = []
        if not self._parked:
            self._new_jobs.clear()  # a box that parks later is compared with all jobs
        # New jobs first: a box that has waited longer gets them before one just parked.
        while self._new_jobs and len(made) < most:
            job = next(iter(self._new_jobs))
            box = self._box_for(job)
            if box is None:
                del self._new_jobs[job]
            else:
                made.append(self._pair(box))
        while self._new_boxes and len(made) < most:
            box = next(iter(self._new_boxes))
            if self.best(box, self._parked[box]) is None:
                del self._new_boxes[box]
            else:
                made.append(self._pair(box))
        return made

    def _box_for(self, job: str) -> str | None:
        """Returns the box that the queue is named after, else the one that has waited longest."""
        needs = self._queued[job]
        named = needs.key[0]
        serves = self._parked.get(named)
        if serves is not None and serves.take(needs) and self.fits(job, named):
            return named
        piles = (
            pile
            for (tags, only), pile in self._idle.get(needs.key, {}).items()
            if needs.tags <= tags and only in (None, needs.submitter)
        )
        return _first(piles, lambda box: self.fits(job, box))

    def _pair(self, box: str) -> tuple[str, str]:
        """Gives `box` the job whose turn it is, which may differ from the job that found `box`."""
        job = self.best(box, self._parked[box])
        assert job is not None
        needs = self._queued[job]
        self._places += 1
        for key in self._parked[box].keys:
            if key in self._lines:
                self._lines[key].served(needs, self._places)
        self.unpark(box)
        self.unqueue(job)
        return box, job

    def best(self, box: str, serves: Serves) -> str | None:
        """Returns the job whose turn it is on a box that `serves` this; changes nothing."""

        def fits(job: str) -> bool:
            return self.fits(job, box)

        lines = [self._lines[key] for key in serves.keys if key in self._lines]
        firsts = [first for line in lines if (first := line.first(serves, fits))]
        if not firsts:
            return None
        priority, _, submitter = min(firsts)
        turns = [line.turn(-priority, submitter) for line in lines]
        # the submitter's jobs for the box's own name come before its group and its other queues
        return next(job for turn in turns if turn and (job := turn.oldest(serves, fits)))
