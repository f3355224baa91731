"""Files over HTTP: what is served, what is not, and an exact account of both.

Tests that open real files take threads, which virtual time does not know (they run on the real
clock); what is about time, hang-ups and broken disks has a disk in memory and virtual time.
"""

from __future__ import annotations

import email.utils
import errno
import hashlib
import os
import shutil
import stat
import subprocess
from functools import partial

import attrs
import h11
import hypercorn.trio
import pytest
import trio
from hypercorn.config import Config
from structlog.testing import capture_logs
from trio.testing import wait_all_tasks_blocked

from appliance import threads
from appliance.web.files import Files, send_bytes
from appliance.web.open_files import CHUNK_BYTES, Bytes, Gone, OpenFile, RealDisk
from appliance.web.sending import STALL_S
from tests import fakes
from tests.fakes import BOX, Wire, begin

KERNEL = bytes(range(256)) * 40  # 10,240 bytes, no two neighbours alike
URL = "/os/debian/boot/vmlinuz"


async def fetch(*args, **kwargs):
    """The whole answer, and the server has finished with it, its account included."""
    answer = await fakes.fetch(*args, **kwargs)
    await wait_all_tasks_blocked()
    return answer


@attrs.define
class Ledger:
    """A Progress that remembers every call."""

    rows: list[tuple] = attrs.Factory(list)
    news: trio.Event = attrs.Factory(trio.Event)

    async def until_moved(self, n):
        while self.bytes_moved() < n:
            self.news = trio.Event()
            await self.news.wait()

    def moved(self, client, path, n):
        self.rows.append(("moved", client, path, n))
        self.news.set()

    def done(self, client, path, size, seconds):
        self.rows.append(("done", client, path, size, seconds))

    def missing(self, client, path, reached):
        self.rows.append(("missing", client, path))

    def bytes_moved(self):
        return sum(row[3] for row in self.rows if row[0] == "moved")


class Shelf:
    """A disk in memory: URL path -> body.  Needs no thread."""

    def __init__(self, bodies):
        self.bodies = bodies

    async def open(self, root, names):
        await trio.lowlevel.checkpoint()
        try:
            return self.bodies["/".join([root, *(name.decode() for name in names)])]
        except KeyError:
            raise Gone("no such file") from None


@attrs.define
class Tape:
    """A body of `promised` bytes that takes a second for each megabyte and may end early."""

    promised: int
    there: int
    etag: bytes = b'"tape"'
    modified: int | None = None
    descriptor: None = None
    error: OSError | None = None
    reads: int = 0
    closed: bool = False

    @property
    def size(self):
        return self.promised

    async def read(self, offset, length):
        self.reads += 1
        await trio.sleep(1)
        if self.error and offset >= self.there:
            raise self.error
        return b"x" * min(length, self.there - offset)

    def close(self):
        self.closed = True


@pytest.fixture
def srv(tmp_path):
    """An /os and an /initrd tree with a file each."""
    (tmp_path / "os/debian/boot").mkdir(parents=True)
    (tmp_path / "initrd").mkdir()
    (tmp_path / "os/debian/boot/vmlinuz").write_bytes(KERNEL)
    (tmp_path / "initrd/deps.cgz").write_bytes(b"deps")
    (tmp_path / "secret").write_bytes(b"never")
    return tmp_path


@pytest.fixture
def ledger():
    return Ledger()


@pytest.fixture
def wire(nursery, srv, ledger):
    """Connections to Files over the tree `srv`; nothing may escape from it."""
    roots = {"/os": srv / "os", "/initrd": srv / "initrd"}
    made = Wire(nursery, Files(roots, ledger))
    yield made
    assert [] == made.crashes


async def test_a_file_comes_whole_with_its_length_and_validators(wire, srv, ledger) -> None:
    answer = await fetch(wire, "GET", URL)

    assert (200, KERNEL) == (answer.status, answer.body)
    assert str(len(KERNEL)) == answer.headers["content-length"]
    assert "bytes" == answer.headers["accept-ranges"]
    found = (srv / "os/debian/boot/vmlinuz").stat()
    etag = f'"{found.st_ino:x}-{found.st_mtime_ns:x}-{found.st_size:x}"'
    assert etag == answer.headers["etag"]
    assert (
        email.utils.formatdate(int(found.st_mtime), usegmt=True)
        == (answer.headers["last-modified"])
    )
    moved, done = ledger.rows
    assert ("moved", BOX[0], URL, len(KERNEL)) == moved
    assert ("done", BOX[0], URL, len(KERNEL)) == done[:4]


async def test_head_says_the_same_and_sends_nothing(wire, ledger) -> None:
    whole = await fetch(wire, "GET", URL)
    rows = len(ledger.rows)
    head = await fetch(wire, "HEAD", URL, {"range": "bytes=0-4"})

    assert (200, b"") == (head.status, head.body)
    for name in ("content-length", "etag", "last-modified", "content-type", "accept-ranges"):
        assert whole.headers[name] == head.headers[name]
    assert rows == len(ledger.rows)


@pytest.mark.parametrize(
    ("header", "start", "stop", "done"),
    [
        ("bytes=0-0", 0, 1, False),
        ("bytes=100-199", 100, 200, False),
        ("bytes=10000-", 10_000, 10_240, True),
        ("bytes=-240", 10_000, 10_240, True),
        ("bytes=10000-99999", 10_000, 10_240, True),
    ],
)
async def test_a_range_comes_alone_and_says_where_it_lies(
    wire, ledger, header, start, stop, done
) -> None:
    answer = await fetch(wire, "GET", URL, {"range": header})

    assert (206, KERNEL[start:stop]) == (answer.status, answer.body)
    assert f"bytes {start}-{stop - 1}/10240" == answer.headers["content-range"]
    assert str(stop - start) == answer.headers["content-length"]
    assert stop - start == ledger.bytes_moved()
    assert [("done", BOX[0], URL, 10_240)] * done == [
        row[:4] for row in ledger.rows if row[0] == "done"
    ]


async def test_a_range_past_the_end_is_416_with_the_size(wire, ledger) -> None:
    answer = await fetch(wire, "GET", URL, {"range": "bytes=10240-"})

    assert 416 == answer.status
    assert "bytes */10240" == answer.headers["content-range"]
    assert [] == ledger.rows


async def test_several_ranges_are_answered_with_the_whole(wire) -> None:
    answer = await fetch(wire, "GET", URL, {"range": "bytes=0-1,5-6"})

    assert (200, KERNEL) == (answer.status, answer.body)


async def test_a_resume_of_another_file_starts_anew(wire) -> None:
    headers = {"range": "bytes=100-", "if-range": '"of-yesterday"'}

    assert 200 == (await fetch(wire, "GET", URL, headers)).status


async def test_what_the_client_has_already_is_not_sent_again(wire, ledger) -> None:
    first = await fetch(wire, "GET", URL)
    del ledger.rows[:]

    for name, value in [
        ("if-none-match", first.headers["etag"]),
        ("if-modified-since", first.headers["last-modified"]),
    ]:
        again = await fetch(wire, "GET", URL, {name: value})

        assert (304, b"") == (again.status, again.body)
        assert first.headers["etag"] == again.headers["etag"]
    assert [("done", BOX[0], URL, 0)] * 2 == [row[:4] for row in ledger.rows]


async def test_who_only_looks_has_nothing(wire, ledger) -> None:
    first = await fetch(wire, "HEAD", URL)
    await fetch(wire, "HEAD", URL, {"if-none-match": first.headers["etag"]})

    assert [] == ledger.rows


async def test_a_replaced_file_has_another_tag(wire, srv) -> None:
    first = await fetch(wire, "GET", URL)
    (srv / "new").write_bytes(KERNEL)
    (srv / "new").rename(srv / "os/debian/boot/vmlinuz")

    assert first.headers["etag"] != (await fetch(wire, "GET", URL)).headers["etag"]


async def test_an_empty_file_is_done_at_once(wire, srv, ledger) -> None:
    (srv / "os/empty").touch()
    answer = await fetch(wire, "GET", "/os/empty")

    assert (200, b"", "0") == (answer.status, answer.body, answer.headers["content-length"])
    assert [("done", BOX[0], "/os/empty", 0)] == [row[:4] for row in ledger.rows]


async def test_one_connection_fetches_several_files(wire) -> None:
    stream = wire.connect()

    bodies = [(await fetch(stream, "GET", url)).body for url in (URL, "/initrd/deps.cgz", URL)]

    assert [KERNEL, b"deps", KERNEL] == bodies


@pytest.mark.parametrize("method", ["PUT", "POST", "DELETE", "OPTIONS", "PROPFIND"])
async def test_files_are_only_read(wire, method) -> None:
    answer = await fetch(wire, method, URL)

    assert (405, "GET, HEAD") == (answer.status, answer.headers["allow"])


@pytest.mark.parametrize(
    ("target", "status"),
    [
        ("/os/../secret", 404),
        ("/os/%2e%2e/secret", 404),
        ("/os/.%2E/secret", 404),
        ("/os/..%2fsecret", 404),
        ("/os/%2e%2e%2fsecret", 404),
        ("/os/debian/../../secret", 404),
        ("/os/%252e%252e/secret", 404),  # decoded once: a name with a percent sign
        ("/os/..\\secret", 404),  # a backslash is a letter like any other
        ("/os//../secret", 404),
        ("/os/./../secret", 404),
        ("/os/%00", 400),
        ("/os/debian/boot/vmlinuz%00.txt", 400),
        ("/os/a%0d%0ab", 400),
        ("/os/%7f", 400),
        ("/os/%zz", 400),
        ("/os/100%", 400),
        ("/os/%2", 400),
        ("http://elsewhere/os/debian/boot/vmlinuz", 400),
        ("*", 400),
        ("/os", 404),
        ("/os/", 404),
        ("/os/debian", 404),
        ("/os/debian/", 404),
        ("/os/debian/boot/.", 404),
        ("/os/debian/boot/vmlinuz/", 404),
        ("/os/debian/boot/vmlinuz/x", 404),
        ("/os/none", 404),
        ("/secret", 404),
        ("/", 404),
        ("//", 404),
        ("/OS/debian/boot/vmlinuz", 404),
        ("/os/" + "a" * 300, 404),
        ("/os/" + "a/" * 3000 + "b", 404),
        ("/os/%ff%fe", 404),
        ("/%ff/x", 404),
    ],
)
async def test_a_path_that_names_no_file_of_ours(wire, ledger, target, status) -> None:
    answer = await fetch(wire, "GET", target)

    assert status == answer.status
    assert answer.body.count(b"\n") == 1
    assert b"never" not in answer.body
    # Names that the disk might have, and has not; what is no name of a file is not gone.
    gone = target in ("/os/none", "/os/%ff%fe", "/os/%252e%252e/secret", "/os/..\\secret")
    assert (["missing"] if gone else []) == [row[0] for row in ledger.rows]


@pytest.mark.parametrize(
    "target",
    ["/os/debian/boot/vml%69nuz", "//os//debian/./boot/vmlinuz", "/os%2fdebian/boot/vmlinuz?x=%00"],
)
async def test_one_file_has_one_name_however_it_is_spelled(wire, ledger, target) -> None:
    answer = await fetch(wire, "GET", target)

    assert (200, KERNEL) == (answer.status, answer.body)
    assert {URL} == {row[2] for row in ledger.rows}


@pytest.mark.parametrize(
    "name", ["back\\slash", "sp ace", "plus+and=", "gr\u00fcn", "50%", "%41", ".dot"]
)
async def test_odd_names_are_names(wire, srv, name) -> None:
    (srv / "os" / name).write_bytes(b"odd")
    quoted = "".join(f"%{byte:02X}" for byte in name.encode())

    assert b"odd" == (await fetch(wire, "GET", f"/os/{quoted}")).body


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("os/link", "debian/boot/vmlinuz"),
        ("os/link", "{srv}/os/debian/boot/vmlinuz"),
        ("initrd/link", "../os/debian/boot/vmlinuz"),  # the roots count together
        ("os/latest", "debian"),
    ],
)
async def test_a_symlink_inside_the_roots_is_followed(wire, srv, link, target) -> None:
    (srv / link).symlink_to(target.format(srv=srv))
    url = f"/{link}/boot/vmlinuz" if link == "os/latest" else f"/{link}"

    assert KERNEL == (await fetch(wire, "GET", url)).body


@pytest.mark.parametrize(
    "target", ["../../secret", "{srv}/secret", "/etc/hostname", "/proc/self/environ", "link", ".."]
)
async def test_a_symlink_out_of_the_roots_leads_nowhere(wire, srv, ledger, target) -> None:
    (srv / "os/debian/link").symlink_to(target.format(srv=srv))

    with capture_logs() as logs:
        answer = await fetch(wire, "GET", "/os/debian/link")

    assert (404, b"no such file\n") == (answer.status, answer.body)
    assert [] == ledger.rows  # it is there, and nobody's business
    if target in ("../../secret", "{srv}/secret"):
        assert ["warning"] == [row["log_level"] for row in logs if row["event"] == "no such file"]


async def test_a_folder_beside_a_root_with_the_same_beginning_is_outside(wire, srv) -> None:
    (srv / "os-private").mkdir()
    (srv / "os-private/key").write_bytes(b"never")
    (srv / "os/link").symlink_to("../os-private/key")

    assert 404 == (await fetch(wire, "GET", "/os/link")).status


async def test_a_root_may_itself_be_a_symlink_and_move(wire, srv) -> None:
    (srv / "os").rename(srv / "bigger-disk")
    (srv / "os").symlink_to("bigger-disk")

    assert KERNEL == (await fetch(wire, "GET", URL)).body


async def test_a_swap_after_the_look_gains_nothing(srv, monkeypatch) -> None:
    """The file is swapped for a link to the secret between the check and the opening."""
    disk = RealDisk({"/os": srv / "os"})
    check = disk._check_landing

    def check_then_swap(landed):
        check(landed)
        (srv / "os/debian/boot/vmlinuz").unlink()
        (srv / "os/debian/boot/vmlinuz").symlink_to(srv / "secret")

    monkeypatch.setattr(disk, "_check_landing", check_then_swap)
    body = await disk.open("/os", [b"debian", b"boot", b"vmlinuz"])

    assert KERNEL == await body.read(0, CHUNK_BYTES)
    body.close()


async def test_a_fifo_a_socket_and_a_device_are_no_files(wire, srv) -> None:
    os.mkfifo(srv / "os/fifo")
    os.mknod(srv / "os/socket", stat.S_IFSOCK | 0o600)
    (srv / "os/null").symlink_to("/dev/null")
    for name in ("fifo", "socket", "null"):
        with trio.fail_after(5):  # a FIFO that is opened waits for its writer
            assert 404 == (await fetch(wire, "GET", f"/os/{name}")).status


async def test_a_file_that_may_not_be_read_is_403_and_logged(wire, ledger, monkeypatch) -> None:
    def refuse(self, root, names):
        raise PermissionError(errno.EACCES, "planted")  # root may read everything

    monkeypatch.setattr(RealDisk, "_open", refuse)
    with capture_logs() as logs:
        answer = await fetch(wire, "GET", URL)

    assert 403 == answer.status
    assert [("warning", URL)] == [
        (row["log_level"], row["path"]) for row in logs if row["event"] == "file not readable"
    ]
    assert [] == ledger.rows


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EIO])
async def test_a_server_in_trouble_asks_to_come_back(wire, ledger, monkeypatch, number) -> None:
    def fail(self, root, names):
        raise OSError(number, "planted")

    monkeypatch.setattr(RealDisk, "_open", fail)
    answer = await fetch(wire, "GET", URL)

    assert (503, "5") == (answer.status, answer.headers["retry-after"])
    assert [] == ledger.rows


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EOPNOTSUPP])
async def test_what_is_not_in_memory_is_read_in_a_thread(wire, monkeypatch, number) -> None:
    ran = []

    def not_cached(*args):
        raise OSError(number, "planted")

    async def run(call, *args, **kwargs):
        ran.append(call.__name__)
        return call(*args)

    monkeypatch.setattr(os, "preadv", not_cached)
    monkeypatch.setattr(threads, "run", run)
    answer = await fetch(wire, "GET", URL)

    assert KERNEL == answer.body
    assert ["_open", "pread"] == ran


async def test_a_large_file_comes_in_pieces_and_leaves_no_descriptor(wire, srv, ledger) -> None:
    data = os.urandom(3 * CHUNK_BYTES + 17)
    (srv / "os/large").write_bytes(data)
    before = sorted(os.listdir("/proc/self/fd"))

    answer = await fetch(wire, "GET", "/os/large")

    assert hashlib.sha256(data).digest() == hashlib.sha256(answer.body).digest()
    assert [CHUNK_BYTES] * 3 + [17] == [row[3] for row in ledger.rows if row[0] == "moved"]
    for target in ("/os/none", "/os/debian", "/initrd/deps.cgz"):
        await fetch(wire, "GET", target)
    assert before == sorted(os.listdir("/proc/self/fd"))


async def test_reading_continues_where_a_short_read_ended(srv) -> None:
    """A file of which only the beginning is in memory comes in smaller pieces."""
    descriptor = os.open(srv / "os/debian/boot/vmlinuz", os.O_RDONLY)
    body = OpenFile(descriptor, len(KERNEL), b"", 0, trio.CapacityLimiter(1))

    assert KERNEL[:100] == await body.read(0, 100)
    assert KERNEL[100:] == await body.read(100, CHUNK_BYTES)
    assert b"" == await body.read(len(KERNEL), CHUNK_BYTES)
    body.close()


def slow(nursery, ledger, tape):
    """A wire to a door with nothing but `tape` behind it."""
    return Wire(nursery, Files({"/os": "unused"}, ledger, Shelf({"/os/tape": tape})))


async def test_the_account_says_how_long_it_took(nursery, autojump_clock, ledger) -> None:
    tape = Tape(4 * CHUNK_BYTES, 4 * CHUNK_BYTES)

    await fetch(slow(nursery, ledger, tape), "GET", "/os/tape")

    assert ("done", BOX[0], "/os/tape", 4 * CHUNK_BYTES, 4.0) == ledger.rows[-1]
    assert tape.closed


async def test_a_client_that_hangs_up_stops_the_reading(nursery, autojump_clock, ledger) -> None:
    tape = Tape(1000 * CHUNK_BYTES, 1000 * CHUNK_BYTES)
    wire = slow(nursery, ledger, tape)
    answer = await begin(wire, "GET", "/os/tape")
    taken = 0
    while taken < 3 * CHUNK_BYTES:
        taken += len(await answer.piece())

    await answer.hang_up()
    await trio.sleep(10)

    assert 4 == tape.reads  # three went out, one was being read
    assert [("moved", BOX[0], "/os/tape", CHUNK_BYTES)] * 3 == ledger.rows
    assert tape.closed
    assert [] == wire.crashes


async def test_a_send_into_a_closed_connection_is_not_counted(
    nursery, autojump_clock, ledger
) -> None:
    """The client goes away while a piece waits to be taken: it never had that piece."""
    tape = Tape(1000 * CHUNK_BYTES, 1000 * CHUNK_BYTES)
    stream = slow(nursery, ledger, tape).connect(lockstep=True)
    await begin(stream, "GET", "/os/tape")
    await trio.sleep(5)  # the first piece came with the head; nobody takes the second
    await wait_all_tasks_blocked()

    await stream.aclose()
    await trio.sleep(10)

    assert [("moved", BOX[0], "/os/tape", CHUNK_BYTES)] == ledger.rows
    assert (2, True) == (tape.reads, tape.closed)


async def test_a_client_that_leaves_with_the_last_byte_has_it_all(
    nursery, autojump_clock, ledger
) -> None:
    """Its FIN can be here before the server's task runs again; so many tries, in any order."""
    size = CHUNK_BYTES + 5
    wire = slow(nursery, ledger, Bytes(bytes(size)))
    for tries in range(1, 51):
        stream = wire.connect(lockstep=True)
        answer = await begin(stream, "GET", "/os/tape")
        got = 0
        while got < size:
            got += len(await answer.piece() or b"")
        await stream.aclose()
        await wait_all_tasks_blocked()

        assert tries * size == ledger.bytes_moved()
        assert tries == len([row for row in ledger.rows if row[0] == "done"])


async def test_a_client_that_does_not_read_holds_one_piece(nursery, autojump_clock, ledger) -> None:
    tape = Tape(1000 * CHUNK_BYTES, 1000 * CHUNK_BYTES)
    stream = slow(nursery, ledger, tape).connect(lockstep=True)
    await begin(stream, "GET", "/os/tape")

    await trio.sleep(STALL_S)

    assert (2, False) == (tape.reads, tape.closed)  # the first came with the head
    await trio.sleep(10)
    assert tape.closed  # it is cut


@pytest.mark.parametrize("there", [0, CHUNK_BYTES, CHUNK_BYTES + 5])
async def test_a_file_that_shrank_ends_the_connection_short(
    nursery, autojump_clock, ledger, there
) -> None:
    wire = slow(nursery, ledger, Tape(3 * CHUNK_BYTES, there))
    with capture_logs() as logs:  # of a file that is empty by now, the head comes with the end
        answer = await begin(wire, "GET", "/os/tape")
        assert str(3 * CHUNK_BYTES) == answer.headers["content-length"]
        with pytest.raises(h11.RemoteProtocolError):
            await answer.rest()

    assert there == ledger.bytes_moved()
    assert "done" not in [row[0] for row in ledger.rows]
    assert ["file not sent to its end"] == [row["event"] for row in logs]
    assert [] == wire.crashes


async def test_a_disk_that_breaks_ends_the_connection_short(
    nursery, autojump_clock, ledger
) -> None:
    tape = Tape(3 * CHUNK_BYTES, CHUNK_BYTES, error=OSError(errno.EIO, "planted"))
    wire = slow(nursery, ledger, tape)
    answer = await begin(wire, "GET", "/os/tape")

    with capture_logs() as logs, pytest.raises(h11.RemoteProtocolError):
        await answer.rest()

    assert CHUNK_BYTES == ledger.bytes_moved()
    assert ["file not sent to its end"] == [row["event"] for row in logs]
    assert ([], True) == (wire.crashes, tape.closed)


async def test_a_connection_stays_usable_and_idles_out(nursery, autojump_clock, ledger) -> None:
    """The watch for hang-ups must not disturb Hypercorn while it makes ready for the next."""
    wire = Wire(nursery, Files({"/os": "unused"}, ledger, Shelf({"/os/a": Bytes(b"abc")})))
    stream = wire.connect()
    for _ in range(20):
        assert b"abc" == (await fetch(stream, "GET", "/os/a")).body

    assert b"" == await stream.receive_some()
    assert wire.config.keep_alive_timeout == trio.current_time()


async def test_bytes_from_memory_are_served_like_a_file(nursery, autojump_clock, ledger) -> None:
    data = os.urandom(2 * CHUNK_BYTES + 3)

    async def app(scope, receive, send):
        await send_bytes(scope, receive, send, data, path="/job.cgz", progress=ledger)

    wire = Wire(nursery, app)
    whole = await fetch(wire, "GET", "/x")
    part = await fetch(wire, "GET", "/x", {"range": "bytes=5-7"})
    head = await fetch(wire, "HEAD", "/x")

    assert (200, data) == (whole.status, whole.body)
    assert (206, data[5:8]) == (part.status, part.body)
    assert (200, b"", str(len(data))) == (head.status, head.body, head.headers["content-length"])
    assert 405 == (await fetch(wire, "PUT", "/x", body=b"y")).status
    assert 416 == (await fetch(wire, "GET", "/x", {"range": "bytes=99999999-"})).status
    assert len(data) + 3 == ledger.bytes_moved()
    assert [("done", BOX[0], "/job.cgz", len(data), 0.0)] == [
        row for row in ledger.rows if row[0] == "done"
    ]


async def test_a_body_sent_with_a_get_is_ignored(nursery, autojump_clock, ledger) -> None:
    wire = Wire(nursery, Files({"/os": "unused"}, ledger, Shelf({"/os/a": Bytes(b"abc")})))

    assert b"abc" == (await fetch(wire, "GET", "/os/a", body=b"z" * 300_000)).body


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_curl_fetches_resumes_and_asks(nursery, srv, ledger, tmp_path) -> None:
    """Over a real socket, the way a person would try it."""
    data = os.urandom(5 * CHUNK_BYTES + 1)
    (srv / "os/image").write_bytes(data)
    config = Config()
    config.bind, config.errorlog = ["127.0.0.1:0"], None
    files = Files({"/os": srv / "os"}, ledger)
    [base] = await nursery.start(partial(hypercorn.trio.serve, files, config))
    run = partial(trio.run_process, capture_stdout=True, check=False)
    curl = ["curl", "-sS", "--noproxy", "*"]
    part = tmp_path / "part"
    part.write_bytes(data[:CHUNK_BYTES])

    await run([*curl, "-C", "-", "-o", str(part), f"{base}/os/image"])
    head = await run([*curl, "-I", f"{base}/os/image"])
    middle = await run([*curl, "-r", "7-9", f"{base}/os/image"])
    gone = await run([*curl, "-f", f"{base}/os/none"], stderr=subprocess.DEVNULL)

    assert data == part.read_bytes()
    assert b"content-length: %d\r\n" % len(data) in head.stdout.lower()
    assert data[7:10] == middle.stdout
    assert 22 == gone.returncode
    with trio.fail_after(5):  # the last bytes arrive before the server has counted them
        await ledger.until_moved(len(data) - CHUNK_BYTES + 3)
    assert len(data) - CHUNK_BYTES + 3 == ledger.bytes_moved()
