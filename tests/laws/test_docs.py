"""What the pages say is so: commands, links, names, tables, blocks of code, errors and pictures."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import duckdb
import pytest

import extract
import ledgerhouse
import stack
from extract.core.datasets import DATASETS
from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.alerts.conditions import KINDS
from ledgerhouse.warehouse.schema import create_all

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BY_HAND = [page for page in PAGES if page.name != "reference.md"]
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.M | re.S)
COMMAND = re.compile(r"(?:make|airflow|\.venv/bin/python -m|python -m) .*")

pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
by_hand = pytest.mark.parametrize("page", BY_HAND, ids=lambda p: p.name)


def blocks(page: Path, *languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(page.read_text()) if language in languages]


def spans(page: Path) -> list[str]:
    """What stands in single backticks, outside of blocks."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", page.read_text()))


# --- commands ---------------------------------------------------------------------------------


def typed(page: Path) -> list[str]:
    """The commands of a page: in backticks, and lines of blocks that hold no output."""
    lines = [
        line.strip().removeprefix("$ ")
        for text in blocks(page, "", "bash", "sh")
        for line in text.splitlines()
    ]
    found = [c for c in (*spans(page), *lines) if COMMAND.fullmatch(c)]
    return sorted({c for c in found if not re.search(r"[…|]|[A-Z]{4,} [A-Z]{3,}", c)})


def test_commands_are_found():
    found = {c for page in PAGES for c in typed(page)}
    assert {"make demo", "make replay"} <= found and len(found) > 12
    assert any("dags backfill" in c for c in found) and any("warehouse explain" in c for c in found)


@pages
def test_every_make_target_exists(page):
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    for command in typed(page):
        if command.startswith("make "):
            goals = [word for word in shlex.split(command)[1:] if "=" not in word]
            assert goals and set(goals) <= targets, f"{page.name}: {command}"


@pages
def test_every_airflow_command_parses(page):
    from airflow.cli import cli_parser

    for command in typed(page):
        words = shlex.split(command)
        if words[:2] == ["make", "airflow"]:
            words = ["airflow", *shlex.split(words[2].removeprefix("ARGS="))]
        if words[0] != "airflow" or words[1:] in (["warehouse"], ["dags", "backfill"]):
            continue
        try:
            cli_parser.get_parser().parse_args(words[1:])
        except SystemExit as end:
            # `airflow warehouse explain` names a command; what is spelt out must be whole.
            assert end.code == 0 or len(words) <= 3, f"{page.name}: {command}"
            group = {c.name: c for c in cli_parser.airflow_commands}[words[1]]
            assert words[2] in {c.name for c in group.subcommands}, f"{page.name}: {command}"


@pages
def test_every_python_module_and_script_that_is_run_exists(page):
    for command in typed(page):
        words = shlex.split(command)
        if "-m" in words and words[0].endswith("python"):
            module = words[words.index("-m") + 1]
            assert importlib.util.find_spec(module), f"{page.name}: {command}"
    for path in re.findall(r"(?:docs|tests|stack)/[\w/]+\.py", page.read_text()):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


# --- links and pictures -----------------------------------------------------------------------


def anchors(page: Path) -> set[str]:
    from docs.make_reference import anchor

    return {
        anchor(title.strip())
        for title in re.findall(
            r"^#+ (.*)$", FENCE.sub("", page.read_text()).replace("`", ""), re.M
        )
    }


@pages
def test_links_lead_somewhere(page):
    text = FENCE.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src(?:set)?="([^"]+)"', text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, part = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{page.name} links to {target}"
        if part and to.suffix == ".md":
            assert part in anchors(to), f"{page.name} links to {target}"


def test_every_page_is_reached_from_another():
    linked = {
        (page.parent / target.partition("#")[0]).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
    }
    assert set(PAGES) - linked <= {ROOT / "README.md", ROOT / "docs/README.md"}


def test_pictures_are_small_and_readable():
    import xml.etree.ElementTree as xml

    for name in ("example-balances", "example-flows", "example-movements"):
        picture = (ROOT / f"docs/images/{name}.png").read_bytes()
        assert picture[:8] == b"\x89PNG\r\n\x1a\n" and len(picture) <= 150_000, name
    drawn = xml.fromstring((ROOT / "docs/images/concepts.svg").read_text())
    words = " ".join(t for t in drawn.itertext())
    for word in (
        "landing",
        "raw",
        "curated",
        "published",
        "coverage",
        "lookback",
        "gap",
        "budget",
        "prefers-color-scheme: dark",
    ):
        assert word in words, word


# --- names ------------------------------------------------------------------------------------


@cache
def known() -> dict[str, set[str]]:
    """Columns by table, as reference.md lists them, and of the warehouse as it is made."""
    found: dict[str, set[str]] = {}
    for part in re.split(r"^### ", (ROOT / "docs/reference.md").read_text(), flags=re.M)[1:]:
        name = part.splitlines()[0]
        if re.fullmatch(r"(raw|ops|curated)\.\w+", name):
            found[name] = set(re.findall(r"^\| `(\w+)` \|", part, re.M))
    return found


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


# --- the reference ----------------------------------------------------------------------------


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


# --- errors and alerts ------------------------------------------------------------------------


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


# --- blocks of code ---------------------------------------------------------------------------


@by_hand
def test_blocks_of_python_and_toml_are_whole(page, tmp_path):
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name), f"{page.name}: {node.module}.{alias.name}"
    for number, text in enumerate(blocks(page, "toml")):
        file = tmp_path / f"{number}.toml"
        file.write_text(
            text
            if "[[account]]" in text
            else text + '\n[[account]]\nsource="coinbase"\naccount="a"\nconnection="d"\n'
        )
        read = AccountsFile.read(file)
        assert read.accounts() and isinstance(read.limits(), list)


def test_the_walk_of_a_new_source_is_made_of_what_there_is():
    """Names, arguments and fields of the blocks are those of coinbase/, and it compiles."""
    folder = ROOT / "extract/sources/coinbase"
    modules = [
        importlib.import_module(f"extract.sources.coinbase.{path.stem}".removesuffix(".__init__"))
        for path in sorted(folder.glob("*.py"))
    ]
    known = {name: value for module in modules for name, value in vars(module).items()}
    there = set(known) | set(dir(__builtins__)) | {"__builtins__"}
    source = "\n".join(path.read_text() for path in folder.glob("*.py"))
    spoken = {n.attr for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Attribute)}
    there |= {n.name for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)}
    found = blocks(ROOT / "docs/adding-a-source.md", "python")
    found = [text for text in found if "extract.testing" not in text]  # the tests of the source
    assert len(found) == 5
    whole = ast.parse("\n".join(found))
    names = {n.id for n in ast.walk(whole) if isinstance(n, ast.Name)}
    stored = {
        n.id for n in ast.walk(whole) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
    }
    arguments = {
        a.arg
        for n in ast.walk(whole)
        if isinstance(n, ast.arguments)
        for a in (*n.args, *n.kwonlyargs, *filter(None, (n.kwarg,)))
    }
    builtin = set(dir(importlib.import_module("builtins")))
    assert names - stored - arguments - builtin - {"ccxt"} <= there
    assert {n.attr for n in ast.walk(whole) if isinstance(n, ast.Attribute)} <= spoken
    assert {n.name for n in ast.walk(whole) if isinstance(n, ast.FunctionDef)} <= there
    namespace: dict = dict(known)
    exec("\n".join(found), namespace)  # the SOURCE at the end is a Source, or this raises
    assert namespace["SOURCE"].name == "coinbase" and "trade_id" in namespace["TRADES"]
    with duckdb.connect() as con:
        con.execute(
            "CREATE TABLE pages (page_id INT, source VARCHAR, account VARCHAR, "
            "endpoint VARCHAR, params JSON, body VARCHAR, received_at TIMESTAMP, "
            "as_of TIMESTAMP)"
        )
        con.execute(
            "INSERT INTO pages VALUES (1, 's', 'a', ?, '{}', ?, now()::TIMESTAMP, NULL)",
            [
                known["FILLS"],
                '{"fills": [{"trade_id": "t", "price": "0.10", "side": "BUY",'
                ' "trade_time": "2026-01-31T06:00:00Z"}]}',
            ],
        )
        for name, records in namespace["SOURCE"].records.items():
            con.execute(f"CREATE VIEW records_{name} AS {records.select()}")
        row = con.execute(namespace["TRADES"]).fetchone()
    assert "0.10" in row and "buy" in row, "the mapping that is shown reads a page"


def test_the_figures_for_analysts_are_those_that_the_code_gives():
    """The block's sums are consistent: in - out = net, as printed."""
    text = (ROOT / "docs/analysts.md").read_text()
    from decimal import Decimal

    rows = re.findall(r"^\d{4}-\d\d +(\S+) +(\S+) +(\S+)$", text, re.M)
    assert len(rows) == 3
    for inflow, outflow, net in rows:
        assert Decimal(inflow) - Decimal(outflow) == Decimal(net)
