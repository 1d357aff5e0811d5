"""Parts of the page that need no server: budgets, incidents, amounts, the plugin and its files."""

from __future__ import annotations

import ast
import json
import re
import sys
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import duckdb
import pytest

from ledgerhouse.operate.commands.tables import digits
from ledgerhouse.operate.ui import figures
from ledgerhouse.operate.ui.plugin import LedgerhousePlugin
from ledgerhouse.publish.books import has
from ledgerhouse.warehouse.schema import create_all
from stack import commands
from stack.settings import SettingsError

pytestmark = pytest.mark.slow


# Books that are there in part, or not at all
@pytest.fixture
def con():
    """Books by hand: the ops tables that other versions may or may not publish."""
    with duckdb.connect() as con:
        con.execute("ATTACH ':memory:' AS books; USE books")
        create_all(con)
        yield con


def test_budgets_and_the_full_refresh_are_shown_where_the_books_have_them(con):
    today = date(2026, 3, 10)
    if not has(con, "ops.budgets"):
        con.execute(
            "CREATE TABLE ops.budgets (source VARCHAR, measure VARCHAR, period VARCHAR, "
            "allowed BIGINT)"
        )
    con.execute("DROP VIEW IF EXISTS ops.spending")
    con.execute(
        "CREATE TABLE ops.spending (source VARCHAR, day DATE, calls BIGINT, "
        "units BIGINT, full_refresh_calls BIGINT, full_refresh_units BIGINT)"
    )
    con.execute(
        "INSERT INTO ops.spending VALUES ('debank', '2026-03-09', 4, 80, 300, 6000), "
        "('debank', '2026-03-01', 9, 900, NULL, NULL), "
        "('debank', '2026-02-28', 5, 50, 1, 1)"
    )
    con.execute(
        "INSERT INTO ops.budgets (source, measure, period, allowed) VALUES "
        "('debank', 'units', 'month', 5000), ('debank', 'units', 'day', 100)"
    )
    (month,) = figures._month(con, today)
    assert (month["calls"], month["units"], month["allowed"]["units"]) == (13, 980, 5000)
    assert (month["ours"]["units"], month["full"]["units"]) == (80, 6000), "like with like"
    con.execute(
        "INSERT INTO ops.coverage (source, account, dataset, start_ts, end_ts, read_at, "
        "reason, run_id, batch_id, recorded_at) "
        "VALUES ('debank', 'a', 'onchain_transactions', "
        "'2026-01-01', '2026-03-10', now(), 'short page', 'r', 'b', now())"
    )
    (source,) = figures.spending(con, 12, today)["sources"]
    assert source["days"] == [["2026-02-28", 5, 50], ["2026-03-01", 9, 900], ["2026-03-09", 4, 80]]
    assert source["budget"] == {
        "units": {"day": 100, "month": 5000},
        "calls": {"day": None, "month": None},
    }


def test_open_incidents_are_shown_and_resolved_ones_not(con):
    con.execute("DROP TABLE IF EXISTS ops.incidents")
    assert figures._incidents(con) == {"open": [], "total": 0}
    con.execute(
        "CREATE TABLE ops.incidents (incident_id VARCHAR, kind VARCHAR, source VARCHAR, "
        "account VARCHAR, subject VARCHAR, severity VARCHAR, text VARCHAR, "
        "opened_at TIMESTAMP, resolved_at TIMESTAMP)"
    )
    con.execute(
        "INSERT INTO ops.incidents SELECT i::VARCHAR, 'stale', 'debank', 'a', '', "
        "'warning', 'no word', TIMESTAMP '2026-01-01' + INTERVAL 1 HOUR * i, "
        "CASE WHEN i % 3 = 0 THEN now()::TIMESTAMP END FROM range(90) t(i)"
    )
    incidents = figures._incidents(con)
    assert incidents["total"] == 60 and len(incidents["open"]) == figures.MOST_INCIDENTS
    assert incidents["open"][0]["incident_id"] == "89"


def test_a_run_that_was_not_published_is_shown_until_newer_books_are(tmp_path):
    run = tmp_path / "runs" / "r-1"
    run.mkdir(parents=True)
    numbers = {
        "run_id": "r",
        "checked_at": "2026-01-02T00:00:00+00:00",
        "failed": ["keys: 3 rows"],
        "tables": {"raw.a": {"critical": 0}, "raw.b": {"critical": 2}},
    }
    (run / "run.json").write_text(json.dumps(numbers))
    answer = figures.refused(tmp_path, datetime(2026, 1, 1))
    assert (answer["run"], answer["docs"]) == ("r", "runs/r-1/raw.b.html")
    assert figures.refused(tmp_path, None) == answer, "before the first books too"
    assert figures.refused(tmp_path, datetime(2026, 1, 3)) is None
    (run / "run.json").write_text(json.dumps(numbers | {"tables": {"raw.a": {"critical": 0}}}))
    assert figures.refused(tmp_path, None) is None


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0E-18",
        "-0.000000000000000000",
        "1.50",
        "1E+3",
        "100",
        "-12.500000000000000000",
        "0.000000000000000001",
        "1e22",
    ],
)
def test_plain_text_is_the_same_amount(text):
    plain = digits(Decimal(text))
    assert Decimal(plain) == Decimal(text) and "e" not in plain.lower()
    assert not ("." in plain and plain.endswith("0")) and plain != "-0"


def test_tasks_and_the_scheduler_load_the_plugin_without_its_app():
    waiting, met = ["ledgerhouse.operate.ui.plugin"], set()
    while waiting:
        path = Path(__file__).parents[4] / (waiting.pop().replace(".", "/") + ".py")
        for node in ast.parse(path.read_text()).body:
            names = (
                [node.module]
                if isinstance(node, ast.ImportFrom)
                else [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else []
            )
            waiting += [
                name
                for name in names
                if name.startswith(("extract.", "ledgerhouse.")) and name not in met
            ]
            met.update(names)
    met = {name for name in met if name.split(".")[0] not in sys.stdlib_module_names}
    assert {name for name in met if not name.startswith("ledgerhouse.operate.ui.")} == {
        "airflow.plugins_manager"
    }
    assert "ledgerhouse.operate.ui.app" not in met
    (page,) = LedgerhousePlugin.react_apps
    assert (page["destination"], page["url_route"]) == ("nav", "ledgerhouse")


def test_every_vendored_file_has_its_version_and_its_licence_beside_it():
    from ledgerhouse.operate.ui.app import STATIC

    folder = STATIC / "vendor"
    table = (folder / "README.md").read_text()
    rows = re.findall(r"^\| (\S+\.js) \| (\S+) (\S+) \| .* \| (.*) \|$", table, re.M)
    licences = [name for *_, names in rows for name in names.split(", ")]
    assert {p.name for p in folder.iterdir()} == {name for name, *_ in rows} | {*licences} | {
        "README.md"
    }
    for name, package, version, _ in rows:
        head = (folder / name).read_text()[:200]
        assert package in head.lower() and f"v{version}\n" in head, name
    for name in licences:
        assert "Permission is hereby granted" in (folder / name).read_text(), name


def test_looking_without_a_demo_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    with pytest.raises(SettingsError, match="make demo makes them"):
        commands.ui()
