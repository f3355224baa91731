"""Images of another architecture: what is missing is said, before anything is begun."""

from __future__ import annotations

import os
from pathlib import Path

from appliance.boot.images import emulation

FOREIGN = "aarch64" if os.uname().machine == "x86_64" else "x86_64"
ENTRY = """\
{enabled}
interpreter /usr/libexec/qemu-binfmt/{arch}-binfmt-P
flags: {flags}
offset 0
magic 7f454c460201010000000000000000000200b700
"""


def registered(folder: Path, enabled: str = "enabled", flags: str = "POCF") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "register").touch()
    entry = ENTRY.format(enabled=enabled, arch=FOREIGN, flags=flags)
    (folder / f"qemu-{FOREIGN}").write_text(entry)
    return folder


def test_its_own_programs_run_anywhere_and_others_once_they_are_registered(tmp_path):
    assert None is emulation.lacks(os.uname().machine, tmp_path / "none")
    assert None is emulation.lacks(FOREIGN, registered(tmp_path))


def test_what_is_missing_is_named_with_what_helps(tmp_path):
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare/register").touch()
    said = [
        emulation.lacks(FOREIGN, folder)
        for folder in (
            tmp_path / "none",
            tmp_path / "bare",
            registered(tmp_path / "off", "disabled"),
            registered(tmp_path / "outside", flags="OC"),
        )
    ]

    for text, word in zip(
        said,
        ["mount -t binfmt_misc ", "qemu-user-static", "is disabled in", "the flag F"],
        strict=True,
    ):
        assert f"{FOREIGN}" in text
        assert word in text
