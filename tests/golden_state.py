"""Writes the golden state of the format version that the program has now.

python -m tests.golden_state     only while this version was never released
"""

from __future__ import annotations

from pathlib import Path

from appliance.jobs.store import Store
from appliance.keep import export, frames, records, replay
from tests import rich

FOLDER = Path(__file__).parent / "golden"


def write() -> None:
    """A lab's files: a snapshot, a journal behind it, and what both say together, for people."""
    folder = FOLDER / f"state-{frames.VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    grown, made = rich.grow(11, 150)
    store = Store()
    for changes in made[:100]:
        for change in changes:
            store.apply(change)
    image = records.image_of(store, 40)
    (folder / replay.snapshot_name(3)).write_bytes(b"".join(records.snapshot(image)))
    records_of = enumerate(made[100:], start=40)
    framed = [frames.frame(records.dump_changes(changes), n) for n, changes in records_of]
    journal = frames.JOURNAL % frames.VERSION + b"".join(framed)
    (folder / replay.journal_name(3)).write_bytes(journal)
    (folder / "export.json").write_text(export.dump(grown), encoding="utf-8")


if __name__ == "__main__":
    write()
