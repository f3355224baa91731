"""The client's end of the control socket; blocking, since a command asks one thing at a time."""

from __future__ import annotations

import re
import socket
import subprocess
from collections.abc import Iterator
from types import TracebackType
from typing import Any

import cbor2

from appliance import cbor_items, errors

PROTOCOL = 1
# No name may begin with a dash: ssh would take it for an option.
_SSH = re.compile(
    r"ssh://(?P<where>([A-Za-z0-9_][\w.-]*@)?[A-Za-z0-9_][\w.-]*)(:(?P<port>[0-9]{1,5}))?/?"
)


class Server:
    """A connection to the server."""

    def __init__(self, there: socket.socket) -> None:
        """Exchanges greetings over `there`.  Raises NotRunning if no server answers."""
        self._socket = there
        self._messages = self._receive()
        self.hello = next(self._messages)
        self._send({"appliance": PROTOCOL})

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        """Returns the result of one verb.  Raises the error that the server sends."""
        *_, last = self.follow(verb, **arguments)
        result: dict[str, Any] = last["result"]
        return result

    def follow(self, verb: str, **arguments: Any) -> Iterator[dict[str, Any]]:
        """Yields the events of one verb as {"event": ...}, then its {"result": ...}."""
        self._send({"verb": verb, **arguments})
        for message in self._messages:
            if "error" in message:
                raise _error(message["error"])
            yield message
            if "result" in message:
                return
        raise errors.NotRunning("the server went away")

    def _send(self, message: dict[str, Any]) -> None:
        try:
            self._socket.sendall(cbor2.dumps(message))
        except UnicodeEncodeError as error:
            raise errors.BadRequest(f"{error.object!r} is no UTF-8") from error
        except OSError as error:
            # A server that refuses a request need not have read all of it.
            for answer in self._messages:
                if "error" in answer:
                    raise _error(answer["error"]) from error
            raise errors.NotRunning("the server went away") from error

    def _receive(self) -> Iterator[dict[str, Any]]:
        decoder = cbor_items.Decoder()
        while data := self._data():
            for message, _ in decoder.feed(data):
                yield message
        raise errors.NotRunning("the server went away")

    def _data(self) -> bytes:
        try:
            return self._socket.recv(2**20)
        except ConnectionError:  # the server was killed before it read our message
            return b""


def _error(error: dict[str, Any]) -> errors.ApplianceError:
    if error["kind"] == "bad-document":
        return errors.BadDocument([errors.Problem(**problem) for problem in error["problems"]])
    return errors.of_kind(error["kind"])(error["message"])


def connect_to(path: str) -> socket.socket:
    """Connects to the control socket.  Raises NotRunning; Refused without permission for it."""
    there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        there.connect(path)
    except PermissionError as error:
        there.close()
        raise errors.Refused(f"{path}: only root and the group appliance may use it") from error
    except OSError as error:
        there.close()
        raise errors.NotRunning(
            f"no server answers at {path} ({error.strerror}); is `appliance serve` running?"
        ) from error
    return there


def connect_over_ssh(url: str) -> socket.socket:
    """Connects to the control socket of another machine, `ssh://[user@]host[:port]`.

    ssh prints its own messages on standard error.  Raises BadRequest, and NotRunning if ssh
    cannot be started.
    """
    match = _SSH.fullmatch(url)
    if match is None:
        raise errors.BadRequest(f"{url!r} should be ssh://[user@]host[:port]")
    port = ["-p", match["port"]] if match["port"] else []
    ours, theirs = socket.socketpair()
    command = ["ssh", "-T", *port, "--", match["where"], "appliance", "control-proxy"]
    try:
        subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
    except OSError as error:
        raise errors.NotRunning(f"ssh does not start: {error.strerror}") from error
    finally:
        theirs.close()
    return ours
