"""A middleware with which Airflow 3.3's Test button tests a Connection that has no port.

The page sends port 0 for none; the server takes that for another destination than the stored one
and answers 400. Fixed in Airflow after 3.3.2 (apache/airflow pull request 73298): remove this
file and its line in plugin.py then. Nothing has the port 0, so no destination is let through.
"""

from __future__ import annotations

import json
from typing import Any

LONGEST = 1_000_000  # bytes; a longer body is passed on as it is


class Portless:
    """ASGI: a POST to …/api/v2/connections/test with port 0 goes on without a port."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            scope["type"] != "http"
            or scope["method"] != "POST"
            or not scope["path"].endswith("/api/v2/connections/test")
        ):
            return await self.app(scope, receive, send)
        messages, body = [], b""
        while len(body) < LONGEST:
            messages.append(await receive())
            body += messages[-1].get("body", b"")
            if messages[-1]["type"] != "http.request" or not messages[-1].get("more_body"):
                if (fixed := _without_port(body)) is not None:
                    messages = [{"type": "http.request", "body": fixed, "more_body": False}]
                    length = (b"content-length", str(len(fixed)).encode())
                    scope = scope | {
                        "headers": [
                            length if name == b"content-length" else (name, value)
                            for name, value in scope["headers"]
                        ]
                    }
                break

        async def replayed() -> Any:
            return messages.pop(0) if messages else await receive()

        await self.app(scope, replayed, send)


def _without_port(body: bytes) -> bytes | None:
    """The body without its port, where that is 0; None where it stays as it is."""
    try:
        data = json.loads(body)
    except ValueError:
        return None
    if not isinstance(data, dict) or data.get("port") != 0:
        return None
    return json.dumps(data | {"port": None}).encode()
