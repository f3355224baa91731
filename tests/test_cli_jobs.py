"""Commands for several jobs: each is tried, each outcome is said."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
from click.testing import CliRunner

from appliance import errors
from appliance.cli import jobs, results, submit
from appliance.errors import BadRequest, NotFound, NotRunning, Refused


class Server:
    """Knows lab.2 and lab.4; lab.1 is over, and lab.5 takes the server down."""

    def ask(self, verb, *, job):
        if job == "lab.1":
            raise Refused("lab.1 is over")
        if job == "lab.5":
            raise NotRunning("the server went away")
        if job not in ("lab.2", "lab.4"):
            raise NotFound(f"no job {job}")
        return {"job": {"id": job, "health": "success", "reason": ""}}

    def follow(self, verb, *, job):
        yield {"result": self.ask(verb, job=job)}


@pytest.mark.parametrize("command", [jobs.cancel, submit.wait])
@pytest.mark.parametrize(
    ("names", "code"),
    [
        (["lab.2", "lab.4"], 0),
        (["lab.1", "lab.2", "lab.3", "lab.4"], errors.REFUSED),
        (["lab.2", "lab.3", "lab.1", "lab.4"], errors.NOT_FOUND),
    ],
)
def test_all_are_tried_and_the_exit_code_is_that_of_the_first_that_went_wrong(
    monkeypatch, command, names, code
):
    for module in (jobs, submit):
        monkeypatch.setattr(module, "connect", lambda ctx: nullcontext(Server()))
    done = CliRunner().invoke(command, names)

    assert code == done.exit_code
    assert ["lab.2 success", "lab.4 success"] == done.stdout.splitlines()
    said = ["appliance: lab.1 is over"] * ("lab.1" in names)
    said += ["appliance: no job lab.3"] * ("lab.3" in names)
    assert sorted(said) == sorted(done.stderr.splitlines())


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("none.yaml", "none.yaml: no such file"),
        ("folder", "folder: Is a directory"),
        ("latin.yaml", "latin.yaml: is no UTF-8 (byte 9): save it as UTF-8"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path, monkeypatch, name, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    done = CliRunner().invoke(submit.submit, [name])

    assert isinstance(done.exception, BadRequest)
    assert said == str(done.exception)


@pytest.fixture
def hasty(monkeypatch):
    """Nobody waits for a server to come back."""
    monkeypatch.setattr(submit, "BACK_S", 0.0)
    monkeypatch.setattr(submit, "ASK_AGAIN_S", 0.001)


@pytest.mark.parametrize("command", [jobs.cancel, submit.wait])
def test_without_a_server_there_is_no_next_job(monkeypatch, hasty, command):
    for module in (jobs, submit):
        monkeypatch.setattr(module, "connect", lambda ctx: nullcontext(Server()))
    done = CliRunner().invoke(command, ["lab.5", "lab.2"])

    assert isinstance(done.exception, NotRunning)
    assert "" == done.stdout


class Restarts:
    """Each of `lives` tells so many of lab.1's three events; None is a time without a server."""

    def __init__(self, lives):
        self.left = iter(lives)

    def __call__(self, ctx):
        events = next(self.left)
        if events is None:
            raise NotRunning("no server answers")
        return nullcontext(Life(events))


class Life:
    """One run of a server."""

    def __init__(self, events):
        self.events = events

    def follow(self, verb, *, job):
        for stage in ("submit", "offered", "boot")[: self.events]:
            yield {"event": {"at": 0.0, "stage": stage, "box": None, "what": ""}}
        if self.events < 3:
            raise NotRunning("the server went away")
        yield {"result": {"job": {"id": job, "health": "success", "reason": ""}}}


@pytest.mark.parametrize("lives", [[2, 3], [0, 3], [2, None, 3], [1, 2, None, 0, 3]])
def test_a_wait_outlives_a_restart_of_the_server_and_says_everything_once(
    monkeypatch, hasty, lives
):
    monkeypatch.setattr(submit, "BACK_S", 60.0)
    monkeypatch.setattr(submit, "connect", Restarts(lives))
    done = CliRunner().invoke(submit.wait, ["lab.1"])

    stages = [line.split()[-1] for line in done.stdout.splitlines()]
    assert (0, ["submit", "offered", "boot", "success"]) == (done.exit_code, stages)
    assert "appliance: the server went away; asking again" == done.stderr.splitlines()[0]


def test_a_wait_for_a_server_that_stays_away_says_how_to_go_on_later(monkeypatch, hasty):
    monkeypatch.setattr(submit, "connect", Restarts([2, *(None for _ in range(1000))]))
    done = CliRunner().invoke(submit.wait, ["lab.1"])

    assert isinstance(done.exception, NotRunning)
    assert "no server answers\nTo go on later: appliance wait lab.1" == str(done.exception)


@pytest.mark.parametrize(
    ("listed", "said"),
    [
        ({"swept": None, "lacking": None}, ""),
        ({"swept": None, "lacking": "b is larger than 10 bytes"},
         "lab.1: not all of them: b is larger than 10 bytes\n"),
        ({"swept": 1.0, "lacking": None}, "lab.1: `results gc` removed them"),
    ],
)  # fmt: skip
def test_results_that_are_not_all_there_say_so(monkeypatch, listed, said):
    class Server:
        def ask(self, verb, *, job):
            return {"root": "/srv/result/lab.1", "files": [], "complete": False, **listed}

    monkeypatch.setattr(results, "connect", lambda ctx: nullcontext(Server()))
    done = CliRunner().invoke(results.results, ["lab.1"])

    assert (0, "/srv/result/lab.1") == (done.exit_code, done.stdout.splitlines()[0])
    assert said == done.stderr if not said else said in done.stderr
