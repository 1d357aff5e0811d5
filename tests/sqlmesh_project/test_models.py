"""What holds for every model: documented, linted, tested, exact, and bounded.

`python tests/sqlmesh_project/test_models.py` rewrites sqlmesh_project/external_models.yaml from the datasets.
"""

from __future__ import annotations

import ast
import json
import random
import sys
from datetime import date, timedelta
from decimal import Decimal, localcontext
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2]))

from extract.core.datasets import DATASETS, META
from ledgerhouse.warehouse.ops_tables import TABLES
from ledgerhouse.warehouse.schema import create_all

PROJECT = Path(__file__).parents[2] / "sqlmesh_project"
EXTERNAL = PROJECT / "external_models.yaml"
OTHERS = (
    "ops.coverage",
    "ops.unread_parts",
    "ops.breaks",
    "ops.sources",
    "raw.adjustments",
)


def external_models() -> str:
    """The tables SQLMesh reads and others write, in block-style YAML.

    Without columns that were added to a dataset: no model reads them, and a table with others makes
    every model on it another one, which the warehouse of an older version would have to plan.
    """
    tables = {
        d.table: {c.name: c.type.lower() for c in (*d.columns, *META) if c.name not in d.added}
        for d in DATASETS.values()
    }
    lines = [
        "# Written from extract/core/datasets.py and ledgerhouse/warehouse/ops_tables.py by `python tests/sqlmesh_project/test_models.py`, and compared."
    ]
    for name in OTHERS:
        tables[name] = {c.name: c.type.split()[0].lower() for c in TABLES[name].columns}
    for table, columns in tables.items():
        lines += [f"- name: {table}", "  columns:"]
        lines += [f"    {name}: {kind}" for name, kind in columns.items()]
    return "\n".join(lines) + "\n"


@pytest.fixture(scope="module")
def context(tmp_path_factory):
    """The project, loaded without a warehouse of its own."""
    from sqlmesh.core.console import NoopConsole, set_console
    from sqlmesh.core.context import Context

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEDGERHOUSE_VAR", str(tmp_path_factory.mktemp("var")))
        patch.delenv("LEDGERHOUSE_STATE_URI", raising=False)
        set_console(NoopConsole())
        ctx = Context(paths=str(PROJECT))
        yield ctx
        ctx.close()
        ctx.engine_adapter.close()


@pytest.fixture(scope="module")
def models(context):
    return {m.name: m for m in context.models.values() if not m.kind.is_external}


def test_external_models_are_the_datasets():
    assert EXTERNAL.read_text() == external_models(), (
        "external_models.yaml differs from extract/core/datasets.py. If the dataset is right, run "
        "`python tests/sqlmesh_project/test_models.py`; if the YAML is right, change extract/core/datasets.py."
    )


def test_the_linter_finds_nothing(context):
    context.lint_models()


@pytest.mark.slow
def test_the_unit_tests_of_the_models_pass(context):
    outcome = context.test()
    assert outcome.testsRun >= 7
    assert outcome.wasSuccessful(), [str(failure) for failure in outcome.failures + outcome.errors]


def test_every_model_says_what_it_is(models):
    assert set(models) == {
        "curated.assets",
        "curated.staged_exchanges",
        "curated.staged_onchain",
        "curated.tx_unified",
        "curated.daily_flows",
        "curated.daily_balances",
        "curated.reconciliation",
    }
    for name, model in models.items():
        assert model.description, f"{name} has no description"
        assert model.grains, f"{name} states no grain"
        assert set(model.column_descriptions) == set(model.columns_to_types), (
            f"{name}: column_descriptions and the columns differ; describe each, or drop it"
        )


def test_no_amount_is_a_float(models):
    for name, model in models.items():
        for column, kind in model.columns_to_types.items():
            assert kind.sql("duckdb").split("(")[0] in {
                "TEXT",
                "VARCHAR",
                "TIMESTAMP",
                "DATE",
                "BOOLEAN",
                "INT",
                "BIGINT",
                "DECIMAL",
            }, f"{name}.{column} is {kind.sql('duckdb')}; money is DECIMAL, never a float"


def test_audits_are_bounded_or_absent(models):
    """An audit of a view reads all of it at every run: 4 s at 10M rows."""
    for name, model in models.items():
        assert bool(model.audits) != model.kind.is_view, name


def test_the_project_imports_nothing_of_ours():
    for path in PROJECT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in {
                    "extract",
                    "ledgerhouse",
                    "dags",
                    "sandbox",
                    "stack",
                }, path


def test_the_state_uri_is_read_or_refused(context):
    from config import state_connection

    state = state_connection("postgresql://postgres@/sqlmesh?host=/run/pg")
    assert (state.host, state.user, state.port) == ("/run/pg", "postgres", 5432)
    assert state.database == "sqlmesh"
    state = state_connection("postgresql://me:s%40crt@db.example:5433/state")
    assert (state.host, state.password, state.port) == ("db.example", "s@crt", 5433)
    assert state_connection(None) is None
    with pytest.raises(ValueError, match="write it like"):
        state_connection("sqlite:///state.db")


def test_row_groups_are_merged_by_nobody_but_the_weekly_refresh(context):
    adapter = context.engine_adapter
    assert adapter.fetchone("SELECT current_setting('max_vacuum_tasks')")[0] == 0


def test_columns_are_read_inside_their_transaction(context):
    """Why TxDuckDBAdapter.columns exists; if the base class learns it, drop the override."""
    adapter = context.engine_adapter
    adapter.execute("CREATE OR REPLACE TABLE main.probe (a INT, b DECIMAL(38, 18))")
    assert list(adapter.columns("main.probe")) == ["a", "b"]


def test_a_filter_on_ts_reaches_every_scan_of_staged_onchain(context, models):
    """The view stays bounded: DuckDB pushes ts through its window, its union and its joins."""
    import duckdb

    view = models["curated.staged_onchain"].render_query().sql("duckdb")
    view = view.replace('"warehouse".', "")
    scans = []

    def walk(node):
        if node["name"].strip() == "SEQ_SCAN":
            scans.append(node["extra_info"])
        for child in node["children"]:
            walk(child)

    with duckdb.connect() as con:
        create_all(con)
        common = (
            "'debank' AS source, 'a' AS account, 'eth' AS chain, 'x' || i AS tx_id, "
            "TIMESTAMP '2024-01-01' + to_hours(i) AS ts, 0 AS row_hash"
        )
        for table, more in {
            "onchain_transactions": "i % 2 = 0 AS pays_gas, 1 AS gas",
            "onchain_transfers": "'eth' AS token, 'in' AS direction, 1 AS leg, 1 AS amount",
        }.items():
            con.execute(
                f"INSERT INTO raw.{table} BY NAME SELECT {common}, {more} FROM range(20000) t(i)"
            )
        plan = con.execute(
            f"EXPLAIN (FORMAT json) SELECT * FROM ({view}) WHERE ts >= TIMESTAMP '2025-01-01' "
            "AND ts < TIMESTAMP '2025-01-02'"
        ).fetchall()[0][1]
    walk(json.loads(plan)[0])
    small = ("onchain_tokens", "onchain_chains")
    big = [scan for scan in scans if not scan["Table"].endswith(small)]
    assert len(big) >= 3
    for scan in big:
        assert "ts>=" in str(scan.get("Filters")), f"{scan['Table']} is read whole"


def test_balances_from_any_day_on_are_those_of_the_whole_history(context, models):
    """To the last digit, whatever is summed: small, huge, cancelling, overflowing, unknown."""
    import duckdb

    view = models["curated.daily_balances"].render_query().sql("duckdb").replace('"warehouse".', "")
    rng, first = random.Random(3), date(2024, 1, 1)
    flows = []  # day, token, net or None, net_wide, legs that overflow
    for token in range(12):
        for day in rng.sample(range(40), rng.randint(1, 25)):
            wide = Decimal(rng.randint(-(10**16), 10**16)) / 10 ** rng.choice([6, 6, 2])
            net = rng.choice(
                [
                    wide,
                    Decimal(rng.randint(-(10**20), 10**20)) / 10**18,
                    rng.choice([-1, 1]) * (Decimal(10**20) - Decimal("0.1")),
                    None,
                ]
            )
            flows.append(
                (first + timedelta(days=day), str(token), net, wide, rng.choice([0, 0, 1]))
            )
    with localcontext(prec=80), duckdb.connect() as con:
        create_all(con)
        con.execute(
            "CREATE SCHEMA curated; CREATE TABLE curated.daily_flows (date DATE, domain "
            "VARCHAR, source VARCHAR, account VARCHAR, token VARCHAR, net DECIMAL(38,18), "
            "net_wide DECIMAL(38,6), legs BIGINT, overflow_legs BIGINT)"
        )
        for day, token, net, wide, lost in flows:
            net_sql = "NULL" if net is None else f"{net:f}"
            con.execute(
                "INSERT INTO curated.daily_flows VALUES "
                f"(?, 'd', 's', 'a', ?, {net_sql}, {wide:f}, 1, ?)",
                [day, token, lost],
            )
        query = (
            f"SELECT date, token, net, balance, balance_wide, is_exact FROM ({view}) ORDER BY ALL"
        )
        whole = con.execute(query).fetchall()
        wanted, last = [], max(day for day, *_ in flows)
        for token in {token for _, token, *_ in flows}:
            mine = {day: rest for day, name, *rest in flows if name == token}
            held, wide, lost, over, day = Decimal(0), Decimal(0), False, False, min(mine)
            while day <= last:
                net, more, legs = mine.get(day, (Decimal(0), Decimal(0), 0))
                held, wide = held + (net or 0), wide + more
                lost, over = lost or net is None, over or bool(legs)
                fits = not lost and abs(held) < 10**20
                wanted.append((day, token, net, held if fits else None, wide, fits and not over))
                day += timedelta(days=1)
        assert whole == sorted(wanted, key=lambda row: row[:2])
        assert {row[3] is None for row in whole} == {row[5] for row in whole} == {True, False}
        for n in range(-1, 43):
            since = first + timedelta(days=n)
            con.execute(f"SET VARIABLE balances_since = DATE '{since}'")
            assert con.execute(query).fetchall() == [row for row in whole if row[0] >= since], since


if __name__ == "__main__":
    EXTERNAL.write_text(external_models())
