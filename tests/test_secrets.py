"""A job's secrets, from its submit to its end: in its box's own file, and nowhere else.

Everything that the lab says in that time is gathered, as each door says it, and searched.  The
state on disk must hold them (a restart would lose them else); it is readable by its owner alone.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import subprocess

import structlog

from appliance.config import Account
from appliance.scheduler import accounts
from tests import fakes
from tests import lab as labs
from tests.lab import KEY, SCHEDULER, open_lab

SECRET = "hunter2-c0ffee"
TOKEN = "a1b2c3d4-0000-4000-8000-c0ffee00beef"
DOCUMENT = f"""\
suite: borrow
testbox: box-1
secrets:
  password: {SECRET}
  another: "{SECRET}: #2"
job2sh: {{run_job: ["run_job() {{ :; }}"]}}
"""
# Each is wrong somewhere, so each is refused, and the refusal quotes what is wrong.
REFUSED = [
    DOCUMENT + "runtime: soon\n",
    DOCUMENT.replace("  password:", "  pass word:"),
    f"script: x\nsecrets: {SECRET}\n",
    f"script: x\nsecrets: [{SECRET}]\n",
    f"script: x\nsecrets.password: {SECRET}\n",
    f"script: x\nsecrets: {{a: {{b: {SECRET}}}}}\n",
    f'script: x\nsecrets: {{a: "{SECRET}\\n"}}\n',
    f"script: x\nsecrets: {{a: {SECRET}\n",
]
WEB = ("10.0.0.9", 5000)


class Heard:
    """All that anybody was told, by who told it."""

    def __init__(self) -> None:
        self.by: dict[str, str] = {}

    def add(self, who: str, what: object) -> None:
        self.by[who] = self.by.get(who, "") + repr(what)

    def with_(self, *words: str) -> set[str]:
        return {who for who, what in self.by.items() for word in words if word in what}


async def ask_people(lab, heard, job):
    """Every verb of the command line that tells something of a job."""

    async def event(said):
        heard.add("events", said)

    for verb, arguments in {
        "jobs": {}, "show": {"job": job}, "wait": {"job": job}, "results": {"job": job},
        "hosts": {}, "host-show": {"host": "box-1"}, "host-preview": {"host": "box-1"},
        "status": {}, "cancel": {"job": job}, "renew": {"job": job, "seconds": 60},
    }.items():  # fmt: skip
        try:
            heard.add(verb, await lab.people.do(verb, arguments, "ann", event))
        except Exception as error:
            heard.add(verb, error)


async def post(lab, target, said):
    body = json.dumps(said).encode()
    return await fakes.fetch(lab.wire, "POST", target, {}, body, client=WEB, server=SCHEDULER)


async def submit(lab, heard):
    """By both ways, what is right and what is not."""
    me = {"my_email": "ann@example.org", "my_name": "Ann", "my_token": TOKEN}
    fields = {"suite": "x", "testbox": "box-2", "secrets": {"a": SECRET},
              "job2sh": {"run_job": ["x"]}}  # fmt: skip
    changes = {}, {"runtime": "soon"}, {"my_token": SECRET}, {"secrets": [SECRET]}, {"testbox": ""}
    for changed in changes:
        said = me | fields | changed
        heard.add("submit_job", (await post(lab, "/submit_job", said)).body)
    for n, text in enumerate(REFUSED):
        try:
            heard.add("submit", await lab.submit(text, key=f"{KEY}{n}"))
        except Exception as error:
            heard.add("submit", (error, str(error)))
    job = await lab.submit(DOCUMENT)
    heard.add("job", (job, str(job)))
    return job


async def run(lab, heard, job):
    """The job's life, and its archive."""
    heard.add("script", await (await lab.ask()).rest())
    packed = (await lab.get(f"/job_initrd_tmpfs/{job.id}/job.cgz")).body
    await lab.fetched_all(job)
    for query in ("job_state=running", "job_state=post_run", "job_state=finished"):
        heard.add("report", await lab.report(job, query))
    heard.add("get_testbox", (await lab.get("/get_testbox?testbox=box-1")).body)
    heard.add("deadline", (await lab.get("/get_deadline?testbox=box-1")).body)
    heard.add("closed", await lab.report(job, "", "lkp-post-run"))
    return gzip.decompress(packed)


def members(packed, tmp_path):
    """The files of job.cgz, as cpio unpacks them."""
    subprocess.run(["cpio", "-idu", "--quiet"], input=packed, cwd=tmp_path, check=True)
    return {path.name: path.read_text() for path in tmp_path.rglob("*") if path.is_file()}


async def test_no_secret_is_said_by_anybody(tmp_path):
    heard, plain = Heard(), io.StringIO()
    handler = logging.StreamHandler(plain)
    logging.getLogger().addHandler(handler)
    ann = Account("ann@example.org", "Ann", accounts.hashed(TOKEN))
    chosen = labs.config(tmp_path / "lab", accounts={"ann": ann})
    try:
        with structlog.testing.capture_logs() as logs:
            async with open_lab(chosen) as lab:
                await lab.know()
                monitor = fakes.WebSocket(lab.wire, "/filter", WEB, ("10.0.0.1", 20001))
                assert None is await monitor.open()
                await monitor.say({})
                job = await submit(lab, heard)
                packed = await run(lab, heard, job)
                await ask_people(lab, heard, job.id)
                while (message := await monitor.next()) is not None:
                    heard.add("monitor", message)
                    if message.get("job_state") == "extract_finished":
                        break
                heard.add("config", lab.config)
                heard.add("store", (lab.scheduler.store.jobs, lab.scheduler.store.boxes))
    finally:
        logging.getLogger().removeHandler(handler)
    heard.add("log", logs)
    heard.add("plain log", plain.getvalue())

    assert set() == heard.with_(SECRET, TOKEN)
    assert {"jobs", "show", "submit", "submit_job", "monitor", "log"} <= heard.by.keys()
    assert "borrow" in heard.by["show"]  # what is searched says something
    files = members(packed, tmp_path)
    assert {"secrets.yaml"} == {name for name, text in files.items() if SECRET in text}
    assert f"another: {SECRET}: #2\npassword: {SECRET}\n" == files["secrets.yaml"]
