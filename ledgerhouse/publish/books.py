"""The published books: `open_books().sql("FROM curated.tx_unified")`; and how the file is made.

Reading takes no lock and waits for nobody. A connection keeps the generation it opened, whole,
for publish.GRACE; after that its files may be gone, so open one per question, not one per day.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path

from extract.core.interval import first_of_month
from ledgerhouse.config import var_dir
from ledgerhouse.warehouse.views import IN_BOOKS, add_missing_views

BOOKS = "books.duckdb"
ROOT_VARIABLE = "published_root"

COLUMNS = {  # of what the books say of themselves
    "published": {
        "generation": "BIGINT",
        "published_at": "TIMESTAMP",
        "through": "TIMESTAMP",
        "run_id": "VARCHAR",
    },
    "retired_files": {"path": "VARCHAR", "retired_at": "TIMESTAMP"},
}


@dataclass(frozen=True)
class File:
    """A published file: all rows of a table from day `start` to before `end`, both None where the
    table is small and whole. `made_from` tells the table's definition (of some, also the content).
    """

    table_name: str
    start: date | None
    end: date | None
    path: str  # relative to the published folder
    rows: int
    bytes: int
    generation: int
    made_from: str

    @property
    def month(self) -> date | None:
        return self.start and first_of_month(self.start)


COLUMNS["published_files"] = {
    f.name: {"str": "VARCHAR", "int": "BIGINT", "date | None": "DATE"}[f.type] for f in fields(File)
}


@dataclass(frozen=True)
class Shape:
    """A table's columns and comments; `digest` is that of its definition."""

    columns: list[tuple[str, str, str | None]]  # name, type, comment
    comment: str | None
    digest: str


@dataclass
class BooksContent:
    """What the books there are say: nothing, where there are none to be relied on."""

    generation: int = 0
    files: list[File] = field(default_factory=list)
    published: tuple = ()  # published_at, through, run_id
    retired: dict[str, datetime] = field(default_factory=dict)


def published_dir() -> Path:
    """Where the books are published: `published/` beside the warehouse."""
    return var_dir() / "published"


def open_books(root: Path | None = None):
    """A DuckDB connection whose schemas curated, raw and ops are the newest published books.

    The books may have been copied or moved: the folder given is the one that is read. Raises
    FileNotFoundError where nothing has been published. Attached rather than connected to, since
    within one process DuckDB answers a second connect to a path with the file it has open.
    """
    import duckdb

    path = Path(root or published_dir()).resolve() / BOOKS
    if not path.exists():
        raise FileNotFoundError(
            f"no published books at {path}: they appear with the first sync whose checks pass"
        )
    con = duckdb.connect()
    try:
        con.execute("SET TimeZone = 'UTC'")
        con.execute(f"ATTACH {quoted(path)} AS books (READ_ONLY)")
        con.execute("USE books")
        con.execute(f"SET VARIABLE {ROOT_VARIABLE} = {quoted(path.parent)}")
        add_missing_views(con)
    except Exception:
        con.close()
        raise
    return con


def has(con, table: str) -> bool:
    """Whether these books have the table: they may be older than it."""
    schema, name = table.split(".")
    return bool(
        con.execute(
            "SELECT count(*) FROM information_schema.tables WHERE table_catalog = current_database() "
            "AND table_schema = ? AND table_name = ?",
            [schema, name],
        ).fetchone()[0]
    )


def read(root: Path) -> BooksContent:
    """The books there are; empty ones where they cannot be read or a file of theirs is missing."""
    import duckdb

    try:
        with open_books(root) as con:
            generation, *published = con.execute(
                "SELECT generation, published_at, through, run_id FROM main.published"
            ).fetchone()
            names = ", ".join(f'"{name}"' for name in COLUMNS["published_files"])
            files = [
                File(*row)
                for row in con.execute(f"SELECT {names} FROM main.published_files").fetchall()
            ]
            retired = dict(
                con.execute("SELECT path, retired_at FROM main.retired_files").fetchall()
            )
    except (FileNotFoundError, TypeError, duckdb.Error):
        return BooksContent()
    for file in files:
        path = root / file.path
        if not path.exists() or path.stat().st_size != file.bytes:
            return BooksContent(generation, retired=retired)
    return BooksContent(generation, files, tuple(published), retired)


def build(root: Path, shapes, live, retired, published) -> Path:
    """The new books, durable, under a temporary name, which is returned.

    `shapes` by table, `live` the files they read, `retired` the times others were dropped,
    `published` the row of that table.
    """
    import duckdb

    partial = root / f".{BOOKS}.part"
    with duckdb.connect(str(partial)) as books:
        made = {
            name: ", ".join(f'"{column}" {kind}' for column, kind in columns.items())
            for name, columns in COLUMNS.items()
        }
        books.execute(f"""
            BEGIN;
            CREATE SCHEMA curated; CREATE SCHEMA raw; CREATE SCHEMA ops;
            CREATE TABLE published ({made["published"]});
            CREATE TABLE published_files ({made["published_files"]},
                month DATE GENERATED ALWAYS AS (date_trunc('month', "start")::DATE) VIRTUAL);
            CREATE TABLE retired_files ({made["retired_files"]});
            COMMENT ON COLUMN published.through IS 'end of the newest interval covered, UTC';
            COMMENT ON TABLE retired_files IS 'not read by these books; removed after a while'""")
        _insert(books, "published", [published])
        _insert(books, "published_files", [tuple(vars(file).values()) for file in live])
        _insert(books, "retired_files", list(retired.items()))
        for name, shape in shapes.items():
            paths = sorted(f.path for f in live if f.table_name == name)
            books.execute(f"CREATE VIEW {name} AS {_view(root, shape, paths)}")
            if shape.comment:
                books.execute(f"COMMENT ON VIEW {name} IS {quoted(shape.comment)}")
            for column, _, comment in shape.columns:
                if comment:
                    books.execute(f'COMMENT ON COLUMN {name}."{column}" IS {quoted(comment)}')
        for view in IN_BOOKS:
            if view.tables <= shapes.keys():
                for statement in view.statements():
                    books.execute(statement)
        books.execute("COMMIT")
        books.execute("CHECKPOINT")
    durable(partial)
    return partial


def _view(root: Path, shape: Shape, paths: list[str]) -> str:
    if not paths:
        nothing = ", ".join(f'CAST(NULL AS {kind}) AS "{name}"' for name, kind, _ in shape.columns)
        return f"SELECT {nothing} WHERE false"
    place = f"coalesce(getvariable('{ROOT_VARIABLE}'), {quoted(root)})"
    # One text of all names: an expression a file takes ten times as long to read.
    names = (
        f"{place} || '/' || replace({quoted(chr(10).join(paths))}, chr(10), "
        f"chr(10) || {place} || '/')"
    )
    return f"SELECT * FROM read_parquet(string_split({names}, chr(10)), hive_partitioning = false)"


def _insert(con, table: str, rows: list[tuple]) -> None:
    """As one text: binding parameters makes DuckDB import pandas, half of a small publish, and
    literals are read four times as slowly."""
    text = json.dumps([dict(zip(COLUMNS[table], row)) for row in rows], default=str)
    con.execute(
        f"INSERT INTO {table} SELECT unnest(from_json({quoted(text)}, "
        f"{quoted(json.dumps([COLUMNS[table]]))}), recursive := true)"
    )


def durable(path: Path) -> None:
    """Return when `path`, a file or a folder, is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def quoted(text) -> str:
    """A string of SQL."""
    return "'" + str(text).replace("'", "''") + "'"
