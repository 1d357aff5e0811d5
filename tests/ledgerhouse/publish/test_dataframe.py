"""The books for analysts: pandas to the last digit, any Parquet reader, the shell, the example."""

from __future__ import annotations

import decimal
import random
import runpy
import shutil
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import duckdb
import pandas
import pytest

from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.dataframe import files, frame, tables
from ledgerhouse.publish.publish import publish
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import transform
from ledgerhouse.warehouse.connection import open_warehouse
from sandbox.server import serve
from tests.helpers.books import ACCOUNTS, Books, Hurried

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
START, NOW = "2025-11-01", "2026-02-10"
MONTHS = (date(2025, 11, 1), date(2025, 12, 1), date(2026, 1, 1), date(2026, 2, 1))


@pytest.fixture(scope="module")
def published(planned, tmp_path_factory) -> Path:
    """Books of an exchange account and a wallet, one month published twice."""
    var = tmp_path_factory.mktemp("frame")
    shutil.copytree(planned, var, dirs_exist_ok=True)
    with serve(seed=5, now=NOW, start=START, scale=0.3) as url:
        url.app.lift_limits()
        books = Books(url, var / "landing", path=str(var / FILE), clock=Hurried())
        books.sync(START, NOW, accounts=ACCOUNTS[:2], snapshot=True)
    books.con.close()
    transform(var / FILE, owner="test")
    with open_warehouse(var / FILE, owner="test") as con:
        publish(con, var / "published", [])
        publish(con, var / "published", [date(2026, 1, 5)])  # the older files stay for a while
    return var / "published"


@pytest.fixture
def here(published, monkeypatch) -> Path:
    """The same, as the books that are read where no root is given."""
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(published.parent))
    return published


@pytest.fixture(autouse=True)
def narrow():
    """Python's own precision, as in a process that has just started."""
    before = decimal.getcontext().prec, decimal.DefaultContext.prec
    decimal.getcontext().prec = decimal.DefaultContext.prec = 28
    yield
    decimal.getcontext().prec, decimal.DefaultContext.prec = before


def test_every_table_is_a_frame_of_the_same_values_and_none_is_a_float(here):
    with open_books() as con:
        for table in tables(con):
            expected = con.execute(f"FROM {table} ORDER BY ALL").fetchall()
            data = frame(table, where="true ORDER BY ALL")  # a view's rows come in any order
            assert not [c for c in data if data[c].dtype.kind == "f"], table
            assert list(data.columns) == [c[0] for c in con.description]
            for place, (name, kind, *_) in enumerate(con.description):
                column, kind = data[name], str(kind)
                assert [None if pandas.isna(v) else v for v in column] == [
                    pandas.Timestamp(row[place], tz="UTC")
                    if kind == "TIMESTAMP" and row[place]
                    else pandas.Timestamp(row[place])
                    if kind == "DATE" and row[place]
                    else row[place]
                    for row in expected
                ], (table, name)
                if kind.startswith("DECIMAL"):
                    assert {type(v) for v in column} <= {Decimal, type(None)}, (table, name)
                elif kind == "TIMESTAMP":
                    assert str(column.dtype) == "datetime64[ns, UTC]", (table, name)


@pytest.mark.parametrize("seed", range(5))
def test_pandas_sums_equal_sql_to_the_last_digit(here, seed):
    rng = random.Random(seed)
    amounts = [
        f"{rng.randint(-(10**17), 10**17)}.{rng.randint(0, 10**18 - 1):018d}" for _ in range(200)
    ]
    given = {"amounts": amounts, "groups": [rng.choice("ABC") for _ in amounts]}
    rows = (
        "SELECT unnest($amounts::DECIMAL(38,18)[]) AS amount, unnest($groups::VARCHAR[]) AS token"
    )
    sums = frame(rows, given).groupby("token")["amount"].sum()
    by_sql = frame(
        f"SELECT token, sum(amount) AS amount FROM ({rows}) GROUP BY 1 ORDER BY 1", given
    )
    assert list(sums) == list(by_sql["amount"])
    assert sums.sum() == sum(map(int, (a.replace(".", "") for a in amounts))) * Decimal("1e-18")


def test_a_sum_that_no_decimal_of_38_digits_holds_is_exact(here):
    most = "99999999999999999999.123456789012345678"
    amounts = frame("SELECT unnest([?, ?, ?]::DECIMAL(38,18)[]) AS amount", [most] * 3)["amount"]
    assert format(amounts.sum(), "f") == "299999999999999999997.370370367037037034"
    assert amounts.groupby([1, 1, 1]).sum().iloc[0] == amounts.sum()


def test_where_and_parameters(here):
    btc = frame(
        "curated.daily_balances",
        where="token = ? AND date >= ?",
        parameters=["BTC", date(2026, 2, 1)],
    )
    with open_books() as con:
        expected = con.execute(
            "SELECT balance FROM curated.daily_balances WHERE token = 'BTC' "
            "AND date >= '2026-02-01' ORDER BY date"
        ).fetchall()
    assert expected and list(btc.sort_values("date")["balance"]) == [b for (b,) in expected]
    assert frame("curated.daily_balances", where="false").dtypes.to_dict() | {
        "date": None
    } == btc.dtypes.to_dict() | {"date": None}, "empty ones have the same types"


def test_what_cannot_be_read_is_reported(here, tmp_path):
    for ask in (
        lambda: frame("curated.balances"),
        lambda: frame("FROM curated.balances"),
        lambda: files("curated.balances"),
    ):
        with pytest.raises(ValueError, match="balances.*curated.daily_balances.*ops.coverage"):
            ask()
    with pytest.raises(ValueError, match="a query has its own WHERE"):
        frame("FROM curated.assets", where="true")
    with pytest.raises(ValueError, match="two columns are called token"):
        frame("SELECT token, token FROM curated.assets")
    for ask in (frame, files):
        with pytest.raises(FileNotFoundError, match="no published books .* first sync"):
            ask("curated.assets", root=tmp_path)


def test_files_are_those_of_the_newest_books_and_the_folder_is_not(here):
    paths = files("curated.daily_flows")
    assert [f.parent.name for f in paths] == [f"month={m:%Y-%m}" for m in MONTHS]
    count = len(frame("curated.daily_flows"))
    assert duckdb.read_parquet([str(f) for f in paths]).shape[0] == count
    globbed = duckdb.read_parquet(str(here / "daily_flows/*/*.parquet")).shape[0]
    assert globbed > count, "an older generation lies beside them"
    assert files("ops.api_calls") == [], "no call was written down, so there is no month"


@pytest.mark.parametrize("library", ["pyarrow", "polars"])
def test_other_parquet_readers_see_the_same_decimals(here, library):
    pytest.importorskip(library)
    paths, flows = files("curated.daily_flows"), frame("curated.daily_flows")
    if library == "polars":
        import polars

        net = polars.read_parquet(paths, hive_partitioning=False)["net"].to_list()
    else:
        net = list(pandas.read_parquet(paths, partitioning=None, dtype_backend="pyarrow")["net"])
    assert sorted(net) == sorted(flows["net"])


def test_the_duckdb_shell_reads_the_books(here):
    shell = Path(sys.executable).with_name("duckdb")
    out = subprocess.run(
        [
            shell,
            "-readonly",
            "-csv",
            "-noheader",
            here / "books.duckdb",
            "SELECT sum(net) FROM curated.daily_flows",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert Decimal(out.stdout.strip()) == frame("curated.daily_flows")["net"].sum()


def test_the_example_draws_what_sql_tells(here, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["example", str(tmp_path / "pictures")])
    example = runpy.run_path(str(ROOT / "docs/examples/balances_and_flows.py"))
    with open_books() as con:
        flows = con.execute(
            "SELECT strftime(date, '%Y-%m'), sum(inflow), sum(outflow) FROM curated.daily_flows "
            "WHERE domain = 'exchange' AND token = 'USD' GROUP BY 1 ORDER BY 1"
        ).fetchall()
        held = con.execute(
            "SELECT sum(balance) FROM curated.daily_balances WHERE domain = 'exchange'"
        ).fetchone()
        moved = con.execute("SELECT count(*) FROM curated.tx_unified WHERE counts").fetchone()
    assert len(flows) >= 3
    assert [(str(m), row.inflow, row.outflow) for m, row in example["monthly"].iterrows()] == flows
    assert example["held"].stack().sum() == held[0]
    assert example["per_month"].to_numpy().sum() == moved[0]
    assert {p.name for p in (tmp_path / "pictures").iterdir()} == {
        "balances.png",
        "flows.png",
        "movements.png",
    }
    assert f"{moved[0]:,} movements" in capsys.readouterr().out
    bars = example["draw_flows"](example["monthly"], "USD").axes[0].containers[0]
    assert [bar.get_height() for bar in bars] == [float(inflow) for _, inflow, _ in flows]
