"""Hostile answers: a host that wastes its caller's time or memory, or leads it elsewhere.

drip          the right answer, a byte every `pause` seconds
endless       a list without an end, as fast as it is read
bomb          a few MB of gzip that are 1 GB of JSON
redirect      302 to the same address on another host, which does answer there
deep_json     100,000 lists in one another
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import chain, repeat
from urllib.parse import urlsplit

from starlette.responses import Response

from sandbox.faults.faults import HOSTILE

DEEP = 100_000
_OPEN, _CLOSE = b'{"history_list": [], "balance": 1, "data": [', b"]}"
_BLANKS, _MEMBERS = 16 << 20, 64  # a bomb: so many blanks in each of so many members of its gzip


async def answer(kind: str, pause: float, start: dict, body: bytes, scope, receive, send) -> None:
    """Answers in the way of `kind`; `start` and `body` are the vendor's own answer."""
    assert kind in HOSTILE
    media = "application/json"
    if kind == "redirect":
        headers = {"Location": elsewhere(scope)}
        await Response(b"", 302, headers=headers)(scope, receive, send)
    elif kind == "deep_json":
        deep = b'{"data": ' + b"[" * DEEP + b"]" * DEEP + b"}"
        await Response(deep, media_type=media)(scope, receive, send)
    elif kind == "drip":
        await _stream(start, (body[n : n + 1] for n in range(len(body))), pause, receive, send)
    else:
        headers = [(b"content-type", media.encode())]
        headers += [(b"content-encoding", b"gzip")] if kind == "bomb" else []
        start = {"type": "http.response.start", "status": 200, "headers": headers}
        await _stream(start, _bomb() if kind == "bomb" else _endless(), 0.0, receive, send)


def elsewhere(scope) -> str:
    """The address that was asked for, on another host: the loopback's other name."""
    asked = dict(scope["headers"]).get(b"host", b"").decode()
    host = urlsplit(f"//{asked}")
    other = "127.0.0.1" if host.hostname == "localhost" else "localhost"
    query = scope["query_string"].decode()
    return f"http://{other}:{host.port or 80}{scope['path']}" + (f"?{query}" if query else "")


def _endless() -> Iterator[bytes]:
    rows = b",".join([b'{"id": "0"}'] * 4096)
    return chain([_OPEN, rows], repeat(b"," + rows))


def _bomb() -> Iterator[bytes]:
    return chain([gzip.compress(_OPEN)], repeat(_blanks(), _MEMBERS), [gzip.compress(_CLOSE)])


@cache
def _blanks() -> bytes:
    return gzip.compress(b" " * _BLANKS)


async def _stream(start: dict, chunks: Iterable[bytes], pause: float, receive, send) -> None:
    """Send the chunks, `pause` seconds apart, until there are no more or the client hangs up."""

    async def hung_up() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    gone = asyncio.ensure_future(hung_up())
    try:
        await send(start)
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await asyncio.wait({gone}, timeout=pause)
            if gone.done():
                return
        await send({"type": "http.response.body", "body": b""})
    finally:
        gone.cancel()
