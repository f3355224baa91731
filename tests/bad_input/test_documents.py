"""Shell text in every field of a document: what the box's shell gets is text, and stays it.

Each text stands in every field at once.  A field that does not take it says what would be right;
what is taken is put into job.sh, which dash and bash then run for real.
"""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess

import pytest
import yaml

from appliance.boot.script import boot_plan, ipxe, lkp
from appliance.config import Config, Defaults
from appliance.errors import BadDocument
from appliance.jobs.changes import Job
from appliance.jobs.documents import document
from tests.lab import PINNED

WAY = lkp.Way("10.0.0.1", 3000, 3080, "http://10.0.0.1:3000/~lkp/token")
TEXTS = [
    "$(touch pwned)", "`touch pwned`", "'; touch pwned; '", '"; touch pwned; "', "x\ntouch pwned",
    "x; touch pwned", "x && touch pwned #", "| touch pwned", "> pwned", "$((x=1))", "${x:=y}",
    "\\$(touch pwned)", "a\\", "'", '"', "''", "!!", "*", "~", "-n", "a'b\"c", "}\ntouch pwned\n{",
    "EOF\ntouch pwned", "x\\\ntouch pwned", "é $(touch pwned) 漢", "a=b", "\t", "%s%n", "0x10; id",
    "$'\\x24(touch pwned)'", "{a,b}", "<(touch pwned)", "function export() { touch pwned; }",
]  # fmt: skip
FREE = ("text", "_a", "A9")  # fields that mean nothing to us
MEANT = set(re.findall(r'r\.take\("(\w+)"', inspect.getsource(document)))
SHELLS = [name for name in ("dash", "bash") if shutil.which(name)]


def parse(fields):
    return document.parse(yaml.safe_dump(fields), "job.yaml", Defaults())


def shapes(text):
    """The text alone, and where else in a value it may stand."""
    return [text, [text], {"a": text}, {text: "a"}, {"run_job": [text]}]


def taken(field, value):
    """The document with `value` in `field`; None where it is refused, by that field's name."""
    base = {} if field in ("script", "job2sh") else {"script": "true"}
    try:
        return parse({**base, field: value})
    except BadDocument as error:
        problems = error.problems
    assert {field} == {problem.field for problem in problems}
    assert all(problem.message for problem in problems)
    return None


def environment(shell, job_sh, folder):
    """What `. job.sh; export_top_env` leaves in the environment."""
    (folder / "job.sh").write_text(job_sh)
    done = subprocess.run(
        [shell, "-c", ". ./job.sh; export_top_env; env -0"],
        cwd=folder, capture_output=True, check=True, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    assert b"" == done.stderr
    pairs = [pair.split("=", 1) for pair in done.stdout.decode().split("\0") if "=" in pair]
    return dict(pairs)


def fields_of(fits):
    return lkp.fields(
        fits, fits.body, job="lab.1", testbox="box-1", result_root="/result/x/lab.1",
        submitted="2026-01-01T00:00:00+0000", way=WAY,
    )  # fmt: skip


def script_of(fits):
    job = Job(
        id="lab.1", number=1, name="job.yaml", document=fits, submitter="ann", key="k" * 8,
        submitted=0.0, pinned=PINNED, result_root="/result/x/lab.1",
    )  # fmt: skip
    return ipxe.script(boot_plan.boot_of(Config(), job, None, "10.0.0.1"))


def test_the_fields_that_mean_something_are_those_that_are_tried():
    assert {"suite", "script", "secrets", "kernel_custom_params", "pkg_data"} <= MEANT
    assert len(MEANT) > 20


@pytest.mark.parametrize("field", sorted(MEANT))
def test_a_field_takes_shell_text_as_text_or_says_what_would_be_right(field):
    for text in TEXTS:
        for value in shapes(text):
            fits = taken(field, value)
            if fits is not None:
                script = script_of(fits)
                assert script.splitlines()[:2] == ["#!ipxe", ""]
                assert re.fullmatch(
                    r"#!ipxe\n\n(initrd \S+\n)+kernel \S+ [ -~]+\nboot\n", script
                ), value
                assert not re.search(r"[$`;|&\\]", script), value
                assert fits.suite in fields_of(fits)["suite"]


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("text", TEXTS)
def test_whatever_a_document_says_the_boxs_shell_takes_it_for_text(tmp_path, text, shell):
    said = {"script": "true", **dict.fromkeys(FREE, text), "list": [text, "two"], text: "a"}
    for field in sorted(MEANT - {"job2sh"}):
        if taken(field, text) is not None:
            said[field] = text
    if re.search(r"[\x00-\x20\x7f]", text):
        del said[text]  # no name of a field
    fits = parse(said)
    fields = fields_of(fits)
    found = environment(shell, lkp.job_sh(fits.body, fields), tmp_path)

    assert dict.fromkeys(FREE, text) == {name: found[name] for name in FREE}
    assert f"{text}\ntwo" == found["list"]
    assert ["lab.1", "box-1"] == [found["id"], found["testbox"]]
    assert fields == yaml.safe_load(document.dump(fields))
    assert ["job.sh"] == [path.name for path in tmp_path.iterdir()]


@pytest.mark.parametrize("text", TEXTS)
def test_a_secret_is_one_line_that_no_shell_reads(text):
    fits = taken("secrets", {"word": text})
    members = lkp.entries(fits.body, {}, "10.0.0.5") if fits is not None else []
    lines = [entry.data.decode() for entry in members if entry.path.endswith("secrets.yaml")]

    assert ([f"word: {text}\n"] if text.isprintable() else []) == lines
