"""Report of a weekly refresh: its rows of ops.refreshes, and the late and vanished rows by name.

Only what is covered is read again (`ledgerhouse.plan.refresh`), so every new row is one that came
later than any lookback reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from extract.core.datasets import DATASETS, Dataset
from extract.core.interval import Interval, union
from ledgerhouse.load.history import row_key
from ledgerhouse.plan.coverage import LONGEST_LOOKBACK
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

MOST_LISTED = 50  # rows listed one by one


@dataclass(frozen=True)
class RefreshReport:
    """What a refresh found: its rows of ops.refreshes, and the first MOST_LISTED rows that came
    late or vanished, as (dataset, account, key, when it happened, when that was seen)."""

    rows: tuple[dict[str, Any], ...]
    late: tuple[tuple, ...] = ()
    vanished: tuple[tuple, ...] = ()
    read: Interval | None = None

    def total(self, column: str) -> int:
        """The sum of a column over all rows."""
        return sum(row[column] for row in self.rows)


def record(
    con: duckdb.DuckDBPyConnection,
    run_id: str,
    scope: str | Interval,
    estimated: Mapping[tuple[str, str], tuple[int, int]],
) -> RefreshReport:
    """Write what the run `run_id` read and found into ops.refreshes, once; and report it.

    `estimated`: (source, account) → calls and units, beforehand. Whichever load took the
    run's files from the landing, its batches name the run.
    """
    spans: dict[tuple[str, str, str], list[Interval]] = defaultdict(list)
    for source, account, dataset, start, end in con.execute(
        "SELECT source, account, dataset, start_ts, end_ts FROM ops.coverage "
        "WHERE run_id = ? AND dataset NOT IN ('balances', 'positions')",
        [run_id],
    ).fetchall():
        spans[source, account, dataset].append(Interval(start, end))
    spent = {
        (source, account): (calls, units)
        for source, account, calls, units in con.execute(
            "SELECT source, account, count(*), sum(units)::BIGINT FROM ops.api_calls "
            "WHERE run_id = ? GROUP BY ALL",
            [run_id],
        ).fetchall()
    }
    counted, late, vanished = [], [], []
    for (source, account, name), intervals in sorted(spans.items()):
        for span in union(intervals):
            counts, new, gone = _judge(con, DATASETS[name], run_id, source, account, span)
            late, vanished = late + new, vanished + gone
            counted.append(
                {
                    "source": source,
                    "account": account,
                    "dataset": name,
                    "start_ts": span.start,
                    "end_ts": span.end,
                    **counts,
                }
            )
    rows, reported = [], set()
    accounts = {(row["source"], row["account"]) for row in counted}
    # Nothing was read whole, but it was paid for.
    for source, account in sorted((spent.keys() | estimated.keys()) - accounts):
        counted.append(
            {
                "source": source,
                "account": account,
                "dataset": "",
                "start_ts": None,
                "end_ts": None,
                **dict.fromkeys(_COUNTS, 0),
            }
        )
    for row in counted:
        account_key = (row["source"], row["account"])
        cost = (0, 0, 0, 0)
        if account_key not in reported:
            cost = (*spent.get(account_key, (0, 0)), *estimated.get(account_key, (0, 0)))
        reported.add(account_key)
        rows.append({"run_id": run_id, "scope": str(scope), **row, **dict(zip(_COSTS, cost))})
    _write(con, run_id, rows)
    every = [interval for read in spans.values() for interval in read]
    read = Interval(min(i.start for i in every), max(i.end for i in every)) if every else None
    return RefreshReport(tuple(rows), tuple(late), tuple(vanished), read)


_COUNTS = ("rows_new", "rows_changed", "rows_vanished", "rows_removed", "rows_same")
_COSTS = ("calls", "units", "estimated_calls", "estimated_units")


def _judge(
    con, dataset: Dataset, run_id: str, source: str, account: str, span: Interval
) -> tuple[dict[str, int], list[tuple], list[tuple]]:
    """Rows in the span by what became of them; those that came late; those that vanished."""
    bounds = {"source": source, "account": account, "run": run_id, "dataset": dataset.name}
    lo, hi = (t.replace(tzinfo=None) for t in (span.start, span.end))
    mine = (
        "(SELECT batch_id FROM ops.batches WHERE dataset = $dataset AND "
        "list_contains(string_split(run_id, ','), $run))"
    )
    # A row with an older version that was current is not new; it may have vanished and be back.
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE run_rows AS
        SELECT {row_key(dataset, "r")} AS key, r.ts, r.first_seen_at, r.vanished_at,
               CASE WHEN r.vanished_at IS NOT NULL THEN 'vanished'
                    WHEN {row_key(dataset, "r")} NOT IN (
                        SELECT key FROM raw.history WHERE dataset = $dataset AND change <> 'stale')
                    THEN 'new' ELSE 'changed' END AS verdict
        FROM {dataset.table} r
        WHERE r.source = $source AND r.account = $account AND r.ts >= '{lo}' AND r.ts < '{hi}'
          AND r.batch_id IN {mine}""",
        bounds,
    )
    verdicts = dict(con.execute("SELECT verdict, count(*) FROM run_rows GROUP BY 1").fetchall())
    (removed,) = con.execute(
        "SELECT count(*) FROM raw.history WHERE dataset = $dataset AND change = 'removed' AND "
        "(key->>'$.source') = $source AND (key->>'$.account') = $account "
        f"AND ts >= '{lo}' AND ts < '{hi}' AND batch_id IN {mine}",
        bounds,
    ).fetchone()
    (live,) = con.execute(
        f"SELECT count(*) FROM {dataset.table} WHERE source = ? AND account = ? AND ts >= '{lo}' "
        f"AND ts < '{hi}' AND vanished_at IS NULL",
        [source, account],
    ).fetchone()
    new, changed = verdicts.get("new", 0), verdicts.get("changed", 0)
    counts = {
        "rows_new": new,
        "rows_changed": changed,
        "rows_vanished": verdicts.get("vanished", 0),
        "rows_removed": removed,
        "rows_same": live - new - changed,
    }
    late = f"verdict = 'new' AND first_seen_at - ts > INTERVAL {LONGEST_LOOKBACK.days} DAY"

    def listed(column: str, where: str) -> list[tuple]:
        return [
            (dataset.name, account, *row)
            for row in con.execute(
                f"SELECT key, ts, {column} FROM run_rows WHERE {where} ORDER BY ts LIMIT {MOST_LISTED}"
            ).fetchall()
        ]

    return (counts, listed("first_seen_at", late), listed("vanished_at", "verdict = 'vanished'"))


def _write(con, run_id: str, rows: list[dict[str, Any]]) -> None:
    """The run's rows of ops.refreshes, those of an earlier attempt replaced."""
    with transaction(con):
        con.execute("DELETE FROM ops.refreshes WHERE run_id = ?", [run_id])
        for row in rows:
            values = [
                v.replace(tzinfo=None) if isinstance(v, datetime) else v for v in row.values()
            ]
            con.execute(
                f"INSERT INTO ops.refreshes ({', '.join(row)}, recorded_at) VALUES "
                f"({', '.join('?' * len(row))}, (now() AT TIME ZONE 'UTC')::TIMESTAMP)",
                values,
            )
