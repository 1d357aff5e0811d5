"""Readers of the books: no error, no lock, no half state, wherever they are."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from datetime import date

import duckdb
import pytest

from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import BOOKS, open_books
from ledgerhouse.publish.publish import publish
from ledgerhouse.warehouse.schema import create_all
from ledgerhouse.warehouse.views import IN_BOOKS
from tests.ledgerhouse.publish.scene import NOW, contents, published, sync

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
            json.dumps([t.name for t in publishing.TABLES]),
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
    assert len(old) == len(publishing.TABLES) and "the last balance is the sum of all" in broken
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
        names = {t.name for t in (*publishing.TABLES, *IN_BOOKS)}
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
