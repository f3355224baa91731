"""A box that loses its power, and a job that outlasts a lease; see power.py for what is played."""

import hashlib
import os
import re

import pytest

from . import power, scenes

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and taps need root"),
    pytest.mark.skipif(not scenes.IMAGES.exists(), reason="no image: make image"),
]
MAC = "52:54:00:a1:00:01"
PAUSE_S = 30.0  # a box's first back-off, after which the next is twice as long
STALL_S = 30.0  # smbd's patience with each file that a dead box holds; all of /lkp takes three


@pytest.fixture
def seen(played):
    """The power goes twice, and a job outlasts its lease."""
    return played.power


def moments(seen, stage):
    return [moment for moment in seen.history if moment["stage"] == stage]


def steps(seen, boot):
    return [step["detail"] for step in seen.boots[boot]["steps"]]


def copying(seen, after):
    """By the kernel's own clock, from the root's mount until /lkp is copied into it."""
    mounted = seen.index("Mounted root filesystem", after)
    copied = seen.index("appliance: /lkp is in the root", mounted)
    at = [float(re.search(r"\[ *([0-9.]+)\]", seen.serial[line])[1]) for line in (mounted, copied)]
    return at[1] - at[0]


def test_a_box_without_power_says_no_goodbye(seen):
    assert ("running", 1) == (seen.ran["stage"], seen.ran["attempt"])
    assert seen.ran == seen.cut


def test_a_job_that_says_so_runs_again_at_once_after_its_box_lost_power_as_it_ran(seen):
    lost, offered = moments(seen, "submit")[1], moments(seen, "offered")[1]

    assert (1, "its testbox asked again") == (lost["attempt"], lost["what"])
    assert (2, "box") == (offered["attempt"], offered["box"])
    assert offered["at"] - lost["at"] < PAUSE_S  # nobody waits for anything


def test_power_that_goes_right_after_job_cgz_finds_the_job_booting(seen):
    assert ("boot", 2) == (seen.loading["stage"], seen.loading["attempt"])
    assert any(detail.endswith("/lab.1/job.cgz") for detail in steps(seen, 1))
    assert not any("/vmlinuz-" in detail for detail in steps(seen, 1))  # so not everything


def test_nobody_is_to_blame_for_that_and_the_box_backs_off_for_half_a_minute_or_one(seen):
    assert ("submit", None, None) == (
        seen.back["stage"], seen.back["health"], seen.back["box"],
    )  # fmt: skip
    assert "backing-off" == seen.back_host["state"]
    lost, offered = moments(seen, "submit")[2], moments(seen, "offered")[2]
    assert (2, "its testbox asked again") == (lost["attempt"], lost["what"])
    assert (3, "box") == (offered["attempt"], offered["box"])
    # Twice as long where the first loss, soon after its job's first report, was the first in a row.
    assert PAUSE_S <= offered["at"] - lost["at"] < 4 * PAUSE_S


def test_each_attempt_has_a_number_and_a_token_of_its_own(seen):
    assert [1, 2, 3] == [moment["attempt"] for moment in moments(seen, "offered")]
    first = (seen.uploaded / "prefix").read_text().strip()
    third = re.search(r"^prefix (\S+)$", seen.stdout, re.MULTILINE)[1]
    for prefix in (first, third):
        assert re.fullmatch(r"http://172\.28\.0\.1:3000/~lkp/[0-9a-f]{32}", prefix)
    assert first != third


def test_late_words_of_the_first_attempt_are_answered_and_move_nothing(seen):
    # The file is refused: the box has the job again, and writes into its new attempt's place.
    assert 'late: Done "success" 403' in seen.stdout.splitlines()
    assert ("running", 3, None) == (seen.late["stage"], seen.late["attempt"], seen.late["health"])
    assert [3] == [moment["attempt"] for moment in moments(seen, "post_run")]


def test_late_words_of_the_first_attempt_are_kept(seen):
    late = [detail for detail in steps(seen, 2) if detail.startswith("late: ")]

    assert [
        "late: job_state=failed (attempt 1 is over)",
        "late: post-run (attempt 1 is over)",
    ] == late
    assert ("lab.1", 3) == (seen.boots[2]["job"], seen.boots[2]["attempt"])


def test_the_job_ends_well_and_its_results_lie_beside_those_of_the_first_attempt(seen):
    (row,) = seen.jobs

    told = [row[key] for key in ("id", "health", "reason", "box", "attempt")]
    assert ["lab.1", "success", "", "box", 3] == told
    assert "ran to its end\n" == (seen.uploaded / "attempt-3/said").read_text()
    assert {"prefix", "attempt-3"} == {path.name for path in seen.uploaded.iterdir()}


def test_a_box_that_lost_power_does_not_keep_the_next_boot_from_its_files(seen):
    """It takes no longer than in the first boot: both are slow on a machine that is busy."""
    assert copying(seen, seen.power[2]) - copying(seen, seen.power[0]) < STALL_S


def test_a_job_outlasts_its_lease_which_is_renewed_from_the_box(seen):
    until, mac, address, *_ = seen.leases.split()

    assert seen.first_until < seen.asked_at < float(until)
    assert (MAC, "172.28.0.10") == (mac, address)
    said = [line for line in seen.dnsmasq[seen.renewals :] if MAC in line]
    assert re.search(r"DHCPREQUEST\(lab0\) 172\.28\.0\.10 ", said[0])
    assert re.search(r"DHCPACK\(lab0\) 172\.28\.0\.10 ", said[1])
    assert not any("DHCPDISCOVER" in line for line in said[:2])


def test_nobody_else_is_given_its_address(seen):
    assert "no lease, failing" in seen.stranger
    asked = [line for line in seen.dnsmasq if "DHCPDISCOVER(lab0) 02:00:00:00:00:01" in line]
    assert asked
    assert all("no address available" in line for line in asked)


def test_its_root_is_there_after_the_lease(seen):
    """What it reads then, no cache of the box had."""
    expected = hashlib.sha256((power.IMAGE / power.READS).read_bytes()).hexdigest()

    assert f"sum {expected}  -" in seen.stdout.splitlines()
    address = r"inet 172\.28\.0\.10/24 .*valid_lft forever"
    assert re.search(address, seen.stdout)
