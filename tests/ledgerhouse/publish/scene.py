"""Curated tables without SQLMesh, rows that come and go, and what was published of them."""

from __future__ import annotations

import random
import re
from datetime import date, datetime, timedelta
from pathlib import Path

from extract.core.interval import Interval
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import open_books
from ledgerhouse.warehouse.connection import open_warehouse
from ledgerhouse.warehouse.schema import create_all

DAY = timedelta(days=1)
NOW = datetime(2031, 5, 1)

# What the models make, in small: tables, and the balances as a view over the flows.
CURATED = """
CREATE SCHEMA curated;
CREATE TABLE curated.tx_unified (ts TIMESTAMP, txid VARCHAR, token VARCHAR, amount DECIMAL(38,18));
CREATE TABLE curated.daily_flows (date DATE, token VARCHAR, net DECIMAL(38,18), legs BIGINT);
CREATE TABLE curated.assets (token VARCHAR);
CREATE VIEW curated.reconciliation AS
    SELECT token, sum(net)::DECIMAL(38,18) AS computed FROM curated.daily_flows GROUP BY token;
CREATE VIEW curated.daily_balances AS
    WITH last AS (SELECT max(end_ts)::DATE AS day FROM ops.coverage),
    days AS (SELECT token, unnest(generate_series(min(date), max(last.day), INTERVAL 1 DAY))::DATE
             AS date FROM curated.daily_flows, last GROUP BY token)
    SELECT d.date, d.token, sum(f.net)::DECIMAL(38,18) AS balance
    FROM days d JOIN curated.daily_flows f ON f.token = d.token AND f.date <= d.date GROUP BY ALL;
COMMENT ON COLUMN curated.tx_unified.amount IS 'signed; it''s exact';
COMMENT ON VIEW curated.daily_balances IS 'what was held';
"""


def sync(con, run: int, changes: dict[date, int], horizon: date, rng=random) -> set[date]:
    """One run: each day of `changes` gets that many transactions instead of its own."""
    for day, count in changes.items():
        for table in ("curated.tx_unified", "raw.exchanges_ledger"):
            con.execute(f"DELETE FROM {table} WHERE ts >= '{day}' AND ts < '{day + DAY}'")
        for number in range(count):
            ts = datetime(day.year, day.month, day.day) + timedelta(hours=number)
            amount = f"{rng.randint(-(10**9), 10**9)}.{rng.randint(0, 10**18 - 1):018d}"
            con.execute(
                f"INSERT INTO curated.tx_unified VALUES "
                f"('{ts}', '{ts}', '{rng.choice('AB')}', {amount})"
            )
            put(con, "raw.exchanges_ledger", entry_id=ts, ts=ts, amount=amount)
        con.execute(f"DELETE FROM curated.daily_flows WHERE date = '{day}'")
        con.execute(
            "INSERT INTO curated.daily_flows SELECT ts::DATE, token, sum(amount), count(*) "
            f"FROM curated.tx_unified WHERE ts::DATE = '{day}' GROUP BY ALL"
        )
    put(con, "raw.balances", ts=horizon, row_hash=run)
    put(con, "ops.api_calls", call_id=run, called_at=horizon)
    put(con, "ops.coverage", end_ts=horizon, run_id=f"{run:06d}")
    return set(changes)


def put(con, table: str, **values) -> None:
    """One row; what must not be NULL and is not given is something."""
    schema, name = table.split(".")
    something = {"VARCHAR": "x", "TIMESTAMP": "2030-01-01"}
    row = {
        column: something.get(kind, 1)
        for column, kind in con.execute(
            "SELECT column_name, data_type FROM duckdb_columns() WHERE NOT is_nullable AND "
            f"schema_name = '{schema}' AND table_name = '{name}'"
        ).fetchall()
    } | values
    con.execute(
        f"INSERT INTO {table} ({', '.join(row)}) VALUES "
        f"({', '.join(repr(str(value)) for value in row.values())})"
    )


def fill(con) -> set[date]:
    create_all(con)
    con.execute(CURATED)
    days = [date(2031, month, day) for month in (1, 2, 3, 4) for day in (1, 15, 28)]
    return sync(con, 0, dict.fromkeys(days, 3), date(2031, 4, 28))


def contents(con) -> dict[str, list]:
    return {
        t.name: sorted(con.execute(f"FROM {t.name}").fetchall(), key=repr)
        for t in publishing.TABLES
    }


def published(root: Path) -> dict[str, list]:
    with open_books(root) as books:
        return contents(books)


def stamps(root: Path) -> dict[str, tuple]:
    """Every Parquet file there is, and what would differ had it been written again."""
    return {
        str(p.relative_to(root)): (p.stat().st_ino, p.stat().st_mtime_ns)
        for p in root.rglob("*.parquet")
    }


def months(done, table: str) -> list[str]:
    return sorted(f"{f.month:%m}" for f in done.files if f.table_name == table)


def named(file):
    """A file's path without the random end of its name, and its rows."""
    return re.sub(r"\.[0-9a-f]{8}\.parquet$", "", file.path), file.rows


class Killed(BaseException):
    pass


def mark(con, days, batch: str) -> None:
    for day in days:
        con.execute(f"INSERT INTO ops.touched_days VALUES ('exchanges_ledger', '{day}', '{batch}')")


def checked(run_id: str, **severities: bool) -> None:
    with open_warehouse(owner="test") as con:
        results = [CheckResult("curated.tx_unified", s, s, ok) for s, ok in severities.items()]
        record(con, results, run_id, Interval("2031-01-01T00:00:00Z", "2031-05-01T00:00:00Z"))
