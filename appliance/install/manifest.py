"""Pure: no clock, no socket, no await.

What earlier installs did is in a record beside the program.  Without a program, after an
uninstall or a failed install, a note beside the configuration says the same.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from appliance.install.actions import Folder, GiveBack, Owner, Step, Write
from appliance.install.site import Places


def of(texts: Mapping[Path, str], places: Places) -> dict[str, Any]:
    """Returns what earlier installs did; empty before the first one."""
    text = texts.get(places.record) or texts.get(places.kept)
    record: dict[str, Any] = json.loads(text) if text else {}
    return record


def written(path: Path, record: Mapping[str, Any]) -> Write:
    """Returns the file with `record`; only root may read it, since it holds the configuration."""
    return Write(path, json.dumps(record, indent=1) + "\n", 0o600)


def of_packages(
    texts: Mapping[Path, str], places: Places, before: Mapping[str, Any], new: Sequence[str]
) -> Write:
    """Returns the record, or else the note, with the packages `new` added."""
    names = sorted({*before.get("packages", ()), *new})
    path = places.record if places.record in texts else places.kept
    return written(path, {**before, "packages": names})


def closed(steps: Iterable[Step]) -> dict[str, list[str]]:
    """Returns the former owners and modes of existing folders that `steps` change, by path.

    Each is [user, group, mode in octal digits].
    """
    return {
        str(step.undo.path): [step.undo.owner.user, step.undo.owner.group, f"{step.undo.mode:o}"]
        for step in steps
        if isinstance(step.do, Folder) and isinstance(step.undo, Folder)
    }


def opened(record: Mapping[str, Any]) -> list[GiveBack]:
    """Returns the actions that restore the first owner and mode of folders that no install made."""
    made = record.get("made", ())  # records of earlier versions have some folders in both
    return [
        GiveBack(Path(path), int(mode, 8), Owner(user, group))
        for path, (user, group, mode) in sorted(record.get("closed", {}).items())
        if path not in made
    ]


def note(texts: Mapping[Path, str], places: Places, steps: Iterable[Step]) -> Write | None:
    """Returns the note as it is after `steps`; None if there is none."""
    for step in steps:
        if isinstance(step.do, Write) and step.do.path == places.kept:
            return step.do
    text = texts.get(places.kept)
    return None if text is None else Write(places.kept, text, 0o600)


def removes(packages: Sequence[str]) -> str:
    """Returns the command that removes `packages`, for people."""
    return f"apt-get purge {' '.join(packages)}"


def brought(record: Mapping[str, Any]) -> list[str]:
    """Returns a line about the Debian packages that installs brought, for people; or no line."""
    packages = record.get("packages")
    return [f"packages that an install brought: {removes(packages)}"] if packages else []
