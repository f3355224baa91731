"""`appliance host edit`: checked before it takes effect; nothing that was written is lost."""

from __future__ import annotations

import contextlib

import pytest
import trio
from click.testing import CliRunner

from appliance.cli import group
from appliance.control import server
from appliance.errors import BadConfig, NotFound, Refused
from appliance.scheduler import hosts_files
from lab.lab import toml
from tests import lab as labs
from tests.lab import MAC, open_lab

TEXT = f"# rack 7, the loud one\nmac: [{MAC}]\nqueues: [fast]\n"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("mac: [52:54]\n", 1, "is no MAC address"),
        ("arch: x86_64\nmac:\n  - 52:54:00:00:00:01\n  - nonsense\n", 4, "'nonsense' is no MAC"),
        ("# a\narch: vax\nmac: [52:54:00:00:00:01]\n", 2, "must be one of"),
        ("mac: [52:54:00:00:00:01]\n\nuuid: 12\n", 3, "is no UUID"),
        ("mac: [52:54:00:00:00:01]\nqueues: [a, 'b c']\n", 2, "without blanks"),
        ("mac: [52:54:00:00:00:01\nqueues: x\n", 2, "it is no YAML"),
        ("- a\n", 1, "must be a mapping"),
        ("mac: [52:54:00:00:00:01]\ndeadlines: {boot: no}\n", 2, "deadlines"),
    ],
)
def test_a_mistake_is_told_with_file_and_line(tmp_path, text, line, said):
    with pytest.raises(BadConfig) as caught:
        hosts_files.check(tmp_path / "box-1.yaml", text, "default")

    assert str(caught.value).startswith(f"{tmp_path}/box-1.yaml:{line}: ")
    assert said in str(caught.value)


def test_a_file_without_a_mac_is_refused(tmp_path):
    with pytest.raises(BadConfig, match=r"box-1\.yaml: mac: must name at least one"):
        hosts_files.check(tmp_path / "box-1.yaml", "arch: x86_64\n", "default")


@contextlib.asynccontextmanager
async def known_box(tmp_path):
    config = labs.config(tmp_path)
    hosts_files.put_text(config.paths.hosts, "box-1", TEXT)
    async with open_lab(config) as lab:
        await lab.know()
        yield lab


async def edit(lab, text, before=TEXT, user="root", host="box-1"):
    return await lab.people.do("host-edit", {"host": host, "text": text, "before": before}, user,
                               None)  # fmt: skip


def file(lab):
    return (lab.config.paths.hosts / "box-1.yaml").read_text()


async def test_what_is_right_takes_effect_as_it_was_written(tmp_path):
    async with known_box(tmp_path) as lab:
        changed = TEXT.replace("fast", "slow") + "tags: [gpu]  # new\n"
        answer = await edit(lab, changed)

        assert ["box-1", "slow"] == answer["host"]["queues"]
        assert ("gpu",) == lab.scheduler.store.boxes["box-1"].facts.tags
        assert changed == file(lab)  # comments and all


async def test_what_is_wrong_changes_nothing(tmp_path):
    async with known_box(tmp_path) as lab:
        with pytest.raises(BadConfig, match=r"box-1\.yaml:3: arch"):
            await edit(lab, TEXT.replace("queues: [fast]", "arch: vax"))

        assert TEXT == file(lab)
        assert lab.scheduler.store.boxes["box-1"].facts.arch is None


async def test_a_mac_of_another_box_changes_nothing(tmp_path):
    async with known_box(tmp_path) as lab:
        await lab.know("box-2", "52:54:00:00:00:02")
        with pytest.raises(Refused, match="52:54:00:00:00:02"):
            await edit(lab, TEXT.replace(MAC, "52:54:00:00:00:02"))

        assert TEXT == file(lab)


async def test_nobody_overwrites_what_another_has_changed_meanwhile(tmp_path):
    async with known_box(tmp_path) as lab:
        await edit(lab, TEXT + "tags: [a]\n")
        with pytest.raises(Refused, match="changed by somebody else"):
            await edit(lab, TEXT + "tags: [b]\n")

        assert TEXT + "tags: [a]\n" == file(lab)


EDIT = {"host-file": {}, "host-edit": {"text": "", "before": ""}}


async def test_only_root_and_only_known_boxes(tmp_path):
    async with known_box(tmp_path) as lab:
        for verb in ("host-file", "host-edit"):
            with pytest.raises(Refused, match="only root"):
                await lab.people.do(verb, {"host": "box-1", **EDIT[verb]}, "ann", None)
        await lab.ask("/boot.ipxe/mac/52-54-00-00-00-77", "10.0.0.77")
        with pytest.raises(NotFound, match="host add"):
            await lab.people.do("host-file", {"host": "52:54:00:00:00:77"}, "root", None)


async def test_the_editor_is_given_the_text_and_what_it_leaves_is_kept_if_refused(
    tmp_path, monkeypatch
):
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\nsed -i \'s/fast/b c/; s/queues: \\[/queues: ["x y", /\' "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(server, "_peer", lambda stream: "root")
    async with known_box(tmp_path) as lab, trio.open_nursery() as nursery:
        await nursery.start(server.serve, lab.scheduler, lab.people)
        config = tmp_path / "appliance.toml"
        config.write_text(toml(lab.config))

        def run(*words):
            return CliRunner().invoke(group, ["--config", str(config), "host", "edit", *words])

        done = await trio.to_thread.run_sync(run, "box-1")
        assert isinstance(done.exception, Exception)
        assert "box-1.yaml:3: queues: 'x y'" in str(done.exception)
        (draft,) = tmp_path.glob("appliance-box-1-*.yaml")
        assert '"x y"' in draft.read_text()
        assert f"appliance host edit box-1 --from {draft}" in done.stderr
        assert TEXT == file(lab)

        draft.write_text(draft.read_text().replace('"x y", ', "").replace("b c", "slow"))
        done = await trio.to_thread.run_sync(run, "box-1", "--from", str(draft))
        assert (0, True) == (done.exit_code, "box-1.yaml is in effect" in done.stdout)
        assert TEXT.replace("fast", "slow") == file(lab)
        nursery.cancel_scope.cancel()
