"""The in-memory wire carries what a real one would."""

from __future__ import annotations

from typing import Any

import h11
import pytest
import trio

from tests.fakes import Wire, begin, fetch

HALF_HOUR_S = 1800.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Says who asked what, and with which body."""
    body = b""
    while (event := await receive())["type"] == "http.request":
        body += event["body"]
        if not event["more_body"]:
            break
    said = repr((scope["method"], scope["raw_path"], scope["client"], scope["server"], body))
    headers = [(b"content-length", str(len(said)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": said.encode()})


async def patient(scope: Any, receive: Any, send: Any) -> None:
    """One chunk at once, one half an hour later."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"now\n", "more_body": True})
    await trio.sleep(HALF_HOUR_S)
    await send({"type": "http.response.body", "body": b"later\n"})


async def failing(scope: Any, receive: Any, send: Any) -> None:
    """Promises ten bytes and raises after three."""
    headers = [(b"content-length", b"10")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
    raise ValueError("planted")


async def test_addresses_target_and_body_arrive_as_sent(nursery, autojump_clock) -> None:
    wire = Wire(nursery, echo)

    answer = await fetch(
        wire, "PUT", "/a%2e?b", body=b"xyz", client=("127.1.2.3", 5), server=("10.9.9.9", 3080)
    )

    said = repr(("PUT", b"/a%2e", ("127.1.2.3", 5), ("10.9.9.9", 3080), b"xyz"))
    assert (200, said.encode()) == (answer.status, answer.body)


async def test_one_stream_takes_several_requests(nursery, autojump_clock) -> None:
    stream = Wire(nursery, echo).connect()

    answers = [await fetch(stream, "GET", f"/{n}") for n in range(3)]

    assert [200, 200, 200] == [answer.status for answer in answers]
    assert b"/2" in answers[2].body


async def test_half_an_hour_of_waiting_passes_in_virtual_time(nursery, autojump_clock) -> None:
    answer = await begin(Wire(nursery, patient), "GET", "/")

    assert b"now\n" == await answer.piece()
    assert 0.0 == trio.current_time()
    assert b"later\n" == await answer.piece()
    assert trio.current_time() == HALF_HOUR_S
    assert await answer.piece() is None


async def test_an_escaped_exception_is_kept_and_the_body_ends_short(
    nursery, autojump_clock
) -> None:
    wire = Wire(nursery, failing)
    answer = await begin(wire, "GET", "/")

    with pytest.raises(h11.RemoteProtocolError):
        await answer.rest()

    assert ["planted"] == [str(error) for error in wire.crashes]
