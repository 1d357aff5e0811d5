"""Planning of a sync from coverage: what is known already, and so which fetches are left to make.

Coverage is a set of half-open intervals per source, account and dataset, written by the loader
in the transaction that wrote their rows. What a run fetches = what was requested − what is
covered; plus the lookback, the recent past that may still change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from extract.core.datasets import DATASETS
from extract.core.interval import Interval, union, utc
from extract.core.source import Job, Source
from ledgerhouse.config import Account

if TYPE_CHECKING:
    import duckdb

# Vendors index late (minutes, rarely hours) and re-categorise recent rows: so much is read again
# whatever was learned. Less would save calls and risk a row.
LOOKBACK = timedelta(hours=24)
LONGEST_LOOKBACK = timedelta(days=7)  # one row that came months late must not raise every bill
LONGEST_PENDING = timedelta(days=30)  # what is pending for longer is left to the weekly refresh
LEARN_FROM = timedelta(days=90)
PENDING = ("pending", "waiting_for_clearing", "waiting_for_signature")
SLOWEST = 0.999  # the quantile that counts
MARGIN = 1.25


def covered(
    con: duckdb.DuckDBPyConnection, source: str, account: str, dataset: str
) -> list[Interval]:
    """Merged intervals over which the dataset is complete, oldest first."""
    rows = con.execute(
        "SELECT start_ts, end_ts FROM ops.covered_spans WHERE source = ? AND account = ? AND "
        "dataset = ? ORDER BY start_ts",
        [source, account, dataset],
    ).fetchall()
    return [Interval(a, b) for a, b in rows]


def unsettled(
    con: duckdb.DuckDBPyConnection,
    source: str,
    account: str,
    dataset: str,
    since: datetime,
    back: timedelta,
) -> list[Interval]:
    """What is covered from `back` before `since` on, and was read less than `back` after it
    happened: rows may have come or changed since. What was read later need not be read again.
    """
    rows = con.execute(
        "SELECT start_ts, end_ts FROM ops.coverage WHERE source = ? AND account = ? "
        "AND dataset = ? AND end_ts >= ? AND read_at < end_ts + ?",
        [source, account, dataset, (since - back).replace(tzinfo=None), back],
    ).fetchall()
    return [Interval(a, b) for a, b in rows]


def missing(
    con: duckdb.DuckDBPyConnection, source: Source, account: str, requested: Interval
) -> list[Interval]:
    """The parts of `requested` that some dataset of the source lacks, oldest first."""
    return union(
        hole
        for dataset in events(source)
        for hole in requested.minus(covered(con, source.name, account, dataset))
    )


def events(source: Source) -> list[str]:
    """The datasets of a source that have a history (not snapshots, not dimensions)."""
    return [d for d in source.mappings if DATASETS[d].has_history]


def oldest_pending(con: duckdb.DuckDBPyConnection, source: Source, account: str) -> datetime | None:
    """Event time of the oldest ledger row that is not final yet, UTC."""
    if "exchanges_ledger" not in source.mappings:
        return None
    [(ts,)] = con.execute(
        "SELECT min(ts) FROM raw.exchanges_ledger WHERE source = ? AND account = ? AND vanished_at "
        f"IS NULL AND status IN {PENDING}",
        [source.name, account],
    ).fetchall()
    return utc(ts) if ts else None


def unread(con: duckdb.DuckDBPyConnection, source: Source, account: str) -> dict[str, datetime]:
    """Parts of the account that could not be read: {wallet or chain: from when on}."""
    rows = con.execute(
        "SELECT part, min(start_ts) FROM ops.unread_parts WHERE source = ? AND account = ? "
        "GROUP BY 1",
        [source.name, account],
    ).fetchall()
    return {part: utc(since) for part, since in rows}


def known_states(
    con: duckdb.DuckDBPyConnection, source: Source, account: str, back: timedelta
) -> dict[str, str]:
    """{part: what tells that it has not changed}, of parts where nothing is awaited.

    A vendor's balance is ahead of its history at times. So a wallet's text is trusted where its
    rows add up to the balance that came with it, or where that balance has stood for longer than
    the lookback `back` (one with an opening never adds up); and where none of its rows is pending.
    A source with `own_states` gets every text back, and judges by itself.
    """
    mine = "source = $source AND account = $account"
    named = {"source": source.name, "account": account}
    # Parts without a history of their own, or that are no wallets.
    if source.own_states or "exchanges_ledger" not in source.mappings:
        rows = con.execute(f"SELECT part, state FROM ops.part_states WHERE {mine}", named)
        return dict(rows.fetchall())
    [(newest,)] = con.execute(f"SELECT max(ts) FROM raw.balances WHERE {mine}", named).fetchall()
    if newest is None:
        return {}
    [(before,)] = con.execute(
        f"SELECT max(ts) FROM raw.balances WHERE {mine} AND ts <= $then",
        {**named, "then": newest - back},
    ).fetchall()
    # Whole and fractional parts, since a sum of DECIMAL(38,18) may not fit.
    rows = con.execute(
        f"""
        WITH rows AS (
            SELECT wallet, asset AS token, sum(trunc(amount)::DECIMAL(38,0)) AS whole,
                   sum(amount - trunc(amount)) AS part
            FROM raw.exchanges_ledger
            WHERE {mine} AND is_settled AND vanished_at IS NULL GROUP BY ALL
        ), reported AS (
            SELECT wallet, token, max_by(amount, ts) AS amount, min(ts) AS since,
                   count(DISTINCT amount_text) = 1 AS stands, max(ts) AS until
            FROM raw.balances WHERE {mine} AND ts >= $since GROUP BY ALL
        )
        SELECT s.part, s.state
        FROM ops.part_states s JOIN reported b ON b.wallet = s.part
        LEFT JOIN rows r ON r.wallet = b.wallet AND r.token = b.token
        WHERE s.{mine.replace("AND ", "AND s.")} AND b.until = $newest AND s.read_at <= $newest
          AND s.part NOT IN (SELECT part FROM ops.unread_parts WHERE {mine})
          AND s.part NOT IN (
              SELECT wallet FROM raw.exchanges_ledger
              WHERE {mine} AND vanished_at IS NULL AND status IN {PENDING})
        GROUP BY ALL
        HAVING bool_and(coalesce(b.stands AND b.since = $before, false) OR coalesce(
            TRY_CAST(trunc(b.amount)::DECIMAL(38,0) - coalesce(r.whole, 0) AS DECIMAL(38,18))
                = coalesce(r.part, 0) - (b.amount - trunc(b.amount)), false))""",
        {**named, "newest": newest, "before": before, "since": before or newest},
    )
    return dict(rows.fetchall())


def learned_lookback(
    con: duckdb.DuckDBPyConnection, source: Source, account: str, until: datetime
) -> timedelta:
    """How far back rows may still come or change: LOOKBACK, or more where the vendor was slower.

    Learned from the delay between an event and its newest version, over LEARN_FROM before `until`,
    of rows that happened after the account was first read (older ones were seen late because we
    came late). At most LONGEST_LOOKBACK.
    """
    slowest = LOOKBACK
    for dataset in events(source):
        [(first,)] = con.execute(
            "SELECT min(read_at) FROM ops.coverage WHERE source = ? AND account = ? AND "
            "dataset = ?",
            [source.name, account, dataset],
        ).fetchall()
        if first is None:
            continue
        since = max(utc(first), until - LEARN_FROM).replace(tzinfo=None)
        [(delay,)] = con.execute(
            f"SELECT quantile_disc(changed_at - ts, {SLOWEST}) FROM raw.{dataset} "
            f"WHERE ts >= '{since}' AND source = ? AND account = ?",
            [source.name, account],
        ).fetchall()
        slowest = max(slowest, (delay or timedelta(0)) * MARGIN)
    return min(slowest, LONGEST_LOOKBACK)


def jobs(
    con: duckdb.DuckDBPyConnection,
    sources: dict[str, Source],
    accounts: Iterable[Account],
    requested: Interval,
    *,
    snapshot: bool,
    refetch: bool = False,
    lookback: timedelta | None = None,
) -> list[Job]:
    """The fetches that make `requested` complete for the accounts, oldest first.

    A hole that continues what is covered starts with the lookback (`lookback`, or what was
    learned), unless that was read long after it happened, as by a backfill that was stopped.
    `refetch` ignores coverage, and what is known of parts. APIs that cannot seek in time get one job from the first hole to
    the end of the last.
    """
    jobs: list[Job] = []
    for account in accounts:
        source = sources[account.source]
        holes = [requested] if refetch else missing(con, source, account.account, requested)
        if not holes:
            continue
        pending = oldest_pending(con, source, account.account)
        back = (
            learned_lookback(con, source, account.account, requested.end)
            if lookback is None
            else lookback
        )
        known = [
            interval
            for dataset in events(source)
            for interval in unsettled(
                con, source.name, account.account, dataset, holes[0].start, back
            )
        ]
        planned = jobs_for_holes(source, account, holes, known, back, pending, snapshot=snapshot)
        states = {} if refetch else known_states(con, source, account.account, back)
        ledger = (
            covered(con, source.name, account.account, "exchanges_ledger")
            if "exchanges_ledger" in source.mappings
            else None
        )
        jobs += with_parts(planned, states, unread(con, source, account.account), ledger)
    return jobs


def with_parts(
    jobs: list[Job],
    states: Mapping[str, str],
    unread: Mapping[str, datetime],
    ledger: Sequence[Interval] | None,
) -> list[Job]:
    """The jobs of an account with what they need of its parts (Job.known, Job.unread).

    What stands as it was needs no reading only where its rows are there: where the job continues
    what is covered of the `ledger` (None: a source without one), its lookback included. Parts that
    could not be read are tried once, by the last job; a wallet only as far back as what is covered
    goes without a gap, since it says then that so much is whole.
    """
    return [
        replace(
            job,
            known=dict(states) if ledger is None or _continues(job, ledger) else {},
            unread={
                part: since if ledger is None else max(since, _reaches(job, ledger))
                for part, since in unread.items()
                if job is jobs[-1]
            },
        )
        for job in jobs
    ]


def _reaches(job: Job, ledger: Sequence[Interval]) -> datetime:
    """Since when all is covered up to where the job begins to read."""
    before = [span.start for span in ledger if span.start <= job.read_from <= span.end]
    return min(before, default=job.read_from)


def _continues(job: Job, ledger: Sequence[Interval]) -> bool:
    """Whether no part of the time that the job reads is uncovered, but for the newest."""
    return any(
        span.start <= job.read_from
        and (span.end >= job.interval.end or (span is ledger[-1] and span.end >= job.read_from))
        for span in ledger
    )


def jobs_for_holes(
    source: Source,
    account: Account,
    holes: list[Interval],
    known: Iterable[Interval],
    back: timedelta,
    pending: datetime | None = None,
    *,
    snapshot: bool = False,
) -> list[Job]:
    """The fetches that fill `holes` (oldest first, at least one) of an account, oldest first.

    `known` is what is covered of its datasets, where rows may still come (see unsettled), `back`
    its lookback, `pending` its oldest pending row.
    """
    if source.monthly:
        spans = [span for hole in holes for span in hole.by_month()]
    elif source.seeks:
        spans = holes
    else:
        spans = [Interval(holes[0].start, holes[-1].end)]
    known, jobs = list(known), []
    for span in spans:
        begin = span.start
        if any(interval.start < span.start <= interval.end for interval in known):
            begin = max(span.start - back, min(interval.start for interval in known))
        if pending and span is spans[-1]:
            begin = min(begin, max(pending, span.start - LONGEST_PENDING))
        jobs.append(
            Job(
                account.source,
                account.account,
                account.connection,
                span,
                begin,
                snapshot and span is spans[-1],
            )
        )
    return jobs
