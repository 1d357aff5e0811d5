"""Accounts, and stretches of time that were read."""

from __future__ import annotations

from extract.core.interval import Interval
from extract.sources import all_sources
from ledgerhouse.config import Account
from ledgerhouse.plan import coverage

SOURCES = all_sources()
WALLET = Account("debank", "0xme", "debank")
COINBASE = Account("coinbase", "main", "coinbase_main")


def cover(con, account: Account, *spans: tuple[str, str], read_at="2026-01-01") -> None:
    for dataset in coverage.events(SOURCES[account.source]):
        con.executemany(
            "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
            "reason, run_id, batch_id, recorded_at) "
            f"VALUES (?, ?, '{dataset}', ?, ?, ?, 'short page', 'r', 'b', "
            "'2026-01-01')",
            [[account.source, account.account, a, b, read_at] for a, b in spans],
        )


def jobs(con, account: Account, start, end, **more):
    return coverage.jobs(con, SOURCES, [account], Interval(start, end), snapshot=True, **more)
