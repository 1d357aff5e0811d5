"""Coverage segments: when each span of time was last read whole, and so which rows have vanished.

A segment is a span [start, end) of a dataset that one fetch has read whole. `ops.coverage` keeps,
for every instant, the newest fetch that read it: disjoint segments, holes where none has. A row is
live when the newest fetch of its time had it; a fetch that is newer than all that had it, and
lacks it, says that the row has vanished at the vendor.
"""

from __future__ import annotations

import heapq
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


@dataclass(frozen=True)
class CoverageSegment:
    """What one fetch has read whole, or the part of it that is still the newest; times are naive
    UTC, as DuckDB has them.

    `read_at` is the vendor's clock when it began; `fresh`: part of the batch being loaded.
    """

    start: datetime
    end: datetime
    read_at: datetime
    reason: str
    run_id: str
    batch_id: str
    recorded_at: datetime
    parts: str | None = None  # JSON list of the parts of the account that were read; None: all
    fresh: bool = False

    def has_read(self, part: str) -> bool:
        """Whether rows of the part were read; of '', any that no fetch names apart."""
        return self.parts is None or part in json.loads(self.parts)


def newest(segments: Iterable[CoverageSegment]) -> list[CoverageSegment]:
    """The same instants as disjoint segments, each the newest there, oldest first.

    Among those of one `read_at` the one recorded before wins. O(n log n).
    """
    given = list(segments)
    begin = defaultdict(list)
    for number, segment in enumerate(given):
        begin[segment.start].append((-segment.read_at.timestamp(), segment.fresh, number))
    cuts = sorted({cut for segment in given for cut in (segment.start, segment.end)})
    heap: list[tuple] = []
    parts: list[tuple[int, datetime, datetime]] = []  # number in `given`, start, end
    for cut, following in zip(cuts, cuts[1:]):
        for entry in begin[cut]:
            heapq.heappush(heap, entry)
        while heap and given[heap[0][2]].end <= cut:
            heapq.heappop(heap)
        if not heap:
            continue
        number = heap[0][2]
        if parts and parts[-1][0] == number and parts[-1][2] == cut:
            parts[-1] = (number, parts[-1][1], following)
        else:
            parts.append((number, cut, following))
    return [replace(given[number], start=start, end=end) for number, start, end in parts]


NAMES = (
    "source, account, start_ts, end_ts, read_at, reason, run_id, batch_id, recorded_at, parts, "
    "fresh"
)
_FIELDS = "start_ts, end_ts, read_at, reason, run_id, batch_id, recorded_at, parts"


def open_segments(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    """Coverage as it will be after this batch, where the batch has rows: two temporary tables.

    Needs the batch's `pages` and `readings` (what its fetches read whole, see loader). Columns:
    source, account, the fields of CoverageSegment. `coverage_<dataset>` is what is known whole;
    `segments_<dataset>` is when rows were last read: by the part of the account in column `part`
    where a fetch has read some parts only, with '' for all other parts.
    """
    known: dict[tuple[str, str], list[CoverageSegment]] = defaultdict(list)
    for source, account, *fields in con.execute(
        f"SELECT source, account, {_FIELDS} FROM readings WHERE dataset = ? ORDER BY file",
        [dataset],
    ).fetchall():
        known[source, account].append(CoverageSegment(*fields, fresh=True))
    columns = (
        "source VARCHAR, account VARCHAR, start_ts TIMESTAMP, end_ts TIMESTAMP, read_at TIMESTAMP, "
        "reason VARCHAR, run_id VARCHAR, batch_id VARCHAR, recorded_at TIMESTAMP, parts VARCHAR, "
        "fresh BOOLEAN"
    )
    con.execute(f"CREATE OR REPLACE TEMP TABLE coverage_{dataset} ({columns})")
    con.execute(f"CREATE OR REPLACE TEMP TABLE segments_{dataset} ({columns}, part VARCHAR)")
    coverage, rows = [], []
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
        every = [*(CoverageSegment(*fields) for fields in before), *fresh]
        named = {part for s in every if s.parts for part in json.loads(s.parts)}
        coverage += [(source, account, *_values(s)) for s in newest(every)]
        for part in ("", *sorted(named)):
            read = newest(s for s in every if s.has_read(part))
            rows += [(source, account, *_values(s), part) for s in read]
    for table, lines in ((f"coverage_{dataset}", coverage), (f"segments_{dataset}", rows)):
        if lines:
            values = [list(column) for column in zip(*lines)]
            unnested = ", ".join("unnest(?)" for _ in values)
            names = NAMES if len(values) == len(NAMES.split()) else f"{NAMES}, part"
            con.execute(f"INSERT INTO {table} ({names}) SELECT {unnested}", values)


def _values(s: CoverageSegment) -> tuple:
    """The fields of a segment in the order of the tables' columns."""
    return (
        s.start,
        s.end,
        s.read_at,
        s.reason,
        s.run_id,
        s.batch_id,
        s.recorded_at,
        s.parts,
        s.fresh,
    )


def record(con: duckdb.DuckDBPyConnection, dataset: str) -> None:
    """Make `ops.coverage` say what coverage_<dataset> says; the rest of it stays."""
    con.execute(f"""
        DELETE FROM ops.coverage c USING (
            SELECT source, account, min(start_ts) AS lo, max(end_ts) AS hi FROM coverage_{dataset}
            GROUP BY ALL) r
        WHERE c.dataset = '{dataset}' AND (c.source, c.account) = (r.source, r.account)
          AND c.end_ts > r.lo AND c.start_ts < r.hi""")
    con.execute(
        f"INSERT INTO ops.coverage BY NAME SELECT '{dataset}' AS dataset, "
        f"* EXCLUDE (fresh) FROM coverage_{dataset}"
    )
