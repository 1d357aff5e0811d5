"""A warehouse, landing and books that the version before made are opened and gone on with.

`made_by_0_1.tar.xz` was made by 0.1.0 (commit c9bb927, the last before the code was divided into
`extract` and `ledgerhouse`) in /srv/ledgerhouse/var, with the models' state in the warehouse: the
first account of each source, the sandbox with seed 33 and scale 0.1, a sync at the
end of 2 and of 3 November 2024, then transform, check and publish; two rows of ops.sync_runs, one of
ops.api_calls and one of ops.budgets were put in by hand. Data Docs, SQLMesh's cache and the lock
file were left out. It is never made again: that is what it is for.
"""

from __future__ import annotations

import tarfile
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest
import requests

from extract.core.interval import Interval, iso, utc
from extract.core.source import Fetched, Job, Page
from extract.fetch import landing
from extract.fetch.call_log import RUN_FIELDS
from extract.sources import all_sources
from ledgerhouse.check.run import check
from ledgerhouse.load.loader import load
from ledgerhouse.load.replay import FROM_LANDING, replay
from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.dataframe import files, frame
from ledgerhouse.publish.gate import publish_checked
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse import migrate
from ledgerhouse.warehouse.connection import open_warehouse
from sandbox.server import serve
from tests.helpers.books import Books, of

MADE = Path(__file__).with_name("made_by_0_1.tar.xz")
WORLD = {"seed": 33, "now": "2024-11-01T00:00:00Z", "scale": 0.1}
START, BEFORE, NOW = "2024-10-30T00:00:00Z", "2024-11-04T00:00:00Z", "2024-11-05T00:00:00Z"
RAW = {  # rows it was made with
    "exchanges_ledger": 26,
    "exchanges_trades": 6,
    "onchain_transactions": 24,
    "onchain_transfers": 28,
    "onchain_tokens": 18,
    "balances": 51,
}

CURATED = (
    "curated.tx_unified",
    "curated.daily_flows",
    "curated.daily_balances",
    "curated.assets",
    "curated.reconciliation",
)


@pytest.fixture
def var(tmp_path, monkeypatch):
    """LEDGERHOUSE_VAR with what 0.1.0 has made."""
    with tarfile.open(MADE) as archive:
        # Python 3.11 has the filter from its fourth version on.
        archive.extractall(
            tmp_path, **({"filter": "data"} if hasattr(tarfile, "data_filter") else {})
        )
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    return tmp_path


def content(con, tables) -> dict[str, list[tuple]]:
    """Rows by table, in an order of their own."""
    return {table: con.execute(f"FROM {table} ORDER BY ALL").fetchall() for table in tables}


def without_fees(con) -> dict[str, list[tuple]]:
    """The curated tables without the commission of a movement, which is stated once by now."""
    fees = {"curated.tx_unified": " EXCLUDE (fee, fee_token)"}
    return {
        table: con.execute(f"SELECT *{fees.get(table, '')} FROM {table} ORDER BY ALL").fetchall()
        for table in CURATED
    }


def test_its_books_are_read(var):
    for table, count in RAW.items():
        assert len(frame(f"raw.{table}")) == count
        assert sum(len(duckdb.sql(f"FROM '{path}'")) for path in files(f"raw.{table}")) == count
    balances = frame("curated.daily_balances")
    assert len(balances) == 92 and {type(v) for v in balances["balance"]} == {Decimal}
    reached = frame("ops.reached", where="true ORDER BY source")  # a view that 0.1.0 had not
    assert list(reached["source"]) == ["coinbase", "debank"]
    assert [iso(moment) for moment in reached["whole_to"]] == [BEFORE, BEFORE]
    assert list(frame("ops.last_attempts")["try_number"]) == [2]


def test_a_file_landed_now_has_the_fields_that_its_files_have(var, tmp_path):
    """Whichever version reads a landing next: fields may be added, an older one passes over them."""
    (old, *_) = (landing.header(file) for file in landing.archived(var / "landing").values())
    job = Job("debank", "0x1", "debank", Interval(START, NOW), utc(START))
    run = {key: old[key] for key in old.keys() & {"dag_id", *RUN_FIELDS}}
    page = Page("/v1", {}, "{}", utc(NOW))
    new = landing.header(landing.write(tmp_path / "new", job, Fetched([page]), run))
    assert new.keys() >= old.keys() and "tail" in new


def test_it_is_opened_with_nothing_refused_and_no_row_changed(var):
    with duckdb.connect(str(var / "warehouse.duckdb"), read_only=True) as con:
        columns = migrate.columns(con)
        before = content(con, columns)
    assert {table: len(before[f"raw.{table}"]) for table in RAW} == RAW
    with open_warehouse(owner="test") as con:
        now = migrate.columns(con)
        assert {t: {c: now[t][c] for c in columns[t]} for t in columns} == columns
        for table, rows in before.items():
            names = ", ".join(f'"{column}"' for column in columns[table])
            assert con.execute(f"SELECT {names} FROM {table} ORDER BY ALL").fetchall() == rows


# Columns that are new are NULL in old rows until a replay; and a commission that the vendor lists in
# both wallets is stated in one now, so a record of it that is read again has changed against what
# 0.1.0 made of it, and has not after a replay, when both readings are this version's.
READ_OTHERWISE = {
    "raw.balances": "* EXCLUDE (price_text, price, is_verified, row_hash)",
    "raw.exchanges_ledger": "* EXCLUDE (fee_text, fee, fee_asset, row_hash, changed_at, batch_id, balance_text, balance)",
    "ops.coverage": "* EXCLUDE (parts)",
    "ops.batches": "* EXCLUDE (read, shadowed, rejected, changed, same), changed + same",
    "raw.history": "* EXCLUDE (row, row_hash)",
}
OF_BOTH = {
    "ops.batches": "dataset NOT IN ('positions', 'onchain_chains')",
    "raw.history": "dataset <> 'exchanges_ledger'",
}


def as_both_read_it(con) -> dict[str, list[tuple]]:
    """What follows from the landing, without what this version reads otherwise than 0.1.0 did."""
    return content(con, [t for t in FROM_LANDING if t not in READ_OTHERWISE]) | {
        table: con.execute(
            f"SELECT {columns} FROM {table} WHERE {OF_BOTH.get(table, 'true')} ORDER BY ALL"
        ).fetchall()
        for table, columns in READ_OTHERWISE.items()
    }


@pytest.mark.slow
def test_another_day_is_loaded_on_top_checked_and_published_and_replay_gives_the_same(var):
    old = frame("SELECT domain, source, account, txid, leg FROM curated.tx_unified")
    with serve(**WORLD) as url:
        requests.post(f"{url}/_control/clock", json={"now": NOW}, timeout=10)
        books = Books(url, var / "landing", path=str(var / "warehouse.duckdb"))
        mine = [of("coinbase")[0], of("debank")[0]]
        jobs = books.plan(START, NOW, accounts=mine, snapshot=True)
        assert [job.interval for job in jobs] == [Interval(BEFORE, NOW)] * 2, "what is left to ask"
        for job in jobs:
            books.fetch(job)
        loaded = load(books.con, books.root, books.sources)
        assert loaded.files == 2 and loaded.new and loaded.same, "the lookback is known already"
        books.con.close()
    done = transform(owner="test")
    results = check(Interval(START, NOW), run_id="next", owner="test", spans=done.spans)
    assert [r for r in results if not r.success and r.severity == "critical"] == []
    published = publish_checked(done.batches, run_id="next", owner="test")
    assert published.generation == 2 and "curated.tx_unified" in published.tables

    new = frame("SELECT domain, source, account, txid, leg FROM curated.tx_unified")
    assert set(old.itertuples(index=False)) < set(new.itertuples(index=False))
    with open_warehouse(owner="test") as con, open_books() as out:
        assert con.execute("FROM ops.touched_days").fetchall() == []
        assert content(out, CURATED) == content(con, CURATED)
        curated = without_fees(con)
        before = as_both_read_it(con)
        carried = content(con, ("ops.sync_runs", "ops.api_calls", "ops.budgets"))
    assert {len(rows) for rows in carried.values()} == {1, 2}

    done = replay(var / "warehouse.duckdb", var / "landing", all_sources())
    assert done.differences.keys() <= READ_OTHERWISE.keys()
    with open_warehouse(owner="test") as con:
        assert as_both_read_it(con) == before and content(con, carried) == carried
    transform(
        owner="test"
    )  # of every day, from nothing: as what 0.1.0 had built and we went on with
    with open_warehouse(owner="test") as con:
        assert without_fees(con) == curated
