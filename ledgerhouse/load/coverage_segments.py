"""Readings: when each span of time was last read whole, and so which rows a vendor has dropped.

A reading is one whole fetch of a dataset over [start, end). `ops.coverage` keeps, for every
instant, the newest reading of it: disjoint segments, holes where nobody has read. A row is live
when the newest reading of its time had it; a reading that is newer than all that had it, and
lacks it, says that it has vanished at the vendor.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True)
class Reading:
    """One reading, or what is left of it; times are naive UTC, as DuckDB has them.

    `read_at` is the vendor's clock when it began; `fresh`: part of the batch being loaded.
    """

    start: datetime
    end: datetime
    read_at: datetime
    reason: str
    run_id: str
    batch_id: str
    recorded_at: datetime
    fresh: bool = False


def newest(readings: Iterable[Reading]) -> list[Reading]:
    """The same instants as disjoint segments, each of the newest reading there, oldest first.

    Among readings of one `read_at` the one recorded before wins. O(n log n).
    """
    found = list(readings)
    begin = defaultdict(list)
    for number, one in enumerate(found):
        begin[one.start].append((-one.read_at.timestamp(), one.fresh, number))
    cuts = sorted({t for one in found for t in (one.start, one.end)})
    heap: list[tuple] = []
    segments: list[tuple[int, datetime, datetime]] = []
    for cut, following in zip(cuts, cuts[1:]):
        for entry in begin[cut]:
            heapq.heappush(heap, entry)
        while heap and found[heap[0][2]].end <= cut:
            heapq.heappop(heap)
        if not heap:
            continue
        number = heap[0][2]
        if segments and segments[-1][0] == number and segments[-1][2] == cut:
            segments[-1] = (number, segments[-1][1], following)
        else:
            segments.append((number, cut, following))
    return [replace(found[number], start=start, end=end) for number, start, end in segments]


_FIELDS = "start_ts, end_ts, read_at, reason, run_id, batch_id, recorded_at"


def open_reach(con, dataset: str) -> None:
    """reach_<dataset>: coverage as it will be after this batch, where the batch has rows.

    Needs the batch's `pages` and `readings` (see loader). Columns: source, account, the fields of Reading.
    """
    known: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    for source, account, *fields in con.execute(
        f"SELECT source, account, {_FIELDS} FROM readings WHERE dataset = ? ORDER BY file",
        [dataset],
    ).fetchall():
        known[source, account].append(Reading(*fields, fresh=True))
    con.execute(
        f"CREATE OR REPLACE TEMP TABLE reach_{dataset} (source VARCHAR, account VARCHAR, "
        "start_ts TIMESTAMP, end_ts TIMESTAMP, read_at TIMESTAMP, reason VARCHAR, "
        "run_id VARCHAR, batch_id VARCHAR, recorded_at TIMESTAMP, fresh BOOLEAN)"
    )
    rows = []
    for source, account, lo, hi in con.execute(
        "SELECT source, account, min(lo), max(hi) FROM pages GROUP BY ALL ORDER BY ALL"
    ).fetchall():
        fresh = known[source, account]
        before = con.execute(
            f"SELECT {_FIELDS} FROM ops.coverage WHERE source = ? AND account = ? AND "
            "dataset = ? AND end_ts > ? AND start_ts < ?",
            [
                source,
                account,
                dataset,
                min([lo, *(r.start for r in fresh)]),
                max([hi, *(r.end for r in fresh)]),
            ],
        ).fetchall()
        rows += [
            (
                source,
                account,
                s.start,
                s.end,
                s.read_at,
                s.reason,
                s.run_id,
                s.batch_id,
                s.recorded_at,
                s.fresh,
            )
            for s in newest([*(Reading(*fields) for fields in before), *fresh])
        ]
    if rows:
        columns = [list(column) for column in zip(*rows)]
        con.execute(
            f"INSERT INTO reach_{dataset} SELECT " + ", ".join("unnest(?)" for _ in columns),
            columns,
        )


def record(con, dataset: str) -> None:
    """Make `ops.coverage` say what reach_<dataset> says; the rest of it stays."""
    con.execute(f"""
        DELETE FROM ops.coverage c USING (
            SELECT source, account, min(start_ts) AS lo, max(end_ts) AS hi FROM reach_{dataset}
            GROUP BY ALL) r
        WHERE c.dataset = '{dataset}' AND (c.source, c.account) = (r.source, r.account)
          AND c.end_ts > r.lo AND c.start_ts < r.hi""")
    con.execute(
        f"INSERT INTO ops.coverage BY NAME SELECT '{dataset}' AS dataset, "
        f"* EXCLUDE (fresh) FROM reach_{dataset}"
    )
