"""install/execute.py: steps done, and taken back."""

import os

import pytest

from appliance.errors import Refused
from appliance.fs import trees
from appliance.install import execute
from appliance.install.actions import (
    All,
    Folder,
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

    assert ("of then" if swapped else "of now") in (state / "journal-000001").read_text()
    assert swapped == aside.exists()
    assert "of then" in (copy / "journal-000001").read_text()
    if swapped:
        assert "of now" in (aside / "journal-000001").read_text()
        assert 0o711 == state.stat().st_mode & 0o7777
        execute.do(Run(("sh", "-c", back.undo)))
        assert "of now" in (state / "journal-000001").read_text()


def test_a_state_stays_where_it_is_while_there_is_no_copy_of_it_to_take_its_place(tmp_path):
    state, aside = tmp_path / "state", tmp_path / "state-after"
    a_state(state, 2, "of now")
    a_state(aside, 1, "of a rollback before this")
    back = StateBack(state, tmp_path / "nowhere", aside, 1)
    with pytest.raises(Refused, match="nowhere"):
        execute.do(back)
    execute.do(Run(("sh", "-c", back.undo)))

    assert "of now" in (state / "journal-000001").read_text()
    assert ["state"] == [path.name for path in tmp_path.iterdir() if path.name != "state-after"]
