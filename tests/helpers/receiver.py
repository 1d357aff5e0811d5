"""A web server that is posted JSON, as a chat's or anybody's webhook is."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver(ThreadingHTTPServer):
    """`asked` keeps (path, headers, body, status) of every POST, which is answered with the next of
    `answers`, and with 200 when there is none left. 0 hangs up without an answer. `got` keeps the
    path of every GET, answered with the next of `get_answers`, or 200."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Answer)
        self.asked: list[tuple[str, dict, dict, int]] = []
        self.answers: list[int] = []
        self.got: list[str] = []
        self.get_answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_port}"

    def took(self) -> list[dict]:
        """The bodies that were answered with 200."""
        return [body for _, _, body, status in self.asked if status == 200]


class Answer(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        status = self.server.answers.pop(0) if self.server.answers else 200
        self.server.asked.append((self.path, dict(self.headers), json.loads(body), status))
        if status:
            self.send_response(status)
            self.send_header("Location", "/elsewhere")
            self.end_headers()
            self.wfile.write(b"ok" if status == 200 else self.path.encode())

    def do_GET(self) -> None:
        """A client that follows a redirect gets here, having posted nothing; and the heartbeat."""
        self.server.got.append(self.path)
        self.send_response(self.server.get_answers.pop(0) if self.server.get_answers else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
