"""The job runs as root and is anybody's code: whatever it does, the box comes back."""

from __future__ import annotations

import os
import signal

import pytest

from tests.runner.testbox import SHELLS, dead


@pytest.mark.parametrize("shell", SHELLS)
def test_a_job_that_kills_its_parent_still_hands_over_what_it_printed(
    make_box, server, shell
) -> None:
    box = make_box(shell=shell)

    box.settings["RUNNER_OUTPUT_BYTES"] = "512"

    box.run(
        f"\techo half; seq 999 >&2; echo $$ >{box.root}/pid; sleep 0.2; kill -9 $PPID; sleep 60"
    )

    assert ["running", "post_run", "incomplete"] == server.states
    assert b"half\n" == server.files["stdout"]
    assert server.files["stderr"].endswith(b"keeps 512 bytes; the rest is lost]\n")
    assert 1 == sum("lkp-post-run" in path for path in server.reports)
    assert dead((box.root / "pid").read_text().strip())


@pytest.mark.parametrize("shell", SHELLS)
def test_a_guard_that_was_killed_takes_its_worker_up_again(make_box, server, shell) -> None:
    box = make_box(shell=shell)
    go = box.root / "go"
    box.schedule(f"\techo once >>{box.root}/runs; while [ ! -e {go} ]; do sleep 0.05; done")
    box.power_on()
    box.until((box.root / "runs").exists)
    box.process.send_signal(signal.SIGKILL)
    box.process.wait()

    box.power_on()
    box.until(lambda: "started again on this boot" in box.log)
    go.touch()
    box.wait()

    assert "once\n" == (box.root / "runs").read_text()
    assert ["running", "post_run", "finished"] == server.states


def test_a_second_start_beside_the_first_does_nothing(box, server) -> None:
    go = box.root / "go"
    box.schedule(f"\techo once >>{box.root}/runs; while [ ! -e {go} ]; do sleep 0.05; done")
    box.power_on()
    first = box.process
    box.until((box.root / "runs").exists)
    box.power_on()

    assert 0 == box.process.wait(10)
    assert [] == box.rebooted
    box.process = first
    go.touch()
    box.wait()
    assert "once\n" == (box.root / "runs").read_text()


def test_a_start_after_the_end_only_reboots_again(box, server) -> None:
    box.run(f"\techo once >>{box.root}/runs")
    before = len(server.requests)
    (box.root / "rebooted").unlink()

    box.power_on()
    box.wait()

    assert "once\n" == (box.root / "runs").read_text()
    assert before == len(server.requests)


def test_a_guard_told_to_stop_by_the_job_goes_on(box, server) -> None:
    box.systemd()

    box.run("\tkill -TERM $(cat $RUNNER_ROOT/run/lkp-runner-boot/guard); sleep 0.3; echo on")

    assert ["running", "post_run", "finished"] == server.states
    assert b"on\n" == server.files["stdout"]


def test_kill_0_reaches_only_the_job(box, server) -> None:
    box.run("\techo hello; kill -9 0")

    assert ["running", "post_run", "failed"] == server.states
    assert b"137\n" == server.files["exit-code"]


@pytest.mark.parametrize("busybox", [False, True], ids=["gnu", "busybox"])
def test_output_beyond_the_limit_is_cut_with_a_note_and_the_job_goes_on(
    make_box, server, busybox
) -> None:
    box = make_box(busybox=busybox)
    box.settings["RUNNER_OUTPUT_BYTES"] = "65536"

    box.run("\thead -c 20000000 /dev/zero && echo done >$RESULT_ROOT/after; echo err >&2")

    note = b"\n[the runner keeps 65536 bytes; the rest is lost]\n"
    assert 65536 + len(note) == len(server.files["stdout"])
    assert server.files["stdout"].endswith(note)
    assert server.files["output"].endswith(note)
    assert b"err\n" == server.files["stderr"]
    assert b"done\n" == server.files["after"]
    assert ["running", "post_run", "finished"] == server.states


def test_the_console_shows_the_beginning_of_much_output(box, server) -> None:
    box.settings["RUNNER_CONSOLE_BYTES"] = "10000"

    box.run("\tyes 0123456 | head -n 10000")

    assert 80000 == len(server.files["stdout"])
    assert 1000 < box.console.count("job| 0123456\n") < 2500
    assert "no more of the output here" in box.console
    assert box.console.rstrip().endswith("rebooting")


def test_control_characters_do_not_reach_the_console(box) -> None:
    box.run("\tprintf 'a\\033[2Jb\\000c\\n'; printf unended")

    assert "job| a[2Jbc\n" in box.console
    assert "job| unended\n" in box.console


def test_neither_do_those_of_unicode_and_what_people_write_does(box) -> None:
    """C1 as UTF-8, which consoles obey like ESC [, and marks that turn the order of writing."""
    box.run(
        "\tprintf 'a\\302\\2332Jb\\342\\200\\256c\\342\\201\\246d\\n\\303\\233 \\346\\274\\242\\n'"
    )

    assert "job| a2Jbcd\n" in box.console
    assert "job| Û 漢\n" in box.console


def test_a_stuck_console_holds_up_nobody(box, server) -> None:
    box.settings["RUNNER_CONSOLE_FOR"] = "0"
    os.mkfifo(box.root / "dev/console")  # nobody reads it

    box.run("\tyes | head -n 100000")

    assert ["running", "post_run", "finished"] == server.states
    assert 200000 == len(server.files["stdout"])


def test_a_daemon_left_behind_holds_up_nothing(box, server) -> None:
    box.settings["RUNNER_DRAIN"] = "0"

    box.run("\tsetsid sleep 60 & echo hello")

    assert ["running", "post_run", "finished"] == server.states
    assert b"hello\n" == server.files["stdout"]


def test_a_background_process_of_the_job_ends_with_it(box, server) -> None:
    box.run(f"\tsleep 60 & echo $! >{box.root}/pid; echo hello")

    assert dead((box.root / "pid").read_text().strip())
    assert ["running", "post_run", "finished"] == server.states


def test_a_job_can_be_interrupted_as_everywhere_else(box, server) -> None:
    box.run("\ttrap 'echo heard' INT; kill -INT $$; :")

    assert b"heard\n" == server.files["stdout"]


def test_a_job_that_removes_all_it_was_given(box, server) -> None:
    box.run("\techo hello; rm -rf $TMP $RUNNER_ROOT/lkp; cd /")

    assert ["running", "post_run", "finished"] == server.states
    assert b"hello\n" == server.files["stdout"]


def test_a_result_directory_that_became_a_link_is_not_followed(box, server) -> None:
    (box.root / "secret").mkdir()
    (box.root / "secret/file").write_text("x")

    box.run("\trmdir $RESULT_ROOT; ln -s $RUNNER_ROOT/secret $RESULT_ROOT")

    assert (box.root / "tmp/lkp/result/file").exists()
    assert "file" not in server.files


def test_pipes_and_links_among_the_results_are_passed_by(box, server) -> None:
    box.run("\tcd $RESULT_ROOT; mkfifo pipe; ln -s /etc/passwd link; echo 1 >file; echo 2 >stdout")

    assert b"1\n" == server.files["file"]
    assert not {"pipe", "link"} & server.files.keys()
    assert b"" == server.files["stdout"]


def test_a_result_whose_name_no_upload_can_have_is_told_of(box, server) -> None:
    """A line break in it: the others arrive, and the job is no success without it."""
    box.run(
        "\tcd $RESULT_ROOT; mkdir a; echo 1 >file; echo 2 >'a/b\nc'; mkdir 'x\ny'; echo 3 >'x\ny/z'"
    )

    assert b"1\n" == server.files["file"]
    assert ["running", "post_run", "incomplete"] == server.states
    assert b"not uploaded: files with a line break in their path" in server.files["runner.log"]


def test_the_jobs_variables_do_not_steer_the_runner(box, server) -> None:
    box.schedule("\techo $PATH $http_proxy")
    job_sh = box.root / "lkp/scheduled/job.sh"
    job_sh.write_text(job_sh.read_text().replace("PATH_OF_JOB=1", "PATH=/nowhere"))
    box.power_on()
    box.wait()

    assert b"/nowhere http://127.0.0.1:9\n" == server.files["stdout"]
    assert ["running", "post_run", "finished"] == server.states


def test_a_full_disk_does_not_stop_the_job(box, server) -> None:
    full = box.root / "bin/tee"
    full.unlink()
    box.fake("tee", "exec busybox tee /dev/full /dev/null >/dev/full")
    box.link("busybox")

    box.run("\tyes | head -c 1000000 && echo done >$RESULT_ROOT/after")

    assert b"done\n" == server.files["after"]
    assert ["running", "post_run", "finished"] == server.states


def test_a_job_that_restarts_its_box_gets_no_verdict(box, server) -> None:
    box.systemd()

    box.run_without_reboot("\techo half; echo stopping >$RUNNER_ROOT/run/state")

    assert ["running"] == server.states
    assert b"half\n" == server.files["stdout"]
    assert not any("lkp-post-run" in path for path in server.reports)
    assert [] == box.rebooted


def test_a_box_that_goes_down_stops_its_job_first(box, server) -> None:
    box.systemd()
    box.schedule(f"\ttrap 'echo asked; exit' TERM; touch {box.root}/ran; sleep 60 & wait")
    box.power_on()
    box.until((box.root / "ran").exists)
    (box.root / "run/state").write_text("stopping\n")
    box.process.send_signal(signal.SIGTERM)

    assert 0 == box.process.wait(10)
    assert ["running"] == server.states
    assert b"asked\n" == server.files["stdout"]
    assert [] == box.rebooted


def test_a_worker_that_hangs_is_given_up_at_the_deadline(box, server) -> None:
    box.settings |= {
        "RUNNER_NETWORK_FOR": "1",
        "RUNNER_RETRY_FOR": "0",
        "RUNNER_UPLOAD_FOR": "0",
        "RUNNER_GRACE": "0",
    }
    (box.root / "dev/watchdog0").touch()

    box.run(
        "\tkill -STOP $PPID; while :; do sleep 0.05; done",
        runtime=3,  # with less, a busy machine is at the deadline before the job has begun
    )

    fed = (box.root / "dev/watchdog0").stat().st_size
    assert "past the deadline" in box.console
    assert ["running"] == server.states
    assert fed == (box.root / "dev/watchdog0").stat().st_size
