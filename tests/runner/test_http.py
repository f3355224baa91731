"""Every HTTP client an image may have, and a server that is away, full, or no longer ours."""

from __future__ import annotations

import subprocess

import pytest

from tests.runner.testbox import CLIENTS, SCRIPTS

ODD = "a b/100%+é&#?[1]"
ODD_ESCAPED = "%61%20%62/%31%30%30%25%2b%c3%a9%26%23%3f%5b%31%5d"
NESTED = f'\tmkdir "$RESULT_ROOT/a b"; : >"$RESULT_ROOT/empty"; echo 1 >"$RESULT_ROOT/{ODD}"'


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_reports_and_uploads(make_box, server, client) -> None:
    box = make_box(client=client)
    server.watchful = True

    box.run(f"{NESTED}; head -c 3000000 /dev/zero >$RESULT_ROOT/large")

    assert ["running", "post_run", "finished"] == server.states
    assert b"1\n" == server.files[ODD]
    assert b"" == server.files["empty"]
    assert bytes(3000000) == server.files["large"]
    assert {"JOBID=lab.1"} == {r.cookie for r in server.requests if r.method == "PUT"}
    assert f"HTTP by {client.removesuffix('3')}" in box.log


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_understands_a_no(make_box, server, client) -> None:
    box = make_box(client=client)
    began = box.root / "began"
    server.answer = lambda request: (
        (200, "no") if began.exists() and "still-wanted" in request.path else None
    )

    box.run(f"\ttouch {began}; sleep 60")

    assert ["running"] == server.states
    assert "stopping the job: cancelled" in box.log


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_waits_for_a_server_that_is_away(make_box, server, client) -> None:
    box = make_box(client=client)
    gone = box.root / "gone"
    refused = 3

    def answer(request):
        nonlocal refused
        if request.path.endswith("/stdout") and refused:
            refused -= 1
            return 503, "later"
        return None

    server.answer = answer
    box.schedule(f"\ttouch {gone}; while [ -e {gone} ]; do sleep 0.05; done")
    box.settings["RUNNER_POLL"] = "9999"
    box.power_on()
    box.until(gone.exists)
    server.stop()
    gone.unlink()
    box.until(lambda: "the server is away" in box.log)
    server.start()
    box.wait()

    assert ["running", "post_run", "finished"] == server.states
    assert 4 == [request.path for request in server.requests].count(
        "/result/hello/box/lab.1/stdout"
    )
    assert "the server is back" in box.log


@pytest.mark.parametrize("status", [413, 507])
def test_a_refused_file_does_not_keep_the_others(box, server, status) -> None:
    server.answer = lambda request: (status, "no") if request.path.endswith("/big") else None

    box.run("\techo 1 >$RESULT_ROOT/big; echo 2 >$RESULT_ROOT/small; exit 1")

    assert 1 == [request.path for request in server.requests].count("/result/hello/box/lab.1/big")
    assert b"2\n" == server.files["small"]
    assert ["running", "post_run", "incomplete"] == server.states
    assert f"not uploaded: big (status {status})" in server.files["runner.log"].decode()


@pytest.mark.parametrize("client", CLIENTS)
def test_a_file_refused_before_it_was_sent_does_not_keep_the_others(
    make_box, server, client
) -> None:
    server.hasty = "/huge"

    make_box(client=client).run(
        "\thead -c 50000000 /dev/zero >$RESULT_ROOT/huge; echo 2 >$RESULT_ROOT/small"
    )

    assert b"2\n" == server.files["small"]
    assert ["running", "post_run", "incomplete"] == server.states


def test_403_ends_all_uploads(box, server) -> None:
    server.answer = lambda request: (403, "no") if request.method == "PUT" else None

    box.run("\techo 1 >$RESULT_ROOT/a")

    assert ["stdout"] == list(server.files)
    assert ["running", "post_run", "incomplete"] == server.states


def test_a_server_that_comes_late_is_waited_for(box, server) -> None:
    box.schedule("\techo hello")
    server.stop()
    box.power_on()
    box.until(lambda: "waiting for" in box.log)
    server.start()
    box.wait()

    assert ["running", "post_run", "finished"] == server.states


def test_a_server_that_never_comes_sends_the_box_back(box, server) -> None:
    box.settings["RUNNER_NETWORK_FOR"] = "1"
    box.schedule(f"\ttouch {box.root}/ran")
    server.stop()
    box.power_on()
    box.wait()
    server.start()

    assert not (box.root / "ran").exists()
    assert "no way to the server: not started" in box.console


def test_a_server_that_stays_away_is_not_waited_for_file_by_file(box, server) -> None:
    box.settings |= {"RUNNER_RETRY_FOR": "1", "RUNNER_POLL": "9999"}
    gone = box.root / "gone"
    box.schedule(f"\ttouch {gone}; while [ -e {gone} ]; do sleep 0.05; done")
    box.power_on()
    box.until(gone.exists)
    server.stop()
    gone.unlink()
    box.wait()
    server.start()

    assert ["running"] == server.states
    assert 1 == box.log.count("the server is away")
    assert "not uploaded: stdout (the server stays away)" in box.log


def test_an_image_without_any_client_says_so_and_does_not_run(make_box, server) -> None:
    box = make_box(client="")

    box.run(f"\ttouch {box.root}/ran")

    assert not (box.root / "ran").exists()
    assert "no curl, GNU wget, python3, perl or nc" in box.console
    assert [] == server.requests


def test_the_time_for_uploads_ends(box, server) -> None:
    box.settings["RUNNER_UPLOAD_FOR"] = "0"

    box.run()

    assert {} == server.files
    assert ["running", "post_run", "incomplete"] == server.states


@pytest.mark.parametrize("shell", ["dash", "busybox", "bash"])
@pytest.mark.parametrize(
    ("function", "text", "escaped"),
    [
        ("escape", "a%b+c&d#e?f g/h:i=j", "a%25b%2Bc%26d%23e%3Ff%20g/h:i=j"),
        ("escape", "two\nlines", "twolines"),
        ("escape_path", "/result/a-b_c.d/0", "/result/a-b_c.d/0"),
        ("escape_path", ODD, ODD_ESCAPED),
        ("escape_path", "-n", "-n"),
    ],
)
def test_escaping(shell, function, text, escaped) -> None:
    words = [shell, "sh"] if shell == "busybox" else [shell]

    out = subprocess.run(
        [*words, "-c", f'. {SCRIPTS}/http.sh; {function} "$1"', "sh", text],
        capture_output=True,
        check=True,
    ).stdout

    assert escaped == out.decode()
