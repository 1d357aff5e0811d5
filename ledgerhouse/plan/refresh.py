"""Planning of the weekly refresh: which part of the history is read again.

A sync trusts what is covered and settled; somebody has to ask whether the vendor still says the
same. Which part is due follows from `ops.coverage` alone, which knows when every instant was last
read: no state of its own, so a failed, skipped or repeated week changes nothing but the order.

`quarter`  of each account's whole months (over for LONGEST_LOOKBACK), those read longest ago, until
           they hold a fourth of the rows: in PARTS weeks every month has been read, at an even
           cost. An API that cannot seek pays for all newer pages anyway, so it is read whole,
           once in PARTS weeks.
`full`     everything that is covered.
interval   what is covered of it.

Only what is covered is read: holes are the sync's, and every new row found here is one that came
later than any lookback reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from extract.core.interval import UTC, Interval, first_of_month, utc
from extract.core.source import Job, Source
from ledgerhouse.config import Account
from ledgerhouse.plan.coverage import (
    LONGEST_LOOKBACK,
    covered,
    events,
    known_states,
    with_parts,
)

if TYPE_CHECKING:
    import duckdb

QUARTER, FULL = "quarter", "full"
PARTS = 4
WEEK = timedelta(days=7)
ROWS_A_JOB = 20_000  # neighbouring months share a fetch: each fetch ends on half a page


@dataclass(frozen=True)
class Part:
    """A piece of an account's history: at most a month, covered, and when it was last read."""

    interval: Interval
    read_at: datetime
    rows: int


def jobs(
    con: duckdb.DuckDBPyConnection,
    sources: Mapping[str, Source],
    accounts: Iterable[Account],
    scope: str | Interval,
) -> list[Job]:
    """The fetches of a refresh, oldest first within an account; no snapshot of balances.

    No wallet is known (Job.known): each is walked, which proves that nothing was missed where one
    was taken to be as it was.
    """
    jobs = []
    for account in accounts:
        source = sources[account.source]
        parts = due(con, source, account.account, scope)
        planned = [
            Job(source.name, account.account, account.connection, span, span.start)
            for span in _fetches(source, parts)
        ]
        if "exchanges_ledger" not in source.mappings:
            states = known_states(con, source, account.account, LONGEST_LOOKBACK)
            planned = with_parts(planned, states, {}, None)
        jobs += planned
    return jobs


def newest(con: duckdb.DuckDBPyConnection, accounts: Iterable[Account]) -> datetime:
    """When the accounts were last read; an API that cannot seek is paged from there."""
    at = [
        at
        for account in accounts
        for (at,) in con.execute(
            "SELECT max(read_at) FROM ops.coverage WHERE source = ? AND account = ?",
            [account.source, account.account],
        ).fetchall()
        if at
    ]
    return utc(max(at)) if at else datetime.now(UTC)


def due(
    con: duckdb.DuckDBPyConnection, source: Source, account: str, scope: str | Interval
) -> list[Part]:
    """What of an account's history is to be read again, oldest first."""
    known = history(con, source, account)
    if scope == FULL:
        return known
    if isinstance(scope, Interval):
        return [
            Part(
                Interval(max(p.interval.start, scope.start), min(p.interval.end, scope.end)),
                p.read_at,
                p.rows,
            )
            for p in known
            if p.interval.start < scope.end and scope.start < p.interval.end
        ]
    if not known:
        return []
    end = known[-1].interval.end - LONGEST_LOOKBACK
    settled = [p for p in known if p.interval.end <= first_of_month(end)]
    if not source.monthly:
        # A month that has settled since the last time waits for the next.
        long_since = [p for p in settled if p.interval.end <= end - PARTS * WEEK] or settled
        [(last,)] = con.execute(
            "SELECT max(read_at) FROM ops.coverage WHERE source = ? AND account = ?",
            [source.name, account],
        ).fetchall()
        oldest = min((p.read_at for p in long_since), default=utc(last))
        return settled if utc(last) - oldest > PARTS * WEEK - WEEK / 2 else []
    chosen, share = [], 0
    for part in sorted(settled, key=lambda p: (p.read_at, p.interval)):
        if PARTS * share >= sum(p.rows + 1 for p in settled):
            break
        chosen.append(part)
        share += part.rows + 1  # an empty month costs a call too
    return sorted(chosen, key=lambda p: p.interval)


def history(con: duckdb.DuckDBPyConnection, source: Source, account: str) -> list[Part]:
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
        [source.name, account, events(source)],
    ).fetchall()
    segments = [(utc(start), utc(end), utc(at)) for start, end, at in read]
    rows = _rows_a_month(con, source, account)
    return [
        Part(
            month,
            min(at for start, end, at in segments if start < month.end and month.start < end),
            rows.get(first_of_month(month.start), 0),
        )
        for month in months
    ]


def _rows_a_month(con, source: Source, account: str) -> dict[datetime, int]:
    """First of a month → rows of the account's largest dataset, which decides the pages."""
    largest: dict[datetime, int] = {}
    for dataset in events(source):
        for month, rows in con.execute(
            f"SELECT date_trunc('month', ts)::TIMESTAMP, count(*) FROM raw.{dataset} "
            "WHERE source = ? AND account = ? AND vanished_at IS NULL GROUP BY 1",
            [source.name, account],
        ).fetchall():
            largest[utc(month)] = max(rows, largest.get(utc(month), 0))
    return largest


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
