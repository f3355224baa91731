"""What is asked for and is no path: each door says what would be right, and none breaks."""

from __future__ import annotations

import pytest

from appliance.web.asgi import HEADERS_MAX
from tests.lab import open_lab

from .strangers import STRANGER, exchange

# RFC 9112, 3.2: a request to a server names a path; the other three forms are for proxies, for
# tunnels and for the server as a whole, and h11 lets through more than all of them.
TARGETS = [
    "?x",
    "*",
    "x",
    "http://x/y",
    "http://x/",
    "http:",
    "http://x?y",
    "a:1",
    "#",
    "?",
    "%2fx",
]
METHODS = ["GET", "HEAD", "OPTIONS", "CONNECT", "PUT", "POST"]


def doors(lab):
    return sorted(lab.wire.app._by_port)


@pytest.mark.parametrize("target", TARGETS)
async def test_a_target_that_is_no_path_is_400_at_every_door(autojump_clock, capsys, target):
    async with open_lab() as lab:
        assert 6 == len(doors(lab))
        for port in doors(lab):
            for method in METHODS:
                sent = f"{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
                answer = await exchange(lab, STRANGER, [sent.encode()], ("10.0.0.1", port))

                assert answer.startswith(b"HTTP/1.1 400 "), (port, method, answer)
                if method != "HEAD":
                    assert b"\r\n\r\nask for a path, which begins with a slash" in answer
        assert 36 == capsys.readouterr().out.count("no path")


@pytest.mark.parametrize("target", TARGETS)
async def test_a_websocket_that_names_no_path_is_refused_at_every_door(autojump_clock, target):
    async with open_lab() as lab:
        for port in doors(lab):
            sent = (
                f"GET {target} HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
                "sec-websocket-version: 13\r\nsec-websocket-key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            )
            answer = await exchange(lab, STRANGER, [sent.encode()], ("10.0.0.1", port))

            assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 400 ")), (port, answer)


@pytest.mark.parametrize("more", [0, 1])
async def test_a_request_with_too_many_headers_is_431_at_every_door(autojump_clock, more):
    """With as many as there may be, each door answers as it would without."""
    async with open_lab() as lab:
        for port in doors(lab):
            head = ["host: x", "connection: close"]
            head += ["a: b"] * (HEADERS_MAX - len(head) + more)
            sent = "GET /none HTTP/1.1\r\n" + "".join(f"{line}\r\n" for line in head) + "\r\n"
            answer = await exchange(lab, STRANGER, [sent.encode()], ("10.0.0.1", port))

            assert answer.startswith(b"HTTP/1.1 431 ") == bool(more), (port, answer)
            if more:
                assert b"at most 100 headers" in answer
