"""Tables, columns, settings, errors and alerts that the pages name exist, and the reference is whole."""

from __future__ import annotations

import ast
import pkgutil
import re
import subprocess
import sys
from functools import cache

import duckdb
import pytest

import extract
import ledgerhouse
import stack
from extract.core.datasets import DATASETS
from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.alerts.conditions import KINDS
from ledgerhouse.warehouse.schema import create_all
from tests.laws.docs.pages import ROOT, blocks, by_hand, known, spans

# --- names ----------------------------------------------------------------------------------------


@by_hand
def test_tables_and_columns_that_are_named_exist(page):
    tables = known()
    assert {"curated.daily_balances", "raw.history", "ops.coverage"} <= set(tables)
    for text in (*spans(page), *blocks(page, "", "python", "sql", "bash")):
        for name in re.findall(r"\b(?:raw|ops|curated)\.[a-z_]+(?:\.[a-z_]+)?", text):
            table, column = ".".join(name.split(".")[:2]), name.split(".")[2:]
            if table.endswith("_as_of"):
                table = table.removesuffix("_as_of")
                assert table.removeprefix("raw.") in DATASETS, f"{page.name}: {name}"
            assert table in tables, f"{page.name}: {name}"
            assert set(column) <= tables[table], f"{page.name}: {name}"


@by_hand
def test_tables_listed_by_schema_exist(page):
    """A row like | `raw` | `exchanges_ledger` `balances` …"""
    row = r"^\| `(raw|ops|curated)` \| (.*) \|$"
    for schema, listed in re.findall(row, page.read_text(), re.M):
        for name in re.findall(r"`(\w+)`", listed):
            assert f"{schema}.{name}" in known(), f"{page.name}: {schema}.{name}"


@cache
def code() -> set[str]:
    """Every word of the project's own files, so also every name and setting."""
    files = [
        path
        for folder in (
            "extract",
            "ledgerhouse",
            "stack",
            "demo",
            "dags",
            "deploy",
            "sandbox",
            "sqlmesh_project",
        )
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".sql", ".yaml") or path.name == "Dockerfile"
    ]
    files += [
        ROOT / name
        for name in (
            ".env.example",
            "Makefile",
            "accounts.toml",
            "docker-compose.yaml",
            "pyproject.toml",
        )
    ]
    files.append(ROOT / "docs/reference.md")  # tasks are named after Connections
    return {
        word for path in files if path.is_file() for word in re.findall(r"\w+", path.read_text())
    }


@by_hand
def test_dags_settings_and_names_exist(page):
    dags = {file.stem for file in (ROOT / "dags").glob("*.py")}
    for name in re.findall(r"\bDAGs? `(\w+)`", page.read_text()):
        assert name in dags, f"{page.name}: the DAG {name}"
    for name in spans(page):
        name = name.removesuffix("()")
        if re.fullmatch(r"[A-Za-z]\w*_\w+", name):  # a column, function, task, param, setting
            assert name in code(), f"{page.name}: there is no {name}"


@by_hand
def test_sql_that_is_shown_runs(page):
    """FROM … in backticks, over an empty warehouse with curated tables of the right columns."""
    asked = [s for s in spans(page) if re.match(r"FROM (raw|ops|curated)\.\w+( WHERE .*)?$", s)]
    with duckdb.connect() as con:
        create_all(con)
        con.execute("CREATE SCHEMA curated")
        for table, columns in known().items():
            if table.startswith("curated."):
                con.execute(
                    f"CREATE TABLE {table} (" + ", ".join(f'"{c}" VARCHAR' for c in columns) + ")"
                )
        for sql in asked:
            assert con.execute(sql).fetchall() == [], f"{page.name}: {sql}"


# --- the reference --------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_reference_is_what_the_code_says():
    done = subprocess.run(
        [sys.executable, "-m", "docs.make_reference", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_every_column_has_a_comment():
    with duckdb.connect() as con:
        create_all(con)
        bare = con.execute(
            "SELECT schema_name || '.' || table_name || '.' || column_name FROM "
            "duckdb_columns() WHERE schema_name IN ('raw', 'ops') AND comment IS "
            "NULL"
        ).fetchall()
    assert bare == [], "write what it holds into ledgerhouse/warehouse/ops_tables.py"
    text = (ROOT / "docs/reference.md").read_text()
    assert "|  |\n" not in text.split("## Tables of curated")[1], "a column of a model has no words"
    assert "Not described yet" not in text, (
        "write what a row is into ledgerhouse/warehouse/ops_tables.py"
    )


def test_what_alerts_may_hold_is_listed(tmp_path):
    (tmp_path / "accounts.toml").write_text("[alerts]\nnothing = 1\n")
    with pytest.raises(ValueError, match="there are ") as error:
        AccountsFile.read(tmp_path / "accounts.toml").rules()
    text = (ROOT / "docs/reference.md").read_text()
    for name in str(error.value).split("there are ")[1].split(", "):
        assert f"| `{name}` |" in text


def errors() -> set[str]:
    """Names of all exceptions that extract, ledgerhouse and stack define and that a person can meet."""
    found = set()
    for package in (extract, ledgerhouse, stack):
        for info in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            path = ROOT / (info.name.replace(".", "/") + ("/__init__.py" if info.ispkg else ".py"))
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                    bases = {getattr(b, "id", "") for b in node.bases}
                    if bases & found or any(
                        b.endswith(("Error", "Exception", "Interrupt")) for b in bases
                    ):
                        found.add(node.name)
    return found


# --- errors and alerts ----------------------------------------------------------------------------


def test_every_error_and_alert_has_its_entry_in_operations():
    text = (ROOT / "docs/operations.md").read_text()
    rows = {
        name
        for row in re.findall(r"^\| (`[^|]+) \|", text, re.M)
        for name in re.findall(r"`(\w+)`", row)
    }
    met = errors() - {"Stopped"}  # Ctrl-C, reported as such
    assert {"Fatal", "BudgetReached", "LoadFailed", "WarehouseBusy", "StackBusy"} <= met
    assert met <= rows, f"no entry for {sorted(met - rows)}"
    assert set(KINDS) <= rows, f"no entry for {sorted(set(KINDS) - rows)}"
    gone = {r for r in rows if r[0].isupper()} - met
    assert not gone, f"entries for what is no more: {sorted(gone)}"
