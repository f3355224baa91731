"""Pure: no clock, no socket, no await.

The contents of job.cgz: job.sh and job.yaml in the form that the LKP client of 2021 reads
(docs/wire.md#jobcgz).

Unlike in the original, the testbox's shell never evaluates a value: everything but a plain
number is single-quoted (DESIGN.md#deviations-from-the-field-on-purpose).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import attrs

from appliance.boot.script.cgz import Entry
from appliance.jobs.documents import document as documents
from appliance.jobs.documents.document import Body, Document

SCHEDULED: Final = "lkp/scheduled"
JOB_YAML: Final = f"/{SCHEDULED}/job.yaml"
# A file with the address that the box asked from, in one line.  Our initramfs uses the card that
# has this address (dracut/, root.sh), since uploads are accepted only from there.
ASKED_FROM: Final = f"{SCHEDULED}/asked-from"
_EXECUTABLE: Final = 0o100775
_PLAIN: Final = 0o100664

_IDENTIFIER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_NUMBER: Final = re.compile(r"-?\d+(\.\d+)?\Z")

# LKP's client formats these disks.  `submit` copies the fields from its own hosts files, which do
# not describe this lab's machines, so they are dropped.
_DISKS: Final = ("rootfs_disk", "rootfs_partition")

# The shell functions of a job that is a script; the client calls define_files while it prepares the
# rootfs.
_SCRIPT_FUNCTIONS: Final = f"""\
define_files()
{{
\t:
}}

run_job()
{{
\texport_top_env
\t/{SCHEDULED}/script
}}
"""


@attrs.frozen
class Way:
    """The addresses under which a testbox reaches this server."""

    server: str  # address
    scheduler_port: int
    upload_port: int
    prefix: str  # HTTP_PREFIX: the URL for its reports, with the attempt's token


def fields(
    document: Document,
    body: Body,
    *,
    job: str,
    testbox: str,
    result_root: str,
    submitted: str,
    way: Way,
    disks: tuple[str, ...] = (),
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Returns the job's fields for its testbox: the document's, overridden by ours.

    `disks` are those that the operator lets jobs use; `more` has other fields known at dispatch.
    """
    ours = {
        "suite": document.suite,
        "id": job,
        "job": JOB_YAML,
        "testbox": testbox,
        "tbox_group": document.group,
        "queue": document.queue,
        "os": document.os,
        "os_version": document.os_version,
        "os_arch": document.arch,
        "arch": document.arch,
        "os_mount": document.os_mount,
        "rootfs": f"{document.os}-{document.os_version}-{document.arch}",
        "runtime": document.runtime,
        "submit_time": submitted,
        "job_stage": "boot",
        "job_state": "boot",
        "result_root": result_root,
        "result_service": "raw_upload",
        "LKP_SERVER": way.server,
        "LKP_CGI_PORT": way.scheduler_port,
        "SCHED_HOST": way.server,
        "SCHED_PORT": way.scheduler_port,
        "RESULT_WEBDAV_HOST": way.server,
        "RESULT_WEBDAV_PORT": way.upload_port,
        "HTTP_PREFIX": way.prefix,
        **(more or {}),
    }
    theirs = {name: value for name, value in body.fields.items() if name not in _DISKS}
    return {**theirs, **ours, **({"rootfs_disk": list(disks)} if disks else {})}


def entries(body: Body, job_fields: Mapping[str, Any], asked_from: str) -> list[Entry]:
    """Returns the members of job.cgz, for a box that asked from the address `asked_from`."""
    members = [
        Entry(f"{SCHEDULED}/job.sh", job_sh(body, job_fields).encode(), _EXECUTABLE),
        Entry(f"{SCHEDULED}/job.yaml", documents.dump(job_fields).encode(), _PLAIN),
        Entry(ASKED_FROM, f"{asked_from}\n".encode(), _PLAIN),
    ]
    if body.script is not None:
        members.append(Entry(f"{SCHEDULED}/script", body.script.encode(), _EXECUTABLE))
    if body.secrets:
        lines = "".join(f"{name}: {value}\n" for name, value in sorted(body.secrets.items()))
        members.append(Entry(f"{SCHEDULED}/secrets.yaml", lines.encode(), 0o100600))
    return members


def job_sh(body: Body, job_fields: Mapping[str, Any]) -> str:
    """Returns the job as shell functions; the last line runs the one named by the arguments."""
    exports = "".join(
        f"\texport {name}={quoted}\n"
        for name, value in job_fields.items()
        if _IDENTIFIER.match(name) and (quoted := _value(value))
    )
    if body.job2sh is not None:
        functions = "".join("\n".join(lines) + "\n\n" for lines in body.job2sh.values() if lines)
    else:
        functions = _SCRIPT_FUNCTIONS + "\n"
    return (
        "#!/bin/sh\n\n"
        "export_top_env()\n"
        "{\n"
        f"{exports}\n"
        '\t[ -n "$LKP_SRC" ] ||\n'
        "\texport LKP_SRC=/lkp/${user:-lkp}/src\n"
        "}\n\n"
        f"{functions}"
        '"$@"\n'
    )


def _value(value: Any) -> str:
    """Quotes `value` as one word of the shell; empty for a value that is not exported."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return _value("\n".join(str(part) for part in value if not isinstance(part, dict | list)))
    if value is None or value == "" or isinstance(value, dict):
        return ""
    text = str(value)
    if _NUMBER.match(text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"
