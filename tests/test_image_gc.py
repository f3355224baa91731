"""Images that nobody needs go, and no other."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.boot.images import catalogue, image_gc
from appliance.cli import group
from appliance.control.lab_verbs import pinned
from appliance.errors import BadState, Refused
from tests.lab import IMAGE, open_lab

NEW, OLD = "12-2026-01-02-03-04-05", "12-2025-01-02-03-04-05"


@pytest.fixture
def srv(tmp_path: Path) -> Path:
    place = tmp_path / "os/debian/x86_64"
    for name in (NEW, OLD, "12-mine"):
        (place / name / "boot").mkdir(parents=True)
        (place / name / "boot/vmlinuz").write_bytes(b"x" * 10_000)
    (place / "12").symlink_to(NEW)
    return tmp_path


def names(srv: Path) -> list[str]:
    return sorted(os.listdir(srv / "os/debian/x86_64"))


def urls(srv: Path, used: set[str] | None = None) -> list[str]:
    return [one.url for one in image_gc.unused(srv, used or set())[0]]


def nothing() -> None:
    pass


def test_a_snapshot_that_no_link_and_no_job_needs_is_found(srv):
    assert [f"/os/debian/x86_64/{OLD}"] == urls(srv)


def test_what_a_job_has_pinned_stays(srv):
    assert [] == urls(srv, {f"/os/debian/x86_64/{OLD}"})


@pytest.mark.parametrize(
    ("at", "target"),
    [
        ("os/debian/x86_64/12-old", OLD),
        ("os/debian/x86_64/kernel", f"{OLD}/boot/vmlinuz"),
        ("os/mine", f"debian/x86_64/{OLD}"),
        ("os/debian/all", "x86_64"),
    ],
)
def test_what_any_link_leads_to_into_or_through_stays(srv, at, target):
    (srv / at).symlink_to(target)

    assert [] == urls(srv)


def test_a_link_to_a_link_keeps_what_the_last_one_names(srv):
    place = srv / "os/debian/x86_64"
    (place / "oldest").symlink_to("older")
    (place / "older").symlink_to(OLD)

    assert [] == urls(srv)


def test_what_a_person_has_named_otherwise_is_never_looked_at(srv):
    (srv / "os/debian/x86_64/12").unlink()

    assert {f"/os/debian/x86_64/{name}" for name in (NEW, OLD)} == {*urls(srv)}


def test_nothing_goes_where_an_image_is_being_made(srv):
    building = srv / "os/debian/x86_64/.building-7"
    building.mkdir()
    lock = os.open(building, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert ([], [building.parent]) == image_gc.unused(srv, set())
    finally:
        os.close(lock)
    assert [f"/os/debian/x86_64/{OLD}"] == urls(srv)  # left by a crash, it is nobody's


def test_a_build_that_begins_meanwhile_keeps_it(srv):
    found, _ = image_gc.unused(srv, set())
    building = srv / "os/debian/x86_64/.building-7"
    building.mkdir()
    lock = os.open(building, os.O_RDONLY)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        assert [] == image_gc.remove(srv, found, set, nothing)
    finally:
        os.close(lock)
    assert OLD in names(srv)


def test_it_is_gone_and_its_size_is_told(srv):
    found, _ = image_gc.unused(srv, set())

    (gone,) = image_gc.remove(srv, found, set, nothing)

    assert gone.size_bytes >= 10_000
    assert ["12", "12-2026-01-02-03-04-05", "12-mine"] == names(srv)


def test_what_was_pinned_before_it_was_out_of_sight_has_its_name_again(srv):
    found, _ = image_gc.unused(srv, set())
    seen = []

    def pause():
        seen.append(names(srv))

    assert [] == image_gc.remove(srv, found, lambda: {f"/os/debian/x86_64/{OLD}"}, pause)
    assert [False] == [OLD in each for each in seen]  # nobody could pin it meanwhile
    assert OLD in names(srv)
    assert [] == [name for name in names(srv) if name.startswith(".")]


def test_a_server_that_is_gone_when_asked_again_costs_no_image(srv):
    found, _ = image_gc.unused(srv, set())

    def gone():
        raise Refused("no server")

    with pytest.raises(Refused):
        image_gc.remove(srv, found, gone, nothing)
    assert OLD in names(srv)


def test_what_was_broken_off_is_put_in_order(srv):
    place = srv / "os/debian/x86_64"
    (place / OLD).rename(place / f".removing-{OLD}")
    (place / "12-mine").rename(place / ".removed-12-mine")

    with image_gc.turn(srv):
        assert ["12", OLD, NEW] == names(srv)


def test_two_at_once_do_not_meet(srv):
    with image_gc.turn(srv), pytest.raises(Refused, match="another"), image_gc.turn(srv):
        pass


def test_a_file_with_two_names_counts_once(srv):
    folder = srv / "os/debian/x86_64" / OLD
    before = image_gc.size_of(folder)
    os.link(folder / "boot/vmlinuz", folder / "boot/again")

    assert before == image_gc.size_of(folder)


async def test_what_jobs_need_is_what_those_have_pinned_that_are_not_over(autojump_clock):
    async with open_lab() as lab:
        assert set() == pinned(lab.scheduler.store)
        job = await lab.submit()
        assert {"snapshots": [IMAGE]} == await lab.people.do("images-used", {}, "ann", None)
        await lab.scheduler.cancel(job.id, "ann")
        assert set() == pinned(lab.scheduler.store)


@pytest.mark.parametrize(
    ("names", "why"),
    [([], "holds no state"), (["restoring"], "broken off"), (["archive.sqlite"], "holds no state")],
)
def test_a_state_that_does_not_say_what_its_jobs_need_costs_no_image(srv, names_of, names, why):
    """A broken off restore and a disk that is not mounted looked like a lab without jobs."""
    state = srv / "state"
    state.mkdir()
    for name in names:
        (state / name).write_bytes(b"")
    file = srv / "appliance.toml"
    file.write_text(f'[paths]\nsrv = "{srv}"\nstate = "{state}"\nrun = "{srv}/run"\n')
    done = CliRunner().invoke(group, ["--config", str(file), "image", "gc"])

    assert isinstance(done.exception, BadState), done.output
    assert why in str(done.exception)
    assert OLD in names_of()


@pytest.fixture
def names_of(srv):
    return lambda: names(srv)


def test_the_command_says_what_would_go_and_then_does_it(srv, monkeypatch):
    from appliance.boot.images import pinning

    monkeypatch.setattr(pinning, "FRESH_S", 0.0)
    file = srv / "appliance.toml"
    file.write_text(f'[paths]\nsrv = "{srv}"\nstate = "{srv}/state"\nrun = "{srv}/run"\n')

    def run(*options):
        return CliRunner().invoke(group, ["--config", str(file), "image", "gc", *options])

    done = run("--dry-run")
    assert (0, True) == (done.exit_code, "1 snapshots" in done.stdout)
    assert "would go" in done.stdout
    assert OLD in names(srv)
    done = run()
    assert (0, True) == (done.exit_code, f"/os/debian/x86_64/{OLD}  " in done.stdout)
    assert OLD not in names(srv)
    assert ["debian/x86_64/12", "debian/x86_64/12-mine"] == [i.name for i in catalogue.images(srv)]
