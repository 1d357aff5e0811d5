"""Publishing: the books equal the warehouse, change as a whole, and survive any kill."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
import sys
from datetime import date, datetime, timedelta
from pathlib import Path

import duckdb
import pytest

from extract.core import durable
from extract.core.durable import digest
from extract.core.interval import Interval, joined
from extract.core.quarantine import quarantined
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.publish import kept_files, parquet_files
from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import BOOKS, open_books, read_content
from ledgerhouse.publish.gate import NotChecked, publish_checked, require_passed
from ledgerhouse.publish.publish import GRACE, NEWS, TABLES, publish, publish_news
from ledgerhouse.transform import touched_days
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import Superseded, marks_of, touched, transform
from ledgerhouse.warehouse.connection import open_warehouse
from ledgerhouse.warehouse.schema import create_all
from ledgerhouse.warehouse.views import IN_BOOKS

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
INVARIANTS = {
    "flows are the sums of transactions": """
        SELECT ts::DATE AS date, token, sum(amount), count(*) FROM curated.tx_unified GROUP BY ALL
        EXCEPT SELECT date, token, net, legs FROM curated.daily_flows""",
    "the last balance is the sum of all": """
        SELECT token, sum(amount) FROM curated.tx_unified GROUP BY ALL
        EXCEPT SELECT token, balance FROM curated.daily_balances
        WHERE date = (SELECT max(end_ts)::DATE FROM ops.coverage)""",
    "every transaction has its raw row": """
        SELECT txid, ts, amount FROM curated.tx_unified
        EXCEPT SELECT entry_id, ts, amount FROM raw.exchanges_ledger""",
    "the tables are those of the run": """
        SELECT run_id FROM published EXCEPT SELECT max(run_id) FROM ops.coverage""",
}


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


@pytest.fixture(scope="session")
def built(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("built") / FILE
    with open_warehouse(path, owner="test") as con:
        mark(con, fill(con), "b0")
    return path


@pytest.fixture
def con(built, tmp_path_factory):
    with duckdb.connect(shutil.copy(built, tmp_path_factory.mktemp("warehouse"))) as connection:
        yield connection


def contents(con) -> dict[str, list]:
    return {t.name: sorted(con.execute(f"FROM {t.name}").fetchall(), key=repr) for t in TABLES}


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


@pytest.fixture
def only(monkeypatch):
    """Publish these tables only: what is repeated often is the switch, not the tables."""

    def choose(*names: str) -> None:
        tables = [t for t in TABLES if t.name in names]
        monkeypatch.setattr(publishing, "TABLES", tables)
        monkeypatch.setattr(sys.modules[__name__], "TABLES", tables)

    return choose


# ---- readers

READER = """
import json, sys, duckdb
root, stop, ready = sys.argv[1:4]
invariants, tables = json.loads(sys.argv[4]), json.loads(sys.argv[5])
import pathlib
reads, last, seen = 0, 0, set()
while True:
    ending = pathlib.Path(stop).exists()
    with duckdb.connect(root + "/books.duckdb", read_only=True) as con:
        (generation,) = con.execute("SELECT generation FROM published").fetchone()
        assert generation >= last, (generation, last)
        for law, query in invariants.items():
            assert con.execute(query).fetchall() == [], (law, generation)
        for table in tables:
            con.execute(f"SELECT * FROM {table}").fetchall()
    last, reads = generation, reads + 1
    seen.add(generation)
    pathlib.Path(ready).touch()
    if ending:
        break
print(json.dumps({"reads": reads, "last": last, "seen": len(seen)}))
"""


@pytest.mark.slow
def test_a_reader_meets_no_error_no_lock_and_no_half_state_during_50_publishes(con, only, tmp_path):
    only(
        "curated.tx_unified",
        "curated.daily_flows",
        "curated.daily_balances",
        "raw.exchanges_ledger",
        "ops.coverage",
    )
    root, rng = tmp_path / "published", random.Random(3)
    publish(con, root, [], run_id="000000")
    stop, ready = tmp_path / "stop", tmp_path / "ready"
    reader = subprocess.Popen(
        [
            sys.executable,
            "-c",
            READER,
            str(root),
            str(stop),
            str(ready),
            json.dumps(INVARIANTS),
            json.dumps([t.name for t in TABLES]),
        ],
        cwd="/",
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not ready.exists() and reader.poll() is None:
            pass
        for run in range(1, 51):
            late = date(2031, rng.randint(1, 4), rng.randint(1, 28))
            days = sync(con, run, {late: rng.randint(0, 3)}, date(2031, 4, 28), rng)
            done = publish(con, root, days, run_id=f"{run:06d}")
    finally:
        stop.touch()
        out, err = reader.communicate(timeout=120)
    assert reader.returncode == 0, err
    report = json.loads(out)
    assert report["last"] == done.generation == 51
    assert report["seen"] > 5, "the reader must have met generations come and go"
    assert published(root) == contents(con)


def test_the_invariants_of_the_reader_can_be_broken(con, tmp_path):
    """Each is violated by books whose tables are of different runs."""
    publish(con, tmp_path, [], run_id="000000")
    old, _ = contents(con), sync(con, 1, {date(2031, 2, 1): 5, date(2031, 2, 2): 1}, NOW.date())
    publish(con, tmp_path, [date(2031, 3, 1)], run_id="000002")  # not the days that were touched
    with open_books(tmp_path) as books:
        broken = {law for law, query in INVARIANTS.items() if books.execute(query).fetchall()}
    assert len(old) == len(TABLES) and "the last balance is the sum of all" in broken
    assert "the tables are those of the run" in broken


def test_the_books_work_anywhere_also_after_the_folder_was_moved(con, tmp_path, monkeypatch):
    root, moved = tmp_path / "it's here", tmp_path / "moved"
    publish(con, root, [])
    monkeypatch.chdir("/")
    wanted = contents(con)
    with duckdb.connect(str(root / BOOKS), read_only=True) as plain:
        assert contents(plain) == wanted
        plain.execute("FROM published")
    (tmp_path / "linked").symlink_to(root)
    with duckdb.connect(str(tmp_path / "linked" / BOOKS), read_only=True) as linked:
        assert contents(linked) == wanted
    shutil.move(root, moved)
    assert published(moved) == wanted
    searched = {"file_search_path": str(moved)}  # as a BI tool gives it
    with duckdb.connect(str(moved / BOOKS), read_only=True, config=searched) as bi:
        assert contents(bi) == wanted
    with duckdb.connect() as other:
        other.execute(f"ATTACH '{moved}/{BOOKS}' AS b (READ_ONLY)")
        with pytest.raises(duckdb.Error):  # there is nothing where they were published
            other.execute("FROM b.curated.tx_unified").fetchall()
        other.execute(f"SET VARIABLE published_root = '{moved}'")
        rows = other.execute("FROM b.curated.tx_unified").fetchall()
        assert sorted(rows, key=repr) == wanted["curated.tx_unified"]


def test_copied_books_never_read_the_files_of_others(con, tmp_path):
    """Not those they were copied from, nor, by name, those of books that went on apart."""
    here, copy = tmp_path / "here", tmp_path / "copy"
    publish(con, here, [])
    shutil.copytree(here, copy)
    with duckdb.connect(str(copy / BOOKS), read_only=True) as plain:
        for table in ("curated.tx_unified", "ops.batches"):
            with pytest.raises(duckdb.Error, match="have been moved or copied: open them with"):
                plain.execute(f"FROM {table}").fetchall()
    was, days = published(copy), sync(con, 1, {date(2031, 2, 1): 5}, NOW.date())
    publish(con, here, days)
    assert published(copy) == was and published(here) == contents(con) != was
    publish(con, copy, days)  # both have written the same generation
    with duckdb.connect() as mixed:
        mixed.execute(f"ATTACH '{copy}/{BOOKS}' AS b (READ_ONLY)")
        mixed.execute(f"SET file_search_path = '{here}'")
        with pytest.raises(duckdb.IOException):
            mixed.execute("FROM b.curated.tx_unified").fetchall()


def test_comments_and_types_are_carried_over_and_no_amount_is_a_float(con, tmp_path):
    publish(con, tmp_path, [])
    query = (
        "SELECT schema_name, table_name, column_index, column_name, data_type, comment FROM "
        "duckdb_columns() WHERE schema_name IN ('curated', 'raw', 'ops') AND table_name <> "
        "'touched_days' ORDER BY ALL"
    )
    views = "SELECT comment FROM duckdb_views() WHERE view_name = 'daily_balances'"
    with open_books(tmp_path) as books:
        here, there = con.execute(query).fetchall(), books.execute(query).fetchall()
        names = {t.name for t in (*TABLES, *IN_BOOKS)}
        assert [c for c in here if f"{c[0]}.{c[1]}" in names] == there
        assert any(c[3:] == ("amount", "DECIMAL(38,18)", "signed; it's exact") for c in there)
        assert books.execute(views).fetchall() == [("what was held",)]
        schema = con.execute(
            "SELECT name, type, converted_type, precision, scale FROM "
            f"parquet_schema('{tmp_path}/*/**/*.parquet')"
        ).fetchall()
    assert {kind for _, kind, *_ in schema} & {"FLOAT", "DOUBLE"} == set()
    assert {tuple(c[2:]) for c in schema if c[0] == "amount"} == {("DECIMAL", 38, 18)}
    codecs = con.execute(
        f"SELECT DISTINCT compression FROM parquet_metadata('{tmp_path}/*/**/*.parquet')"
    ).fetchall()
    assert codecs == [("ZSTD",)]


def test_a_column_that_parquet_would_make_a_float_is_refused(con, tmp_path):
    con.execute("CREATE OR REPLACE TABLE curated.assets AS SELECT sum(1) AS n")  # a HUGEINT
    with pytest.raises(ValueError, match=r"curated.assets.n is a HUGEINT.*cast it"):
        publish(con, tmp_path, [])
    assert not (tmp_path / BOOKS).exists()


def test_a_warehouse_without_its_models_is_told_apart(tmp_path):
    with duckdb.connect() as bare:
        create_all(bare)
        with pytest.raises(ValueError, match="curated.tx_unified is not in the warehouse"):
            publish(bare, tmp_path, [])


# ---- which files change


def test_how_a_run_went_is_published_after_it_and_nothing_else(con, tmp_path):
    """Also of a run whose days were refused: those are not in the books."""
    assert publish_news(con, tmp_path) is None, "there are no books to add it to"
    publish(con, tmp_path, [], run_id="first", now=NOW)
    before, files = published(tmp_path), stamps(tmp_path)
    sync(con, 1, {date(2031, 4, 28): 5, date(2031, 1, 1): 1}, date(2031, 4, 30))
    put(con, "ops.incidents", incident_id="i1")
    put(con, "ops.held_accounts", source="kraken")
    put(con, "ops.quarantined_files", file="f.jsonl.zst")
    put(con, "ops.sync_runs", run_id="refused", source="kraken", task_id="fetch_kraken")
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


def spoil(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "table", ["curated.tx_unified", "curated.daily_balances", "ops.api_calls", "curated.assets"]
)
def test_a_damaged_file_is_named_and_written_again_instead_of_kept(con, tmp_path, table):
    root = tmp_path / "published"
    first = publish(con, root, [])
    file = [f for f in first.files if f.table_name == table][0]
    spoil(root / file.path)
    done = publish(con, root, [])
    assert done.damaged == (file.path,)
    assert file.month in {f.month for f in done.files if f.table_name == table}
    if table == "curated.tx_unified":
        assert months(done, table) == ["01"], "and no other of it"
    assert published(root) == contents(con)
    ((aside, why, _),) = quarantined(tmp_path)
    assert aside.name == Path(file.path).name and file.path in why
    assert publish(con, root, []).damaged == ()


def test_many_files_are_compared_in_turn(con, tmp_path, monkeypatch):
    root = tmp_path / "published"
    publish(con, root, [])
    monkeypatch.setattr(kept_files, "BYTES", 8_000)
    compared = []
    monkeypatch.setattr(kept_files, "digest", lambda path: compared.append(path) or digest(path))
    with open_books(root) as books:
        files = [(root / path) for (path,) in books.execute(
            "SELECT path FROM published_files").fetchall()]  # fmt: skip
    kept = read_content(root).files
    turns = 0
    while not compared or set(compared) != set(files):
        before = len(compared)
        assert kept_files.damaged(root, kept) == {}
        assert (
            0
            < sum(p.stat().st_size for p in compared[before:])
            < 8_000 + max(p.stat().st_size for p in files)
        )
        turns += 1
        assert turns <= len(files)
    assert turns > 2 and len(compared) < 2 * len(files)
    (root / "compared.txt").write_bytes(b"\xff\x00 nonsense")
    assert kept_files.damaged(root, kept) == {}, "a damaged note begins again from the first"


def named(file):
    """A file's path without the random end of its name, and its rows."""
    return re.sub(r"\.[0-9a-f]{8}\.parquet$", "", file.path), file.rows


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


# ---- what goes, and when


def test_dropped_files_stay_for_the_grace_of_their_readers_and_no_longer(con, tmp_path):
    day, started = date(2031, 1, 1), NOW
    publish(con, tmp_path, [], now=started)
    with duckdb.connect(str(tmp_path / BOOKS), read_only=True) as reader:
        was = contents(reader)
        days = sync(con, 1, {day: 1}, date(2031, 4, 28))
        publish(con, tmp_path, days, now=started + 30 * DAY)  # first drops; however old they are
        publish(con, tmp_path, days, now=started + 30 * DAY + GRACE - timedelta(seconds=1))
        assert contents(reader) == was, "a reader keeps the generation it opened"
        publish(con, tmp_path, days, now=started + 30 * DAY + GRACE)
    names = {
        int(p.name[1:].split(".")[0]) for p in (tmp_path / "tx_unified" / "month=2031-01").iterdir()
    }
    assert names == {2, 3, 4}, "1 was dropped an hour ago, 2 a second ago, 3 now"
    assert published(tmp_path) == contents(con)


def test_a_vanished_months_folder_goes_with_its_last_file(con, tmp_path):
    publish(con, tmp_path, [], now=NOW)
    days = sync(con, 1, {date(2031, 1, day): 0 for day in (1, 15, 28)}, date(2031, 4, 28))
    publish(con, tmp_path, days, now=NOW)
    publish(con, tmp_path, [], now=NOW + GRACE)
    assert not (tmp_path / "tx_unified" / "month=2031-01").exists()
    assert (tmp_path / "tx_unified" / "month=2031-02").exists()


def test_what_gets_its_name_is_on_the_disk_before(con, tmp_path, monkeypatch):
    """No kill of a process shows a missing fsync; only the order of the calls does."""
    synced, named = set(), []

    real = durable.sync
    monkeypatch.setattr(durable, "sync", lambda path: (real(path), synced.add(str(path))))

    def checked(name):
        real = getattr(os, name)

        def rename(source, target):
            named.append(str(source) in synced)
            real(source, target)

        monkeypatch.setattr(os, name, rename)

    for name in ("rename", "replace"):
        checked(name)
    done = publish(con, tmp_path, [])
    assert named == [True] * (len(done.files) + 3), "each file, the books and their digest"


class Killed(BaseException):
    pass


@pytest.mark.slow
def test_killed_at_any_step_and_run_again_equals_never_killed(con, only, tmp_path, monkeypatch):
    """Step k of the k-th publish raises, until one has fewer steps than that."""
    only("curated.tx_unified", "curated.daily_balances", "ops.coverage")
    steps = [
        (os, "rename"),
        (os, "replace"),
        (Path, "unlink"),
        (Path, "rmdir"),
        (publishing, "sync"),
        (durable, "sync"),
        (publishing, "build"),
        (parquet_files, "place"),
        (parquet_files, "_write"),
        (parquet_files, "_write_all"),
    ]
    real = {(owner, name): getattr(owner, name) for owner, name in steps}
    left = {"steps": 0}

    def dying(call, after):
        def step(*args, **kwargs):
            left["steps"] -= 1
            if left["steps"] == 0:
                if after:
                    call(*args, **kwargs)
                raise Killed
            return call(*args, **kwargs)

        return step

    kinds, now, rng = set(), NOW, random.Random(5)
    publish(con, tmp_path, [], run_id="000000", now=now)
    for run in range(1, 500):
        before, now = contents(con), now + GRACE
        (tmp_path / f".{BOOKS}.part").write_bytes(b"half")
        days = sync(
            con,
            run,
            {date(2031, rng.choice((3, 4)), 15): rng.randint(0, 2)},
            date(2031, 4, 28),
            rng,
        )
        left["steps"] = run
        with monkeypatch.context() as patched:
            for owner, name in steps:
                patched.setattr(owner, name, dying(real[owner, name], after=run % 2))
            try:
                publish(con, tmp_path, days, run_id=f"{run:06d}", now=now)
                killed = False
            except Killed:
                killed = True
        books_now, wanted = published(tmp_path), contents(con)
        assert books_now in (before, wanted), "neither before nor after"
        kinds.add(books_now == before)
        publish(con, tmp_path, days, run_id=f"{run:06d}", now=now)
        assert published(tmp_path) == wanted
        if not killed:
            break
    assert not killed and kinds == {True, False}, "kills before and after the switch"
    for later in (1, 2):
        publish(con, tmp_path, [], now=now + later * GRACE)
    with open_books(tmp_path) as books:
        listed = {
            p
            for (p,) in books.execute(
                "SELECT path FROM published_files UNION ALL SELECT path FROM retired_files"
            ).fetchall()
        }
        live = {p for (p,) in books.execute("SELECT path FROM published_files").fetchall()}
    assert stamps(tmp_path).keys() == listed and len(listed) <= len(live) + 2
    assert list(tmp_path.rglob(".*")) == [], "nothing half-written is left"


# ---- after the checks


@pytest.fixture
def var(built, tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    shutil.copy(built, tmp_path)
    return tmp_path


def mark(con, days, batch: str) -> None:
    for day in days:
        con.execute(f"INSERT INTO ops.touched_days VALUES ('exchanges_ledger', '{day}', '{batch}')")


def checked(run_id: str, **severities: bool) -> None:
    with open_warehouse(owner="test") as con:
        results = [CheckResult("curated.tx_unified", s, s, ok) for s, ok in severities.items()]
        record(con, results, run_id, Interval("2031-01-01T00:00:00Z", "2031-05-01T00:00:00Z"))


def marks_left() -> set[str]:
    with open_warehouse(owner="test") as con:
        return {b for (b,) in con.execute("SELECT batch_id FROM ops.touched_days").fetchall()}


def test_what_the_checks_have_passed_is_published_and_its_marks_go(var):
    checked("r1", critical=True, warning=False)
    publish_checked(["b0"], run_id="r1", owner="test")
    assert marks_left() == set()
    with open_warehouse(owner="test") as con:
        assert published(var / "published") == contents(con)
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    checked("r2", critical=True)
    done = publish_checked(["b1"], run_id="r2", owner="test")
    assert months(done, "curated.tx_unified") == ["02"], "days come from the marks"


def test_a_failed_or_missing_check_publishes_nothing_and_keeps_the_marks(var):
    checked("r1", critical=True)
    publish_checked(["b0"], run_id="r1", owner="test")
    before = stamps(var / "published")
    with open_warehouse(owner="test") as con:
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    with pytest.raises(NotChecked, match="no check is recorded for run r2"):
        publish_checked(["b1"], run_id="r2", owner="test")
    checked("r2", critical=False, warning=True)
    with pytest.raises(NotChecked, match="1 critical expectation.*for run r2"):
        publish_checked(["b1"], run_id="r2", owner="test")
    assert stamps(var / "published") == before and marks_left() == {"b1"}


def test_the_decision_is_made_of_severity_and_success_and_names_what_failed():
    def result(severity: str, success: bool) -> CheckResult:
        return CheckResult("raw.t", f"a_{severity}", severity, success)

    require_passed([result("critical", True), result("warning", False)], "r1")
    with pytest.raises(NotChecked, match="no check is recorded for run r1") as refused:
        require_passed([], "r1")
    assert refused.value.failed == ()
    failed = result("critical", False)
    with pytest.raises(
        NotChecked, match=r"1 critical .* for run r1: raw.t a_critical\."
    ) as refused:
        require_passed([result("info", True), failed, result("warning", False)], "r1")
    assert refused.value.failed == (failed,)


def test_the_days_given_are_published_and_not_computed_again(var, monkeypatch):
    monkeypatch.setattr(touched_days, "touched", None)
    checked("r1", critical=True)
    publish_checked(["b0"], {}, run_id="r1", owner="test")
    with open_warehouse(owner="test") as con:
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    checked("r2", critical=True)
    february = (date(2031, 2, 28), date(2031, 3, 1))
    done = publish_checked(["b1"], {"curated.tx_unified": [february]}, run_id="r2", owner="test")
    assert months(done, "curated.tx_unified") == ["02"] and marks_left() == set()
    assert months(done, "curated.daily_flows") == []


def test_days_that_another_run_has_loaded_since_wait_for_their_own_check(var):
    with open_warehouse(owner="test") as con:
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    checked("r1", critical=True)
    with pytest.raises(Superseded, match="1 batch.*not transformed and checked yet"):
        publish_checked(["b0"], run_id="r1", owner="test")
    assert not (var / "published").exists() and marks_left() == {"b0", "b1"}
    checked("r2", critical=True)
    publish_checked(["b0", "b1"], run_id="r2", owner="test")
    assert marks_left() == set()


def test_a_publish_that_dies_keeps_the_marks(var, monkeypatch):
    checked("r1", critical=True)
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "build", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            publish_checked(["b0"], run_id="r1", owner="test")
    assert marks_left() == {"b0"}
    publish_checked(["b0"], run_id="r1", owner="test")
    assert marks_left() == set()


@pytest.mark.slow
def test_the_days_of_the_marks_are_all_that_the_real_transform_changed(tmp_path, monkeypatch):
    """Also where a row changes another month: a fill the day before its entry."""
    from tests.helpers.recomputed import load_batch, money
    from tests.helpers.recomputed import put as put_rows

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    path, root = tmp_path / FILE, tmp_path / "published"
    entry = {
        "source": "kraken",
        "account": "main",
        "entry_id": "e99",
        "asset": "BTC",
        "ts": datetime(2077, 3, 1, 10),
        "kind": "trade",
        "is_settled": True,
        "order_id": "o9",
        **money("amount", "1"),
    }
    fill = {
        "source": "kraken",
        "account": "main",
        "symbol": "BTC/USD",
        "trade_id": "t99",
        "ts": datetime(2077, 2, 28, 20),
        "order_id": "o9",
        **money("price", "7"),
    }
    for number, (table, row) in enumerate(
        [("exchanges_ledger", entry), ("exchanges_trades", fill)]
    ):
        with open_warehouse(path, owner="test") as con:
            if number == 0:
                load_batch(con, random.Random(11), datetime(2077, 2, 24), number)
            put_rows(con, table, [row], f"c{number}")
        done = transform(path, owner="test")
        with open_warehouse(path, owner="test") as con:
            assert dict(done.changed) == {
                table: tuple(joined((day, day + DAY) for day in days))
                for table, days in touched(con, done.batches)[1].items()
            }
            record(
                con, [CheckResult("curated.tx_unified", "a", "critical", True)], "r", done.spans[0]
            )
        publish_checked(done.batches, done.changed, run_id="r", owner="test")
        with open_warehouse(path, owner="test") as con:
            assert published(root) == contents(con), f"after batch {number}"
            assert marks_of(con) == ()
    with open_books(root) as books:
        assert books.execute(
            "SELECT price, fills FROM curated.tx_unified WHERE txid = 'e99'"
        ).fetchall() == [(7, 1)]


@pytest.mark.slow
def test_the_tasks_hand_on_the_days_that_the_transform_computed(tmp_path, monkeypatch):
    """Transform and publish as Airflow calls them: what goes between them is JSON."""
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowFailException

    from ledgerhouse.operate.airflow.operators import load
    from tests.helpers.recomputed import load_batch

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setattr(load, "gc_off", lambda: None)  # this process goes on
    with open_warehouse(owner="test") as con:
        load_batch(con, random.Random(11), datetime(2077, 2, 24), 0)
    xcom: dict[str, object] = {}

    def context(task: str) -> dict[str, object]:
        names = {"dag_id": "sync", "run_id": "r1", "task_id": task, "map_index": -1}
        pull = SimpleNamespace(xcom_pull=lambda task_ids: xcom[task_ids])
        return {"ti": SimpleNamespace(**names, try_number=1, **vars(pull))}

    done = load.TransformOperator(task_id="transform").execute(context("transform"))
    xcom["transform"] = json.loads(json.dumps(done))
    publish_task = load.PublishOperator(task_id="publish", transform="transform")
    checked("r1", critical=False)
    with pytest.raises(AirflowFailException, match="1 critical expectation.*for run r1"):
        publish_task.execute(context("publish"))
    checked("r1", critical=True)
    with monkeypatch.context() as patched:
        patched.setattr(touched_days, "touched", None)
        first = publish_task.execute(context("publish"))
    assert first["rows"] and marks_left() == set()
    with open_warehouse(owner="test") as con:
        assert published(tmp_path / "published") == contents(con)
        mark(con, ["2077-02-25"], "b9")
    # A run that an older version has transformed does not say which days changed.
    xcom["transform"] = {"batches": ["b9"], "spans": []}
    again = publish_task.execute(context("publish"))
    with open_books(tmp_path / "published") as con:
        assert con.execute(
            "SELECT month FROM published_files WHERE table_name = 'curated.tx_unified' "
            "AND generation = ?",
            [again["generation"]],
        ).fetchall() == [(date(2077, 2, 1),)]
    assert marks_left() == set()
