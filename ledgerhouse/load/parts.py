"""Parts of an account: those a fetch could not read, and what tells that one has not changed.

`ops.unread_parts` has a row for each part of which some time is unread, until a newer fetch has
read it; `ops.part_states` the text by which a fetch knows that it needs not read a part again.
Both follow from the headers of the landed files, so a replay makes the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from extract.core.interval import Interval, utc

if TYPE_CHECKING:
    import duckdb

UNREAD = "dataset, part, start_ts, end_ts, reason, first_tried_at, read_at, run_id, batch_id"


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
    source, account, read_at = header["source"], header["account"], utc(header["read_at"])
    before = [
        _Unread(dataset, part, Interval(start, end), reason, utc(first), utc(last), run, batch)
        for dataset, part, start, end, reason, first, last, run, batch in con.execute(
            f"SELECT {UNREAD} FROM ops.unread_parts WHERE source = ? AND account = ? "
            "AND start_ts < end_ts",
            [source, account],
        ).fetchall()
    ]
    run_id = header.get("run_id", "")
    failed = [
        _Unread(u["dataset"], u["part"], Interval(u["start"], u["end"]), u["reason"], read_at,
                read_at, run_id, batch_id)
        for u in header.get("unread", ())
    ]  # fmt: skip
    if not before and not failed:
        return
    rows: list[_Unread] = []
    for row in before:
        read = _read(header, row, failed) if read_at > row.read_at else []
        rows += [replace(row, interval=left) for left in row.interval.minus(read)]
    read_since = _newer_states(con, source, account, read_at.replace(tzinfo=None))
    for new in failed:
        if new.part in read_since:  # loaded before this older fetch
            continue
        same = [row for row in rows if row.touches(new)]
        rows = [row for row in rows if row not in same]
        newest = max([*same, new], key=lambda row: row.read_at)
        rows.append(
            replace(
                newest,
                interval=Interval(
                    min(row.interval.start for row in (*same, new)),
                    max(row.interval.end for row in (*same, new)),
                ),
                first_tried_at=min(row.first_tried_at for row in (*same, new)),
            )
        )
    con.execute("DELETE FROM ops.unread_parts WHERE source = ? AND account = ?", [source, account])
    if rows:
        con.executemany(
            f"INSERT INTO ops.unread_parts (source, account, {UNREAD}) "
            f"VALUES ({', '.join('?' * 11)})",
            sorted([source, account, *row.values()] for row in rows),
        )


@dataclass(frozen=True)
class _Unread:
    """A row of ops.unread_parts."""

    dataset: str
    part: str
    interval: Interval
    reason: str
    first_tried_at: datetime
    read_at: datetime
    run_id: str
    batch_id: str

    def touches(self, other: _Unread) -> bool:
        """Whether both are of one part, and their times overlap or meet."""
        return (self.dataset, self.part) == (other.dataset, other.part) and (
            self.interval.start <= other.interval.end and other.interval.start <= self.interval.end
        )

    def values(self) -> list[Any]:
        """In the order of UNREAD; times as DuckDB has them."""
        times = (self.interval.start, self.interval.end)
        return [
            self.dataset,
            self.part,
            *(moment.replace(tzinfo=None) for moment in times),
            self.reason,
            *(moment.replace(tzinfo=None) for moment in (self.first_tried_at, self.read_at)),
            self.run_id,
            self.batch_id,
        ]


def _read(header: Mapping[str, Any], row: _Unread, failed: Sequence[_Unread]) -> list[Interval]:
    """The time of the row's part that a fetch has read, without what it could not read."""
    gaps = [f.interval for f in failed if (f.dataset, f.part) == (row.dataset, row.part)]
    return [
        span
        for c in header["covered"]
        if c["dataset"] == row.dataset
        and (c.get("parts") is None or row.part in c["parts"])
        and c["start"] < c["end"]
        for span in Interval(c["start"], c["end"]).minus(gaps)
    ]


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
