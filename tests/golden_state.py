"""Writes the golden state of the format version that the program has now.

python -m tests.golden_state     only while this version was never released
"""

from __future__ import annotations

import contextlib
import types
import typing
from collections import abc
from pathlib import Path

import attrs
import cbor2

from appliance.jobs.changes import Change, Clocked, Job
from appliance.jobs.documents.document import Body
from appliance.jobs.store import Store
from appliance.keep import archive_file
from appliance.keep.repair import export
from appliance.keep.state import frames, records, replay, versions
from tests import rich

FOLDER = Path(__file__).parent / "golden"
FIELDS = "fields.txt"
# Its lab has jobs that are over in the archive, and a clock that was moved before and after its
# snapshot: what version 2 brought.
SEED = 13


def write() -> None:
    """A lab's files: a snapshot, a journal behind it, the archive, and what they say for people."""
    folder = FOLDER / f"state-{versions.VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    grown, made = rich.grow(SEED, 150)
    store = Store()
    (folder / archive_file.NAME).unlink(missing_ok=True)
    with contextlib.closing(archive_file.connect(folder / archive_file.NAME)) as shelf:
        shelf.execute("PRAGMA journal_mode = DELETE")  # one file
        for n, changes in enumerate(made):
            if n == 100:
                snapshot = b"".join(records.snapshot(records.image_of(store, 40)))
                (folder / replay.snapshot_name(3)).write_bytes(snapshot)
            for change in changes:
                rich.shelve(shelf, store, change)
                store.apply(change)
    records_of = enumerate(made[100:], start=40)
    framed = [frames.frame(records.dump_changes(changes), n) for n, changes in records_of]
    journal = frames.JOURNAL_HEADER + b"".join(framed)
    (folder / replay.journal_name(3)).write_bytes(journal)
    (folder / "export.json").write_text(export.dump(grown), encoding="utf-8")
    (folder / FIELDS).write_text(fields(), encoding="utf-8")


def fields() -> str:
    """All that is kept, one field a line, however deep it lies: class, name, type, default."""
    seen: dict[str, type] = {}

    def walk(kind: object) -> None:
        if isinstance(kind, type) and attrs.has(kind) and kind.__name__ not in seen:
            seen[kind.__name__] = attrs.resolve_types(kind)
            for field in attrs.fields(kind):
                walk(field.type)
        assert not isinstance(kind, type) or seen.get(kind.__name__, kind) is kind, kind
        for part in typing.get_args(kind):
            walk(part)

    for kind in (Change, Job, records.Box, Body):
        walk(kind)
    lines = [
        f"{name}.{field.name}: {_words(field.type)}{_default(field.default)}"
        for name, kind in sorted(seen.items())
        for field in attrs.fields(kind)
        if field.init
    ]
    store = Store()
    store.apply(Clocked(1.0, "one", 1.0))
    head = cbor2.loads(next(records.dump_image(records.image_of(store, 0))))
    return "\n".join([f"snapshot: {', '.join(head)}", *sorted(seen), *lines]) + "\n"


def _words(kind: object) -> str:
    arguments = ", ".join(_words(part) for part in typing.get_args(kind))
    origin = typing.get_origin(kind)
    if origin is types.UnionType or origin is typing.Union:
        return " | ".join(sorted(_words(part) for part in typing.get_args(kind)))
    if origin is not None:
        return f"{_words(origin)}[{arguments}]"
    if kind is abc.Mapping:
        return "Mapping"
    return "..." if kind is ... else getattr(kind, "__name__", str(kind))


def _default(value: object) -> str:
    if value is attrs.NOTHING:
        return ""
    made = value.factory() if isinstance(value, attrs.Factory) else value  # type: ignore[arg-type]
    return f" = {made!r}"


if __name__ == "__main__":
    write()
