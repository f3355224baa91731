"""job.sh and job.yaml, held against a real shell."""

from __future__ import annotations

import os
import subprocess

import pytest
import yaml

from appliance.boot.script import lkp
from appliance.config import Defaults
from appliance.jobs.documents import document

WAY = lkp.Way("10.0.0.1", 3000, 3080, "http://10.0.0.1:3000/~lkp/token")


def fields_of(text, **changes):
    fits = document.parse(text, "hello.yaml", Defaults())
    fields = lkp.fields(
        fits, fits.body, job="lab.1", testbox="box-1", result_root="/result/hello/lab.1",
        submitted="2026-01-01T00:00:00+0000", way=WAY, **changes,
    )  # fmt: skip
    return fits, fields


def run(tmp_path, text, *arguments):
    """What `. job.sh` leaves in the environment, or what `job.sh ARGUMENTS` prints."""
    fits, fields = fields_of(text)
    job_sh = tmp_path / "job.sh"
    job_sh.write_text(lkp.job_sh(fits.body, fields))
    command = f". {job_sh}; export_top_env; env -0" if not arguments else None
    done = subprocess.run(
        ["sh", "-c", command] if command else ["sh", str(job_sh), *arguments],
        capture_output=True, check=True, env={"PATH": os.environ["PATH"]}, cwd=tmp_path,
    )  # fmt: skip
    return done.stdout.decode()


def environment(tmp_path, text):
    pairs = run(tmp_path, text).split("\0")
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def test_the_layout_is_the_one_clients_of_2021_read():
    fits, fields = fields_of("script: echo hi\nruntime: 10m\nempty:\nmap: {a: b}\nlist: [1, two]\n")
    text = lkp.job_sh(fits.body, fields)

    assert text.startswith("#!/bin/sh\n\nexport_top_env()\n{\n\texport runtime=600\n")
    assert "\texport list='1\ntwo'\n" in text
    assert "\texport suite='hello'\n" in text
    assert "empty" not in text
    assert "map" not in text
    assert '\n\n\t[ -n "$LKP_SRC" ] ||\n\texport LKP_SRC=/lkp/${user:-lkp}/src\n}\n\n' in text
    assert "\nrun_job()\n{\n" in text
    assert "\ndefine_files()\n{\n" in text
    assert text.endswith('\n"$@"\n')


def test_what_a_client_relies_on_is_exported(tmp_path):
    found = environment(tmp_path, "script: echo hi\n")
    wanted = {
        "id": "lab.1", "job": "/lkp/scheduled/job.yaml", "suite": "hello", "testbox": "box-1",
        "os": "debian", "os_arch": "x86_64", "os_version": "12", "os_mount": "cifs",
        "result_root": "/result/hello/lab.1", "result_service": "raw_upload",
        "LKP_SERVER": "10.0.0.1", "LKP_CGI_PORT": "3000", "SCHED_HOST": "10.0.0.1",
        "SCHED_PORT": "3000", "RESULT_WEBDAV_PORT": "3080", "runtime": "3600",
        "HTTP_PREFIX": "http://10.0.0.1:3000/~lkp/token", "LKP_SRC": "/lkp/lkp/src",
    }  # fmt: skip

    assert wanted == {name: found.get(name) for name in wanted}


@pytest.mark.parametrize(
    "value",
    [
        "$(touch pwned)",
        "`touch pwned`",
        "a'b\"c",
        "'; touch pwned; '",
        "a\\nb",
        "${HOME}",
        "a\tb\nc",
    ],
)
def test_no_value_is_ever_evaluated(tmp_path, value):
    found = environment(tmp_path, yaml.safe_dump({"script": "x", "field": value}))

    assert value == found["field"]
    assert not (tmp_path / "pwned").exists()


def test_a_documents_own_id_and_server_are_not_believed(tmp_path):
    found = environment(tmp_path, "script: x\nid: lab.999\nLKP_SERVER: evil\nHTTP_PREFIX: evil\n")

    assert ["lab.1", "10.0.0.1"] == [found["id"], found["LKP_SERVER"]]
    assert found["HTTP_PREFIX"].startswith("http://10.0.0.1:")


def test_disks_that_a_document_names_are_not_the_clients_to_wipe():
    """`submit` copies them from hosts files of its own; only the operator's count."""
    text = "script: x\nrootfs_disk: [/dev/vda, /dev/vdb]\nrootfs_partition: /dev/vdc\n"
    _, none = fields_of(text)
    _, some = fields_of(text, disks=("/dev/vdb",))

    assert not {"rootfs_disk", "rootfs_partition"} & none.keys()
    assert ["/dev/vdb"] == some["rootfs_disk"]
    assert "rootfs_partition" not in some


def test_keys_that_are_no_identifiers_are_not_exported(tmp_path):
    found = environment(tmp_path, 'script: x\na-b: 1\n"x;touch pwned": 2\nset: {a: 1}\n')

    assert not {"a-b", "x;touch pwned", "set"} & found.keys()
    assert not (tmp_path / "pwned").exists()


def test_a_clients_own_shell_lines_are_the_functions(tmp_path):
    lines = '{run_job: ["run_job()", "{", "  echo from job2sh", "}"]}'

    assert "from job2sh\n" == run(tmp_path, f"job2sh: {lines}\n", "run_job")


def test_job_yaml_is_block_style_without_what_has_its_own_file():
    fits, fields = fields_of("script: echo hi\nsecrets: {a: hush}\nn: 3\ntext: {b: [1, 2]}\n")
    members = {entry.path: entry for entry in lkp.entries(fits.body, fields, "10.0.0.5")}
    text = members["lkp/scheduled/job.yaml"].data.decode()

    assert "\nid: lab.1\n" in text
    assert "\nn: 3\n" in "\n" + text
    assert "hush" not in text
    assert "echo hi" not in text
    assert fields == yaml.safe_load(text)
    assert 0o100775 == members["lkp/scheduled/job.sh"].mode
    assert 0o100664 == members["lkp/scheduled/job.yaml"].mode
    assert b"#!/bin/sh\necho hi\n" == members["lkp/scheduled/script"].data
    assert b"10.0.0.5\n" == members["lkp/scheduled/asked-from"].data
    assert b"a: hush\n" == members["lkp/scheduled/secrets.yaml"].data


def test_a_script_with_a_shebang_keeps_it():
    fits, fields = fields_of('script: "#!/usr/bin/python3\\nprint(1)"\n')
    members = {entry.path: entry for entry in lkp.entries(fits.body, fields, "10.0.0.5")}

    assert b"#!/usr/bin/python3\nprint(1)\n" == members["lkp/scheduled/script"].data
