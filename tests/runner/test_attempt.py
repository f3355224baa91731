"""What the server hears of an attempt, word by word, and what a person at the console sees."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.runner.testbox import IMAGES, SCRIPTS, SHELLS, dead

BASE = "/~lkp/tok/cgi-bin"
WTMP = "tbox_name=box%201&tbox_state={}&mac=52-54-00-AA-bb-01&ip=127.0.0.1&job_id=lab.1"
APPEND = f"{BASE}/lkp-jobfile-append-var?job_file=/lkp/scheduled/job.yaml&job_id=lab.1&"
POST_RUN = f"{BASE}/lkp-post-run?job_file=/lkp/scheduled/job.yaml&job_id=lab.1"


def reports(verdict: str) -> list[str]:
    """All reports of an attempt that came to its end."""
    return [
        f"{BASE}/still-wanted?job_id=lab.1",
        f"{BASE}/lkp-wtmp?{WTMP.format('running')}",
        f"{APPEND}job_state=running",
        f"{APPEND}job_state=post_run",
        f"{APPEND}loadavg=0.10%200.20%200.30%201/99%201234&start_time=N&end_time=N",
        f"{APPEND}job_state={verdict}",
        POST_RUN,
        f"{BASE}/lkp-wtmp?{WTMP.format('rebooting')}",
    ]


def said(server) -> list[str]:
    return [re.sub(r"_time=\d{10,}", "_time=N", path) for path in server.reports]


@pytest.mark.parametrize(("shell", "busybox", "client"), IMAGES)
def test_a_job_from_its_first_report_to_its_last(make_box, server, shell, busybox, client) -> None:
    box = make_box(shell=shell, busybox=busybox, client=client)

    box.run("\techo hello; echo oops >&2; mkdir $RESULT_ROOT/a; echo 7 >$TMP_RESULT_ROOT/a/b")

    assert reports("finished") == said(server)
    assert ["reboot "] == box.rebooted
    assert {
        "stdout": b"hello\n",
        "stderr": b"oops\n",
        "exit-code": b"0\n",
        "uptime": b"63.99 12.00\n0.10 0.20 0.30 1/99 1234\n",
        "dmesg": b"[0.0] Linux version 6.1\n",
        "a/b": b"7\n",
    }.items() <= server.files.items()
    assert [b"hello", b"oops"] == sorted(server.files["output"].split())
    assert {"boot-time", "runner.log"} <= server.files.keys()
    assert {"JOBID=lab.1"} == {r.cookie for r in server.requests if r.method == "PUT"}
    assert "job| hello\n" in box.console
    assert "job| oops\n" in box.console
    assert re.search(r"^lkp\| \[\d+\] job lab.1 on box 1 \(127.0.0.1, ", box.console)
    assert box.console.rstrip().endswith("rebooting")


def test_nothing_but_the_runners_own_words_is_in_its_log(box) -> None:
    box.run()

    assert [] == [line for line in box.log.splitlines() if not line.startswith("[")]


def test_uploads_come_between_post_run_and_the_verdict(box, server) -> None:
    box.run()

    words = [
        "PUT" if request.method == "PUT" else request.path.rpartition("=")[2]
        for request in server.requests
    ]
    assert "PUT" not in words[: words.index("post_run")]
    assert "PUT" not in words[words.index("finished") :]
    assert "runner.log" == list(server.files)[-1]


def test_a_silent_job_uploads_empty_files(box, server) -> None:
    box.run("\t:")

    assert b"" == server.files["stdout"]
    assert b"" == server.files["stderr"]


def test_a_job_that_fails(box, server) -> None:
    box.run("\texit 7")

    assert reports("failed") == said(server)
    assert b"7\n" == server.files["exit-code"]


def test_a_job_killed_by_the_kernel_for_its_memory(box, server) -> None:
    box.fake("dmesg", f"cat {box.root}/kernel; echo '[1] Out of memory: Killed process 9 (old)'")
    (box.root / "kernel").write_text("")

    box.run(f"\techo '[2] Out of memory: Killed process 11 (a.out)' >{box.root}/kernel; exit 137")

    assert ["running", "post_run", "OOM"] == server.states


def test_an_earlier_lack_of_memory_is_not_this_jobs(box, server) -> None:
    box.fake("dmesg", "echo '[1] Out of memory: Killed process 9 (old)'")

    box.run("\texit 1")

    assert ["running", "post_run", "failed"] == server.states


@pytest.mark.parametrize("shell", SHELLS)
def test_a_job_that_runs_too_long_is_stopped(make_box, server, shell) -> None:
    box = make_box(shell=shell)

    box.run("\ttrap 'echo asked; exit 3' TERM; echo begin; while :; do sleep 0.05; done", runtime=1)

    assert reports("soft_timeout") == said(server)
    assert b"begin\nasked\n" == server.files["stdout"]
    assert b"3\n" == server.files["exit-code"]


def test_a_job_deaf_to_term_is_killed(box, server) -> None:
    box.settings["RUNNER_GRACE"] = "0"

    # With less, a busy machine is at the deadline before the shell is at its trap.
    box.run("\ttrap '' TERM; echo $$; while :; do sleep 0.05; done", runtime=3)

    assert ["running", "post_run", "soft_timeout"] == server.states
    assert b"137\n" == server.files["exit-code"]
    assert dead(server.files["stdout"].decode().strip())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_cancelled_job_is_stopped_with_all_its_groups(make_box, server, shell) -> None:
    box = make_box(shell=shell)
    pids = box.root / "pids"

    def answer(request):
        done = "still-wanted" in request.path and pids.exists()
        return (200, "no") if done and 2 == len(pids.read_text().split()) else None

    server.answer = answer
    # timeout(1) makes a process group of its own.
    box.run(
        f"\techo half; echo $$ >>{pids}\n"
        f"\ttimeout 60 sh -c 'echo $$ >>{pids}; while :; do sleep 0.05; done'"
    )

    assert ["running"] == server.states
    assert b"half\n" == server.files["stdout"]
    assert not any(POST_RUN in path for path in server.reports)
    assert f"{BASE}/lkp-wtmp?{WTMP.format('rebooting')}" == server.reports[-1]
    assert all(dead(pid) for pid in pids.read_text().split())


def test_a_job_that_was_cancelled_before_its_start_does_not_run(box, server) -> None:
    server.answer = lambda request: (200, "no") if "still-wanted" in request.path else None

    box.run(f"\ttouch {box.root}/ran")

    assert [] == server.states
    assert not (box.root / "ran").exists()
    assert ["reboot "] == box.rebooted


def test_a_plain_boot_is_left_alone(box, server) -> None:
    box.power_on()

    assert 0 == box.process.wait(5)
    assert [] == server.requests
    assert [] == box.rebooted
    assert [] == list((box.root / "run").iterdir())


def test_a_job_without_a_server_is_not_started(box, server) -> None:
    box.schedule(f"\ttouch {box.root}/ran")
    job_sh = box.root / "lkp/scheduled/job.sh"
    job_sh.write_text(job_sh.read_text().replace("export LKP_SERVER", "export OTHER"))
    box.power_on()
    box.wait()

    assert not (box.root / "ran").exists()
    assert "no LKP_SERVER" in box.console


@pytest.mark.parametrize(
    ("timeout", "runtime", "limit"),
    [
        ("", "300", 450),  # the server adds 300 + 17
        ("", "36000", 38250),  # 36000/16, half of the server's slack
        ("", "", 3825),
        ("", "1h", 3825),  # the server sends seconds; anything else is not believed
        ("100", "36000", 90),
        ("1000", "", 970),
    ],
)
def test_the_job_is_stopped_before_the_server_gives_up(timeout, runtime, limit) -> None:
    out = subprocess.run(
        ["dash", "-c", f'. {SCRIPTS}/report.sh; time_limit "$1" "$2"', "sh", timeout, runtime],
        env={"RUNNER_SLACK_MIN": "150"},
        capture_output=True,
        check=True,
    ).stdout

    assert f"{limit}\n" == out.decode()
