"""build.py: what a program says of itself, and what its files say of another."""

import json
import sys
from pathlib import Path

from appliance import build
from appliance.keep.state import versions
from release import binary


def test_a_program_of_before_versions_of_the_state_reads_the_first(tmp_path):
    assert None is build.reads(tmp_path)
    (tmp_path / "appliance").mkdir()
    facts = tmp_path / "appliance" / build.FACTS
    facts.write_text(json.dumps({"commit": "546374a", "moment": "x", "glibc": "2.36"}))
    assert None is build.reads(tmp_path)
    facts.write_text(json.dumps({"commit": "x", "moment": "x", "glibc": "2.36", "state": 2}))
    assert 2 == build.reads(tmp_path)


def test_a_build_says_which_version_of_the_state_it_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(binary, "WORK", tmp_path / "appliance")
    monkeypatch.setenv("APPLIANCE_COMMIT", "some")
    (tmp_path / "appliance").mkdir()
    binary.write_facts([Path(sys.executable).resolve()])

    assert versions.VERSION == build.reads(tmp_path)
