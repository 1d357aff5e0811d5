"""What is known already, and so what is left to ask for.

Coverage is a set of half-open intervals per source, account and dataset, written by the loader
in the transaction that wrote their rows. What a run fetches = what was requested − what is
covered; plus the tail, the recent past that may still change.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

from extract.source import Interval, Job, Source, union, utc
from extract.sources import Account

# Vendors index late (minutes, rarely hours) and re-categorise recent rows.
TAIL = timedelta(hours=24)


def covered(con, source: str, account: str, dataset: str) -> list[Interval]:
    """Merged intervals over which the dataset is complete, oldest first."""
    rows = con.execute(
        "SELECT start_ts, end_ts FROM ops.coverage WHERE source = ? AND account = ? "
        "AND dataset = ?", [source, account, dataset]).fetchall()
    return union(Interval(a, b) for a, b in rows)


def missing(con, source: Source, account: str, requested: Interval) -> list[Interval]:
    """The parts of `requested` that some dataset of the source lacks, oldest first."""
    return union(
        hole for dataset in events(source)
        for hole in requested.minus(covered(con, source.name, account, dataset)))


def events(source: Source) -> list[str]:
    """The datasets of a source that have a history (not snapshots, not dimensions)."""
    return [d for d in source.mappings if d not in ("balances", "onchain_tokens")]


def oldest_pending(con, source: Source, account: str) -> datetime | None:
    """Event time of the oldest ledger row that is not final yet, UTC."""
    if "exchanges_ledger" not in source.mappings:
        return None
    (ts,) = con.execute(
        "SELECT min(ts) FROM raw.exchanges_ledger WHERE source = ? AND account = ? "
        "AND status IN ('pending', 'waiting_for_clearing', 'waiting_for_signature')",
        [source.name, account]).fetchone()
    return utc(ts) if ts else None


def jobs(
    con, sources: dict[str, Source], accounts: Iterable[Account], requested: Interval, *,
    snapshot: bool, refetch: bool = False, tail: timedelta = TAIL,
) -> list[Job]:
    """The fetches that make `requested` complete for the accounts, oldest first.

    A hole that continues what is covered starts with the tail; `refetch` ignores coverage.
    APIs that cannot seek in time get one job from the first hole to the end of the last.
    """
    found: list[Job] = []
    for account in accounts:
        source = sources[account.source]
        holes = [requested] if refetch else missing(con, source, account.account, requested)
        if not holes:
            continue
        if source.monthly:
            spans = [span for hole in holes for span in hole.by_month()]
        else:
            spans = [Interval(holes[0].start, holes[-1].end)]
        known = [c for d in events(source) for c in covered(con, source.name, account.account, d)]
        pending = oldest_pending(con, source, account.account)
        for span in spans:
            begin = span.start
            if any(c.start < span.start <= c.end for c in known):
                begin = max(span.start - tail, min(c.start for c in known))
            if pending and span is spans[-1]:
                begin = min(begin, pending)
            found.append(Job(account.source, account.account, account.connection, span, begin,
                             snapshot and span is spans[-1]))
    return found
