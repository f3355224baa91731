"""Folders of results as pages, on real files: they take threads, so on the real clock."""

from __future__ import annotations

import os
import socket
from functools import partial

import pytest
import trio

from appliance.doors import index_page
from appliance.doors.index import Index
from appliance.keep.results import ASIDE, PART
from appliance.web import file_server
from appliance.web.files import Files, Unwatched
from tests import fakes
from tests import lab as labs
from tests.lab import open_lab


def grow(srv):
    """A job's results, with names that want care."""
    job = srv / "result/suite/lab.1"
    (job / "results/a b").mkdir(parents=True)
    (job / "results/a b/<i>&%#?").write_bytes(b"odd")
    (job / "stdout").write_bytes(b"hello\n")
    (job / f"{PART}77").write_bytes(b"half")
    (srv / "result" / ASIDE / "old").mkdir(parents=True)
    (job / "out").symlink_to(srv.parent)
    (srv.parent / "secret").write_bytes(b"secret")
    os.mkfifo(job / "fifo")
    return job


async def get(srv, target, method="GET"):
    async with trio.open_nursery() as nursery:
        files = Files({"/result": srv / "result"}, Unwatched())
        wire = fakes.Wire(nursery, Index("/result", srv / "result", files))
        answer = await fakes.fetch(wire, method, target)
        nursery.cancel_scope.cancel()
    return answer


async def test_a_folder_shows_its_finished_files_and_folders_and_nothing_else(tmp_path):
    grow(tmp_path / "srv")
    page = await get(tmp_path / "srv", "/result/suite/lab.1/")
    text = page.body.decode()
    head = await get(tmp_path / "srv", "/result/suite/lab.1/", "HEAD")

    assert 200 == page.status
    assert ["../", "./results/", "./stdout"] == [
        line.split('"')[1] for line in text.splitlines() if "href" in line
    ]
    assert text.count(" 6\n") == 1  # the size of stdout
    assert (200, b"") == (head.status, head.body)
    assert str(len(page.body)) == page.headers["content-length"]
    assert page.headers["content-type"] == head.headers["content-type"]


async def test_a_name_is_text_on_the_page_and_an_address_in_its_link(tmp_path):
    grow(tmp_path / "srv")
    page = await get(tmp_path / "srv", "/result/suite/lab.1/results/a%20b/")
    link = "%3Ci%3E%26%25%23%3F"
    file = await get(tmp_path / "srv", f"/result/suite/lab.1/results/a%20b/{link}")

    assert f'"./{link}">&lt;i&gt;&amp;%#?</a>'.encode() in page.body
    assert b"<i>" not in page.body
    assert b"odd" == file.body


async def test_a_folder_without_its_slash_is_shown_where_it_is(tmp_path):
    grow(tmp_path / "srv")
    answer = await get(tmp_path / "srv", "//result/suite//lab.1/results/a%20b")

    assert 301 == answer.status
    assert "/result/suite/lab.1/results/a%20b/" == answer.headers["location"]


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/result/suite/lab.1/out/", 404),
        ("/result/suite/lab.1/out", 404),
        ("/result/suite/lab.1/out/secret", 404),
        ("/result/../", 404),
        ("/result/%2e%2e/", 404),
        ("/result/suite/lab.1/stdout/", 404),
        ("/result/suite/lab.1/fifo/", 404),
        ("/result/suite/none/", 404),
        (f"/result/{ASIDE}/", 404),
        (f"/result/{ASIDE}/old/", 404),
        (f"/result/suite/lab.1/{PART}77", 404),
        ("/", 404),
        ("/other/", 404),
        ("/result/%00/", 400),
        ("/result/%zz/", 400),
        ("/result/suite/lab.1/stdout", 200),
        ("/result/", 200),
    ],
)
async def test_what_is_no_folder_of_results_is_not_listed(tmp_path, target, status):
    grow(tmp_path / "srv")

    assert status == (await get(tmp_path / "srv", target)).status


async def test_a_folder_of_too_many_names_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(index_page, "NAMES_MAX", 2)
    folder = tmp_path / "srv/result/many"
    folder.mkdir(parents=True)
    for name in "ab":
        (folder / name).touch()
    fits = await get(tmp_path / "srv", "/result/many/")
    (folder / "c").touch()
    over = await get(tmp_path / "srv", "/result/many/")

    assert [200, 500] == [fits.status, over.status]
    assert b"too many" in over.body


async def test_both_doors_of_results_list_them(tmp_path):
    grow(tmp_path / "srv")
    async with open_lab(labs.config(tmp_path)) as lab:
        pages = [await lab.get("/result/suite/lab.1/", port=port) for port in (3080, 20007)]

        assert [200, 200] == [page.status for page in pages]
        assert pages[0].body == pages[1].body


@pytest.mark.slow  # not for its time: `make check` installs no packages, and here is no skip
@pytest.mark.parametrize("program", ["curl", "lftp"])
async def test_people_fetch_results_with_the_programs_they_have(nursery, tmp_path, program):
    job = grow(tmp_path / "srv")
    files = Files({"/result": tmp_path / "srv/result"}, Unwatched())
    app = Index("/result", tmp_path / "srv/result", files)
    sock = socket.create_server(("127.0.0.1", 0))
    host, port = sock.getsockname()
    stop = trio.Event()
    await nursery.start(partial(file_server.serve, app, [sock], stop=stop.wait, patience=1.0))
    url = f"http://{host}:{port}/result/suite/lab.1"
    there = tmp_path / "there"
    commands = {
        "curl": ["curl", "-sSfL", "--noproxy", "*", "-o", str(there), url],
        "lftp": ["lftp", "-c", f"set net:max-retries 2; mirror {url} {there}"],
    }
    quiet = os.environ | {"HOME": str(tmp_path), "http_proxy": "", "no_proxy": "*"}
    with trio.fail_after(30):
        done = await trio.run_process(
            commands[program], env=quiet, capture_stderr=True, check=False
        )

    assert (0, b"") == (done.returncode, done.stderr)
    if program == "curl":
        assert b"Index of /result/suite/lab.1/" in there.read_bytes()
    else:
        fetched = (there / "results/a b/<i>&%#?").read_bytes()
        assert (job / "results/a b/<i>&%#?").read_bytes() == fetched
        assert b"hello\n" == (there / "stdout").read_bytes()
        assert {"results", "stdout"} == {path.name for path in there.iterdir()}
