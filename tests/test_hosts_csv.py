"""Lists of testboxes, as spreadsheets write them: all of one is added, or nothing."""

from __future__ import annotations

import pytest

from appliance.errors import BadRequest
from appliance.jobs import hosts_csv
from tests import lab as labs
from tests.lab import open_lab

GOOD = """\
name,mac,arch,queues,console
rack-7,52:54:00:12:34:56 52-54-00-12-34-57,aarch64,default fast,ttyAMA0

rack-8,52:54:00:12:34:58,x86_64,,
"""


def test_each_line_is_a_box_and_an_empty_cell_says_nothing():
    first, second = hosts_csv.parse(GOOD)

    assert (2, "rack-7", {
        "mac": ["52:54:00:12:34:56", "52:54:00:12:34:57"], "arch": "aarch64",
        "queues": ["default", "fast"], "console": ["ttyAMA0"],
    }) == (first.line, first.name, first.fields)  # fmt: skip
    assert (4, "rack-8", {"mac": ["52:54:00:12:34:58"], "arch": "x86_64"}) == (
        second.line, second.name, second.fields,
    )  # fmt: skip


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_a_spreadsheets_own_ways_are_understood(delimiter):
    text = "\ufeff" + GOOD.replace(",", delimiter).replace("\n", "\r\n")

    assert hosts_csv.parse(GOOD) == hosts_csv.parse(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["the list is empty"]),
        ("name,mac\n", ["line 2: there is no testbox"]),
        ("name,arch\nx,x86_64\n", ["line 1: it must name the columns `name` and `mac`"]),
        ("name,mac,mac\n", ["each column once"]),
        ("name,mac,colour\n", ["line 1: unknown columns 'colour'"]),
        ("name,mac\na,zz\nb\n../x,52:54:00:12:34:56\n",
         ["line 2: 'zz' is no MAC", "line 3: 1 values for 2 columns", "line 4: '../x' is no test"]),
        ("name,mac\na,\n", ["line 2: a: mac: must name"]),
        ("name,mac,arch\na,52:54:00:12:34:56,arm64\n", ["line 2: a: arch: 'arm64'"]),
        ("name,mac\na,52:54:00:12:34:56\na,52:54:00:12:34:57\nb,52:54:00:12:34:56\n",
         ["line 3: a is in line 2 already", "line 4: 52:54:00:12:34:56 is in line 2 already"]),
        ('name,mac\n"a,52\n', ["no CSV"]),
        ("name,mac\n" + "a,zz\n" * 60, ["and 10 more"]),
    ],
)  # fmt: skip
def test_every_mistake_is_named_with_its_line(text, words):
    with pytest.raises(BadRequest) as caught:
        hosts_csv.parse(text)

    for word in words:
        assert word in str(caught.value)


async def ask(lab, text, user="root"):
    return await lab.people.do("host-add", {"list": text}, user, None)


async def test_a_list_is_added_with_its_hosts_files(tmp_path):
    (tmp_path / "hosts").mkdir()
    (tmp_path / "hosts/rack-7").write_text("model: Kunpeng\nmemory: 64G\nrootfs_disk: [/dev/sda]\n")
    async with open_lab(labs.config(tmp_path)) as lab:
        told = await ask(lab, GOOD)
        boxes = lab.scheduler.store.boxes

        assert ["rack-7", "rack-8"] == [row["name"] for row in told["hosts"]]
        assert (64, ("/dev/sda",), ("default", "fast")) == (
            boxes["rack-7"].facts.memory_gb,
            boxes["rack-7"].facts.rootfs_disk,
            boxes["rack-7"].facts.queues,
        )
        assert "Kunpeng" in (tmp_path / "hosts/rack-7").read_text()
        assert {"rack-7", "rack-8.yaml"} == {path.name for path in (tmp_path / "hosts").iterdir()}


async def test_one_line_that_does_not_fit_the_lab_keeps_all_out(tmp_path):
    async with open_lab(labs.config(tmp_path)) as lab:
        await lab.know("box-1", "52:54:00:12:34:58")
        with pytest.raises(BadRequest, match=r"line 4: rack-8: 52.* belongs to box-1 already"):
            await ask(lab, GOOD)

        assert {"box-1"} == set(lab.scheduler.store.boxes)
        assert not (tmp_path / "hosts").exists()


def test_a_list_has_so_many_lines_and_no_more():
    head, box = "name,mac\n", "box-1,52:54:00:00:00:01\n"
    assert 1 == len(hosts_csv.parse(head + box + "\n" * (hosts_csv.LINES_MAX - 2)))
    for more in (head + box + "\n" * (hosts_csv.LINES_MAX - 1), "\r" * 10**6, "x\n" * 10**6):
        with pytest.raises(BadRequest, match="lines"):
            hosts_csv.parse(more)
