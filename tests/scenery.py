"""Scenes that are played once for many tests: how one that fails is kept, and told.

A scene that fails is kept with one line that says why, and with the end of what was logged.  Tests
that are about what it left fail with that line; only the first of them shows the logs too.
"""

from __future__ import annotations

import traceback
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import attrs
import pytest
import trio

from appliance.errors import ApplianceError

TAIL_LINES = 12  # of a log: the last words, and some of what led to them
LOG_LINES_MAX = 60  # of all logs of one failure
LINE_CHARACTERS_MAX = 300  # of the one line, and of each line of a log
HERE = Path(__file__).parent
# No scene takes a tenth of that.  Boxes and daemons have limits that count their own time; this is
# for whatever has none.
SCENE_S = 2 * 3600.0


@attrs.define
class Failure:
    """Why a scene could not be played to its end."""

    scene: str
    line: str
    logs: list[str] = attrs.field(factory=list)
    told: bool = attrs.field(default=False, init=False)

    @classmethod
    def of(cls, scene: str, error: BaseException) -> Failure:
        """From what the scene raised; its tasks raised it together."""
        cause, *others = _leaves(error)
        logs = [f"and {_line(other)}" for other in others] + str(cause).splitlines()[1:]
        logs += [line for note in _notes(error) for line in note.splitlines()]
        logs = [line[:LINE_CHARACTERS_MAX] for line in logs[-LOG_LINES_MAX:]]
        return cls(scene, _line(cause)[:LINE_CHARACTERS_MAX], logs)

    def fail(self) -> NoReturn:
        """Fails the test that runs."""
        logs = [] if self.told else [f"    {line}" for line in self.logs]
        self.told = True
        pytest.fail("\n".join([f"the scene {self.scene!r}: {self.line}", *logs]), pytrace=False)


@attrs.frozen
class Kept:
    """What scenes left, each an attribute; asking for that of one that failed fails the test."""

    evidence: Any
    failures: Mapping[str, Failure | None] = attrs.field(factory=dict)

    def __getattr__(self, scene: str) -> Any:
        if failure := self.failures.get(scene):
            failure.fail()
        return getattr(self.evidence, scene)


@attrs.frozen
class Reached:
    """What one long scene left.  Where it failed, tests about what came before it still hold.

    An attribute that still is what it was at first was not reached: asking for it fails the test.
    So what something is at first must be what it can't be when it was reached.
    """

    evidence: Any
    failure: Failure | None = None

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.evidence, name)
        if _is_evidence(type(value)):
            return Reached(value, self.failure)
        if self.failure is not None and value == getattr(type(self.evidence)(), name):
            self.failure.fail()
        return value


def _is_evidence(kind: type) -> bool:
    """A class of things that are empty at first."""
    return attrs.has(kind) and all(
        field.default is not attrs.NOTHING for field in attrs.fields(kind)
    )


async def play(scene: str, work: Callable[[], Awaitable[None]]) -> Failure | None:
    """Plays `work`; whatever it raises, other scenes can be played after it."""
    with trio.move_on_after(SCENE_S):
        try:
            await work()
        except Exception as error:
            return Failure.of(scene, error)
        return None
    return Failure(scene, f"not over after {SCENE_S / 3600:.0f} hours of wall")


def add_tail(error: BaseException, name: str, lines: Iterable[str]) -> None:
    """Notes at `error` how the log called `name` ends."""
    tail = [f"  {line}" for line in [*lines][-TAIL_LINES:]]
    error.add_note("\n".join([f"the end of {name}:", *tail]))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _notes(error: BaseException) -> Iterator[str]:
    """Those of a group last: they are about the whole."""
    if isinstance(error, BaseExceptionGroup):
        for part in error.exceptions:
            yield from _notes(part)
    yield from getattr(error, "__notes__", ())


def _line(error: BaseException) -> str:
    line = next(iter(str(error).splitlines()), "")
    if isinstance(error, ApplianceError):
        return line
    return f"{type(error).__name__}: {line} ({_where(error)})"


def _where(error: BaseException) -> str:
    """The last line of ours that it went through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).is_relative_to(HERE)] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].lineno}" if ours else "nowhere"
