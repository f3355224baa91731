"""What strangers wrote reaches no terminal as it is: not in the log, not from a command."""

from __future__ import annotations

import ast
import io
import json
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

import appliance
from appliance import log as logs
from appliance.cli import jobs, results, show
from appliance.printable import printable

# Clears the screen; a title; C1's CSI; a line of its own; the order of writing turned; half a pair.
EVIL = [
    "\x1b[2J", "\x1b]0;x\x07", "\x9b2J", "a\nb", "a\rb", "\u202egnp.exe", "\u2028", "\x7f", "\0",
    "\udc9b", "\u2066", "\x85",
]  # fmt: skip


@pytest.mark.parametrize("text", EVIL)
def test_no_control_reaches_whoever_reads(text):
    shown = printable(text)

    assert shown.isprintable()
    assert shown.encode().decode("unicode_escape") == text  # and nothing is lost


def test_what_people_write_stays_as_it_is():
    for text in ("", "größe", "漢字", "a b", "–", r"\x1b", "🦊"):
        assert text == printable(text)
    assert "a\n\tb" == printable("a\n\tb", "\n\t")
    assert "a\\x0a" == printable("a\n", "\t")


@pytest.fixture
def written(monkeypatch):
    """What the log writes to a terminal, in its real order of processors."""
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    before = structlog.get_config()
    logs.begin(verbose=False)
    structlog.configure(cache_logger_on_first_use=False)
    yield stream
    structlog.configure(**before)


@pytest.mark.parametrize("text", EVIL)
def test_a_line_of_the_log_is_one_line_of_plain_text(written, text):
    structlog.get_logger().warning("upload refused", path=text, why=[text], client=text)
    structlog.get_logger().warning(text)

    lines = written.getvalue().splitlines()
    assert 2 == len(lines)
    assert all(line.isprintable() for line in lines), lines


def test_a_trace_keeps_its_lines_and_nothing_else(written):
    try:
        raise ValueError("\x1b[2J\nsecond")
    except ValueError:
        structlog.get_logger().exception("it broke")

    assert "ValueError: " in written.getvalue()
    assert "\x1b" not in written.getvalue()
    assert r"\n  File " in written.getvalue()  # on one line of a terminal; the journal has them all


@pytest.mark.parametrize("text", EVIL)
def test_the_journal_is_sent_plain_text(text, monkeypatch):
    sent = []

    class Socket:
        def send(self, data):
            sent.append(data)

    event = logs.plain(None, "warning", {"event": text, "path": text, "level": "warning"})
    with pytest.raises(structlog.DropEvent):
        logs.Journal(Socket())(None, "warning", event)

    [data] = sent
    assert data.decode().replace("\n", "").isprintable()


class Server:
    """Answers with what a box may have written."""

    def __init__(self, text):
        self.text = text

    def ask(self, verb, **arguments):
        files = [{"path": self.text, "size": 1}]
        if verb == "read":
            return {"data": self.text.encode(errors="surrogatepass"), "next": None}
        if verb == "jobs":
            row = dict.fromkeys(
                ("id", "suite", "submitter", "stage", "health", "box", "queue", "os", "arch"), "x"
            )
            return {"jobs": [{**row, "submitted": 1.0, "reason": self.text}], "lacks": self.text}
        return {"root": self.text, "files": files, "lacking": self.text, "swept": None}


@pytest.mark.parametrize("text", EVIL)
@pytest.mark.parametrize("words", [["lab.1"], ["lab.1", "--json"], ["lab.1", "cat", "x"], []])
def test_a_command_shows_no_control_of_a_box(monkeypatch, text, words):
    for module in (jobs, results):
        monkeypatch.setattr(module, "connect", lambda ctx: nullcontext(Server(text)))
    monkeypatch.setattr(results, "_is_terminal", lambda: True)
    done = CliRunner().invoke(results.results if words else jobs.jobs, words)

    assert 0 == done.exit_code, done.output
    for said in (done.stdout, done.stderr):
        assert said.replace("\n", "").isprintable(), said
    if words[-1:] == ["--json"]:
        assert text == json.loads(done.stdout)["root"]


def test_what_is_piped_is_what_the_box_wrote(monkeypatch):
    monkeypatch.setattr(results, "connect", lambda ctx: nullcontext(Server("\x1b[2J")))

    assert b"\x1b[2J" == CliRunner().invoke(results.results, ["lab.1", "cat", "x"]).stdout_bytes


def test_every_command_says_what_it_says_through_show():
    """Which knows what a terminal may be shown."""
    folder = Path(appliance.__file__).parent / "cli"
    told = [
        path.name
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in ("echo", "secho")
        if isinstance(node.value, ast.Name) and node.value.id == "click"
    ]

    # render and state write files of ours to standard output, as they are.
    assert {"show.py", "render.py", "state.py"} >= {*told}


def test_json_is_plain_text_and_means_the_same(capsys):
    show.as_json({"a\x9b": EVIL})

    said = capsys.readouterr().out
    assert said.replace("\n", "").isprintable()
    assert {"a\x9b": EVIL} == json.loads(said)
