"""control/client: the client's end of the control socket."""

from __future__ import annotations

import socket
import threading

import cbor2
import pytest

from appliance.control.client import PROTOCOL, Server
from appliance.errors import BadRequest, NotRunning

HELLO = cbor2.dumps({"appliance": PROTOCOL, "version": "", "lab": "lab", "pid": 1})
LONG = "x" * 2**23  # more than a socket holds: the server has gone before all of it is sent


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (cbor2.dumps({"error": {"kind": "bad-request", "message": "too long"}}), BadRequest,
         "too long"),
        (b"", NotRunning, "went away"),
    ],
)  # fmt: skip
def test_what_a_server_says_before_it_has_read_all_is_heard(answer, error, words):
    """Else a document that is too long was "not known", to be sent again, for ever."""
    ours, theirs = socket.socketpair()

    def serve():
        theirs.sendall(HELLO)
        theirs.recv(2**10)
        theirs.sendall(answer)
        theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with Server(ours) as server, pytest.raises(error, match=words):
            server.ask("submit", documents=[{"text": LONG}], key="k")
    finally:
        thread.join()
