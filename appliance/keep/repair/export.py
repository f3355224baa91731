"""Pure: no clock, no socket, no await.

Converts the state to JSON for people, and back to exactly the same store.

    {"appliance state": 2, "counter": 7, "drained": "", "archived": 0,
     "jobs": [...], "boxes": [...]}

JSON has fewer values than a job document may hold; the others become an object with one key:
{"$map": [[key, value], ...]} for a map whose keys are not strings, {"$float": "nan"} for a float
that is not finite.  The JSON holds the secrets of jobs, as the state does.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, Final

import attrs
import cattrs

from appliance.errors import BadState
from appliance.jobs.box import Box
from appliance.jobs.changes import Clocked, Job
from appliance.jobs.job import Finished
from appliance.jobs.store import Store
from appliance.keep.state import records, versions

_FORMAT: Final = "appliance state"
_KEYS: Final = (_FORMAT, "counter", "drained", "archived", "jobs", "boxes")
_CLOCK: Final = "clock"  # optional: version 1 did not write it
_SHOWN_MAX: Final = 10  # mistakes named in one error
# Python's types, in words for somebody who edits JSON
_TYPES: Final = {"int": "a whole number", "float": "a number", "str": "a string", "bool": "a truth"}


def dump(store: Store) -> str:
    """Returns the JSON of a store; equal text for equal stores."""
    value = {
        _FORMAT: versions.VERSION,
        "counter": store.counter,
        "drained": store.drained,
        "archived": store.archived,
        "jobs": [_plain(records.unstructure(job, Job)) for job in store.jobs.values()],
        "boxes": [_plain(records.unstructure(box, Box)) for box in store.boxes.values()],
    }
    if store.clocked is not None:
        value[_CLOCK] = {**records.unstructure(store.clocked), "moment": store.moment}
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def load(text: str, name: str) -> Store:
    """Reads a store from JSON.  Raises BadState with file, path, and what would be right."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise BadState(
            f"{name}: line {error.lineno}, column {error.colno}: not JSON: {error.msg}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise BadState(f"{name}: not JSON: {error}") from error
    _check_top(value, name)
    jobs = _structure(_rich(value["jobs"], "$.jobs", name), list[Job], "$.jobs", name)
    boxes = _structure(_rich(value["boxes"], "$.boxes", name), list[Box], "$.boxes", name)
    _check_names([job.id for job in jobs], "$.jobs[{}].id", name)
    _check_names([box.name for box in boxes], "$.boxes[{}].name", name)
    _check_references(value["counter"], jobs, boxes, name)
    clocked, moment = _clock(value.get(_CLOCK), name)
    store = Store(
        {job.id: job for job in jobs},
        {box.name: box for box in boxes},
        value["counter"],
        value["drained"],
        value["archived"],
        clocked,
        moment,
    )
    try:
        store.check()
    except AssertionError as error:
        raise BadState(f"{name}: jobs and boxes contradict each other: {error}") from error
    return store


def _clock(value: Any, name: str) -> tuple[Clocked | None, float]:
    """Returns the last reading of the clocks, and the newest moment.  Raises BadState."""
    if value is None:
        return None, 0.0
    rest = dict(value) if isinstance(value, dict) else {}
    moment = rest.pop("moment", None)
    clocked: Clocked = _structure([rest], list[Clocked], f"$.{_CLOCK}", name)[0]
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        raise BadState(f"{name}: $.{_CLOCK}.moment: must be a number")
    return clocked, moment


def _plain(value: Any) -> Any:
    """Converts a value to one that JSON has."""
    if isinstance(value, dict):
        if any(not isinstance(key, str) or key.startswith("$") for key in value):
            return {"$map": [[_plain(key), _plain(part)] for key, part in value.items()]}
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, float) and not math.isfinite(value):
        return {"$float": repr(value)}
    return value


def _rich(value: Any, path: str, name: str) -> Any:
    """Undoes `_plain`.  Raises BadState."""
    if isinstance(value, list):
        return [_rich(part, f"{path}[{n}]", name) for n, part in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if not any(key.startswith("$") for key in value):
        return {key: _rich(part, f"{path}.{key}", name) for key, part in value.items()}
    match value:
        case {"$float": "nan" | "inf" | "-inf" as word, **rest} if not rest:
            return float(word)
        case {"$map": list(pairs), **rest} if not rest and all(map(_is_pair, pairs)):
            return {
                _rich(key, path, name): _rich(part, f"{path}.$map[{n}][1]", name)
                for n, (key, part) in enumerate(pairs)
            }
    raise BadState(
        f'{name}: {path}: only {{"$map": [[key, value], ...]}} and {{"$float": "nan"}} begin with $'
    )


def _is_pair(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and not isinstance(value[0], list | dict)


def _no_constant(word: str) -> Any:
    raise ValueError(f'{word} is no JSON; write {{"$float": "{word.lower()[:4]}"}}')


def _check_top(value: Any, name: str) -> None:
    if not isinstance(value, dict) or _FORMAT not in value:
        raise BadState(
            f'{name}: $: no export of the appliance: {{"{_FORMAT}": {versions.VERSION}, ...}}'
        )
    version = value[_FORMAT]
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise BadState(f'{name}: $["{_FORMAT}"]: must be {versions.VERSION}')
    versions.check(version, name, "export")
    for key in _KEYS:
        if key not in value:
            raise BadState(f"{name}: $: lacks {key!r}")
    for key in value:
        if key not in (*_KEYS, _CLOCK):
            raise BadState(f"{name}: $: unknown key {key!r}; known: {', '.join(_KEYS)}")
    for key, what in (("counter", "the newest job's"), ("archived", "of jobs not told here")):
        number = value[key]
        if isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise BadState(f"{name}: $.{key}: must be a whole number, {what}")
        if number > records.GIVEN_MAX:
            raise BadState(f"{name}: $.{key}: must be at most {records.GIVEN_MAX}")
    if not isinstance(value["drained"], str):
        raise BadState(f"{name}: $.drained: must be a name, or empty")
    for key in ("jobs", "boxes"):
        if not isinstance(value[key], list):
            raise BadState(f"{name}: $.{key}: must be a list")


def _structure(value: Any, kind: Any, path: str, name: str) -> Any:
    try:
        made = records.structure(value, kind)
    except Exception as error:  # cattrs may raise anything for a person's value
        wrong = cattrs.transform_error(error, path=path, format_exception=_explain)
        raise BadState("\n".join(_lines(wrong, name))) from error
    for n, part in enumerate(made):  # cattrs takes a number for a string
        if (again := _first_other(_plain(value[n]), _plain(records.unstructure(part)))) is not None:
            raise BadState(f"{name}: {path}[{n}]{again}")
    return made


def _lines(wrong: Iterable[str], name: str) -> list[str]:
    lines = []
    for text in wrong:
        what, _, path = text.rpartition(" @ ")
        if what.startswith("'") and path.endswith(f".{what.strip(chr(39))}"):
            what = "is missing"
        elif what.startswith("'"):
            what = f"{what} is not one of the kinds that `is` may name"
        lines.append(f"{name}: {path}: {what}")
    more = len(lines) - _SHOWN_MAX
    return lines[:_SHOWN_MAX] + ([f"{name}: and {more} more"] if more > 0 else [])


def _explain(error: BaseException, kind: type | None) -> str:
    match error:
        case KeyError():
            return repr(error.args[0])  # `_lines` adds the place
        case cattrs.ForbiddenExtraKeysError():
            known = ", ".join(field.name for field in attrs.fields(error.cl))
            return f"unknown: {', '.join(sorted(map(str, error.extra_fields)))}; known: {known}"
    word = getattr(kind, "__name__", str(kind))
    return f"must be {_TYPES.get(word, word)}"


def _first_other(given: Any, made: Any) -> str | None:
    """Finds the first value that reads back as another; returns its path and its right form."""
    if isinstance(given, dict) and isinstance(made, dict):
        for key, part in given.items():
            if key not in made:
                return f".{key}: is unknown"
            if (found := _first_other(part, made[key])) is not None:
                return f".{key}{found}"
        return None
    if isinstance(given, list) and isinstance(made, list) and len(given) == len(made):
        places = (_first_other(*pair) for pair in zip(given, made, strict=True))
        return next((f"[{n}]{found}" for n, found in enumerate(places) if found is not None), None)
    numbers = {type(given), type(made)} == {int, float}  # people write 5 for 5.0
    if given == made and (type(given) is type(made) or numbers):
        return None
    return f": {json.dumps(given)[:60]} must be written {json.dumps(made)[:60]}"


def _check_names(names: list[str], path: str, name: str) -> None:
    seen: dict[str, int] = {}
    for n, word in enumerate(names):
        if word in seen:
            first = path.format(seen[word])
            raise BadState(f"{name}: {path.format(n)}: {word!r} is there already: {first}")
        seen[word] = n


def _check_references(counter: int, jobs: list[Job], boxes: list[Box], name: str) -> None:
    """Raises BadState if a job's number or its box is impossible."""
    known = {box.name for box in boxes}
    holders: dict[str, str] = {}
    for n, job in enumerate(jobs):
        if job.number < 1:
            raise BadState(f"{name}: $.jobs[{n}].number: must be at least 1")
        if job.number > counter:
            raise BadState(
                f"{name}: $.counter: must be at least {job.number}, the number of {job.id}"
            )
        if job.attempt is None or isinstance(job.state, Finished):
            continue
        box, where = job.attempt.box, f"{name}: $.jobs[{n}].state.attempt.box"
        if box not in known:
            raise BadState(f"{where}: there is no box {box!r} in $.boxes")
        if box in holders:
            raise BadState(f"{where}: {holders[box]} holds {box!r} already")
        holders[box] = job.id
    for n, other in enumerate(boxes):
        if other.job != holders.get(other.name):
            right = json.dumps(holders.get(other.name))
            raise BadState(f"{name}: $.boxes[{n}].job: must be {right}, as $.jobs says")
