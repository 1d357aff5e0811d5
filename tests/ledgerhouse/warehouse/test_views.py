"""The views of ops that others build upon: what they hold, and in databases that are older."""

from __future__ import annotations

from datetime import datetime

import duckdb
import pytest

from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import BOOKS, open_books
from ledgerhouse.publish.dataframe import frame
from ledgerhouse.warehouse.connection import open_warehouse
from ledgerhouse.warehouse.views import IN_BOOKS


def attempt(con, task: str, number: int, state: str | None, source: str | None = None, **columns):
    row = {
        "dag_id": "sync",
        "run_id": "r",
        "task_id": task,
        "map_index": 0,
        "try_number": number,
        "state": state,
        "source": source,
        "account": source and "main",
        "mirrored_at": datetime(2026, 1, 2),
        **columns,
    }
    con.execute(
        f"INSERT INTO ops.sync_runs ({', '.join(row)}) VALUES ({', '.join('?' * len(row))})",
        list(row.values()),
    )


def segment(con, account: str, dataset: str, first: int, last: int, run_id: str = "r"):
    con.execute(
        "INSERT INTO ops.coverage BY NAME SELECT 'coinbase' AS source, ? AS account, ? AS dataset, "
        "? AS start_ts, ? AS end_ts, ? AS read_at, ? AS reason, ? AS run_id, 'b' AS batch_id, "
        "now()::TIMESTAMP AS recorded_at",
        [
            account,
            dataset,
            datetime(2026, 1, first),
            datetime(2026, 1, last),
            datetime(2026, 2, last),
            f"to {last}",
            run_id,
        ],
    )


@pytest.fixture
def filled(con):
    """Attempts and coverage of two accounts; `a` has a hole in its trades."""
    attempt(con, "fetch_a", 1, "failed", "coinbase", error="503")
    attempt(con, "fetch_a", 2, "success", "coinbase")
    began = {"interval_start": datetime(2026, 1, 1), "interval_end": datetime(2026, 1, 5)}
    attempt(con, "fetch_b", 1, "failed", "debank", error="503", **began)
    attempt(con, "fetch_b", 2, "failed", interval_start=datetime(2025, 1, 1))  # it never began
    attempt(con, "load", 1, "success")
    segment(con, "a", "exchanges_ledger", 1, 3)
    segment(con, "a", "exchanges_ledger", 3, 9, "newest")
    segment(con, "a", "exchanges_trades", 2, 4)
    segment(con, "a", "exchanges_trades", 6, 8)
    segment(con, "a", "balances", 9, 10)
    segment(con, "b", "exchanges_ledger", 5, 6)
    return con


ATTEMPTS = [
    ("fetch_a", 2, "success", "coinbase", "main", None, None),
    ("fetch_b", 2, "failed", "debank", "main", datetime(2026, 1, 1), datetime(2026, 1, 5)),
    ("load", 1, "success", None, None, None, None),
]
SPANS = [
    ("a", "balances", 9, 10, 1, "to 10", "r"),
    ("a", "exchanges_ledger", 1, 9, 2, "to 9", "newest"),
    ("a", "exchanges_trades", 2, 4, 1, "to 4", "r"),
    ("a", "exchanges_trades", 6, 8, 1, "to 8", "r"),
    ("b", "exchanges_ledger", 5, 6, 1, "to 6", "r"),
]
REACHED = [("a", 1, 4, 8, 1), ("b", 5, 6, 6, 0)]


def rows(con) -> list[list[tuple]]:
    """Of the three views what ATTEMPTS, SPANS and REACHED have of them."""
    return [
        con.execute(sql).fetchall()
        for sql in (
            "SELECT task_id, try_number, state, source, account, interval_start, interval_end "
            "FROM ops.last_attempts ORDER BY task_id",
            "SELECT account, dataset, day(start_ts), day(end_ts), segments, reason, run_id "
            "FROM ops.covered_spans ORDER BY account, dataset, start_ts",
            "SELECT account, day(since), day(whole_to), day(until), gaps FROM ops.reached "
            "ORDER BY account",
        )
    ]


def test_the_newest_attempts_the_spans_that_touch_and_how_far_an_account_is_read(filled):
    assert rows(filled) == [ATTEMPTS, SPANS, REACHED]
    columns = [name for name, *_ in filled.execute("FROM ops.sync_runs").description]
    assert [name for name, *_ in filled.execute("FROM ops.last_attempts").description] == columns


@pytest.fixture
def books(filled, tmp_path, monkeypatch):
    """The folder of books of that warehouse, which has no curated tables."""
    tables = [table for table in publishing.TABLES if "curated" not in table.name]
    monkeypatch.setattr(publishing, "TABLES", tables)
    publishing.publish(filled, tmp_path / "published", [])
    return tmp_path / "published"


def test_the_books_have_them_and_no_file_of_their_own(books):
    with open_books(books) as con:
        assert rows(con) == [ATTEMPTS, SPANS, REACHED]
        assert con.execute(
            "SELECT count(*) FROM duckdb_views() WHERE database_name = 'books' AND comment IS NOT "
            f"NULL AND 'ops.' || view_name IN {tuple(view.name for view in IN_BOOKS)}"
        ).fetchone() == (len(IN_BOOKS),)
    assert not [path for path in books.glob("*/*.parquet") if "reached" in str(path)]
    moved = books.rename(books.with_name("moved"))
    assert len(frame("ops.reached", root=moved)) == 2


def forget(con) -> None:
    """Make it a database of a version that had none of them."""
    for view in IN_BOOKS:
        con.execute(f"DROP VIEW {view.name}")


def test_books_of_an_older_version_are_read_with_them(books):
    with duckdb.connect(str(books / BOOKS)) as con:
        forget(con)
    with open_books(books) as con:
        assert rows(con) == [ATTEMPTS, SPANS, REACHED]
    assert len(frame("ops.reached", root=books)) == 2
    with duckdb.connect(str(books / BOOKS)) as con:
        con.execute("DROP VIEW ops.gaps")
    with open_books(books) as con:  # what nothing can be made of is missing, and nothing else
        assert con.execute("SELECT count(*) FROM ops.covered_spans").fetchone() == (5,)
        with pytest.raises(duckdb.CatalogException):
            con.execute("FROM ops.reached")


def test_a_warehouse_of_an_older_version_is_read_with_them(tmp_path):
    file = tmp_path / "warehouse.duckdb"
    with open_warehouse(file, owner="test") as con:
        segment(con, "b", "exchanges_ledger", 5, 6)
        attempt(con, "load", 1, "success")
        forget(con)
        con.execute("ALTER TABLE ops.sync_runs DROP COLUMN error")
    with open_warehouse(file, owner="test", read_only=True) as con:
        assert rows(con) == [ATTEMPTS[-1:], SPANS[-1:], REACHED[-1:]]
