"""install/execute.py: steps done, and taken back."""

import os

import pytest

from appliance import programs
from appliance.errors import Refused
from appliance.fs import trees
from appliance.install import execute, removal
from appliance.install.actions import (
    All,
    Folder,
    GiveBack,
    Link,
    Owner,
    Remove,
    RemoveEmpty,
    Run,
    StateBack,
    Step,
    Touch,
    Unpack,
    Write,
)

ME = Owner("root", "root")
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="files get owners: needs root"),
]
FAILS = Step("it fails", Run(("sh", "-c", "echo no such luck; exit 3")), None)


def tree(folder):
    return {
        str(path.relative_to(folder)): path.read_text() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


def steps(folder):
    return [
        Step("", Folder(folder / "a", 0o750), RemoveEmpty(folder / "a")),
        Step("", Write(folder / "a/new", "text", 0o640), Remove(folder / "a/new")),
        Step("", Write(folder / "old", "after"), Write(folder / "old", "before")),
        Step("", Link(folder / "link", "old"), Remove(folder / "link")),
    ]


def test_steps_are_done_in_order(tmp_path):
    said = []
    execute.carry_out(steps(tmp_path), said.append)

    assert {"a": None, "a/new": "text", "old": "after", "link": "after"} == tree(tmp_path)
    assert 0o750 == (tmp_path / "a").stat().st_mode & 0o7777
    assert 0o640 == (tmp_path / "a/new").stat().st_mode & 0o7777
    assert [str(step.do) for step in steps(tmp_path)] == said


def test_after_a_step_that_fails_all_is_as_it_was(tmp_path):
    (tmp_path / "old").write_text("before")
    with pytest.raises(Refused) as refused:
        execute.carry_out([*steps(tmp_path), FAILS], lambda line: None)

    assert {"old": "before"} == tree(tmp_path)
    told = str(refused.value)
    assert "no such luck" in told
    assert "what was done before it has been taken back" in told


def test_what_cannot_be_taken_back_is_named_and_the_rest_is(tmp_path):
    (tmp_path / "old").write_text("before")
    stuck = Step("", Write(tmp_path / "b", ""), Run(("sh", "-c", "echo stuck; exit 1")))
    stays = Step("", Run(("true",)), None, "packages: p")
    with pytest.raises(Refused) as refused:
        execute.carry_out([stays, *steps(tmp_path), stuck, FAILS], lambda line: None)

    assert {"old": "before", "b": ""} == tree(tmp_path)
    told = str(refused.value)
    assert "to put right by hand:" in told
    assert "stuck" in told
    assert "stays: packages: p" in told


def test_a_ctrl_c_takes_back_as_well(tmp_path):
    def say(line):
        if "link" in line and "going back" not in line:
            raise KeyboardInterrupt

    (tmp_path / "old").write_text("before")
    with pytest.raises(Refused, match="interrupted"):
        execute.carry_out(steps(tmp_path), say)

    assert {"old": "before"} == tree(tmp_path)


def test_a_second_ctrl_c_cuts_one_step_of_the_way_back_and_is_told(tmp_path):
    def say(line):
        if line.startswith("going back: remove") and "link" in line:
            raise KeyboardInterrupt

    (tmp_path / "old").write_text("before")
    with pytest.raises(Refused) as refused:
        execute.carry_out([*steps(tmp_path), FAILS], say)

    assert {"old": "before", "link": "before"} == tree(tmp_path)
    assert f"could not remove {tmp_path}/link: interrupted" in str(refused.value)


def test_where_nobody_listens_any_more_all_is_taken_back(tmp_path):
    """`appliance install | head`, or a terminal that is gone."""
    said = []

    def say(line):
        said.append(line)
        if len(said) > 3:
            raise BrokenPipeError("nobody reads")

    (tmp_path / "old").write_text("before")
    with pytest.raises(Refused, match="nobody reads"):
        execute.carry_out(steps(tmp_path), say)

    assert {"old": "before"} == tree(tmp_path)


def test_a_step_that_was_not_begun_is_not_taken_back(tmp_path):
    """What its undo would take away is somebody else's."""

    def say(line):
        if line.startswith("write") and "theirs" in line:
            raise KeyboardInterrupt

    (tmp_path / "theirs").write_text("")
    step = Step("", Write(tmp_path / "theirs", "ours"), Remove(tmp_path / "theirs"))
    with pytest.raises(Refused, match="interrupted"):
        execute.carry_out([*steps(tmp_path), step], say)

    assert "theirs" in tree(tmp_path)


def test_a_file_that_is_touched_keeps_what_stands_in_it_and_is_no_link(tmp_path):
    (tmp_path / "leases").write_text("one")
    execute.do(Touch(tmp_path / "leases", 0o644, ME))
    (tmp_path / "trap").symlink_to(tmp_path / "victim")
    with pytest.raises(Refused, match="trap: a symlink of user 0 is in the way"):
        execute.do(Touch(tmp_path / "trap", 0o644, ME))

    assert {"leases": "one", "trap": None} == tree(tmp_path)


def test_a_program_is_unpacked_whole_and_others_may_read_it(tmp_path):
    source = tmp_path / "source"
    (source / "lib").mkdir(parents=True)
    (source / "launcher").write_text("program")
    (source / "lib/x.so.1").write_text("library")
    (source / "data").write_text("data")
    for path in (source, source / "lib", source / "data", source / "lib/x.so.1"):
        path.chmod(0o700)
    execute.do(Unpack(source, "launcher", tmp_path / "v/1", "appliance"))

    made = tmp_path / "v/1"
    expected = {"appliance": "program", "_internal": None, "_internal/lib": None,
                "_internal/lib/x.so.1": "library", "_internal/data": "data"}  # fmt: skip
    assert expected == tree(made)
    modes = {name: (made / name).stat().st_mode & 0o777 for name in expected}
    assert 0o644 == modes.pop("_internal/data")
    assert {0o755} == {*modes.values()}


def test_a_folder_that_leads_elsewhere_stays_as_it_is(tmp_path):
    (tmp_path / "disk").mkdir(mode=0o700)
    (tmp_path / "srv").symlink_to("disk")
    execute.do(Folder(tmp_path / "srv", 0o755))

    assert 0o700 == (tmp_path / "disk").stat().st_mode & 0o777


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_folder_goes_back_to_an_owner_who_has_no_name_any_more(tmp_path):
    execute.do(Folder(tmp_path / "srv", 0o711, Owner("54321", "54322")))
    found = (tmp_path / "srv").stat()

    assert (54321, 54322, 0o711) == (found.st_uid, found.st_gid, found.st_mode & 0o777)


def test_a_folder_is_given_back_only_where_it_is(tmp_path):
    (tmp_path / "os").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("os")
    (tmp_path / "file").write_text("")
    for name in ("os", "gone/os", "file"):
        execute.do(GiveBack(tmp_path / name, 0o755))
    assert {"os": None, "link": None, "file": ""} == tree(tmp_path)
    assert 0o755 == (tmp_path / "os").stat().st_mode & 0o777

    execute.do(GiveBack(tmp_path / "link", 0o711))
    assert 0o755 == (tmp_path / "os").stat().st_mode & 0o777


def test_a_folder_with_something_in_it_is_not_removed_as_empty(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").write_text("")
    (tmp_path / "empty").mkdir()
    execute.do(All((RemoveEmpty(tmp_path / "kept"), RemoveEmpty(tmp_path / "empty"),
                  RemoveEmpty(tmp_path / "none"))))  # fmt: skip

    assert {"kept": None, "kept/file": ""} == tree(tmp_path)


def test_an_owner_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Refused, match="nobody-of-that-name"):
        execute.do(Write(tmp_path / "file", "", owner=Owner("nobody-of-that-name")))


def test_a_folder_that_its_owner_nested_deeply_is_removed(tmp_path):
    """`uninstall --purge` ended with a trace, half-way."""
    (tmp_path / "state").mkdir()
    here = os.open(tmp_path / "state", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("a", dir_fd=here)
        deeper = os.open("a", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = deeper
    os.close(here)
    try:
        execute.do(Remove(tmp_path / "state"))
        assert not (tmp_path / "state").exists()
    finally:
        if (tmp_path / "state").exists():
            trees.remove(tmp_path / "state")


# ---- the state of before


def a_state(folder, version, text):
    folder.mkdir()
    (folder / "journal-000001").write_text(f"appliance journal {version}\n{text}")


@pytest.mark.parametrize(("now", "reads", "swapped"), [(2, 1, True), (1, 1, False), (2, 2, False)])
def test_a_copy_takes_the_states_place_only_where_that_cannot_be_read(
    tmp_path, now, reads, swapped
):
    state, copy, aside = (tmp_path / f"state{end}" for end in ("", "-before", "-after"))
    a_state(state, now, "of now")
    a_state(copy, 1, "of then")
    back = StateBack(state, copy, aside, reads)
    execute.do(back)
    execute.do(back)  # it finds its work done

    assert ("of then" if swapped else "of now") in said_by(state)
    assert swapped == aside.exists()
    assert "of then" in said_by(copy)
    if swapped:
        assert "of now" in said_by(aside)
        assert 0o711 == state.stat().st_mode & 0o7777


def said_by(state):
    return (state / "journal-000001").read_text()


def test_a_state_stays_where_it_is_while_there_is_no_copy_of_it_to_take_its_place(tmp_path):
    state, aside = tmp_path / "state", tmp_path / "state-after"
    a_state(state, 2, "of now")
    a_state(aside, 1, "of a rollback before this")
    with pytest.raises(Refused, match="nowhere"):
        execute.do(StateBack(state, tmp_path / "nowhere", aside, 1))

    assert "of now" in said_by(state)
    assert {"state", "state-after"} == {path.name for path in tmp_path.iterdir() if path.is_dir()}


# ---- a rollback of the state that is cut

CUT = """#!/bin/sh
# Counts the programs of a rollback; one of them ends before, while or after it works.
n=$(($(cat {count}) + 1)); echo $n > {count}
[ $n = {at} ] || exec {program} "$@"
case {how}-{name} in
    before-*) ;;
    amid-rm) for folder; do {program} -f "$folder"/* 2>/dev/null; done ;;
    amid-cp) for folder; do :; done; mkdir "$folder" ;;
    amid-*) ;;
    after-*) {program} "$@" ;;
esac
exit 1
"""
THERE, BACK = 8, 5  # so many of them there are in a rollback, and on its way back
SCRATCH = {"state-back", "state-leaving"}


@pytest.fixture
def lab(tmp_path, monkeypatch):
    """A state of now, its copy, and what a rollback of last year has kept."""
    lab = tmp_path / "lab"
    lab.mkdir()
    a_state(lab / "state", 2, "of now")
    a_state(lab / "state-before", 1, "of then")
    a_state(lab / "state-after", 2, "of last year")
    for folder in lab.iterdir():
        (folder / "a second file").write_text("")
    return lab


def cut(monkeypatch, folder, at, how):
    """From here on the program number `at` of those that change folders is cut."""
    bin_ = folder / "bin"
    bin_.mkdir(exist_ok=True)
    (folder / "count").write_text("0\n")
    for name in ("rm", "cp", "mv", "chmod"):
        script = CUT.format(
            count=folder / "count", at=at, how=how, name=name, program=f"/bin/{name}"
        )
        (bin_ / name).write_text(script)
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:/usr/bin:/bin")


def rollback_of_state(lab):
    back = StateBack(lab / "state", lab / "state-before", lab / "state-after", 1)
    return removal.state_steps(back)


def whole(lab):
    """What the folders have that are whole, by name."""
    return {
        path.name: said_by(path).splitlines()[-1]
        for path in sorted(lab.iterdir())
        if len(list(path.iterdir())) == 2
    }


BEFORE = {"state": "of now", "state-before": "of then", "state-after": "of last year"}


def ways(last):
    return [(at, how) for at in range(1, last + 1) for how in ("before", "amid", "after")]


@pytest.mark.parametrize("said", [True, False])
@pytest.mark.parametrize("words", ["cut short", "of then", "of now is kept"])
def test_a_second_rollback_that_is_cut_before_a_step_has_begun_leaves_the_state_as_it_is(
    lab, monkeypatch, words, said
):
    steps = rollback_of_state(lab)
    [step] = [step for step in steps if words in step.why]

    def say(line):
        if said and line == str(step.do):
            raise KeyboardInterrupt

    def run(command):
        if tuple(command) == step.do.command:
            raise KeyboardInterrupt
        programs.run(command)

    monkeypatch.setattr(execute, "run", run)
    with pytest.raises(Refused, match="interrupted"):
        execute.carry_out(steps, say)

    assert BEFORE == whole(lab)


@pytest.mark.parametrize(("at", "how"), ways(THERE))
def test_a_rollback_that_is_cut_anywhere_goes_back_to_the_state_of_now(
    lab, tmp_path, monkeypatch, at, how
):
    cut(monkeypatch, tmp_path, at, how)
    with pytest.raises(Refused, match="what was done before it has been taken back"):
        execute.carry_out(rollback_of_state(lab), lambda line: None)

    kept = whole(lab)
    assert ("of now", "of then") == (kept["state"], kept["state-before"])
    assert "of last year" in kept.values()
    assert not SCRATCH & {path.name for path in lab.iterdir()}


@pytest.mark.parametrize(("at", "how"), ways(5))
def test_the_way_back_from_an_upgrade_leaves_no_half_copy_of_the_state(
    lab, tmp_path, monkeypatch, at, how
):
    cut(monkeypatch, tmp_path, at, how)
    with pytest.raises(Refused):
        execute.do(StateBack(lab / "state", lab / "state-before", lab / "state-after", 1))

    assert BEFORE == whole(lab)
    assert BEFORE.keys() == {path.name for path in lab.iterdir()}


@pytest.mark.parametrize(
    ("way", "at", "how"),
    [("there", *each) for each in ways(THERE)] + [("back", *each) for each in ways(BACK)],
)
def test_the_state_of_now_survives_a_power_cut_on_the_way_there_or_back_and_the_next_rollback(
    lab, tmp_path, monkeypatch, way, at, how
):
    steps = rollback_of_state(lab)
    actions = [step.do for step in steps]
    if way == "back":
        for action in actions:
            execute.do(action)
        actions = [step.undo for step in reversed(steps) if step.undo is not None]
    cut(monkeypatch, tmp_path, at, how)
    with pytest.raises(Refused):
        execute.do(All(tuple(actions)))
    assert "state" in whole(lab) or not (lab / "state").exists()
    assert {"of now", "of then", "of last year"} <= {*whole(lab).values()}

    execute.carry_out(rollback_of_state(lab), lambda line: None)
    kept = whole(lab)
    assert "of then" == kept["state"]
    assert "of now" in kept.values()
    assert not SCRATCH & {path.name for path in lab.iterdir()}
