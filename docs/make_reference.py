"""Writer of docs/reference.md, from the code: `python -m docs.make_reference`; `--check` compares.

Whatever the page says is read from what runs: the tables from a warehouse made in memory and
from SQLMesh's models, the commands from their parsers, the DAGs from their files.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parents[1]
PAGE = PROJECT / "docs" / "reference.md"
HEAD = """# Reference

Made from the code by `make reference`; do not edit. Times are UTC, amounts are `DECIMAL(38,18)`.

{contents}
"""


def write() -> str:
    """The whole page, as text."""
    parts = {
        "Make targets": targets(),
        "Commands of Airflow": commands(),
        "DAGs": dags(),
        "accounts.toml": accounts(),
        "Alerts": alerts(),
        "Connections": connections(),
        "Settings": settings(),
        "Published files": published(),
        "Tables of curated": curated(),
        "Tables of raw": tables("raw"),
        "Tables of ops": tables("ops"),
        "Table macros": macros(),
    }
    contents = "\n".join(f"- [{title}](#{anchor(title)})" for title in parts)
    return HEAD.format(contents=contents) + "".join(
        f"\n## {title}\n\n{body.strip()}\n" for title, body in parts.items()
    )


def anchor(title: str) -> str:
    """GitHub's id of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A Markdown table; cells in one line."""

    def line(cells: Sequence[Any]) -> str:
        texts = (" ".join(str(cell if cell is not None else "").split()) for cell in cells)
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in texts) + " |"

    return "\n".join([line(head), line(["---"] * len(head)), *map(line, rows)]) + "\n"


def code(text: Any) -> str:
    return f"`{text}`" if str(text) else ""


# --- what is typed ----------------------------------------------------------------------------


def targets() -> str:
    """From the comment at the head of the Makefile, a line a target."""
    rows = []
    for line in (PROJECT / "Makefile").read_text().splitlines():
        if not line.startswith("#"):
            break
        match = re.fullmatch(r"# (make \S+(?: [A-Z]+=(?:\"[^\"]*\"|\S+))?)\s+(.*)", line)
        if match:
            rows.append((code(match[1]), match[2]))
    return table(("target", "what it does"), rows)


def commands() -> str:
    """`airflow dags backfill` and `airflow warehouse …`, with every argument."""
    from ledgerhouse.operate.commands.arguments import BACKFILL, WAREHOUSE

    parts = []
    for prefix, command in [("dags", BACKFILL), *(("warehouse", c) for c in WAREHOUSE.subcommands)]:
        parts += [
            f"### airflow {prefix} {command.name}\n",
            f"{command.help}.",
            getattr(command, "epilog", ""),
            "\n"
            + table(
                ("argument", "what it does"),
                [(code(" ".join(argument.flags)), _help(argument)) for argument in command.args],
            ),
        ]
    return "\n".join(filter(None, parts))


def _help(argument: Any) -> str:
    words = str(argument.kwargs.get("help") or "")
    choices = argument.kwargs.get("choices")
    return words + (f" ({', '.join(choices)})" if choices and choices[0] not in words else "")


def dags() -> str:
    """From the files in dags/, as Airflow reads them."""
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(PROJECT / "dags"))
    if bag.import_errors:
        raise RuntimeError(f"the DAGs cannot be read: {bag.import_errors}")
    parts = []
    for name, dag in sorted(bag.dags.items()):
        what = dag.doc_md.splitlines()[0].lstrip("# ").removeprefix(f"{name}: ")
        when = getattr(dag.timetable, "expression", None)
        end = "" if what[-1] in ".?!" else "."
        parts += [
            f"### {name}\n",
            f"{what[:1].upper()}{what[1:]}{end} "
            + (f"Schedule: `{when}`, UTC." if when else "No schedule: it is triggered."),
            "Tasks: " + ", ".join(code(task.task_id) for task in dag.topological_sort()) + ".",
        ]
        parts.append(
            "\n"
            + table(
                ("param", "default", "what it does"),
                [
                    (code(param), code(_shown(value)), dag.params.get_param(param).description)
                    for param, value in dag.params.dump().items()
                ],
            )
            if dag.params
            else ""
        )
    return "\n".join(parts)


def _shown(value: Any) -> str:
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


# --- what is written down ---------------------------------------------------------------------


def accounts() -> str:
    from dataclasses import fields

    from extract.sources import names
    from ledgerhouse.config import (
        ACCOUNT_NAME,
        CONNECTION_ID,
        NAMES,
        Account,
        Deadlines,
        Maintenance,
    )

    said = {
        "source": f"the API: {', '.join(names())}",
        "account": f"a name, or a wallet address; it matches `{ACCOUNT_NAME.pattern}`",
        "connection": f"the Airflow Connection that opens it; it matches "
        f"`{CONNECTION_ID.pattern}`. Accounts that share one are fetched in turn",
    }
    return (
        "One `[[account]]` an account, with exactly these keys; the file is "
        "`$LEDGERHOUSE_ACCOUNTS`, else `accounts.toml` in the project.\n\n"
        + table(("key", "what it holds"), [(code(f.name), said[f.name]) for f in fields(Account)])
        + "\nOptional, one `[budget.<source>]` a source, of whole numbers of 0 or more. A call "
        "that would pass one is not sent.\n\n"
        + table(
            ("key", "what it allows"),
            [
                (code(name), f"{measure} a {period}, UTC")
                for name, (measure, period) in NAMES.items()
            ],
        )
        + "\nOptional, `[deadlines]`, in hours. What takes longer is ended; what is late is the "
        "alert `late_run`.\n\n"
        + numbers(Deadlines)
        + "\nOptional, `[maintenance]`: what the DAG `maintenance` keeps, in days where nothing "
        "else is said.\n\n" + numbers(Maintenance)
    )


def numbers(section: type) -> str:
    """The whole numbers of a section of accounts.toml."""
    from dataclasses import fields

    return table(
        ("key", "default", "what it holds"),
        [(code(f.name), code(f.default), f.metadata["says"]) for f in fields(section)],
    )


def alerts() -> str:
    """The kinds of incidents, and what [alerts] of accounts.toml may hold."""
    from dataclasses import fields

    from ledgerhouse.config import WAYS, Rules
    from ledgerhouse.operate.alerts.conditions import KINDS

    unset, ways = Rules(), " or ".join(WAYS)
    hours = unset.stale_after.total_seconds() / 3600
    said = [
        ("stale_after_hours", f"{hours:g}", "hours after which coverage is stale"),
        ("budget_at", unset.budget_at, "share of a budget from which on an alert is sent"),
        *(
            (way, connection, f"id of the Airflow Connection that {way} notices go by")
            for way, connection in WAYS.items()
        ),
        ("email_to", "", "an address, or a list of them"),
        ("email_from", "", "the sender"),
        (
            "heartbeat",
            unset.heartbeat,
            "id of the Airflow Connection whose address is asked (GET) at the end of every run while "
            "syncs come: [operations.md](operations.md#when-nothing-runs)",
        ),
    ]
    assert len(fields(Rules)) == 7, "Rules has changed: tell so here"
    return (
        f"Sent once when it opens and once when it is over: to the log, and by {ways} where "
        "there is such a Connection. [operations.md](operations.md#alerts) says what to do.\n\n"
        + table(
            ("kind", "severity", "in short"),
            [(code(kind), *words) for kind, words in KINDS.items()],
        )
        + "\nOptional, `[alerts]` in `accounts.toml`:\n\n"
        + table(
            ("key", "default", "what it holds"),
            [(code(name), code(value), words) for name, value, words in said],
        )
        + '\nOptional, `[checks]`: `off`, what a balance that is off does: `"publish"` (the default: '
        'its status is beside the number) or `"hold"` (its account keeps its last good days).\n'
    )


def connections() -> str:
    from ledgerhouse.operate.airflow.provider import connection_types

    rows = []
    for kind in connection_types():
        shown = kind["ui-field-behaviour"]
        labels = shown["relabeling"]
        rows.append(
            (
                code(kind["connection-type"]),
                kind["hook-name"],
                code(shown["placeholders"]["host"]),
                labels.get("login", "not used"),
                labels["password"],
                ", ".join(
                    f"{field['label']} ({code(name)}, in the extra)"
                    for name, field in kind["conn-fields"].items()
                ),
            )
        )
    return (
        "Made in Airflow's UI (Admin, Connections), or as a variable `AIRFLOW_CONN_<ID>` in "
        "`.env`. The extra of each may hold `units`, prices by endpoint that replace the "
        "assumed ones, and `deadline_s` and `max_body_mb`, seconds and megabytes that an answer "
        "may take (60 and 32).\n\n"
        + table(("type", "in the form", "host", "login", "password", "further secrets"), rows)
    )


def settings() -> str:
    """From .env.example: each variable with the comment above it."""
    rows, words = [], []
    for line in (PROJECT / ".env.example").read_text().splitlines():
        name = re.match(r"(?:# ?)?([A-Z][A-Z0-9_]+)=(.*)", line)
        if name:
            value = name[2]
            comment = " ".join(words)
            rows.append((code(name[1]), code("" if value.startswith("{") else value), comment))
            words = []
        elif line.startswith("#"):
            words.append(line.lstrip("# "))
        else:
            words = []
    return (
        "Variables of `.env` (else `.env.example`); one that is set in the environment "
        "wins.\n\n" + table(("variable", "in .env.example", "what it does"), rows)
    )


# --- what is stored ---------------------------------------------------------------------------


def published() -> str:
    from ledgerhouse.publish.parquet_files import MONTH_ROWS, PIECE
    from ledgerhouse.publish.publish import TABLES

    return (
        "Views in `published/books.duckdb`, over Parquet files that never change once they "
        "are written. Ask `ledgerhouse.files()` for the files; never list the folder. A "
        f"month of more than {MONTH_ROWS:,} rows may be several files, `g<N>-DD.parquet`, of "
        f"{PIECE.days} days from day DD on.\n\n"
        + table(
            ("table", "files", "by month of"),
            [(code(t.name), code(_path(t)), code(t.time) if t.time else "") for t in TABLES],
        )
    )


def _path(table: Any) -> str:
    folder = table.name.split(".")[1]
    return f"{folder}/month=YYYY-MM/g<N>.parquet" if table.time else f"{folder}/g<N>.parquet"


def curated() -> str:
    """From SQLMesh's models: types as it infers them, comments as they are written."""
    from sqlmesh import Context

    parts = []
    with tempfile.TemporaryDirectory() as var:
        before = os.environ.get("LEDGERHOUSE_VAR")
        os.environ["LEDGERHOUSE_VAR"] = var
        try:
            models = Context(paths=str(PROJECT / "sqlmesh_project")).models.values()
        finally:
            os.environ.pop("LEDGERHOUSE_VAR")
            if before is not None:
                os.environ["LEDGERHOUSE_VAR"] = before
        where = {t.name for t in _published()}
        for model in sorted(models, key=lambda m: ("staged_" in m.name, m.name)):
            if model.kind.is_external:
                continue
            key = ", ".join(
                code(c.name) for grain in model.grains for c in grain.find_all(_column())
            )
            parts += [
                f"### {model.name}\n",
                model.description,
                f"Key: {key}."
                + ("" if model.name in where else " In the warehouse only, not in the books."),
                "\n"
                + table(
                    ("column", "type", "what it holds"),
                    [
                        (code(name), _kind(kind), model.column_descriptions.get(name, ""))
                        for name, kind in model.columns_to_types.items()
                    ],
                ),
            ]
    return "\n".join(parts)


def _kind(kind: Any) -> str:
    """A type as duckdb_columns() spells it."""
    words = kind.sql(dialect="duckdb").replace(", ", ",")
    return {"TEXT": "VARCHAR", "INT": "INTEGER"}.get(words, words)


def _column() -> type:
    from sqlglot import exp

    return exp.Column


def _published() -> tuple:
    from ledgerhouse.publish.publish import TABLES

    return TABLES


def tables(schema: str) -> str:
    """From a warehouse made in memory: what duckdb_columns() says of it."""
    import duckdb

    from extract.core.datasets import DATASETS
    from ledgerhouse.warehouse.ops_tables import TABLES
    from ledgerhouse.warehouse.schema import create_all
    from ledgerhouse.warehouse.views import IN_BOOKS

    made, where = [], {t.name for t in (*_published(), *IN_BOOKS)}
    with duckdb.connect() as con:
        create_all(con)
        names = [
            name
            for (name,) in con.execute(
                "SELECT DISTINCT table_name FROM duckdb_columns() WHERE database_name = "
                "current_database() AND schema_name = ? ORDER BY 1",
                [schema],
            ).fetchall()
        ]
        views = dict(
            con.execute(
                "SELECT view_name, comment FROM duckdb_views() WHERE schema_name = ?", [schema]
            ).fetchall()
        )
        comments = views | dict(
            con.execute(
                "SELECT table_name, comment FROM duckdb_tables() WHERE schema_name = ?", [schema]
            ).fetchall()
        )
        for name in names:
            full, dataset = f"{schema}.{name}", DATASETS.get(name) if schema == "raw" else None
            words = TABLES[full].comment if full in TABLES else comments[name]
            if dataset:
                words = "Key: " + ", ".join(map(code, dataset.key))
            made += [
                f"### {full}\n",
                f"{words or 'Not described yet'}."
                + (" A view." if name in views else "")
                + ("" if full in where else " In the warehouse only, not in the books."),
                "\n"
                + table(
                    ("column", "type", "what it holds"),
                    [
                        (code(column), kind, comment)
                        for column, kind, comment in con.execute(
                            "SELECT column_name, data_type, comment FROM duckdb_columns() WHERE "
                            "database_name = current_database() AND schema_name = ? AND "
                            "table_name = ? ORDER BY column_index",
                            [schema, name],
                        ).fetchall()
                    ],
                ),
            ]
    return "\n".join(made)


def macros() -> str:
    from extract.core.datasets import DATASETS

    return (
        "In the warehouse: the rows as they were known at a moment, with the "
        "columns of the dataset.\n\n"
        + table(
            ("macro", "rows of"),
            [
                (code(f"raw.{name}_as_of(moment)"), code(d.table))
                for name, d in sorted(DATASETS.items())
            ],
        )
    )


def main(arguments: list[str]) -> int:
    """0; 1 where `--check` finds that the page is not what the code says."""
    logging.disable(logging.WARNING)  # SQLMesh and Airflow greet
    os.environ["LEDGERHOUSE_ACCOUNTS"] = str(PROJECT / "accounts.toml")  # whatever the shell says
    with tempfile.TemporaryDirectory() as home:
        os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "ERROR"
        os.environ["AIRFLOW_HOME"] = home  # importing Airflow writes its configuration there
        text = write()
    if "--check" in arguments:
        same = PAGE.exists() and PAGE.read_text() == text
        print(
            "docs/reference.md is "
            + ("as the code says" if same else "out of date: run make reference")
        )
        return int(not same)
    PAGE.write_text(text)
    print(f"docs/reference.md: {len(text.splitlines()):,} lines")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
