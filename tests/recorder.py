"""What a program makes durable, in which order: seen at its system calls."""

from __future__ import annotations

import os

import pytest

SYNC, NAME = "sync", "name"


def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """(what, path) of each sync and each new name from now on, in order."""
    made: list[tuple[str, str]] = []

    def record(name, what):
        real = getattr(os, name)

        def call(*args, **kwargs):
            path = os.readlink(f"/proc/self/fd/{args[0]}") if what == SYNC else str(args[1])
            real(*args, **kwargs)
            made.append((what, path))

        monkeypatch.setattr(os, name, call)

    for name in ("fsync", "fdatasync"):
        record(name, SYNC)
    for name in ("rename", "replace", "link"):
        record(name, NAME)
    return made
