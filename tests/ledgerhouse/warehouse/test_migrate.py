"""A warehouse of an older version: nullable columns are added, anything else is refused, and
`replay` makes it again either way. Nothing depends on the order of columns."""

from __future__ import annotations

import logging
import random
import re
import shutil
from datetime import timedelta
from pathlib import Path

import duckdb
import pytest
import requests

from extract.core.interval import iso, utc
from extract.sources import all_sources
from ledgerhouse.load.loader import load
from ledgerhouse.load.replay import FROM_LANDING, ReplayFailed, replay
from ledgerhouse.publish import publish
from ledgerhouse.warehouse import migrate, schema
from ledgerhouse.warehouse.migrate import SchemaChanged
from sandbox.server import serve
from tests.helpers.books import Books

pytestmark = pytest.mark.slow

START, FILE = "2024-11-01T00:00:00Z", "warehouse.duckdb"
FIRST = Path(__file__).with_name("first_schema.sql")
ROOT = Path(__file__).parents[3]
# Marks are made again, and the quarantined files are those of a folder.
OF_OTHERS = ("ops.touched_days", "ops.quarantined_files")


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    """A week of syncs with its landing; two more syncs wait in `later/`, landed and not loaded."""
    var = tmp_path_factory.mktemp("lived")
    with serve(seed=33, now=START, scale=0.3) as url:
        books = Books(url, var / "landing", path=str(var / FILE))
        now = utc(START) + timedelta(days=3)
        for step in range(4):
            now += timedelta(hours=30)
            requests.post(f"{url}/_control/clock", json={"now": iso(now)}, timeout=10)
            if step == 2:
                shutil.copytree(var / "landing", var / "later")
            books.root = var / ("landing" if step < 2 else "later")
            for job in books.plan(START, iso(now), snapshot=step % 2 == 0):
                books.fetch(job)
            if step < 2:
                load(books.con, books.root, books.sources)
                fill_ops(books.con, random.Random(step))
        books.con.close()
    return var


def fill_ops(con, rng) -> None:
    """A row of its own in each ops table that the loader does not write."""
    for table, columns in migrate.columns(con).items():
        written = table in FROM_LANDING or not table.startswith("ops.")
        if not written and not con.execute(f"SELECT 1 FROM {table}").fetchone():
            con.execute(
                f"INSERT INTO {table} ({', '.join(columns)}) SELECT "
                + ", ".join(
                    f"'{rng.randint(1, 9)}'"
                    if c.type in ("VARCHAR", "INTEGER", "BIGINT")
                    else "true"
                    if c.type == "BOOLEAN"
                    else f"DATE '2024-11-0{rng.randint(1, 9)}'"
                    for c in columns.values()
                )
            )


@pytest.fixture
def var(lived, tmp_path):
    shutil.copytree(lived, tmp_path / "var")
    return tmp_path / "var"


def opened(var):
    con = duckdb.connect(str(var / FILE))
    con.execute("SET TimeZone = 'UTC'")
    return con


def remake(con, table: str, columns: dict) -> None:
    """The table again with these columns (a value that is no Column is its SQL and type)."""
    con.execute(f"ALTER TABLE {table} RENAME TO before_{table.split('.')[1]}")
    old = f"{table.split('.')[0]}.before_{table.split('.')[1]}"
    con.execute(f"CREATE TABLE {table} ({', '.join(f'{n} {c}' for n, c in columns.items())})")
    con.execute(f"INSERT INTO {table} BY NAME SELECT {', '.join(columns)} FROM {old}")
    con.execute(f"DROP TABLE {old}")


def age(con, rng) -> dict[str, list[str]]:
    """Make every table of raw and ops one of before: without some of its nullable columns, the
    others in any order. The columns that went, by table."""
    gone = {}
    for (view,) in con.execute(
        "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE schema_name = 'ops'"
    ).fetchall():
        con.execute(f"DROP VIEW {view}")
    for table, columns in migrate.columns(con).items():
        spare = [
            name
            for name, column in columns.items()
            if not column.required and name not in migrate.FILLED
        ]
        gone[table] = rng.sample(spare, rng.randint(0, min(3, len(spare))))
        left = [name for name in columns if name not in gone[table]]
        rng.shuffle(left)
        remake(con, table, {name: columns[name] for name in left})
    con.execute("COMMENT ON TABLE ops.batches IS 'schema of before'")
    return gone


def content(con, tables=None, leave_out=()) -> dict[str, list]:
    """Rows by table, columns by name."""
    found = {}
    for table, columns in migrate.columns(con).items():
        names = sorted(n for n in columns if (table, n) not in leave_out)
        if tables is None or table in tables:
            found[table] = sorted(
                con.execute(f"SELECT {', '.join(names)} FROM {table}").fetchall(), key=repr
            )
    return found


@pytest.mark.parametrize("seed", range(2))
def test_columns_are_added_old_rows_kept_loading_goes_on_and_replay_fills(
    var, seed, caplog, monkeypatch
):
    monkeypatch.setattr(publish, "TABLES", [t for t in publish.TABLES if "curated" not in t.name])
    rng = random.Random(seed)
    with opened(var) as con:
        fresh, shapes = content(con), publish._definitions(con)
        gone = age(con, rng)
        lost = {(table, name) for table, names in gone.items() for name in names}
        kept = content(con)
        with caplog.at_level(logging.WARNING):
            schema.create_all(con)
        assert content(con, leave_out=lost) == kept, "an old row changed"
        logged = caplog.text
        for table, name in lost:
            assert f"{table}.{name} " in logged
            assert con.execute(f"SELECT count({name}) FROM {table}").fetchone() == (0,)
            assert (
                table not in shapes
                or shapes[table].digest != publish._definitions(con)[table].digest
            ), f"{table} would not be published again"
        caplog.clear()
        schema.create_all(con)  # and that is all there is to do
        assert not caplog.text
    with opened(var) as con:  # what was landed since loads, whatever the order of the columns
        shutil.rmtree(var / "landing")
        (var / "later").rename(var / "landing")
        assert load(con, var / "landing", all_sources()).files
        live = {
            t: con.execute(f"SELECT count(*) FROM {t}").fetchone()
            for t in FROM_LANDING
            if t != "raw.history"
        }
    replay(var / FILE, var / "landing", all_sources())
    with opened(var) as con, duckdb.connect() as new:
        again = content(con)
        assert {t: con.execute(f"SELECT count(*) FROM {t}").fetchone() for t in live} == live
        schema.create_all(new)
        assert migrate.columns(con) == migrate.columns(new)
        for table in again.keys() - {*FROM_LANDING, *OF_OTHERS}:
            names = sorted(n for n in migrate.columns(con)[table])
            assert [
                [v for n, v in zip(names, row) if (table, n) not in lost] for row in again[table]
            ] == [
                [v for n, v in zip(names, row) if (table, n) not in lost] for row in fresh[table]
            ], f"{table} was not carried over"
    (var / FILE).unlink()
    replay(var / FILE, var / "landing", all_sources())
    with opened(var) as con:
        assert content(con, FROM_LANDING) == {t: again[t] for t in FROM_LANDING}


def retyped(con):
    remake(con, "raw.balances", migrate.columns(con)["raw.balances"] | {"amount": "VARCHAR"})
    con.execute("UPDATE raw.balances SET row_hash = row_hash // 2")  # as of other columns


def removed(con):
    con.execute("ALTER TABLE raw.exchanges_ledger ADD COLUMN memo VARCHAR DEFAULT 'x'")


def required(con):
    columns = migrate.columns(con)["ops.coverage"]
    remake(con, "ops.coverage", {n: c for n, c in columns.items() if n != "read_at"})


def unfilled(con):
    con.execute("ALTER TABLE raw.balances DROP COLUMN changed_at")


def rekeyed(con):
    macro = schema.as_of(schema.DATASETS["balances"])
    con.execute(
        macro.replace(
            "PARTITION BY source, account, wallet, token, ts",
            "PARTITION BY source, account, token, ts",
        )
    )


@pytest.mark.parametrize(
    "change, message",
    [
        (retyped, r"raw\.balances\.amount is VARCHAR in the warehouse, DECIMAL\(38,18\) in this"),
        (removed, r"raw\.exchanges_ledger\.memo \(VARCHAR\) is no column of this version"),
        (
            unfilled,
            r"raw\.balances\.changed_at \(TIMESTAMP\) is new, and the rows there are have no",
        ),
        (required, r"ops\.coverage\.read_at \(TIMESTAMP NOT NULL\) is new, and the rows there are"),
        (
            rekeyed,
            r"key of raw\.balances is \(account, source, token, ts\) in the warehouse, "
            r"\(account, source, token, ts, wallet\)",
        ),
    ],
)
def test_what_would_lose_or_invent_is_refused_and_replay_heals(var, change, message):
    with opened(var) as con:
        fresh = content(con)
        change(con)
        con.execute("ALTER TABLE ops.api_calls DROP COLUMN error")  # could be added
        con.execute("COMMENT ON TABLE ops.batches IS 'schema of before'")
        before, shape = content(con), migrate.columns(con)
        with pytest.raises(SchemaChanged, match=rf"{message}.*Nothing was written.*make replay"):
            schema.create_all(con)
        assert content(con) == before and migrate.columns(con) == shape
        assert con.execute("SELECT 1").fetchone(), "the connection is left in a broken transaction"
    if change is not retyped:  # one replay is enough: they differ in nothing it sees
        return
    done = replay(var / FILE, var / "landing", all_sources())
    assert done.differences == {}
    with opened(var) as con:
        schema.create_all(con)
        leave_out = {("ops.api_calls", "error")}
        tables = fresh.keys() - {*OF_OTHERS, "ops.api_calls"}
        assert content(con, tables, leave_out) == {t: fresh[t] for t in tables}
        assert con.execute("SELECT count(*) FROM ops.api_calls").fetchone() == (1,)


def test_rows_that_only_the_warehouse_has_are_never_dropped_by_a_replay(var):
    with opened(var) as con:
        columns = migrate.columns(con)["ops.checkpoints"]
        remake(con, "ops.checkpoints", {n: c for n, c in columns.items() if n != "severity"})
    before = (var / FILE).read_bytes()
    with pytest.raises(ReplayFailed, match=r"ops\.checkpoints.*do not fit.*severity.*in place"):
        replay(var / FILE, var / "landing", all_sources())
    assert (var / FILE).read_bytes() == before


def test_a_warehouse_of_the_first_version_is_told_what_to_do_and_replayed(var):
    later = {("ops.sync_runs", "error_type"), ("ops.sync_runs", "error_fields")}
    later |= {("ops.checkpoints", "accounts")}
    with opened(var) as con:
        fresh = content(con, leave_out=later)
    (var / FILE).rename(var / "newer.duckdb")
    with opened(var) as con:
        con.execute(FIRST.read_text())
        con.execute(f"ATTACH '{var / 'newer.duckdb'}' AS newer (READ_ONLY)")
        for table, columns in migrate.columns(con).items():
            con.execute(
                f"INSERT INTO {table} BY NAME SELECT {', '.join(columns)} FROM newer.{table}"
            )
        with pytest.raises(SchemaChanged, match=r"ops\.batches\.vanished .*ops\.coverage\.read_at"):
            schema.create_all(con)
        assert "vanished_at" not in migrate.columns(con)["raw.balances"]
    done = replay(var / FILE, var / "landing", all_sources())
    assert done.differences == {}
    with opened(var) as con:
        schema.create_all(con)
        tables = {*FROM_LANDING, "ops.checkpoints", "ops.sync_runs"}
        assert content(con, tables, later) == {t: fresh[t] for t in tables}
        assert len(content(con)["ops.api_calls"]) == 1


def test_killed_while_adding_the_next_call_adds(var, monkeypatch):
    with opened(var) as con:
        gone = age(con, random.Random(1))
        shape = migrate.columns(con)
        monkeypatch.setattr(schema, "write_digest", lambda con, digest: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            schema.create_all(con)
        assert migrate.columns(con) == shape
        monkeypatch.undo()
        schema.create_all(con)
        assert all(name in migrate.columns(con)[t] for t, names in gone.items() for name in names)


def test_no_statement_goes_by_the_order_of_columns():
    """INSERTs into raw and ops name their columns."""
    found = 0
    for path in (*(ROOT / "extract").rglob("*.py"), *(ROOT / "ledgerhouse").rglob("*.py")):
        text = re.sub(r'"\s*\n\s*f?"', "", path.read_text())  # strings written in pieces
        for match in re.finditer(
            r"INSERT INTO ((?:raw|ops)\.\w+|\{dataset\.table\}|\{table\})"
            r"\s*(.{0,12})",
            text,
            re.DOTALL,
        ):
            if path.name in ("books.py",):  # its tables are made again with each books.duckdb
                continue
            found += 1
            assert re.match(r"\(|BY NAME", match[2]), f"{path.name}: {match[0]!r}"
    assert found > 12
