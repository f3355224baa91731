"""The worst that a grammar can say at each door within its limits: long, deep, many, slow, unread.

Each Attack is what several clients do at once.  All of them together have each of the doors;
test_stall.py fails where one is missing, so that a new door is held to the same bounds.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import attrs
import cbor2

HEAD_BYTES = 15_000  # of a request's head: h11 takes 16 KiB
BODY_BYTES = 10 * 2**20  # of a submit
REPORT_BYTES = 2**13  # of a report's body
CLIENTS, CROWD, MANY = 8, 30, 400
STRANGER, BOX, GROUP = "stranger", "box", "group"

ACCOUNT = {
    "my_email": "ann@example.org",
    "my_name": "Ann",
    "my_token": "a1b2c3d4-0000-4000-8000-c0ffee00beef",
}
FOLDER = "/result/many/"  # of NAMES files, made by the test
NAMES = 99_000
LONG = "a" * 200  # a name, in which nothing finds what it looks for


@attrs.frozen
class Attack:
    """What `clients` do at once, for `seconds` at most."""

    door: str
    what: str
    pieces: Callable[[], Iterator[bytes]]  # b"": an answer is waited for
    who: str = STRANGER
    clients: int = CLIENTS
    reads: bool = True  # False: they take nothing
    seconds: float = 3.0
    together: bool = False  # b"": all the others are waited for
    meanwhile: str = ""  # another attack's `what`, which goes on during this one

    @property
    def name(self) -> str:
        """What a test calls it."""
        return f"{self.who} at {self.door}: {self.what}"


def asked(line: str, *head: str, body: bytes = b"", close: bool = True) -> bytes:
    """A whole request."""
    lines = [f"{line} HTTP/1.1", "Host: x", *head]
    if close:
        lines.append("Connection: close")
    if body or line.startswith(("POST", "PUT")):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


def once(*pieces: bytes) -> Callable[[], Iterator[bytes]]:
    """It is all that is sent; after each but the last an answer is waited for."""
    parted = [part for piece in pieces for part in (piece, b"")][:-1]
    return lambda: iter(parted)


def _filled(text: str, size: int = HEAD_BYTES) -> str:
    return text * (size // len(text))


def _chunked(line: str, *head: str, count: int = 2**19) -> bytes:
    """A body in chunks of one byte each."""
    lines = [f"{line} HTTP/1.1", "Host: x", "Transfer-Encoding: chunked", *head, "", ""]
    return "\r\n".join(lines).encode() + b"1\r\nx\r\n" * count + b"0\r\n\r\n"


def http(door: str, line: str, *head: str, who: str = STRANGER) -> list[Attack]:
    """What may be said to any path of any HTTP door."""
    method, path = line.split(" ", 1)
    sign = "&" if "?" in path else "?"
    query = f"{method} {path}{sign}"
    sent = {
        "a head full of headers": asked(line, *head, *["a: b"] * (HEAD_BYTES // 6)),
        "a query full of words": asked(query + _filled("a&"), *head),
        "a query full of escapes": asked(query + _filled("%FF%25="), *head),
        "a long path": asked(f"{method} {path.split('?')[0]}{_filled('/%2e', 12_000)}", *head),
        "a cookie full of quotes": asked(line, *head, "Cookie: " + _filled('a="\\\\;')),
        "a thousand ranges": asked(line, *head, "Range: bytes=" + _filled("0-9,")),
        "a thousand validators": asked(line, *head, "If-None-Match: " + _filled('W/"",')),
        "questions in a row": asked(line, *head, close=False) * 2000,
        "a body in chunks of a byte": _chunked(line, *head),
    }
    short = path.split("?")[0].split("/")[-1][:20]
    named = {f"{method} {short}, {what}": data for what, data in sent.items()}
    question, full = asked(line, *head), sent["a head full of headers"]
    body, dense = asked(line, *head, body=b"{}", close=False), asked(line, *head, *["a:"] * 3500)
    small = asked(line, *head, *["a:"] * ((1000 - len(question)) // 4))  # the worst of its length
    moments = {
        "by all at once": lambda: iter([b"", question]),
        "heads that end at once": lambda: iter([full[:-2], b"", full[-2:]]),
        "heads behind bodies that end at once": lambda: iter([body[:-1], b"", body[-1:] + dense]),
        "heads of a kilobyte at once": lambda: iter([b"", small]),
    }
    return [
        *(Attack(door, what, once(data), who, CROWD, seconds=0.7) for what, data in named.items()),
        *(
            Attack(door, f"{method} {short}, {what}", moment, who, MANY, together=True)
            for what, moment in moments.items()
        ),
    ]


# What a body of JSON can be.
JSONS: Mapping[str, bytes] = {
    "maps": b"[" + b'{"":0},' * (BODY_BYTES // 7 - 1) + b"0]",
    "lists": b"[" + b"[]," * (BODY_BYTES // 3 - 1) + b"0]",
    "depth": b"[" * BODY_BYTES,
    "digits": b"[" + b"9" * (BODY_BYTES - 2) + b"]",
    "fraction": b"[0." + b"9" * (BODY_BYTES - 8) + b"e-9]",
    "words": b"{" + b",".join(b'"%d":0' % n for n in range(900_000)) + b"}",
    "escapes": b'["' + b"\\ud83d" * (BODY_BYTES // 6 - 1) + b'"]',
}


def _job(**fields: object) -> bytes:
    return json.dumps({**ACCOUNT, "suite": "x", "testbox": "box-1", **fields}).encode()


def _five_nodes() -> bytes:
    nodes = {f"n{n}": {"roles": ["server"]} for n in range(5)}
    filled = [[] for _ in range(240_000)]
    return _job(cluster="c", cluster_spec={"nodes": nodes}, x=filled)


JOBS: Mapping[str, bytes] = {
    "lists for five nodes": _five_nodes(),
    "a map of numbers": _job(x={str(n * (2**61 - 1)): 0 for n in range(60_000)}),
    "merges": _job(script="x", job2sh={"a": ["x"] * 150_000}),
    "a long script": _job(script="x\n" * 500_000),
    "a package": _job(pkg_data={"r": {"tag": "t", "md5": "0" * 32, "content": "x" * 9_000_000}}),
}


def merges(levels: int = 24) -> str:
    """YAML whose values double with each level."""
    maps = [f"&m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, levels)]
    return f"m: [&m0 {{k: v}}, {', '.join(maps)}]\nscript: x\n"


def laughs(levels: int = 24) -> str:
    """YAML whose values double with each level, by aliases."""
    lists = [f"&m{n} [*m{n - 1}, *m{n - 1}]" for n in range(1, levels)]
    return f"m: [&m0 [x], {', '.join(lists)}]\nscript: x\n"


YAML_BYTES = 1_000_000
YAMLS: Mapping[str, str] = {
    "merges": merges(),
    "aliases": laughs(),
    "lists": "x: [" + "[]," * (YAML_BYTES // 3) + "]\n",
    "depth": "x: " + "[" * YAML_BYTES,
    "keys": "".join(f"k{n}: 0\n" for n in range(80_000)),
    "numbers that share a hash": "x: {"
    + ",".join(f"{n * (2**61 - 1)}: 0" for n in range(40_000))
    + "}\n",
    "sixties": "x: " + "1" + ":1" * (YAML_BYTES // 2) + "\n",
    "a long number": "x: " + "9" * YAML_BYTES + "\n",
    "bits": "x: 0b" + "1" * YAML_BYTES + "\n",
    "complex keys": "? " * (YAML_BYTES // 2) + "\n",
    "anchors": "x: [" + ",".join(f"&a{n} 0" for n in range(80_000)) + "]\n",
    "a comment": "#" * YAML_BYTES + "\nscript: x\n",
    "blank lines": "x: |\n" + "\n" * YAML_BYTES,
    "a quoted text": 'x: "' + "\\x41" * (YAML_BYTES // 4) + '"\n',
    "tags": "x: [" + "!!omap [a: b]," * (YAML_BYTES // 14) + "]\n",
    "binary": "x: !!binary " + "A" * YAML_BYTES + "\n",
}


# --- WebSockets ---


def handshake(path: str, *head: str) -> bytes:
    return asked(
        f"GET {path}", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==", *head, close=False,
    )  # fmt: skip


def frame(first: int, body: bytes) -> bytes:
    if len(body) < 126:
        size = bytes([0x80 | len(body)])
    elif len(body) < 2**16:
        size = bytes([0x80 | 126]) + struct.pack(">H", len(body))
    else:
        size = bytes([0x80 | 127]) + struct.pack(">Q", len(body))
    return bytes([first]) + size + bytes(4) + body


def _deflated(size: int) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (packer.compress(b" " * size) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


WIDE = [f".{{1,100}}a.{{1,100}}N{n}" for n in range(99)]


def sockets(door: str, path: str) -> list[Attack]:
    """What may be said to a WebSocket, wanted or not."""
    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    hello = handshake(path)
    sent = {
        "a text that inflates": (handshake(path, offer), frame(0xC1, _deflated(2**25))),
        "a text in frames of a byte": (hello, frame(0x01, b"[") + frame(0x00, b"[") * 60_000),
        "empty frames": (hello, frame(0x01, b"") + frame(0x00, b"") * 100_000),
        "pings": (hello, frame(0x89, b"x" * 125) * 20_000),
        "a long frame": (hello, frame(0x81, b" " * 2**24)),
        "a head full of extensions": (handshake(path, f"{offer}," + _filled("x;y=z,")),),
    }
    asks, bomb = path.split("/")[1:3][-1], once(*sent["a text that inflates"])
    return [Attack(door, f"{asks}: {what}", once(*data)) for what, data in sent.items()] + [
        Attack(door, f"{asks}: pings, unread", once(*sent["pings"]), reads=False),
        Attack(door, f"{asks}: many texts that inflate", bomb, clients=100),
    ]


def _watchers() -> list[Attack]:
    query = json.dumps({"message": WIDE}).encode()
    jobs = json.dumps({"job_id": [f"lab.{n}" for n in range(6000)]}).encode()
    hello = handshake("/filter")
    return [
        Attack("monitor ws /", "wide expressions",
               once(hello, frame(0x81, query)), clients=220),
        Attack("monitor ws /", "queries in a row",
               once(hello, frame(0x81, query) * 200), clients=20),
        Attack("monitor ws /", "many jobs in each query",
               once(hello, frame(0x81, jobs) * 20), clients=20),
    ]  # fmt: skip


# --- the command line's socket ---


def _tagged(tag: int, value: object) -> bytes:
    return cbor2.dumps(cbor2.CBORTag(tag, value))


def _bignum(size: int) -> bytes:
    return b"\xc2\x5a" + size.to_bytes(4) + b"\xff" * size


def _array(count: int, item: bytes) -> bytes:
    return b"\x9a" + count.to_bytes(4) + item * count


CBORS: Mapping[str, bytes] = {
    "a decimal": b"\xc4\x82\x19\xff\xff" + _bignum(150_000),
    "a long number": _bignum(8 * 2**20),
    "empty arrays": _array(8 * 2**20, b"\x80"),
    "empty maps": _array(8 * 2**20, b"\xa0"),
    "depth": b"\x81" * 2**20,
    "endless arrays": b"\x9f" * 2**20,
    "a text in pieces of a byte": b"\x7f" + b"\x61x" * 2**22 + b"\xff",
    "a long text": b"\x7a" + (30 * 2**20).to_bytes(4) + b"x" * 30 * 2**20,
    "a text that does not end": b"\x7a" + (2**31).to_bytes(4) + b"x" * 30 * 2**20,
    "an array that promises": b"\x9b" + (2**62).to_bytes(8),
    "an expression": _tagged(35, "(a+)+$" * 1000),
    "dates": _array(300_000, b"\xc1\x1a\x7f\xff\xff\xff"),
    "sets": b"\xd9\x01\x02" + _array(2**20, b"\x01"),
    "references": b"\xd8\x1c" + _array(2**20, b"\xd8\x1d\x00"),
    "a map of numbers": cbor2.dumps(dict.fromkeys(range(500000), 0)),
    "halves": _array(2**21, b"\xf9\x7e\x00"),
}


def said(**request: object) -> bytes:
    return cbor2.dumps({"appliance": 1}) + cbor2.dumps(request)


def _submit(*texts: str, **more: object) -> bytes:
    papers = [{"name": f"{n}.yaml", "text": text, **more} for n, text in enumerate(texts)]
    return said(verb="submit", key="0123456789abcdef", documents=papers)


def control() -> Iterator[Attack]:
    """What anybody in the group may say, and what a verb may be asked with."""
    greeting = cbor2.dumps({"appliance": 1})
    door = "control"
    for what, item in CBORS.items():
        yield Attack(door, f"{what}, at once", once(item), GROUP)
        yield Attack(door, f"{what}, greeted", once(greeting + item), GROUP)
    for what, text in YAMLS.items():
        yield Attack("control submit", what, once(_submit(text)), GROUP)
    bad = "suite: '\x00'\n"
    yield Attack("control submit", "many documents",
                 once(_submit(*["script: x\n"] * 20_000)), GROUP)  # fmt: skip
    yield Attack("control submit", "many bad documents", once(_submit(*[bad] * 20_000)), GROUP)
    yield Attack("control submit", "long documents", once(_submit(*[YAMLS["lists"]] * 28)), GROUP)
    words = {f"k{n}": "[" * 50 for n in range(20_000)}
    yield Attack("control submit", "many overrides",
                 once(_submit("script: x\n", overrides=words)), GROUP)  # fmt: skip
    yield Attack("control submit", "merges in an override",
                 once(_submit("script: x\n", overrides={"x": merges()[3:-12]})), GROUP)  # fmt: skip


def verb(name: str) -> list[Attack]:
    """One verb with arguments that are as long as they may be."""
    long = "x" * 2**20
    words = dict.fromkeys(("job", "host", "name", "path", "for", "why", "user", "box"), long)
    many = {"macs": ["52:54:00:00:00:02"] * 200_000, "health": ["x"] * 200_000}
    door = f"control {name}"
    asked = said(verb=name, **words, limit=10**9, until=9e9, seconds=1.0, on=True, older=1.0)
    return [
        Attack(door, "long words", once(asked), GROUP),
        Attack(door, "many words", once(said(verb=name, **many, state=["x"] * 200_000)), GROUP),
        Attack(door, "in a row",
               once(cbor2.dumps({"appliance": 1}) + cbor2.dumps({"verb": name}) * 500),
               GROUP, reads=False, seconds=1.0),
    ]  # fmt: skip


# --- a testbox at work: it knows its token, its job and what it is to fetch ---


@attrs.frozen
class Work:
    """What a box knows of its job."""

    job: str
    token: str
    root: str  # the URL path of its results
    kernel: str  # the URL path


def _put(work: Work, name: str) -> bytes:
    cookie = f"Cookie: JOBID={work.job}"
    return asked(f"PUT {work.root}/{name}", cookie, body=b"x", close=False)


def _form(work: Work, body: bytes) -> bytes:
    kind = "Content-Type: multipart/form-data; boundary=b"
    cookie = f"Cookie: JOBID={work.job}"
    return asked(f"POST {work.root}/f", cookie, kind, body=body)


FORMS: Mapping[str, bytes] = {
    "a form of returns": b"\r\n" * 2**22,
    "a form of beginnings": b"\r\n--" * 2**21,
    "a form of heads": b"--b\r\n" + b"a: b\r\n" * 2**20,
    "a form of parts": b"--b\r\nContent-Disposition: form-data; name=x\r\n\r\n\r\n" * 100_000,
}


def box(work: Work) -> Iterator[Attack]:
    """The worst that the box of a running job can do."""
    cookie = f"Cookie: JOBID={work.job}"
    cgz = f"/job_initrd_tmpfs/{work.job}/job.cgz"
    reports = f"/~lkp/{work.token}/cgi-bin/lkp-jobfile-append-var?job_id={work.job}"
    door = "upload"
    yield from http(door, f"PUT {work.root}/a", cookie, who=BOX)
    yield from http(door, f"MKCOL {work.root}/a/", cookie, who=BOX)
    for what, body in FORMS.items():
        yield Attack(door, what, once(_form(work, body)), BOX)
    deep = "/".join([LONG] * 70)
    yield Attack(door, "deep folders", lambda: (
        asked(f"MKCOL {work.root}/{n}/{deep}/", cookie, close=False) for n in range(300)
    ), BOX)  # fmt: skip
    yield Attack(door, "many files with long names", lambda: (
        _put(work, f"{n}{LONG}") for n in range(300)
    ), BOX, meanwhile="expressions as large as they may be")  # fmt: skip
    yield Attack(door, "unread answers", once(asked(f"GET {FOLDER}")), BOX, 200, reads=False)
    cgz_door = "scheduler /job_initrd_tmpfs/"
    yield from http(cgz_door, f"GET {cgz}", who=BOX)
    for method in ("GET", "HEAD"):
        yield Attack(cgz_door, f"{method} again and again",
                     once(asked(f"{method} {cgz}", close=False) * 200), BOX, 16)  # fmt: skip
    yield Attack(cgz_door, "unread", once(asked(f"GET {cgz}", close=False) * 50), BOX, 200,
                 reads=False)  # fmt: skip
    for part in ("&x=" + LONG * 40, "&" + "job_state=running&" * 500, "&message=" + "%00" * 3000):
        yield Attack("scheduler /~<user>/<token>/cgi-bin/<verb>", part[:12],
                     once(asked(f"GET {reports}{part}", close=False) * 100), BOX)  # fmt: skip
    later = asked(f"GET {work.kernel}", *["a:"] * 3500, close=False) * 5
    yield Attack("os", "questions behind its kernel, unread",
                 once(asked(f"GET {work.kernel}", close=False) + later), BOX, MANY,
                 reads=False)  # fmt: skip
    yield Attack("os", "its kernel again and again",
                 once(asked(f"GET {work.kernel}", close=False) * 500), BOX, 50)  # fmt: skip


def strangers() -> Iterator[Attack]:
    """The worst that anybody on the wire can do at the HTTP doors."""
    mac = "52-54-00-00-09-"
    paths = {
        "scheduler /boot.": "GET /boot.grub/mac/zz",
        "scheduler /cgi-bin/gpxelinux.cgi": "GET /~lkp/cgi-bin/gpxelinux.cgi?mac=zz",
        "scheduler /job_initrd_tmpfs/": "GET /job_initrd_tmpfs/lab.1/job.cgz",
        "scheduler /runner.cgz": "GET /runner.cgz",
        "scheduler /metrics": "GET /metrics",
        "scheduler /submit_job": "POST /submit_job",
        "scheduler /cancel_jobs": "POST /cancel_jobs",
        "scheduler /~<user>/<token>/cgi-bin/<verb>": "GET /~lkp/x/cgi-bin/lkp-wtmp",
        "scheduler /~<user>/cgi-bin/<verb>": "POST /~lkp/cgi-bin/report_ssh_info",
        "scheduler /renew_deadline": "GET /renew_deadline?job_id=lab.1",
        "scheduler /get_deadline": "GET /get_deadline?testbox=box-1",
        "scheduler /report_event": "POST /report_event",
        "scheduler /get_testbox": "GET /get_testbox?job_id=lab.1",
        "scheduler /<verb>": f"PUT /set_host_mac?hostname=x&mac={mac}01",
        "scheduler /heart-beat": "GET /heart-beat?type=vm&hostname=x",
        "scheduler /": "GET /",
        "scheduler ws /ws/": "GET /ws/boot.ipxe/mac/zz",
        "os": "GET /os/none",
        "initrd": "GET /initrd/none",
        "upload": "PUT /result/x/y",
        "results": "GET /result/none",
        "monitor": "GET /filter",
    }
    for door, line in paths.items():
        yield from http(door, line)
    yield from sockets("scheduler ws /ws/", "/ws/boot.container/hostname/dc-1")
    yield from sockets("scheduler ws /ws/", f"/ws/boot.ipxe/mac/{mac}01")
    yield from sockets("monitor ws /", "/filter")
    yield from _watchers()
    for what, body in {**JSONS, **JOBS}.items():
        for path in ("/submit_job", "/cancel_jobs"):
            yield Attack(f"scheduler {path}", what, once(asked(f"POST {path}", body=body)))
    slow = asked("POST /submit_job", body=JSONS["maps"])
    yield Attack("scheduler /submit_job", "bodies that stop short", once(slow[:-1]), clients=100)
    reports = {
        "scheduler /report_event": "POST /report_event",
        "scheduler /~<user>/cgi-bin/<verb>": "POST /~lkp/cgi-bin/report_ssh_info",
    }
    for door, line in reports.items():
        for what, body in JSONS.items():
            small = asked(line, body=body[:REPORT_BYTES], close=False)
            yield Attack(door, f"a small body of {what}", once(small * 50))
            yield Attack(door, f"small bodies of {what} that end at once",
                         partial(iter, [small[:-1], b"", small[-1:]]),
                         clients=MANY, together=True)  # fmt: skip
    for door in ("upload", "results"):
        for method in ("GET", "HEAD"):
            yield Attack(door, f"{method} of many names",
                         once(asked(f"{method} {FOLDER}")), clients=20)  # fmt: skip
        yield Attack(door, "unread pages of many names", once(asked(f"GET {FOLDER}")),
                     clients=200, reads=False)  # fmt: skip
    yield Attack("scheduler /metrics", "unread", once(asked("GET /metrics", close=False) * 200),
                 clients=200, reads=False)  # fmt: skip
    yield Attack("scheduler /boot.", "a thousand boxes of one address", lambda: (
        asked(f"GET /boot.ipxe/mac/{mac}{n % 256:02x}") for n in range(1)
    ), clients=300)  # fmt: skip
    yield Attack("scheduler /", "connections that ask for nothing", once(b"GET"), clients=1000)


def verbs(names: tuple[str, ...]) -> Iterator[Attack]:
    """Every verb of the command line."""
    for name in names:
        yield from verb(name)
