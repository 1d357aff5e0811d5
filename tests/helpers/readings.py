"""Rows as a vendor shows them at different hours, as landed files, and what a table holds of them."""

from datetime import UTC, datetime, timedelta

import duckdb

from extract.core.interval import Interval, iso, utc
from extract.core.source import Covered, Fetched, Job
from extract.sources import all_sources
from extract.sources.coinbase import TRANSACTIONS
from extract.sources.debank import HISTORY
from ledgerhouse.warehouse import schema
from tests.conftest import page

SOURCES = all_sources()
ZERO = datetime(2025, 6, 1, tzinfo=UTC)
STATES = ("pending", "completed", "canceled")


def entry(number: int, version: int) -> dict:
    """A ledger row; a version is another status and amount, as vendors change them."""
    return {
        "id": f"id-{number}",
        "type": "send",
        "status": STATES[version % 3],
        "created_at": iso(ZERO + timedelta(hours=7 * number)),
        "amount": {"amount": f"{number}.{version:02d}0", "currency": "BTC"},
    }


def transaction(number: int, version: int) -> dict:
    """A transaction whose legs come and go with its version."""
    legs = [
        {"amount": n + version, "token_id": "eth", "from_addr": f"0x{n}"}
        for n in range((number + version) % 4)
    ]
    return {
        "id": f"0x{number}",
        "chain": "eth",
        "cate_id": None,
        "receives": legs,
        "sends": [],
        "time_at": (ZERO + timedelta(hours=7 * number)).timestamp(),
        "tx": {"status": 1, "from_addr": "0xme", "eth_gas_fee": 0.1, "name": f"v{version}"},
    }


def file_of(kind: str, hour: int, shown: set[int]) -> tuple[Job, Fetched]:
    source = "coinbase" if kind == "ledger" else "debank"
    job = Job(source, "me", source, Interval("2025-01-01", "2026-01-01"), utc("2025-01-01"))
    at = iso(ZERO + timedelta(days=9, hours=hour))
    if kind == "ledger":
        body = page(
            TRANSACTIONS,
            {"data": [entry(n, hour // 20) for n in sorted(shown)]},
            at=at,
            account_id="w",
        )
        datasets = ["exchanges_ledger"]
    else:
        body = page(
            HISTORY, {"history_list": [transaction(n, hour // 20) for n in sorted(shown)]}, at=at
        )
        datasets = ["onchain_transactions", "onchain_transfers"]
    return job, Fetched([body], [Covered(d, job.interval, "test") for d in datasets])


def warehouse():
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'; SET threads = 1")
    schema.create_all(con)
    return con
