"""Spoiled answers: status 200, and not what the vendor meant to say.

Each function takes (rng, pages, path, body), `pages` saying where this vendor keeps its rows, and
gives the spoiled body, or None where the fault does not apply to such an answer. Amounts survive:
strings are strings, and a float that was written from its shortest text prints the same again.
"""

from __future__ import annotations

import json
from random import Random
from typing import Any
from urllib.parse import parse_qsl

from sandbox.vendor import Pages


def _page(pages: Pages, body: bytes) -> tuple[Any, list | dict]:
    """(the answer, the list or map of its rows); no rows where it is no page of history."""
    answer = json.loads(body)
    rows = pages.rows(answer)
    return answer, [] if rows is None else rows


def _asked(path: str) -> dict[str, str]:
    return dict(parse_qsl(path.partition("?")[2]))


def broken_json(rng: Random, _pages: Pages, _path: str, body: bytes) -> bytes | None:
    """The first part of it, as a proxy that gave up leaves it."""
    return body[: rng.randrange(1, len(body))] if len(body) > 1 else None


def empty_with_cursor(_rng: Random, pages: Pages, path: str, body: bytes) -> bytes | None:
    """No rows, and yet the page says that there are more."""
    answer, rows = _page(pages, body)
    if not rows:
        return None
    taken = list(rows.values()) if isinstance(rows, dict) else list(rows)
    rows.clear()
    return json.dumps(answer).encode() if pages.more(answer, taken, _asked(path)) else None


def repeated_cursor(_rng: Random, pages: Pages, path: str, body: bytes) -> bytes | None:
    """The cursor that was asked for is given as the next one."""
    answer = json.loads(body)
    if pages.rows(answer) is None or not pages.again(answer, _asked(path)):
        return None
    return json.dumps(answer).encode()


def duplicated_rows(rng: Random, pages: Pages, _path: str, body: bytes) -> bytes | None:
    """One to three rows come twice, so a page may be longer than it can be; a map cannot."""
    answer, rows = _page(pages, body)
    if not rows or isinstance(rows, dict):
        return None
    twice = {rng.randrange(len(rows)) for _ in range(3)}
    rows[:] = [row for n, row in enumerate(rows) for _ in range(2 if n in twice else 1)]
    return json.dumps(answer).encode()


def reordered_rows(rng: Random, pages: Pages, _path: str, body: bytes) -> bytes | None:
    """The same rows in another order, where their times differ."""
    answer, rows = _page(pages, body)
    mixed = list(rows.items()) if isinstance(rows, dict) else [(None, row) for row in rows]
    times = [pages.time(row) for _, row in mixed]
    if len(set(times)) < 2:
        return None
    while [pages.time(row) for _, row in mixed] == times:
        rng.shuffle(mixed)
    if isinstance(rows, dict):
        rows.clear()
        rows.update(mixed)
    else:
        rows[:] = [row for _, row in mixed]
    return json.dumps(answer).encode()


SPOILED = {
    f.__name__: f
    for f in (broken_json, empty_with_cursor, repeated_cursor, duplicated_rows, reordered_rows)
}
