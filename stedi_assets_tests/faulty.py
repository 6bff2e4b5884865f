"""A server before that of S3, which passes everything on but for what a test makes of it.

Knows HTTP, and of S3 only how an error is written.
"""

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Answer:
    """What is answered to a request."""

    status: int
    headers: dict[str, str]
    body: bytes


class Exchange(BaseHTTPRequestHandler):
    """A request, and what can be done with it. What a test does not answer is cut off."""

    server: "FaultyServer"
    protocol_version = "HTTP/1.1"

    def handle_request(self) -> None:
        self.close_connection = True
        self.server.fault(f"{self.command} {self.path}")(self)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = handle_request  # noqa: N815

    @property
    def length(self) -> int:
        """How long the request's body is."""
        return int(self.headers.get("Content-Length", 0))

    def ask(self) -> Answer:
        """What the server behind answers."""
        behind = HTTPConnection(self.server.behind, timeout=60)
        try:
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in {"connection", "expect"}:
                    behind.putheader(name, value)
            behind.endheaders(self.rfile.read(self.length))
            found = behind.getresponse()
            return Answer(found.status, dict(found.getheaders()), found.read())
        finally:
            behind.close()

    def give(self, answer: Answer, *, cut: bool = False) -> None:
        """Answer, or only the first half of it."""
        self.send_response_only(answer.status)
        for name, value in answer.headers.items():
            if name.lower() not in {"connection", "content-length", "transfer-encoding"}:
                self.send_header(name, value)
        of_head = {name.lower(): value for name, value in answer.headers.items()}
        length = of_head.get("content-length", "0") if self.command == "HEAD" else len(answer.body)
        self.send_header("Content-Length", str(length))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: tests look at `requests`."""


Fault = Callable[[Exchange], object]


def passed_on(exchange: Exchange) -> None:
    exchange.give(exchange.ask())


def answered_by(status: int, code: str) -> Fault:
    """S3's error, without asking the server behind; to HEAD it has no text."""

    def fault(exchange: Exchange) -> None:
        exchange.rfile.read(exchange.length)
        text = f"<Error><Code>{code}</Code><Message>So it is told.</Message></Error>"
        body = b"" if exchange.command == "HEAD" else text.encode()
        exchange.give(Answer(status, {"Content-Type": "application/xml"}, body))

    return fault


def cut_in_the_request(exchange: Exchange) -> None:
    """The connection ends when half of the request's body has come."""
    exchange.rfile.read(exchange.length // 2)
    exchange.connection.shutdown(socket.SHUT_RDWR)


def cut_in_the_answer(exchange: Exchange) -> None:
    """The connection ends when half of the answer's body has gone."""
    exchange.give(exchange.ask(), cut=True)


def cut_before_the_answer(exchange: Exchange) -> None:
    """The server behind has done what was asked for, and nobody hears of it."""
    exchange.ask()


def after(action: Callable[[], object]) -> Fault:
    """Something happens just before the server behind is asked."""

    def fault(exchange: Exchange) -> None:
        action()
        passed_on(exchange)

    return fault


def with_body(change: Callable[[bytes], bytes], **headers: str) -> Fault:
    """The answer has another body and its length; no checksum, if `headers` have none."""
    others = {name.replace("_", "-"): value for name, value in headers.items()}

    def fault(exchange: Exchange) -> None:
        answer = exchange.ask()
        kept = {
            name: value
            for name, value in answer.headers.items()
            if "checksum" not in name.lower() and name not in others
        }
        exchange.give(replace(answer, headers=kept | others, body=change(answer.body)))

    return fault


class FaultyServer(ThreadingHTTPServer):
    """See above.

    Attributes:
        behind: host and port of the other server.
        requests: the methods and paths of all requests that came.
    """

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.behind = urlsplit(behind).netloc
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[str] = []
        self._faults: list[tuple[re.Pattern[str], Iterator[int], Fault]] = []
        self._lock = threading.Lock()

    def make(self, fault: Fault, of: str = "", times: int | None = None, every: int = 1) -> None:
        """Make a fault of requests.

        Args:
            fault: what becomes of them.
            of: a regular expression that is found in their methods and paths.
            times: how many of them; all without it.
            every: of so many one, the last.
        """
        numbers = iter(range(1, times * every + 1)) if times else count(1)
        turns = (number % every for number in numbers)
        with self._lock:
            self._faults.append((re.compile(of), turns, fault))

    def mend(self) -> None:
        """From now on everything is passed on."""
        with self._lock:
            self._faults.clear()

    def fault(self, request: str) -> Fault:
        """What becomes of a request."""
        with self._lock:
            self.requests.append(request)
            for pattern, turns, fault in self._faults:
                if pattern.search(request) and next(turns, 1) == 0:
                    return fault
        return passed_on

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: a client that is gone, such as a process that was killed, is no fault here."""


@contextmanager
def faulty_server(behind: str) -> Iterator[FaultyServer]:
    """A server before the one at an address."""
    with FaultyServer(behind) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.05], daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()
