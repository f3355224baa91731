"""What an installation is for: testboxes, through an upgrade and back; see boxes.py."""

import hashlib
import json
import os
import re

import pytest

from . import boxes, play

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and containers need root"),
    pytest.mark.skipif(not play.IMAGES.exists(), reason="no image: make image"),
]
IPXE = r"iPXE 1\.0\.0\+git-2019\S*"


@pytest.fixture
def seen(played):
    """Of the boxes."""
    return played.boxes


def row(lab, job):
    return [lab["jobs"][job][key] for key in ("stage", "health", "box", "attempt")]


def test_a_member_of_the_group_gets_a_jobs_result(seen):
    assert 0 == seen.hello.status
    assert "lab.2 success" == seen.hello.out.splitlines()[-1]
    assert "lab.2 says hello from waits" == seen.hello_stdout.splitlines()[0]


def test_its_root_came_from_our_ganesha(seen):
    assert re.search(
        r"^172\.28\.0\.1:/os/\S+ /run/rootfs/image nfs4 ", seen.hello_stdout, re.MULTILINE
    )


def test_the_submitter_is_who_the_kernel_says(played):
    assert {"ann"} == {job["submitter"] for job in played.after_rollback["jobs"].values()}


def test_each_box_loads_the_ipxe_that_its_hosts_file_says(seen):
    sent = re.findall(r"sent (/tftpboot/\S+\.efi) to ", seen.dnsmasq)

    of_all = "ipxe/bin-x86_64-efi/snp.efi"
    assert {f"/tftpboot/{of_all}", f"/tftpboot/52-54-00-a1-00-01/{of_all}"} == set(sent)


def test_a_doctor_names_the_ipxe_of_a_parked_box_with_what_is_known_of_it(seen):
    told = json.loads(seen.doctor.out)
    (found,) = [each for each in told["findings"] if re.fullmatch(IPXE, each["looked_at"])]

    assert (0, 0) == (seen.doctor.status, told["error"])
    assert "ok" == found["level"]
    assert found["found"].startswith("waits; chained plainly it hangs at the 13th wait")


def test_an_upgrade_finds_a_box_parked_and_a_job_running(played):
    before = played.before_upgrade

    assert "parked" == before["hosts"]["waits"]["state"]
    assert ["running", None, "works", 1] == row(before, "lab.1")


def test_a_job_runs_on_through_an_upgrade(played):
    assert ["running", None, "works", 1] == row(played.after_upgrade, "lab.1")


def test_a_parked_box_is_told_to_come_back_and_takes_the_next_job(seen):
    assert "No job now" in seen.serial["waits"][seen.rechained]
    assert 0 == seen.next.status
    assert "lab.3 success" == seen.next.out.splitlines()[-1]


def test_the_job_that_ran_ends_well_once_and_with_all_its_results(played, seen):
    image = hashlib.sha256((play.IMAGES / boxes.IMAGE / boxes.READS).read_bytes()).hexdigest()
    stages = [moment["stage"] for moment in seen.outlasts_history]
    sizes = {file["path"]: file["size"] for file in seen.outlasts_files["files"]}

    assert ["finish", "success", "works", 1] == row(played.after_rollback, "lab.1")
    assert ["submit", "offered", "boot", "running", "post_run", "finish"] == list(
        dict.fromkeys(stages)
    )
    assert (1, 1) == (stages.count("offered"), stages.count("running"))
    assert ["lab.1 began", f"sum {image}  -"] == seen.outlasts_stdout.splitlines()[:2]
    assert (True, 300000) == (seen.outlasts_files["complete"], sizes["random"])


def test_who_waits_for_that_job_is_told_of_its_end(seen):
    said = seen.outlasts.out.splitlines()

    assert 0 == seen.outlasts.status
    assert 1 == said.count("appliance: the server went away; asking again")
    assert "lab.1 success" == said[-1]


def test_a_box_that_is_parked_at_a_rollback_takes_its_next_job_from_the_version_before(
    played, seen
):
    assert "parked" == played.before_rollback["hosts"]["works"]["state"]
    assert 0 == seen.last.status
    assert "lab.4 success" == seen.last.out.splitlines()[-1]


def test_a_doctor_finds_nothing_wrong_after_a_rollback(played):
    told = json.loads(played.doctor_then.out)

    assert (0, 0) == (played.doctor_then.status, told["error"]), played.doctor_then.out
