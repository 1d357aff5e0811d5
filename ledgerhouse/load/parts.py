"""Parts of an account: those a fetch could not read, and what tells that one has not changed.

`ops.unread_parts` has a row for each part of which some time is unread, until a newer fetch has
read it; `ops.part_states` the text by which a fetch knows that it needs not read a part again.
Both follow from the headers of the landed files, so a replay makes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from extract.core.interval import utc

if TYPE_CHECKING:
    import duckdb

UNREAD = (
    "source, account, dataset, part, start_ts, end_ts, reason, first_tried_at, read_at, run_id, "
    "batch_id"
)
Key = tuple[str, str, str, str]  # source, account, dataset, part


def open_unread(con: duckdb.DuckDBPyConnection, headers: Sequence[Mapping[str, Any]]) -> None:
    """The temporary table `unread` of the batch: what its fetches could not read."""
    con.execute(
        "CREATE OR REPLACE TEMP TABLE unread (source VARCHAR, account VARCHAR, dataset VARCHAR, "
        "part VARCHAR, start_ts TIMESTAMP, end_ts TIMESTAMP, read_at TIMESTAMP)"
    )
    rows = [
        (h["source"], h["account"], u["dataset"], u["part"], *map(_naive, (u["start"], u["end"])),
         _naive(h["read_at"]))
        for h in headers
        for u in h.get("unread", ())
    ]  # fmt: skip
    if rows:
        con.executemany("INSERT INTO unread VALUES (?, ?, ?, ?, ?, ?, ?)", rows)


def record(
    con: duckdb.DuckDBPyConnection, headers: Sequence[Mapping[str, Any]], batch_id: str
) -> None:
    """Bring ops.unread_parts and ops.part_states up to date with the fetches of a batch."""
    for header in sorted(headers, key=lambda h: utc(h["read_at"])):
        _record_unread(con, header, batch_id)
        _record_states(con, header, batch_id)


def _record_unread(
    con: duckdb.DuckDBPyConnection, header: Mapping[str, Any], batch_id: str
) -> None:
    source, account, read_at = header["source"], header["account"], _naive(header["read_at"])
    known = {
        (row[2], row[3]): list(row)
        for row in con.execute(
            f"SELECT {UNREAD} FROM ops.unread_parts WHERE source = ? AND account = ?",
            [source, account],
        ).fetchall()
    }
    failed = {(u["dataset"], u["part"]): u for u in header.get("unread", ())}
    if not known and not failed:
        return
    for key, row in list(known.items()):
        if key not in failed and read_at > row[8]:
            for start, end in _read(header, *key):
                row[4], row[5] = _without(row[4], row[5], start, end)
            if row[4] >= row[5]:
                del known[key]
    read_since = _newer_states(con, source, account, read_at)
    for key, u in failed.items():
        if key[1] in read_since:  # loaded before this older fetch
            continue
        start, end = _naive(u["start"]), _naive(u["end"])
        new = [source, account, *key, start, end, u["reason"], read_at, read_at,
               header.get("run_id", ""), batch_id]  # fmt: skip
        if old := known.get(key):
            if old[8] > read_at:  # this fetch is the older one
                new[6], new[8:] = old[6], old[8:]
            new[4], new[5] = min(start, old[4]), max(end, old[5])
            new[7] = min(read_at, old[7])
        known[key] = new
    con.execute("DELETE FROM ops.unread_parts WHERE source = ? AND account = ?", [source, account])
    if known:
        con.executemany(
            f"INSERT INTO ops.unread_parts ({UNREAD}) VALUES ({', '.join('?' * 11)})",
            sorted(known.values(), key=lambda row: row[:4]),
        )


def _read(header: Mapping[str, Any], dataset: str, part: str) -> list[tuple[datetime, datetime]]:
    """The time of a part that a fetch has read, oldest first."""
    return sorted(
        (_naive(c["start"]), _naive(c["end"]))
        for c in header["covered"]
        if c["dataset"] == dataset and part in (c.get("parts") or [part])
    )


def _without(
    start: datetime, end: datetime, first: datetime, last: datetime
) -> tuple[datetime, datetime]:
    """[start, end) without [first, last), as one span: what is cut out of its middle stays."""
    if first <= start:
        start = max(start, last)
    elif last >= end:
        end = min(end, first)
    return start, end


def _record_states(
    con: duckdb.DuckDBPyConnection, header: Mapping[str, Any], batch_id: str
) -> None:
    source, account, read_at = header["source"], header["account"], _naive(header["read_at"])
    states: dict[str, str] = header.get("part_states") or {}
    read = {part for c in header["covered"] for part in c.get("parts") or ()}
    over = sorted({*states, *read, *(u["part"] for u in header.get("unread", ()))})
    if not over:
        return
    newer = _newer_states(con, source, account, read_at)
    parts = [part for part in over if part not in newer]
    con.execute(
        "DELETE FROM ops.part_states WHERE source = ? AND account = ? AND list_contains(?, part)",
        [source, account, parts],
    )
    kept = [part for part in parts if part in states]
    if kept:
        con.execute(
            "INSERT INTO ops.part_states (source, account, part, state, read_at, batch_id) "
            "SELECT ?, ?, unnest(?), unnest(?), ?, ?",
            [source, account, kept, [states[part] for part in kept], read_at, batch_id],
        )


def _newer_states(con, source: str, account: str, read_at: datetime) -> set[str]:
    """Parts that a newer fetch has read whole."""
    rows = con.execute(
        "SELECT part FROM ops.part_states WHERE source = ? AND account = ? AND read_at > ?",
        [source, account, read_at],
    ).fetchall()
    return {part for (part,) in rows}


def _naive(text: str) -> datetime:
    """Naive UTC, as DuckDB has it."""
    return utc(text).replace(tzinfo=None)
