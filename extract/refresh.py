"""The weekly refresh: a part of the history is read again, and what that found is told.

A sync trusts what is covered and settled; somebody has to ask whether the vendor still says the
same. Which part is due follows from `ops.coverage` alone, which knows when every instant was last
read: no state of its own, so a failed, skipped or repeated week changes nothing but the order.

`quarter`  of each account's whole months (over for LONGEST_TAIL), those read longest ago, until
           they hold a fourth of the rows: in PARTS weeks every month has been read, at an even
           cost. An API that cannot seek pays for all newer pages anyway, so it is read whole,
           once in PARTS weeks.
`full`     everything that is covered.
interval   what is covered of it.

Only what is covered is read: holes are the sync's, and every new row found here is one that came
later than any tail reached.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from extract.coverage import LONGEST_TAIL, covered, events
from extract.core.datasets import DATASETS
from extract.history import row_key
from extract.core.datasets import Dataset
from extract.core.interval import UTC, Interval, union, utc
from extract.core.source import Job, Source
from ledgerhouse.config import Account
from ledgerhouse.warehouse.transaction import transaction

QUARTER, FULL = "quarter", "full"
PARTS = 4
WEEK = timedelta(days=7)
ROWS_A_JOB = 20_000   # neighbouring months share a fetch: each fetch ends on half a page
TOLD = 50             # rows listed one by one


@dataclass(frozen=True)
class Part:
    """A piece of an account's history: at most a month, covered, and when it was last read."""

    interval: Interval
    read_at: datetime
    rows: int


@dataclass(frozen=True)
class Found:
    """What a refresh found: rows of ops.refreshes, and the first TOLD rows late and vanished.

    `late` and `vanished` hold (dataset, account, key, when it happened, when that was met).
    """

    rows: tuple[dict[str, Any], ...]
    late: tuple[tuple, ...] = ()
    vanished: tuple[tuple, ...] = ()
    read: Interval | None = None

    def total(self, column: str) -> int:
        return sum(row[column] for row in self.rows)


def jobs(
    con, sources: Mapping[str, Source], accounts: Iterable[Account], scope: str | Interval
) -> list[Job]:
    """The fetches of a refresh, oldest first within an account; no snapshot of balances."""
    found = []
    for account in accounts:
        source = sources[account.source]
        parts = due(con, source, account.account, scope)
        for span in _fetches(source, parts):
            found.append(Job(source.name, account.account, account.connection, span, span.start))
    return found


def newest(con, accounts: Iterable[Account]) -> datetime:
    """When the accounts were last read; an API that cannot seek is paged from there."""
    at = [at for account in accounts for (at,) in con.execute(
        "SELECT max(read_at) FROM ops.coverage WHERE source = ? AND account = ?",
        [account.source, account.account]).fetchall() if at]
    return utc(max(at)) if at else datetime.now(UTC)


def due(con, source: Source, account: str, scope: str | Interval) -> list[Part]:
    """What of an account's history is to be read again, oldest first."""
    known = history(con, source, account)
    if scope == FULL:
        return known
    if isinstance(scope, Interval):
        return [Part(Interval(max(p.interval.start, scope.start), min(p.interval.end, scope.end)),
                     p.read_at, p.rows) for p in known
                if p.interval.start < scope.end and scope.start < p.interval.end]
    if not known:
        return []
    end = known[-1].interval.end - LONGEST_TAIL
    settled = [p for p in known if p.interval.end <= _first_of_month(end)]
    if not source.monthly:
        # A month that has settled since the last time waits for the next.
        long_since = [p for p in settled if p.interval.end <= end - PARTS * WEEK] or settled
        (last,) = con.execute("SELECT max(read_at) FROM ops.coverage WHERE source = ? AND "
                              "account = ?", [source.name, account]).fetchone()
        oldest = min((p.read_at for p in long_since), default=utc(last))
        return settled if utc(last) - oldest > PARTS * WEEK - WEEK / 2 else []
    chosen, share = [], 0
    for part in sorted(settled, key=lambda p: (p.read_at, p.interval)):
        if PARTS * share >= sum(p.rows + 1 for p in settled):
            break
        chosen.append(part)
        share += part.rows + 1  # an empty month costs a look too
    return sorted(chosen, key=lambda p: p.interval)


def history(con, source: Source, account: str) -> list[Part]:
    """All that every dataset of the account covers, cut at months, oldest first."""
    each = [covered(con, source.name, account, dataset) for dataset in events(source)]
    if not all(each):
        return []
    whole = Interval(min(spans[0].start for spans in each), max(spans[-1].end for spans in each))
    holes = [hole for spans in each for hole in whole.minus(spans)]
    months = [month for span in whole.minus(holes) for month in span.by_month()]
    read = con.execute(
        "SELECT start_ts, end_ts, read_at FROM ops.coverage WHERE source = ? AND account = ? AND "
        "dataset IN (SELECT unnest(?::VARCHAR[]))",
        [source.name, account, events(source)]).fetchall()
    segments = [(utc(start), utc(end), utc(at)) for start, end, at in read]
    rows = _rows_a_month(con, source, account)
    return [Part(month, min(at for start, end, at in segments
                            if start < month.end and month.start < end),
                 rows.get(_first_of_month(month.start), 0)) for month in months]


def _rows_a_month(con, source: Source, account: str) -> dict[datetime, int]:
    """First of a month → rows of the account's largest dataset, which decides the pages."""
    found: dict[datetime, int] = {}
    for dataset in events(source):
        for month, rows in con.execute(
                f"SELECT date_trunc('month', ts)::TIMESTAMP, count(*) FROM raw.{dataset} "
                "WHERE source = ? AND account = ? AND vanished_at IS NULL GROUP BY 1",
                [source.name, account]).fetchall():
            found[utc(month)] = max(rows, found.get(utc(month), 0))
    return found


def _first_of_month(moment: datetime) -> datetime:
    return moment.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def _fetches(source: Source, parts: list[Part]) -> list[Interval]:
    """Neighbouring parts together, up to ROWS_A_JOB; all in one where the API cannot seek."""
    if not source.monthly:
        return [Interval(parts[0].interval.start, parts[-1].interval.end)] if parts else []
    spans: list[Interval] = []
    room = 0
    for part in parts:
        if spans and spans[-1].end == part.interval.start and part.rows <= room:
            spans[-1] = Interval(spans[-1].start, part.interval.end)
        else:
            spans.append(part.interval)
            room = ROWS_A_JOB
        room -= part.rows
    return spans


def record(
    con, run_id: str, scope: str | Interval,
    estimated: Mapping[tuple[str, str], tuple[int, int]],
) -> Found:
    """Write what the run `run_id` read and found into ops.refreshes, once; and tell it.

    `estimated`: (source, account) → calls and units, beforehand. Whichever load took the
    run's files from the landing, its batches name the run.
    """
    spans: dict[tuple[str, str, str], list[Interval]] = defaultdict(list)
    for source, account, dataset, start, end in con.execute(
            "SELECT source, account, dataset, start_ts, end_ts FROM ops.coverage "
            "WHERE run_id = ? AND dataset <> 'balances'", [run_id]).fetchall():
        spans[source, account, dataset].append(Interval(start, end))
    spent = {(source, account): (calls, units) for source, account, calls, units in con.execute(
        "SELECT source, account, count(*), sum(units)::BIGINT FROM ops.api_calls "
        "WHERE run_id = ? GROUP BY ALL", [run_id]).fetchall()}
    counted, late, vanished = [], [], []
    for (source, account, name), read in sorted(spans.items()):
        for span in union(read):
            counts, new, gone = _judge(con, DATASETS[name], run_id, source, account, span)
            late, vanished = late + new, vanished + gone
            counted.append({"source": source, "account": account, "dataset": name,
                            "start_ts": span.start, "end_ts": span.end, **counts})
    rows, told = [], set()
    accounts = {(row["source"], row["account"]) for row in counted}
    # Nothing was read whole, but it was paid for.
    for source, account in sorted((spent.keys() | estimated.keys()) - accounts):
        counted.append({"source": source, "account": account, "dataset": "", "start_ts": None,
                        "end_ts": None, **dict.fromkeys(_COUNTS, 0)})
    for row in counted:
        who = (row["source"], row["account"])
        cost = (0, 0, 0, 0)
        if who not in told:
            cost = (*spent.get(who, (0, 0)), *estimated.get(who, (0, 0)))
        told.add(who)
        rows.append({"run_id": run_id, "scope": str(scope), **row, **dict(zip(_COSTS, cost))})
    _write(con, run_id, rows)
    every = [one for read in spans.values() for one in read]
    whole = Interval(min(s.start for s in every), max(s.end for s in every)) if every else None
    return Found(tuple(rows), tuple(late), tuple(vanished), whole)


_COUNTS = ("rows_new", "rows_changed", "rows_vanished", "rows_removed", "rows_same")
_COSTS = ("calls", "units", "estimated_calls", "estimated_units")


def _judge(con, dataset: Dataset, run_id: str, source: str, account: str, span: Interval
           ) -> tuple[dict[str, int], list[tuple], list[tuple]]:
    """Rows in the span by what became of them; those that came late; those that vanished."""
    bounds = {"source": source, "account": account, "run": run_id, "dataset": dataset.name}
    lo, hi = (t.replace(tzinfo=None) for t in (span.start, span.end))
    mine = ("(SELECT batch_id FROM ops.batches WHERE dataset = $dataset AND "
            "list_contains(string_split(run_id, ','), $run))")
    # A row with an older version that was current is not new; it may have vanished and be back.
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE met AS
        SELECT {row_key(dataset, 'r')} AS key, r.ts, r.first_seen_at, r.vanished_at,
               CASE WHEN r.vanished_at IS NOT NULL THEN 'vanished'
                    WHEN {row_key(dataset, 'r')} NOT IN (
                        SELECT key FROM raw.history WHERE dataset = $dataset AND change <> 'stale')
                    THEN 'new' ELSE 'changed' END AS verdict
        FROM {dataset.table} r
        WHERE r.source = $source AND r.account = $account AND r.ts >= '{lo}' AND r.ts < '{hi}'
          AND r.batch_id IN {mine}""", bounds)
    found = dict(con.execute("SELECT verdict, count(*) FROM met GROUP BY 1").fetchall())
    (removed,) = con.execute(
        "SELECT count(*) FROM raw.history WHERE dataset = $dataset AND change = 'removed' AND "
        "(key->>'$.source') = $source AND (key->>'$.account') = $account "
        f"AND ts >= '{lo}' AND ts < '{hi}' AND batch_id IN {mine}", bounds).fetchone()
    (live,) = con.execute(
        f"SELECT count(*) FROM {dataset.table} WHERE source = ? AND account = ? AND ts >= '{lo}' "
        f"AND ts < '{hi}' AND vanished_at IS NULL", [source, account]).fetchone()
    new, changed = found.get("new", 0), found.get("changed", 0)
    counts = {"rows_new": new, "rows_changed": changed,
              "rows_vanished": found.get("vanished", 0), "rows_removed": removed,
              "rows_same": live - new - changed}
    late = f"verdict = 'new' AND first_seen_at - ts > INTERVAL {LONGEST_TAIL.days} DAY"

    def listed(column: str, where: str) -> list[tuple]:
        return [(dataset.name, account, *row) for row in con.execute(
            f"SELECT key, ts, {column} FROM met WHERE {where} ORDER BY ts LIMIT {TOLD}").fetchall()]

    return (counts, listed("first_seen_at", late),
            listed("vanished_at", "verdict = 'vanished'"))


def _write(con, run_id: str, rows: list[dict[str, Any]]) -> None:
    """The run's rows of ops.refreshes, those of an earlier attempt replaced."""
    with transaction(con):
        con.execute("DELETE FROM ops.refreshes WHERE run_id = ?", [run_id])
        for row in rows:
            values = [v.replace(tzinfo=None) if isinstance(v, datetime) else v
                      for v in row.values()]
            con.execute(f"INSERT INTO ops.refreshes ({', '.join(row)}, recorded_at) VALUES "
                        f"({', '.join('?' * len(row))}, (now() AT TIME ZONE 'UTC')::TIMESTAMP)",
                        values)
