"""The server that the runner talks to: real sockets, and it takes notes."""

from __future__ import annotations

import re
import select
import socket
import socketserver
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote

import attrs


@attrs.frozen
class Request:
    method: str
    path: str
    cookie: str | None
    body: bytes


@attrs.define
class Server:
    """Says yes to everything, unless `answer` (status and body for a request) says otherwise."""

    answer: Callable[[Request], tuple[int, str] | None] = lambda request: None
    requests: list[Request] = attrs.field(factory=list)
    hasty: str = "\n"  # a PUT whose path ends so is refused before its body is read
    watchful: bool = False  # a client that shuts its side down before the answer gets none
    port: int = 0
    _tcp: Any = None

    def start(self) -> None:
        """Listens: the first time on any port, then on the same one again."""
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one(self) -> None:
                if self.command == "PUT" and self.path.endswith(server.hasty):
                    self.send_error(413)
                    self.close_connection = True
                    return
                size = int(self.headers.get("content-length") or 0)
                request = Request(
                    self.command, self.path, self.headers.get("cookie"), self.rfile.read(size)
                )
                server.requests.append(request)
                if server.watchful and self.gone():
                    self.close_connection = True  # as Hypercorn: nobody is there to be answered
                    return
                usual = "yes" if "still-wanted" in self.path else "Done"
                status, text = server.answer(request) or (200, usual)
                self.send_response(status if self.command == "GET" or status != 200 else 201)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def gone(self) -> bool:
                there, _, _ = select.select([self.connection], [], [], 0.05)
                return bool(there) and b"" == self.connection.recv(1, socket.MSG_PEEK)

            do_GET = do_PUT = handle_one

            def log_message(self, *arguments: object) -> None:
                pass

        class Threads(socketserver.ThreadingMixIn, socketserver.TCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 20

            def handle_error(self, request: object, client_address: object) -> None:
                pass  # a client that hangs up is not this server's error

        self._tcp = Threads(("127.0.0.1", self.port), Handler)
        self.port = self._tcp.server_address[1]
        threading.Thread(target=self._tcp.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        """Refuses connections from now on."""
        self._tcp.shutdown()
        self._tcp.server_close()

    @property
    def reports(self) -> list[str]:
        """The literal GETs in order, polls left out but the first."""
        gets = [request.path for request in self.requests if request.method == "GET"]
        return [
            path for n, path in enumerate(gets) if n == 0 or "/cgi-bin/still-wanted?" not in path
        ]

    @property
    def states(self) -> list[str]:
        """The job_state words in order."""
        found = (re.search(r"&job_state=([^&]*)", request.path) for request in self.requests)
        return [match[1] for match in found if match]

    @property
    def files(self) -> dict[str, bytes]:
        """What was put, by its name below the result root as the server would read it."""
        root = "/result/hello/box/lab.1/"
        return {
            unquote(request.path).removeprefix(root): request.body
            for request in self.requests
            if request.method == "PUT"
        }
