"""The most that each door takes: one byte, one value, one header more would be refused.

What is refused costs nothing behind the limit; what is just taken goes all the way: it is read,
checked, kept, written down and answered.  The limits are the program's own, so these inputs follow
them.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping

import cbor2

from appliance import json_text, yaml_text
from appliance.control import server
from appliance.doors import boot_wait_ws as websockets
from appliance.doors import reports, submits
from appliance.jobs.documents import cluster_spec
from appliance.scheduler import intake, queries, watching
from appliance.web import asgi

from .worst import ACCOUNT, CROWD, FOLDER, GROUP, Attack, asked, frame, handshake, once, said

DOCUMENT_BYTES = 2**20  # as configurations have it
ROOM = 64  # values of a job besides the ones that make it large, and bytes of a text
WIDE = "\U0001f600"  # in memory, every character of a text that has it takes four bytes


def _body(**fields: object) -> bytes:
    job = {"suite": "x", "testbox": "box-1", "script": "echo x\n"}
    return json.dumps({**ACCOUNT, **job, **fields}).encode()


def _package(size: int) -> dict[str, object]:
    """One that is kept: its md5 is right."""
    data = bytes(size // 4 * 3)
    content, md5 = base64.b64encode(data).decode(), hashlib.md5(data).hexdigest()
    return {"r": {"tag": "t", "md5": md5, "content": content}}


def _cluster(count: int, values: int) -> bytes:
    """A job of `count` nodes, with as many values for each as are taken of all together."""
    spec = {"nodes": {f"n{n}": {"roles": ["server"]} for n in range(count)}}
    return _body(cluster=f"c{count}", cluster_spec=spec, x=[[]] * values)


VALUES = yaml_text.VALUES_MAX - ROOM  # of one document, where each counts for itself
PAIRS = VALUES // 2
DEPTH = json_text.DEPTH_MAX - 4
LINE = "x" * 1000
STRING = json_text.LONG_BYTES - 1
TEXTS = DOCUMENT_BYTES // STRING - 1

BODIES: Mapping[str, bytes] = {
    "as many lists": _body(x=[[]] * (submits.VALUES_MAX // 2 - ROOM)),
    "as many numbers": _body(x=[0.5] * VALUES),
    "as many names": _body(x={f"k{n}": n for n in range(PAIRS)}),
    "as many names of fields": _body(**{f"k{n}": "$x" for n in range(PAIRS)}),
    "as many words, and as long": _body(x=["w" * (DOCUMENT_BYTES // VALUES - 8)] * VALUES),
    "as deep, again and again": _body(
        x=[json.loads("[" * DEPTH + "]" * DEPTH)] * (VALUES // DEPTH)
    ),
    "texts that are just not long": _body(**{f"k{n}": "x" * STRING for n in range(TEXTS)}),
    "as long a text": _body(script=f"{LINE}\n" * (DOCUMENT_BYTES // len(LINE) - 9)),
    "as long a wide text": _body(**{f"k{n}": WIDE * (STRING // 12) for n in range(TEXTS)}),
    "as large a package": _body(pkg_data=_package(submits.BODY_BYTES_MAX - 4096)),
    "five nodes": _cluster(5, intake.VALUES_MAX // 5 - ROOM),
    "as many nodes": _cluster(
        cluster_spec.NODES_MAX, intake.VALUES_MAX // cluster_spec.NODES_MAX - ROOM
    ),
}
# What is read, and only then found to be no document.
READ: Mapping[str, bytes] = {
    "more text than a document": _body(x=["x" * STRING] * (submits.TEXT_BYTES_MAX // STRING - 1)),
    "as many values as a body": _body(x=[0] * (submits.VALUES_MAX - ROOM)),
}


def _filled(text: str, size: int = DOCUMENT_BYTES - 4096) -> str:
    return text * (size // len(text.encode()))


def _merged(levels: int) -> str:
    """Merges that double, as far as their values are taken."""
    maps = [f"&m{n} {{<<: [*m{n - 1}, *m{n - 1}]}}" for n in range(1, levels)]
    return f"m: [&m0 {{k: v}}, {', '.join(maps)}]\nscript: x\n"


COPY = 4000  # bytes of a text that aliases write down again
PAPERS: Mapping[str, str] = {
    "as many lists": "x: [" + "[]," * VALUES + "]\nscript: x\n",
    "as many names": "script: x\nx:\n" + "".join(f"  k{n}: {n}\n" for n in range(PAIRS)),
    "as many names of fields": "script: x\n" + "".join(f"k{n}: $x\n" for n in range(PAIRS)),
    "as many anchors": "x: [" + ",".join(f"&a{n} 0" for n in range(VALUES)) + "]\nscript: x\n",
    "as many aliases": "x: [&a 0," + "*a," * VALUES + "]\nscript: x\n",
    "as many copies of a text": f"y: &a {'x' * COPY}\nx: ["
    + "*a," * (yaml_text.COPIED_MAX // COPY - 1) + "]\nscript: x\n",
    "as many merges": _merged(11),
    "as deep": "x: [" + ("[" * DEPTH + "]" * DEPTH + ",") * (VALUES // DEPTH) + "]\nscript: x\n",
    "as long a text": "script: |\n" + _filled("  echo x\n"),
    "as long a wide text": f'script: "{_filled(WIDE)}"\n',
    "as long a text in escapes": 'script: "' + _filled("\\x41") + '"\n',
    "as many programs": "script: x\npp:\n" + "".join(f"  p{n}: {{a: b}}\n" for n in range(90)),
    "numbers that are just taken": "x: [" + "1234567890," * VALUES + "]\nscript: x\n",
}  # fmt: skip


def _submit(what: str, *texts: str, **more: object) -> bytes:
    """With a key of its own, or the first one's jobs would be found."""
    papers = [{"name": f"{n}.yaml", "text": text, **more} for n, text in enumerate(texts)]
    key = hashlib.sha256(what.encode()).hexdigest()[:32]
    return said(verb="submit", key=key, documents=papers)


def _lists(values: int, size: int) -> str:
    """A document of so many values, and of so many bytes."""
    text = "script: x\nx: [" + "[]," * values + "]\n#"
    return text + "x" * (size - len(text))


def papers() -> Iterator[Attack]:
    """What anybody in the group may submit, and what is taken."""
    many, at_once = intake.DOCUMENTS_MAX, intake.READ_AT_ONCE_BYTES
    each = intake.VALUES_MAX // many - 8
    over = {f"k{n}": "[]" for n in range(PAIRS // 2)}
    sent = {
        **{what: _submit(what, text) for what, text in PAPERS.items()},
        "as many documents": _submit("a", *[_lists(each, 300)] * many),
        "as many documents of the size that is read at once":
            _submit("b", *[_lists(each, at_once)] * many),
        "as many as are read in a thread": _submit("c", *[_lists(each, at_once + 1)] * many),
        "two of the largest": _submit("d", *[_lists(VALUES, DOCUMENT_BYTES)] * 2),
        "as much text as a message": _submit("e", *[_lists(9, DOCUMENT_BYTES)] * 11),
        "as many overrides": _submit("f", "script: x\n", overrides=over),
        "as many mistakes": _submit("g", *["suite: '\x00'\n"] * many),
        "mistakes in a large document":
            _submit("h", "".join(f"on_fail.k{n}: [\x00]\n" for n in range(PAIRS))),
    }  # fmt: skip
    for what, data in sent.items():
        yield Attack("control submit", f"taken: {what}", once(data), GROUP)
    values = cbor2.dumps([0] * int(server.MESSAGE.values - ROOM))
    texts = cbor2.dumps(["x" * (int(server.MESSAGE.text) - 1)] * 2)
    greeting = cbor2.dumps({"appliance": 1})
    for what, data in {"values": values, "texts": texts}.items():
        yield Attack("control", f"as many {what} as are taken", once(greeting + data), GROUP)


_number = itertools.count()


def _expression() -> Iterator[bytes]:
    """A query that nobody else has asked, with expressions as large as they may be: 750 of 1,000.

    Two of those would be refused.  The words beside it are looked for one after the other.
    """
    number = next(_number)
    words = [f"{number}w{n}" for n in range(queries.EXPRESSIONS_MAX - 9)]
    query = json.dumps({"message": [f".{{1,40}}a.{{1,40}}{number}", *words]}).encode()
    return iter([handshake("/filter"), b"", frame(0x81, query)])


EXPRESSIONS = Attack(
    "monitor ws /", "expressions as large as they may be", _expression,
    clients=watching.PROGRAMS_MAX // 760,
)  # fmt: skip


def strangers() -> Iterator[Attack]:
    """What anybody on the wire may say, and what is taken."""
    for what, body in {**BODIES, **READ}.items():
        data = once(asked("POST /submit_job", body=body))
        yield Attack("scheduler /submit_job", f"taken: {what}", data)
    names = [f"lab.{n}".ljust(submits.JOB_CHARS_MAX, "x") for n in range(submits.CANCELS_MAX)]
    body = json.dumps({**ACCOUNT, "job_ids": names}).encode()
    yield Attack(
        "scheduler /cancel_jobs", "as many jobs", once(asked("POST /cancel_jobs", body=body))
    )
    small = json.dumps([0] * (reports.VALUES_MAX - 9)).encode()
    wide = json.dumps({f"k{n}": WIDE * 8 for n in range(reports.VALUES_MAX // 2 - 9)}).encode()
    for what, body in {"values": small, "wide words": wide[: reports.BODY_BYTES_MAX]}.items():
        many = asked("POST /report_event", body=body, close=False) * 50
        yield Attack("scheduler /report_event", f"as many {what}", once(many))
    headers = [f"h{n}: " + "v" * 120 for n in range(asgi.HEADERS_MAX - 4)]
    for door, line in {
        "scheduler /": "GET /", "os": "GET /os/none", "upload": "PUT /result/x/y",
        "results": f"GET {FOLDER}none", "monitor": "GET /filter",
    }.items():  # fmt: skip
        yield Attack(door, "as many headers", once(asked(line, *headers, close=False) * 20),
                     clients=CROWD)  # fmt: skip
    hello = handshake("/filter")
    jobs = b'{"job_id":[' + b",".join(b'"l.%d"' % n for n in range(7200)) + b"]}"
    numbers = b'{"job_id":[' + b",".join(b"%d" % n for n in range(queries.JOBS_MAX - 9)) + b"]}"
    assert max(len(jobs), len(numbers)) < websockets.MESSAGE_BYTES_MAX
    for what, query in {"jobs": jobs, "numbers": numbers}.items():
        yield Attack("monitor ws /", f"as many {what}", once(hello, frame(0x81, query) * 20),
                     clients=CROWD)  # fmt: skip
    yield EXPRESSIONS
