"""Scattered days evaluated together, against the same days evaluated one by one."""

from __future__ import annotations

import random
import shutil
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import duckdb
import pytest
from sqlglot import parse_one

from ledgerhouse.transform import sqlmesh_context
from ledgerhouse.transform.scattered_days import AUDITED_VIEW, bounded_by_touched, inclusive
from tests.helpers.recomputed import assert_curated_is_the_truth, load_batch, opened, put
from tests.ledgerhouse.transform.test_touched_days import entry, physical, recorded, settle

pytestmark = pytest.mark.slow

DAY = timedelta(days=1)
START = date(2026, 1, 1)
INSERTED = 'INSERT INTO "warehouse"."sqlmesh__curated"."curated__tx_unified'
TOGETHER = {"curated.staged_exchanges", "curated.tx_unified", "curated.daily_flows"}

# The models as they were before @touched and @touched_rows.
BEFORE = {
    "models/staged/staged_exchanges.sql": {
        "FROM @touched_rows(raw.exchanges_ledger, ts) AS l": "FROM raw.exchanges_ledger AS l\n"
        "  WHERE\n    l.ts BETWEEN @start_ts AND @end_ts",
        "JOIN @touched_rows(raw.exchanges_trades, ts, 1) AS t": "JOIN raw.exchanges_trades AS t",
        "    t.vanished_at IS NULL": "    t.ts BETWEEN CAST(@start_ts AS TIMESTAMP) - INTERVAL '1' "
        "DAY\n    AND CAST(@end_ts AS TIMESTAMP) + INTERVAL '1' DAY\n    AND t.vanished_at IS NULL",
    },
    "models/curated/tx_unified.sql": {
        "FROM @touched_rows(curated.staged_exchanges, ts) AS e": "FROM curated.staged_exchanges\n"
        "  WHERE\n    ts BETWEEN @start_ts AND @end_ts",
        "@touched(ts)": "ts BETWEEN @start_ts AND @end_ts",
    },
    "models/curated/daily_flows.sql": {
        "FROM @touched_rows(curated.tx_unified, ts) AS t": "FROM curated.tx_unified\n"
        "  WHERE\n    ts BETWEEN @start_ts AND @end_ts",
    },
    "audits/amounts.sql": {
        "FROM @touched_rows(curated.tx_unified, ts) AS t": "FROM curated.tx_unified\n"
        "  WHERE\n    ts BETWEEN @start_ts AND @end_ts",
    },
}
DOWNSTREAM = """
MODEL (
  name curated.{name},
  kind INCREMENTAL_BY_TIME_RANGE (time_column ts, partition_by_time_column FALSE{more}),
  audits ({audit}),
  ignored_rules ALL
);

{before}
SELECT CAST(txid AS VARCHAR) AS txid, CAST(ts AS TIMESTAMP) AS ts FROM curated.tx_unified
WHERE {where};
{after}
"""
INTERVAL = "ts BETWEEN @start_ts AND @end_ts"
PLAIN = {"more": "", "audit": "not_null(columns := (txid))", "before": "", "after": ""}
ONE_BY_ONE = {  # models of users, beside one that is evaluated together
    "plain": {"where": INTERVAL},
    "both": {"where": f"@touched(ts) AND {INTERVAL}"},
    "batched": {"where": "@touched(ts)", "more": ", batch_size 3"},
    "audited": {"where": "@touched(ts)", "audit": "row_of_the_interval"},
    "prepared": {"where": "@touched(ts)", "before": "DELETE FROM main.notes WHERE ts < @start_ts;"},
    "itself": {"where": "@touched(ts) AND NOT txid IN (SELECT txid FROM curated.itself)"},
}
AUDIT = """
AUDIT (name row_of_the_interval);
SELECT * FROM curated.tx_unified WHERE ts BETWEEN @start_ts AND @end_ts AND txid IS NULL
"""


def random_spans(rng: random.Random, start: date = START) -> list[tuple[date, date]]:
    """Two to six spans of one to three days, neither touching nor overlapping."""
    spans, day = [], start
    for _ in range(rng.randint(2, 6)):
        day += rng.randint(1, 5) * DAY
        spans.append((day, day + rng.randint(1, 3) * DAY))
        day = spans[-1][1]
    return spans


def moments(span: tuple[date, date]) -> tuple[str, str]:
    """First and last microsecond, as SQLMesh hands them to a model."""
    return f"{span[0]} 00:00:00", f"{span[1] - DAY} 23:59:59.999999"


def edited_project(folder: Path, changes: dict[str, dict[str, str]]) -> Path:
    """The project in a copy, with these texts of its files replaced."""
    shutil.copytree(sqlmesh_context.PROJECT, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, replaced in changes.items():
        text = (folder / name).read_text()
        for old, new in replaced.items():
            assert old in text, old
            text = text.replace(old, new)
        (folder / name).write_text(text)
    return folder


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    """The models of the project and some a user has added, loaded without a warehouse."""
    from sqlmesh.core.console import NoopConsole, set_console
    from sqlmesh.core.context import Context

    folder = edited_project(tmp_path_factory.mktemp("loaded") / "project", {})
    (folder / "audits" / "users.sql").write_text(AUDIT)
    for name, more in {**ONE_BY_ONE, "theirs": {"where": "@touched(ts)"}}.items():
        (folder / "models" / f"{name}.sql").write_text(
            DOWNSTREAM.format(name=name, **{**PLAIN, **more})
        )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LEDGERHOUSE_VAR", str(tmp_path_factory.mktemp("var")))
        patch.delenv("LEDGERHOUSE_STATE_URI", raising=False)
        set_console(NoopConsole())
        ctx = Context(paths=str(folder))
    yield ctx
    ctx.close()
    ctx.engine_adapter.close()


# ---- the macros


def rendered(project, con, spans: list[tuple[date, date]], sql: str) -> str:
    """A query as the macros make it, from the state's own copy of them."""
    from sqlmesh.core.macros import MacroEvaluator

    (model,) = (m for m in project.models.values() if m.name == "curated.tx_unified")
    evaluator = MacroEvaluator(
        "duckdb", python_env=model.python_env, resolve_table=lambda table: table
    )
    start, end = moments((spans[0][0], spans[-1][1]))
    evaluator.locals.update(start_ts=start, end_ts=end, engine_adapter=con)
    if len(spans) > 1:
        evaluator.locals["touched_spans"] = [moments(span) for span in spans]
    return evaluator.transform(parse_one(sql, dialect="duckdb")).sql("duckdb")


def test_the_macros_give_the_rows_of_each_span_once(project):
    rng, rows = random.Random(5), 0
    with duckdb.connect() as con:
        for _ in range(40):
            con.execute("CREATE OR REPLACE TABLE legs (id INT, ts TIMESTAMP)")
            con.execute("CREATE OR REPLACE VIEW seen AS FROM legs")
            instants = [
                datetime(2025, 12, 30)
                + timedelta(
                    microseconds=rng.choice(
                        [
                            rng.randrange(45 * 86_400_000_000),
                            rng.randrange(45) * 86_400_000_000,
                            rng.randrange(1, 45) * 86_400_000_000 - 1,
                        ]
                    )
                )
                for _ in range(120)
            ]
            con.execute(
                "INSERT INTO legs VALUES "
                + ", ".join(f"({i}, '{t}')" for i, t in enumerate(instants))
            )
            spans = random_spans(rng)
            for around in (0, 1, 2):
                inside = " OR ".join(
                    f"ts >= '{start - around * DAY}' AND ts < '{end + around * DAY}'"
                    for start, end in spans
                )
                wanted = con.execute(f"FROM legs WHERE {inside} ORDER BY ALL").fetchall()
                by_range = f"SELECT * FROM @touched_rows(legs, ts, {around}) AS l ORDER BY ALL"
                assert con.execute(rendered(project, con, spans, by_range)).fetchall() == wanted
                rows += len(wanted)
                if not around:
                    by_condition = "SELECT * FROM seen AS v WHERE @touched(v.ts) ORDER BY ALL"
                    assert (
                        con.execute(rendered(project, con, spans, by_condition)).fetchall()
                        == wanted
                    )
    assert rows > 1000, "the cases are not empty"


def test_of_one_interval_the_macros_are_the_interval(project):
    span = [(START, START + DAY)]
    between = (
        "ts BETWEEN CAST('2026-01-01 00:00:00' AS TIMESTAMP) "
        "AND CAST('2026-01-01 23:59:59.999999' AS TIMESTAMP)"
    )
    condition = rendered(project, None, span, "SELECT * FROM legs WHERE @touched(ts)")
    assert condition == f"SELECT * FROM legs WHERE {between}"
    table = rendered(project, None, span, "SELECT * FROM @touched_rows(legs, ts) AS l")
    assert table == f"SELECT * FROM (SELECT * FROM legs WHERE {between}) AS l"
    assert inclusive((1767225600000, 1767312000000)) == moments(span[0])


# ---- our models


def test_only_models_bounded_by_the_macros_are_evaluated_together(project):
    together = {
        s.model.name for s in project.snapshots.values() if s.is_model and bounded_by_touched(s)
    }
    assert together == TOGETHER | {"curated.theirs"}
    assert {f"curated.{name}" for name in ONE_BY_ONE} <= {m.name for m in project.models.values()}


@pytest.mark.parametrize("name", sorted(TOGETHER))
def test_a_query_over_several_spans_is_that_of_each(project, lived_in, name):
    """On random days around those of the rows; a day between the spans gives no row."""
    from sqlmesh.core.macros import RuntimeStage

    (model,) = (m for m in project.models.values() if m.name == name)
    rng, rows = random.Random(name), 0

    def rows_of(con, spans, optimized: bool) -> list[tuple]:
        given = {"touched_spans": [moments(s) for s in spans]} if len(spans) > 1 else {}
        start, end = str(spans[0][0]), str(spans[-1][1] - DAY)
        query = model.render_query(
            start=start,
            end=end,
            runtime_stage=RuntimeStage.EVALUATING,
            engine_adapter=SimpleNamespace(execute=con.execute, columns=None),
            needs_optimization=optimized,
            **given,
        )
        return sorted(con.execute(query.sql("duckdb")).fetchall(), key=repr)

    with duckdb.connect(str(lived_in / sqlmesh_context.FILE), read_only=True) as con:
        for _ in range(20):  # optimizing a query as SQLMesh does takes 0.2 s
            spans = random_spans(rng, date(2077, 2, 15))
            each = [row for span in spans for row in rows_of(con, [span], optimized=False)]
            assert rows_of(con, spans, optimized=True) == sorted(each, key=repr)
            rows += len(each)
    assert rows > 15, "the cases are not empty"


# ---- transforms


@pytest.fixture
def warehouse(planned, tmp_path):
    shutil.copytree(planned, tmp_path / "var")
    return tmp_path / "var" / sqlmesh_context.FILE


def plan(warehouse) -> list[str]:
    """`make plan` in this process; the models it evaluated."""
    with opened(warehouse) as con:
        newest = sqlmesh_context.newest_day(con)
    with sqlmesh_context.context(warehouse) as (ctx, evaluations):
        ctx.load()
        ctx.plan(
            "prod",
            execution_time=str(newest + DAY),
            auto_apply=True,
            no_prompts=True,
            skip_tests=True,
            no_diff=True,
            skip_linter=True,
        )
    return list(evaluations.intervals)


def test_a_constant_that_is_a_bound_day_stays_that_day(warehouse, tmp_path, monkeypatch):
    """A condition of a model on the first day of several is no bound of theirs: no row is lost."""
    by_range = "FROM @touched_rows(curated.staged_exchanges, ts) AS e"
    listed_since = (
        "FROM curated.staged_exchanges\n  WHERE\n"
        "    @touched(ts) AND COALESCE(status, '') >= '2026-01-01'"
    )
    changes = {"models/curated/tx_unified.sql": {by_range: listed_since}}
    project = edited_project(tmp_path / "project", changes)
    monkeypatch.setattr(sqlmesh_context, "PROJECT", project)
    assert "curated.tx_unified" in plan(warehouse)
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry("between", "2026-01-05", status="2026-01-05")], "b1")
    settle(warehouse)
    with opened(warehouse) as con:
        put(
            con,
            "exchanges_ledger",
            [
                entry("1", "2026-01-01", status="2026-01-01"),
                entry("2", "2026-01-10", status="2026-01-01"),
                entry("not listed", "2026-01-10", status="2025-12-31"),
            ],
            "b2",
        )
    statements: list[str] = []
    monkeypatch.setattr(
        "sqlmesh.core.engine_adapter.duckdb.DuckDBEngineAdapter._execute", recorded(statements)
    )
    done = settle(warehouse)
    assert done.days == ((START, START + DAY), (date(2026, 1, 10), date(2026, 1, 11)))
    assert sum(INSERTED in s for s in statements) == 1
    with opened(warehouse) as con:
        assert con.execute("SELECT txid FROM curated.tx_unified ORDER BY 1").fetchall() == [
            ("1",),
            ("2",),
            ("between",),
        ]


def test_audits_look_at_the_touched_days_only(warehouse, monkeypatch, caplog):
    """What is wrong on a day between them is not theirs to find."""
    with opened(warehouse) as con:
        put(con, "exchanges_ledger", [entry(f"e{d}", f"2026-03-0{d}") for d in range(1, 8)], "b1")
    settle(warehouse)
    with opened(warehouse) as con:
        con.execute(  # a key twice, and flows that are not the sum of their transactions
            f"INSERT INTO {physical(con, 'tx_unified')} FROM {physical(con, 'tx_unified')} "
            "WHERE txid = 'e4'"
        )
        late = [entry("late2", "2026-03-02"), entry("late6", "2026-03-06")]
        put(con, "exchanges_ledger", late, "b2")
    statements: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(
            "sqlmesh.core.engine_adapter.duckdb.DuckDBEngineAdapter._execute", recorded(statements)
        )
        settle(warehouse)
    assert "evaluated by itself" not in caplog.text
    audits = [s for s in statements if "SELECT COUNT(*)" in s and AUDITED_VIEW in s]
    assert len(audits) == 4 + 6 + 4, "each audit of the three models runs once"


def test_models_of_the_version_before_are_evaluated_day_by_day(tmp_path, monkeypatch, caplog):
    """Production runs the models of its state until a plan: those know nothing of the macros."""
    ours = sqlmesh_context.PROJECT
    before = edited_project(tmp_path / "before", BEFORE)
    monkeypatch.setattr(sqlmesh_context, "PROJECT", before)
    warehouse = tmp_path / "var" / sqlmesh_context.FILE
    warehouse.parent.mkdir()
    assert sqlmesh_context.plan_production(warehouse)
    with opened(warehouse) as con:
        load_batch(con, random.Random(7), datetime(2077, 2, 20), 0)
    settle(warehouse)
    monkeypatch.setattr(sqlmesh_context, "PROJECT", ours)  # the upgrade

    def late_days(batch: str) -> list[str]:
        with opened(warehouse) as con:
            late = [entry(f"{batch}{d}", f"2077-02-{d}") for d in (3, 9, 15, 21)]
            put(con, "exchanges_ledger", late, batch)
        statements: list[str] = []
        with monkeypatch.context() as patch:
            patch.setattr(
                "sqlmesh.core.engine_adapter.duckdb.DuckDBEngineAdapter._execute",
                recorded(statements),
            )
            assert len(settle(warehouse).days) == 4
        assert_curated_is_the_truth(warehouse)
        return [s for s in statements if INSERTED in s]

    assert len(late_days("l")) == 4, "the models of the state, each day by itself"
    assert TOGETHER <= set(plan(warehouse)), "the plan after the upgrade makes them again"
    assert_curated_is_the_truth(warehouse)
    assert len(late_days("m")) == 1
    assert "evaluated by itself" not in caplog.text
