"""LKP's own client, unmodified, from its own `submit` to its results, on a box made of QEMU.

    LKP_TESTS=/path/to/lkp-tests .venv/bin/pytest -q tests/lkp/test_real_client.py

The checkout is called lkp-tests, has a tag and is built (`make -C bin/event`); nothing in it is
changed: what the person at the laptop has added of her own lies in a clone.  `submit` wants ruby
with rest-client, activesupport and git.  Without LKP_TESTS it is skipped, and `make test` says so:
LKP's client is not ours to carry.  test_client.py, beside it, has a client of our own that behaves
as this one.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from math import inf
from pathlib import Path

import attrs
import pytest

from appliance.config import Account
from appliance.scheduler import accounts
from lab.lab import lab
from lab.namespace import SERVER

CHECKOUT = Path(os.environ.get("LKP_TESTS", "/nonexistent"))
IMAGES = Path(__file__).parents[2] / ".cache/srv/os"
SUBMIT_S = 120.0  # of the time that the machine has for one program; it takes a few
BOX = "vm-1p1g"  # `submit` looks for a file of the box in its own hosts/
TOKEN = "a1b2c3d4-0000-4000-8000-c0ffee00beef"
ANN = {"my_email": "ann@lab.example", "my_name": "Ann", "my_token": TOKEN}
# One program of LKP's and one that is in nobody's repository but hers.
JOB = f"""\
suite: lab-greeting
category: functional
os: debian
os_version: 12
os_arch: x86_64
os_mount: cifs
testbox: {BOX}
runtime: 300
secrets:
  word: of-ann
sleep: 1
lab-greeting:
"""
PROGRAM = """\
#!/bin/sh
echo "greeting from $testbox, $job_state, of $secrets_word"
"""

pytestmark = [
    pytest.mark.root,
    pytest.mark.image,
    pytest.mark.slow,
    pytest.mark.skipif(
        "LKP_TESTS" not in os.environ,
        reason="LKP_TESTS names no checkout of lkp-tests, which this repository does not carry",
    ),
]


def laptop(tmp_path):
    """Ann's clone, with a program that nobody else has, and her home."""
    clone, home = tmp_path / "lkp-tests", tmp_path / "home"
    subprocess.run(["git", "clone", "-q", CHECKOUT, clone], check=True)
    program = clone / "tests/lab-greeting"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    defaults = home / ".config/compass-ci/defaults/account.yaml"
    defaults.parent.mkdir(parents=True)
    said = {**ANN, "lab": "lab", "SCHED_HOST": SERVER, "SCHED_PORT": 3000}
    defaults.write_text("".join(f"{key}: {value}\n" for key, value in said.items()))
    (tmp_path / "job.yaml").write_text(JOB)
    return clone, home


def tag(clone):
    command = ["git", "-C", clone, "describe", "--abbrev=0", "--tags"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def pack(archive, scratch):
    """The archive that a lab has for a tag (docs/wire.md#packages), made of its files."""
    source = scratch / "root/lkp/lkp/src"
    subprocess.run(["git", "clone", "-q", CHECKOUT, source], check=True)
    shutil.rmtree(source / ".git")
    shutil.copy(CHECKOUT / "bin/event/wakeup", source / "bin/event/wakeup")
    archive.parent.mkdir(parents=True)
    cpio = f"cpio --quiet -o -H newc -R 0:0 -F {scratch}/cpio"
    subprocess.run(
        f"""set -e
        cd {scratch}/root && find lkp | {cpio}
        cd {source}/rootfs/addon && find * | grep -vx -e lib -e etc/init.d | {cpio} --append
        gzip -n <{scratch}/cpio >{archive}""",
        shell=True,
        check=True,
    )


async def submit(made, clone, home, tmp_path):
    """What `submit` prints, on the lab's network."""
    process = await made.inside.start(
        ["env", f"HOME={home}", f"LKP_SRC={clone}", "USER=ann", "ruby", clone / "sbin/submit",
         str(tmp_path / "job.yaml")],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    said = b""
    async for chunk in process.stdout:
        said += chunk
    return said.decode()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def with_account(config):
    """Its client looks for its own address by the default route."""
    ann = Account(ANN["my_email"], ANN["my_name"], accounts.hashed(TOKEN))
    network = attrs.evolve(config.network, router=SERVER)
    return attrs.evolve(config, accounts={"ann": ann}, network=network)


async def test_a_job_of_its_submit_runs_under_its_client_and_comes_back(tmp_path):
    keep = tmp_path / "lab"
    clone, home = laptop(tmp_path)
    async with lab(IMAGES, keep, change=with_account) as made:
        srv = made.config.paths.srv
        pack(srv / f"upload-files/lkp-tests/x86_64/{tag(clone)}.cgz", tmp_path)
        box = made.box(BOX)
        await made.run("host", "add", BOX, "--mac", box.mac, "--arch", "x86_64")
        await made.power_on(box)
        with made.clock.limit("LKP's submit", SUBMIT_S):
            said = await submit(made, clone, home, tmp_path)
        assert "got job id=lab.1" in said, said
        with box.limit("the end of lab.1"):
            await made.run("wait", "lab.1", check=False, allowed_s=inf)
        # It has rebooted by itself, and asks for the next job.
        await box.line("boot.ipxe", after=await box.line("Welcome to"))
        shown = json.loads(await made.run("show", "--json", "lab.1"))["job"]
        boot = json.loads(await made.run("host", "show", "--json", BOX))["boots"][0]
    there = files(Path(shown["result_root"]))
    told = [step["detail"] for step in boot["steps"] if step["what"] == "report"]

    assert ("finish", "success", 1) == (shown["stage"], shown["health"], shown["attempt"])
    assert ["wtmp running", "job_state=running", "job_state=post_run"] == told[:3]
    assert ["job_state=finished", "post-run", "wtmp rebooting"] == told[-3:]
    assert {"stdout", "stderr", "output", "boot-time", "sleep", "kmsg"} <= there.keys()
    assert f"greeting from {BOX}, boot, of of-ann\n" == there["lab-greeting"].decode()
