"""A client that behaves as LKP's, with real wget and curl, against the real server.

It is our own (client.sh); LKP's runs in test_real_client.py where its checkout is.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from appliance.scheduler import accounts
from tests.test_serve import MAC, Appliance

CLIENT = Path(__file__).with_name("client.sh")
ADDRESS = "127.0.5.1"
ANN = {"my_email": "ann@lab.example", "my_name": "Ann", "my_token": "0123456789abcdef"}
# As `submit` sends it: job2sh was made by the client, values stand as they are.
JOB = {
    **ANN,
    "suite": "greeting",
    "testbox": "box-1",
    "os": "debian",
    "os_version": "12",
    "arch": "x86_64",
    "runtime": "300",
    "odd": "a+b & c%20d #e ? $(id) 'q'",
    "secrets": {"word": "of #ann's: $HOME"},
    "job2sh": {
        "run_job": [
            "run_job()", "{", "", "\texport_top_env", "",
            '\techo "greeting from $testbox: $odd"', '\techo "secret ${#secrets_word}"',
            '\tmkdir -p "$RESULT_ROOT/results/deep"',
            '\techo deep >"$RESULT_ROOT/results/deep/a%20file"',
            '\thead -c 3000000 /dev/zero >"$RESULT_ROOT/large"', "}", "",
        ],
        "define_files": ["define_files()", "{", "\t:", "}"],
    },
}  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("wget"), reason="no wget: make setup"),
]


@pytest.fixture
def server(tmp_path):
    appliance = Appliance(tmp_path / "server")
    with appliance.config.open("a") as config:
        config.write(
            f'[accounts.ann]\nmy_email = "{ANN["my_email"]}"\nmy_name = "{ANN["my_name"]}"\n'
            f'my_token = "{accounts.hashed(ANN["my_token"])}"\n'
        )
    appliance.start()
    yield appliance
    assert 0 == appliance.stop()
    assert "Traceback" not in (appliance.tmp / "log").read_text()


def submit(server, job):
    body = json.dumps(job).encode()
    head = f"POST /submit_job HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.ports["scheduler"]), 10) as sock:
        sock.sendall(head.encode() + body)
        answer = b""
        while data := sock.recv(65536):
            answer += data
    [row] = json.loads(answer.partition(b"\r\n\r\n")[2])
    assert "" == row["message"]
    return row


def run(server, folder):
    folder.mkdir()
    command = ["sh", CLIENT, ADDRESS, f"http://127.0.0.1:{server.ports['scheduler']}", MAC]
    subprocess.run(command, cwd=folder, check=True, timeout=60)


def shown(server, job):
    return json.loads(server.run("show", "--json", job).stdout)["job"]


def told(server):
    [boot] = json.loads(server.run("host", "show", "--json", "box-1").stdout)["boots"]
    return [step["detail"] for step in boot["steps"] if step["what"] == "report"]


def test_a_job_of_the_wire_of_2021_goes_from_submit_to_its_results(server, tmp_path):
    server.run("host", "add", "box-1", "--mac", MAC, "--arch", "x86_64")
    row = submit(server, JOB)
    run(server, tmp_path / "box")
    job = shown(server, row["job_id"])
    results = Path(job["result_root"])

    assert ("finish", "success", 1) == (job["stage"], job["health"], job["attempt"])
    assert (
        f"greeting from box-1: {JOB['odd']}\nsecret {len(JOB['secrets']['word'])}\n"
        == (results / "stdout").read_text()
    )
    assert "deep\n" == (results / "results/deep/a%20file").read_text()
    assert 3_000_000 == (results / "large").stat().st_size
    assert ["wtmp running", "job_state=running", "job_state=post_run"] == told(server)[:3]
    assert ["job_state=finished", "post-run", "wtmp rebooting"] == told(server)[-3:]


def test_a_job_that_fails_is_told_with_the_clients_word(server, tmp_path):
    server.run("host", "add", "box-1", "--mac", MAC, "--arch", "x86_64")
    failing = {"run_job": ["run_job()", "{", "\tfalse", "}"]}
    row = submit(server, JOB | {"job2sh": failing})
    run(server, tmp_path / "box")

    assert ("finish", "failed") == (
        shown(server, row["job_id"])["stage"], shown(server, row["job_id"])["health"],
    )  # fmt: skip
