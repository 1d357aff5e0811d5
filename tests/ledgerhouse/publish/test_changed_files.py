"""Which files a publish writes: those of the days that changed."""

from __future__ import annotations

import os
import random
import shutil
from datetime import date, datetime

import pytest

from ledgerhouse.publish import parquet_files
from ledgerhouse.publish.books import BOOKS, open_books
from ledgerhouse.publish.publish import NEWS, publish, publish_news
from tests.ledgerhouse.publish.scene import (
    NOW,
    contents,
    months,
    named,
    published,
    put,
    stamps,
    sync,
)


# ---- which files change
def test_how_a_run_went_is_published_after_it_and_nothing_else(con, tmp_path):
    """Also of a run whose days were refused: those are not in the books."""
    assert publish_news(con, tmp_path) is None, "there are no books to add it to"
    publish(con, tmp_path, [], run_id="first", now=NOW)
    before, files = published(tmp_path), stamps(tmp_path)
    sync(con, 1, {date(2031, 4, 28): 5, date(2031, 1, 1): 1}, date(2031, 4, 30))
    put(con, "ops.incidents", incident_id="i1")
    put(con, "ops.breaks", source="bybit")
    put(con, "ops.held_accounts", source="kraken")
    put(con, "ops.quarantined_files", file="f.jsonl.zst")
    refused = {"run_id": "refused", "source": "kraken", "account": "main"}
    put(con, "ops.sync_runs", task_id="fetch_kraken", **refused)
    done = publish_news(con, tmp_path)
    now = contents(con)
    assert done.tables == tuple(sorted(NEWS))
    assert published(tmp_path) == before | {name: now[name] for name in NEWS}
    assert [before[name] == now[name] for name in NEWS] == [False] * len(NEWS)
    assert files.items() <= stamps(tmp_path).items()
    with open_books(tmp_path) as books:
        assert books.execute("SELECT published_at, through, run_id FROM published").fetchall() == [
            (NOW, datetime(2031, 4, 28), "first")
        ]
    publish(con, tmp_path, {date(2031, 4, 28), date(2031, 1, 1)}, now=NOW)
    assert published(tmp_path) == contents(con), "the next publish finds what it left"
    con.execute(
        "COMMENT ON TABLE curated.assets IS 'x'; ALTER TABLE curated.assets ADD COLUMN n INT"
    )
    assert publish_news(con, tmp_path) is None, "the books are of another model"


def test_a_late_day_rewrites_its_months_and_the_balances_from_there_on(con, tmp_path):
    publish(con, tmp_path, [])
    before = stamps(tmp_path)
    days = sync(con, 1, {date(2031, 2, 15): 2}, date(2031, 4, 28))
    done = publish(con, tmp_path, days)
    assert months(done, "curated.tx_unified") == ["02"]
    assert months(done, "curated.daily_flows") == ["02"]
    assert months(done, "raw.exchanges_ledger") == ["02"]
    assert months(done, "curated.daily_balances") == ["02", "03", "04"]
    assert months(done, "ops.api_calls") == months(done, "raw.balances") == ["04"]
    after = stamps(tmp_path)
    assert {p: after[p] for p in before} == before, "what was published is never changed"
    assert after.keys() - before.keys() == {f.path for f in done.files}
    assert published(tmp_path) == contents(con)


def test_time_alone_moves_the_balances_on(con, tmp_path):
    publish(con, tmp_path, [])
    sync(con, 1, {}, date(2031, 6, 3))
    done = publish(con, tmp_path, [])
    assert months(done, "curated.daily_balances") == ["04", "05", "06"]
    assert months(done, "curated.tx_unified") == []
    assert published(tmp_path) == contents(con)
    done = publish(con, tmp_path, sync(con, 2, {date(2031, 8, 2): 1}, date(2031, 8, 3)))
    assert months(done, "curated.daily_balances") == ["06", "07", "08"], "also before the new day"
    assert published(tmp_path) == contents(con)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_whatever_grows_and_shrinks_each_day_is_in_one_file(con, tmp_path, only, monkeypatch, seed):
    only("curated.tx_unified", "curated.daily_flows")
    monkeypatch.setattr(parquet_files, "MONTH_ROWS", 12)
    rng, seen = random.Random(seed), set()
    publish(con, tmp_path, [])
    for turn in range(1, 12):
        days = {
            date(2031, rng.randint(1, 3), rng.randint(1, 28)): rng.randint(0, 6)
            for _ in range(rng.randint(1, 5))
        }
        publish(con, tmp_path, sync(con, turn, days, date(2031, 4, 28)))
        assert published(tmp_path) == contents(con)
        with open_books(tmp_path) as books:
            files = books.execute(
                'SELECT "start", "end", month FROM published_files WHERE '
                "table_name = 'curated.tx_unified' ORDER BY 1"
            ).fetchall()
        assert all(before[1] <= after[0] for before, after in zip(files, files[1:])), "a day twice"
        for start, end, month in files:
            whole = parquet_files.whole_month(start)
            assert month == whole[0] and (start, end) in [whole, *parquet_files.pieces(whole)]
            seen.add((start, end) == whole)
    assert seen == {True, False}, "months whole and in pieces"


def test_a_late_day_of_a_busy_month_rewrites_its_days_and_not_the_month(con, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_files, "MONTH_ROWS", 12)
    publish(con, tmp_path, sync(con, 1, {date(2031, 1, 9): 5}, date(2031, 4, 28)))
    done = publish(con, tmp_path, sync(con, 2, {date(2031, 1, 16): 1}, date(2031, 4, 28)))
    assert [named(f) for f in done.files if f.table_name == "curated.tx_unified"] == [
        ("tx_unified/month=2031-01/g2-09", 5 + 3 + 1)
    ]
    done = publish(con, tmp_path, sync(con, 3, {date(2031, 1, 31): 1}, date(2031, 4, 28)))
    assert [named(f) for f in done.files if f.table_name == "curated.tx_unified"] == [
        ("tx_unified/month=2031-01/g3-25", 3 + 1)
    ]
    assert published(tmp_path) == contents(con)


def test_a_month_that_lost_all_its_rows_disappears(con, tmp_path):
    publish(con, tmp_path, [])
    days = sync(con, 1, {date(2031, 1, day): 0 for day in (1, 15, 28)}, date(2031, 4, 28))
    publish(con, tmp_path, days)
    with open_books(tmp_path) as books:
        left = books.execute(
            "SELECT DISTINCT table_name FROM published_files WHERE month = '2031-01-01'"
        ).fetchall()
    assert left == [] and published(tmp_path) == contents(con)


def test_a_table_without_a_row_is_an_empty_view(con, tmp_path):
    days = {d for (d,) in con.execute("SELECT DISTINCT date FROM curated.daily_flows").fetchall()}
    publish(con, tmp_path, [])
    publish(con, tmp_path, sync(con, 1, dict.fromkeys(days, 0), date(2031, 4, 28)))
    assert published(tmp_path)["curated.tx_unified"] == []
    publish(con, tmp_path, sync(con, 2, {date(2031, 3, 3): 2}, date(2031, 4, 28)))
    assert published(tmp_path) == contents(con)


@pytest.mark.parametrize(
    "damage",
    [
        "books gone",
        "books garbage",
        "books empty",
        "file gone",
        "file cut",
        "all gone",
        "full",
        "rebuilt",
    ],
)
def test_books_that_cannot_be_relied_on_are_published_whole(con, tmp_path, damage):
    first = publish(con, tmp_path, [])
    con.execute("UPDATE curated.tx_unified SET txid = 'unmarked'")  # a whole publish shows it
    file = tmp_path / next(f.path for f in first.files if f.month)
    match damage:
        case "books gone":
            (tmp_path / BOOKS).unlink()
        case "books garbage":
            (tmp_path / BOOKS).write_bytes(b"garbage" * 9999)
        case "books empty":
            (tmp_path / BOOKS).write_bytes(b"")
        case "file gone":
            file.unlink()
        case "file cut":
            os.truncate(file, file.stat().st_size - 1)
        case "rebuilt":
            put(con, "ops.batches", batch_id="another first load")
        case "all gone":
            shutil.rmtree(tmp_path)
    done = publish(con, tmp_path, [], full=damage == "full")
    assert published(tmp_path) == contents(con)
    assert {f.table_name for f in done.files if f.month} == {
        f.table_name for f in first.files if f.month
    }
    assert done.generation > first.generation or damage == "all gone", "no name is used twice"


def test_a_model_that_changed_is_published_whole_and_the_others_are_not(con, tmp_path):
    publish(con, tmp_path, [])
    con.execute(
        "CREATE TABLE other AS SELECT *, 7 AS added FROM curated.daily_flows; "
        "DROP TABLE curated.daily_flows; "
        "CREATE VIEW curated.daily_flows AS FROM other"
    )
    done = publish(con, tmp_path, [])
    assert months(done, "curated.daily_flows") == ["01", "02", "03", "04"]
    assert months(done, "curated.tx_unified") == []
    assert published(tmp_path) == contents(con)
