"""Spoiled answers: status 200, and not what the vendor meant to say.

Each function takes (rng, vendor, path, body) and gives the spoiled body, or None where the
fault does not apply to such an answer. Amounts survive: strings are strings, and a float that
was written from its shortest text prints the same again.
"""

from __future__ import annotations

import json
from random import Random
from urllib.parse import parse_qsl

_LISTS = ("history_list", "data", "fills")
_TIMES = ("time_at", "created_at", "sequence_timestamp")


def _rows(body: bytes) -> tuple[dict, str, list] | None:
    """(the answer, the name of its list, the rows) of a page of history; None for anything else."""
    answer = json.loads(body)
    name = next(
        (n for n in _LISTS if isinstance(answer, dict) and isinstance(answer.get(n), list)), None
    )
    return (answer, name, answer[name]) if name else None


def _time(row: dict) -> object:
    return next((row[name] for name in _TIMES if name in row), None)


def _asked(path: str) -> dict[str, str]:
    return dict(parse_qsl(path.partition("?")[2]))


def broken_json(rng: Random, _vendor: str, _path: str, body: bytes) -> bytes | None:
    """The first part of it, as a proxy that gave up leaves it."""
    return body[: rng.randrange(1, len(body))] if len(body) > 1 else None


def empty_with_cursor(_rng: Random, vendor: str, path: str, body: bytes) -> bytes | None:
    """No rows, and yet a cursor to more; at DeBank no rows in the middle of a walk.

    DeBank has no cursors: a walk goes on one second after its last row, so that row is first.
    """
    page = _rows(body)
    if page is None or not page[2]:
        return None
    answer, name, rows = page
    answer[name] = []
    if vendor == "debank":
        begins = str(int(rows[0]["time_at"]) + 1)
        return json.dumps(answer).encode() if _asked(path).get("start_time") == begins else None
    if "pagination" in answer:
        answer["pagination"]["next_starting_after"] = rows[-1]["id"]
    else:
        answer["cursor"] = answer["cursor"] or "0-more"
    return json.dumps(answer).encode()


def repeated_cursor(_rng: Random, vendor: str, path: str, body: bytes) -> bytes | None:
    """The cursor that was asked for is given as the next one. DeBank has no cursors."""
    page = _rows(body)
    asked = _asked(path)
    cursor = asked.get("starting_after") or asked.get("cursor")
    if vendor != "coinbase" or page is None or not cursor:
        return None
    answer = page[0]
    if "pagination" in answer:
        answer["pagination"]["next_starting_after"] = cursor
    else:
        answer["cursor"] = cursor
    return json.dumps(answer).encode()


def duplicated_rows(rng: Random, _vendor: str, _path: str, body: bytes) -> bytes | None:
    """One to three rows come twice, so a page may be longer than it can be."""
    page = _rows(body)
    if page is None or not page[2]:
        return None
    answer, name, rows = page
    twice = {rng.randrange(len(rows)) for _ in range(3)}
    answer[name] = [row for n, row in enumerate(rows) for _ in range(2 if n in twice else 1)]
    return json.dumps(answer).encode()


def reordered_rows(rng: Random, _vendor: str, _path: str, body: bytes) -> bytes | None:
    """The same rows in another order, where their times differ."""
    page = _rows(body)
    if page is None or len({_time(row) for row in page[2]}) < 2:
        return None
    answer, name, rows = page
    times = [_time(row) for row in rows]
    while [_time(row) for row in rows] == times:
        rng.shuffle(rows)
    return json.dumps(answer).encode()


SPOILED = {
    f.__name__: f
    for f in (broken_json, empty_with_cursor, repeated_cursor, duplicated_rows, reordered_rows)
}
