"""Every field of a job document: what is taken, what is refused, and with which words."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from appliance.config import Defaults
from appliance.errors import BadDocument
from appliance.jobs.documents import document
from appliance.jobs.documents.document import APART, SERVER_FIELDS, Package
from appliance.jobs.job import Rules

DAY = 86400
MD5 = "0123456789abcdef0123456789abcdef"


def parse(text, name="job.yaml", **how):
    return document.parse(text, name, Defaults(), **how)


def run(fields):
    """A document with something to run."""
    return parse("script: x\n" + fields)


def refused(text, name="job.yaml", **how):
    with pytest.raises(BadDocument) as caught:
        parse(text, name, **how)
    return [(problem.field, problem.line, problem.message) for problem in caught.value.problems]


def test_a_script_alone_is_a_whole_document():
    found = parse("script: |\n  echo hi\n", "my-test.yaml")

    assert (
        document.Document(
            suite="my-test",
            os="debian",
            os_version="12",
            arch="x86_64",
            os_mount="cifs",
            queue="default",
            runtime=3600,
            body=document.Body(script="#!/bin/sh\necho hi\n"),
        )
        == found
    )


GOOD = [
    ("suite", "iperf", "suite", "iperf"),
    ("suite", "a" * 100, "suite", "a" * 100),
    ("suite", "7", "suite", "7"),
    ("os", "openeuler", "os", "openeuler"),
    ("os_version", "22.10", "os_version", "22.10"),
    ("os_version", "20.03-LTS-SP1", "os_version", "20.03-LTS-SP1"),
    ("os_version", "2021-09-23", "os_version", "2021-09-23"),
    ("arch", "aarch64", "arch", "aarch64"),
    ("os_arch", "aarch64", "arch", "aarch64"),
    ("os_mount", "initramfs", "os_mount", "initramfs"),
    ("queue", "vm-2p8g~lab", "queue", "vm-2p8g~lab"),
    ("testbox", "vm-2p8g--a108.lab", "testbox", "vm-2p8g--a108.lab"),
    ("testbox", "vm-2p8g--a108", "queue", "vm-2p8g--a108"),
    ("testbox", "vm-2p8g--a108", "group", "vm-2p8g"),
    ("testbox", "vm-2p8g.a108", "group", "vm-2p8g"),
    ("tbox_group", "vm-2p8g", "queue", "vm-2p8g"),
    ("tbox_group", "vm-2p8g", "group", "vm-2p8g"),
    ("tags", "[ssd, ib]", "tags", ("ssd", "ib")),
    ("tags", "[]", "tags", ()),
    ("priority", "100", "priority", 100),
    ("priority", "-100", "priority", -100),
    ("retry", "true", "rules", Rules(retry=True)),
    ("reboots", "100", "rules", Rules(reboots=100)),
    ("reboots", "0", "rules", Rules()),
    ("deadlines", "{boot: 20m, post_run: 90}", "deadlines", {"boot": 1200.0, "post_run": 90.0}),
    ("runtime", "90", "runtime", 90),
    ("runtime", "90s", "runtime", 90),
    ("runtime", "10m", "runtime", 600),
    ("runtime", "2h", "runtime", 7200),
    ("runtime", "2 h", "runtime", 7200),
    ("runtime", "1d", "runtime", DAY),
    ("runtime", "1w", "runtime", 7 * DAY),
    ("runtime", "30d", "runtime", 30 * DAY),
    ("timeout", "5m", "timeout", 300),
    ("timeout", "5m", "run_s", 300.0),
    ("kernel_version", "6.10", "kernel_version", "6.10"),
    ("kernel_uri", "http://10.0.0.1:8800/kernel/vmlinuz-6.1", "kernel_uri",
     "http://10.0.0.1:8800/kernel/vmlinuz-6.1"),
    ("modules_uri", "https://[fd00::1]/m.cgz", "modules_uri", ("https://[fd00::1]/m.cgz",)),
    ("nr_nic", '"2"', "comments", ("nr_nic=2",)),
    ("nr_disk", "99", "comments", ("nr_disk=99",)),
    ("disk_size", "128G", "comments", ("disk_size=128G",)),
    ("modules_uri", "[http://h/a.cgz, http://h/b.cgz]", "modules_uri",
     ("http://h/a.cgz", "http://h/b.cgz")),
    ("kernel_custom_params", "quiet  nosmt=force", "kernel_custom_params", "quiet  nosmt=force"),
    ("kernel_custom_params", "''", "kernel_custom_params", ""),
    ("rootfs_disk", "[/dev/disk/by-id/x, /dev/sda]", "rootfs_disk",
     ("/dev/disk/by-id/x", "/dev/sda")),
    ("rootfs_disk", "[]", "rootfs_disk", ()),
    ("pkg_data", f"{{lkp-tests: {{tag: v1.0, md5: {MD5}}}}}", "packages",
     (Package("lkp-tests", "v1.0", MD5),)),
    ("secrets", "{TOKEN: s3cret, PIN: 1234}", "secrets", {"TOKEN": "s3cret", "PIN": "1234"}),
]  # fmt: skip


@pytest.mark.parametrize(("field", "written", "attribute", "value"), GOOD)
def test_what_fits_is_taken(field, written, attribute, value):
    document = run(f"{field}: {written}\n")
    found = getattr(document.body if attribute == "secrets" else document, attribute)
    if attribute == "kernel_custom_params":
        found, value = found.split(), value.split()

    assert value == found


def test_a_testbox_of_containers_needs_no_image_of_ours():
    plain, named, own = (
        run(f"{field}\nos_mount: cifs\n")
        for field in (
            "testbox: dc-8g",
            "tbox_group: dc-8g\ndocker_image: hub:5000/openeuler/openeuler:22.03",
            "testbox: dc-8g.rack-1\ndocker_image: debian:12\nos: debian\nos_version: sid",
        )
    )

    assert [("container", "centos", "7", "centos:7", "x86_64 container"),
            ("container", "openeuler", "22.03", "hub:5000/openeuler/openeuler:22.03",
             "x86_64 container"),
            ("container", "debian", "sid", "debian:12", "x86_64 container")] == [
        (fits.os_mount, fits.os, fits.os_version, fits.docker_image, fits.platform)
        for fits in (plain, named, own)
    ]  # fmt: skip
    assert "x86_64" == run("testbox: dcserver").platform


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ("", "12"),
        ("os: debian", "12"),
        ("os: openeuler", "20.03"),
        ("os: centos", "7.6.1810"),
        ("os: ubuntu\nos_version: 22.04", "22.04"),
        ("os: plan9", "12"),
        ("os: openeuler\nos_mount: local", "20.03-iso"),
        ("os_version: 11-iso\nos_mount: local", "11-iso"),
    ],
)
def test_an_os_has_a_version_by_default_and_a_local_one_is_an_installations(fields, version):
    assert version == run(fields).os_version


def test_the_volumes_of_a_local_root_are_named_after_its_image():
    text = "os: openeuler\nos_mount: local\nsrc_lv_suffix: base\nboot_lv_suffix: ann\n"
    volume = "/dev/mapper/os-openeuler_x86_64_20.03_iso_"

    assert (
        f"local use_root_partition={volume}base save_root_partition={volume}ann"
        " os_version=20.03-iso os_lv_size=20G os_partition= rw"
    ) == run(text + "os_lv_size: 20G").local
    assert (
        f"os_partition={volume}mine rw" in run("os: openeuler\nos_mount: local\nos_lv: mine").local
    )
    assert "" == run("os_lv: mine").local


def test_boot_params_come_before_a_persons_own_words():
    text = "boot_params: {bp_trace_buf_size: 131072K, quiet: }\nbp2_maxcpus: 4\n"

    assert "trace_buf_size=131072K quiet maxcpus=4 a=b" == (
        run(text + "kernel_custom_params: a=b").kernel_custom_params
    )


def test_the_programs_of_a_job_are_its_parameters_and_monitors():
    text = "pp: {iperf-1: {}, iperf-2: {}, sleep: 3}\nmonitors: {vmstat: }\niperf_version: 3.9\n"
    body = run(text + "sleep_version: ../x\n").body

    assert (("lkp", "latest"), ("vmstat", "latest"), ("iperf", "3.9")) == body.programs


WORD = "must be one word"
NAME = "must be a name"
TIME = "must be a time such as"
URI = "must be a plain http"
DISK = "under /dev/"
BAD = [
    *[(field, value, WORD)
      for field in ("suite", "os", "os_version", "kernel_version")
      for value in ("a b", "a/b", "..", ".hidden", "-x", "a\\nb", "ä", "$(id)", "a" * 101)],
    *[(field, value, NAME)
      for field in ("testbox", "tbox_group", "queue")
      for value in ("a b", "../x", "a/b", "-x", "${net0/mac}", "a" * 101)],
    *[(field, value, "must be one of aarch64, x86_64")
      for field in ("arch", "os_arch") for value in ("arm64", "X86_64", "")],
    *[("nr_nic", value, "whole number") for value in ("many", "0", "100", "1.5", "٣", "9" * 5000)],
    ("disk_size", "10 G", "a size such as 20G"),
    *[("bp_x", value, "") for value in ("$(id)", "a\\nb", "${x}", "a b")],
    ("os_mount", "CIFS", "must be one of cifs, nfs, initramfs, container, local"),
    *[(field, value, TIME)
      for field in ("runtime", "timeout")
      for value in ("0", "-5", "1.5h", "10 minutes", "31d", "2592001", "h", "1e3", "9" * 5000)],
    *[("kernel_uri", value, URI)
      for value in ("/kernel/vmlinuz", "ftp://h/x", "http://h", "http://h/a b", "http://h/${x}",
                    "http://h/x;y", "http://u@h/x", "http://h/x?y", "http://h/a\\nboot",
                    "http://h/" + "a" * 501)],
    *[("modules_uri", value, URI) for value in ("file:///etc/passwd", "http://h/x#y")],
    *[("kernel_custom_params", value, "printable ASCII")
      for value in ("a\\nboot", "a\\tb", "müll", "\\u2028")],
    *[("kernel_custom_params", value, "iPXE would take them")
      for value in ("${x}", "a;b", "a|b", "a&&b", "a`b", "a\\\\b", "{a}")],
    *[("kernel_custom_params", value, "comment to iPXE") for value in ("#a", "a #b c", "a  #")],
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "word"), BAD)
def test_text_that_does_not_fit_is_refused_with_field_line_and_what_is_right(field, value, word):
    [(found, line, message)] = refused(f'script: x\n{field}: "{value}"\n')

    assert (field, 2) == (found, line)
    assert word in message
    assert len(message) < 250


OTHER = [
    *[(field, value, "must be a single value")
      for field in ("suite", "os", "testbox", "kernel_custom_params")
      for value in ("[a]", "{a: b}", "true")],
    *[("priority", value, "must be a whole number from -100 to 100")
      for value in ("101", "-101", "1.5", "high", "true", "'5'", "[5]")],
    *[("deadlines", value, "must map some of boot, boot_max, post_run")
      for value in ("3", "[boot]", "{bot: 3m}")],
    *[("deadlines", value, "must be a time such as") for value in ("{boot: 0}", "{boot: soon}")],
    *[("reboots", value, "must be a whole number from 0 to 100")
      for value in ("-1", "101", "true")],
    *[("retry", value, "must be true or false") for value in ("1", "maybe", "'true'", "[]")],
    *[("runtime", value, TIME) for value in ("true", "[1]", "{h: 1}", "1.5")],
    *[("tags", value, word) for value, word in
      [("ssd", "must be a list of words"), ("{a: b}", "must be a list of words"),
       ("[a b]", WORD), ("[[a]]", "must be a single value")]],
    *[("rootfs_disk", value, word) for value, word in
      [("/dev/sda", "must be a list of disks"), ("[/etc/passwd]", DISK), ("[/dev/../etc]", DISK),
       ("[/dev/sd a]", DISK), ("['/dev/sda,/dev/sdb']", DISK), ("[5]", DISK)]],
    *[("kernel_uri", value, URI) for value in ("5", "[http://h/x]")],
    *[("script", value, "must be text") for value in ("[a]", "5", "''", "'  '", "{a: b}")],
    *[("job2sh", value, word) for value, word in
      [("x", "must map run_job"), ("[a]", "must map run_job"), ("{other: [x]}", "must map run_job"),
       ("{run_job: 5}", "list of shell lines"), ("{run_job: [x], 5: [y]}", "list of shell lines")]],
    *[("pkg_data", value, word) for value, word in
      [("x", "must map repositories"), ("{a: b}", "a tag and an md5"),
       ("{a: {tag: v1}}", "a tag and an md5"), (f"{{a: {{md5: {MD5}}}}}", "must be a single value"),
       (f"{{a: {{tag: v1, md5: {MD5.upper()}}}}}", "32 hex digits"),
       (f"{{../a: {{tag: v1, md5: {MD5}}}}}", WORD), (f"{{a: {{tag: ../v1, md5: {MD5}}}}}", WORD)]],
    *[("secrets", value, word) for value, word in
      [("x", "must map names"), ("[x]", "must map names"), ("{a b: x}", "plain names"),
       ('{a: "x\\ny"}', "on one line"), ("{a: [x]}", "must be a single value")]],
]  # fmt: skip


@pytest.mark.parametrize(("field", "value", "word"), OTHER)
def test_a_value_of_the_wrong_shape_is_refused_with_what_is_right(field, value, word):
    other = "" if field in ("script", "job2sh") else "script: x\n"
    [(found, line, message)] = refused(f"{other}{field}: {value}\n")

    assert (field, 2 if other else 1) == (found, line)
    assert word in message


def test_every_mistake_is_named_at_once_in_the_order_of_the_lines():
    found = refused(
        'priority: high\narch: arm\n\nruntime: soon\ntags: ssd\ncomment: "a\\eb"\narch: x86_64\n'
    )

    assert [
        ("script", None),
        ("priority", 1),
        ("arch", 2),
        ("runtime", 4),
        ("tags", 5),
        ("comment", 6),
        ("arch", 7),
    ] == [(field, line) for field, line, _ in found]


def test_a_misspelt_script_is_pointed_at():
    [(field, _, message)] = refused("suite: x\nscirpt: echo\n")

    assert "script" == field
    assert "line 2 says 'scirpt'" in message


def test_a_script_and_job2sh_are_not_both_taken():
    [(field, line, message)] = refused("script: x\njob2sh: {run_job: [x]}\n")

    assert ("script", 1) == (field, line)
    assert "not both" in message


def test_a_wrong_script_is_one_mistake_and_not_two():
    assert 1 == len(refused("script: [x]\n"))


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("echo", "#!/bin/sh\necho\n"),
        ("echo\n", "#!/bin/sh\necho\n"),
        ("#!/usr/bin/python3\nprint()", "#!/usr/bin/python3\nprint()\n"),
    ],
)
def test_a_script_gets_a_shebang_and_a_last_newline(written, kept):
    assert kept == parse("", after={"script": f"{written!r}".replace("'", '"')}).body.script


def test_a_script_with_carriage_returns_is_read_as_lines():
    assert "#!/bin/sh\na\nb\n" == parse("script: |\r\n  a\r\n  b\r\n").body.script


def test_job2sh_takes_lists_and_text():
    found = parse("job2sh:\n  run_job: [a, 5]\n  define_files: |\n    b\n    c\n")

    assert {"run_job": ["a", "5"], "define_files": ["b", "c"]} == found.body.job2sh


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("iperf.yaml", "iperf"),
        ("iperf.yml", "iperf"),
        ("my test (2).yaml", "my-test-2"),
        ("...", "job"),
        ("", "job"),
        ("ü.yaml", "job"),
        ("a" * 300, "a" * 100),
    ],
)
def test_the_files_name_is_the_suite_where_none_is_written(name, suite):
    assert suite == parse("script: x\n", name).suite


@pytest.mark.parametrize("field", sorted(SERVER_FIELDS))
def test_what_the_server_sets_is_dropped_and_not_believed(field):
    assert field not in run(f"{field}: mine\n").body.fields
    assert field not in parse("script: x\n", before={field: "x"}, after={field: "y"}).body.fields


def test_what_lies_apart_is_never_among_the_fields():
    found = run(
        "secrets: {TOKEN: s3cret}\ndefine_files: {a: b}\nextra: 1\n"
        f"pkg_data: {{lkp-tests: {{tag: v1, md5: {MD5}}}}}\n"
    )

    assert {"extra": 1} == found.body.fields
    assert not APART & found.body.fields.keys()
    assert "s3cret" not in repr(found)


@pytest.mark.parametrize(
    "written", ["{a b: s3cret}", "s3cret", "[s3cret]", '{T: "s3cret\\n"}', "{T: [s3cret]}"]
)
def test_a_refusal_does_not_repeat_a_secret(written):
    assert "s3cret" not in repr(refused(f"script: x\nsecrets: {written}\n"))


def test_a_secret_in_a_dotted_field_is_refused_since_everybody_would_read_it():
    [(field, line, message)] = refused("script: x\n", after={"secrets.TOKEN": "s3cret"})

    assert ("secrets.TOKEN", None) == (field, line)
    assert "s3cret" not in message


def test_secrets_on_the_command_line_are_secrets():
    found = parse("script: x\n", after={"secrets": "{TOKEN: s3cret}"})

    assert {"TOKEN": "s3cret"} == found.body.secrets
    assert {} == found.body.fields


def test_fields_hold_what_was_understood():
    found = run("runtime: 10m\npriority: 5\nos_version: 22.10\nanything: [1, {a: b}]\n")

    assert {
        "runtime": 600,
        "priority": 5,
        "os_version": "22.10",
        "anything": [1, {"a": "b"}],
    } == found.body.fields


def test_empty_fields_are_as_if_absent():
    assert "default" == run("queue:\nruntime: ~\n").queue


def test_before_is_a_default_and_after_the_last_word():
    text = "script: x\nqueue: text\n"

    assert "text" == parse(text, before={"queue": "before"}).queue
    assert "after" == parse(text, before={"queue": "before"}, after={"queue": "after"}).queue
    assert 600 == parse(text, before={"runtime": "10m"}).runtime


def test_a_wrong_value_from_the_command_line_has_no_line():
    [(field, line, _)] = refused("script: x\nruntime: 10\n", after={"runtime": "soon"})

    assert ("runtime", None) == (field, line)


@pytest.mark.parametrize(
    ("runtime", "seconds"), [(1, 1 + 300 + 1), (3600, 3600 + 450 + 60), (2400, 2400 + 300 + 49)]
)
def test_a_job_may_run_longer_than_its_runtime_by_an_eighth_and_its_root(runtime, seconds):
    assert seconds == round(run(f"runtime: {runtime}\n").run_s)


def test_dump_is_block_style_that_reads_back():
    fields = {"b": "x: y", "a": [1, "22.10"], "nested": {"text": "line\nline"}, "long": "w " * 500}
    text = document.dump(fields)

    assert fields == yaml.safe_load(text)
    assert ["b:", "a:", "nested:", "long:"] == [
        line.split()[0] for line in text.splitlines() if line[:1].isalpha() and ":" in line
    ]


def test_an_os_arch_that_is_none_is_named_beside_a_good_arch():
    with pytest.raises(BadDocument) as raised:
        document.parse("script: x\narch: x86_64\nos_arch: mips\n", "job.yaml", Defaults())

    assert [("os_arch", 3)] == [(p.field, p.line) for p in raised.value.problems]


EXAMPLES = sorted((Path(__file__).parents[1] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_a_document_with_a_script(example):
    found = document.parse(example.read_text(), example.name, Defaults())

    assert example.stem == found.suite
    assert found.body.script.startswith("#!")


def test_there_are_three_examples():
    assert 3 == len(EXAMPLES)
