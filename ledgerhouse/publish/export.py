"""The books as one DuckDB file with tables instead of views: to hand over, or to keep.

export(Path("books-2026.duckdb"))        raises FileExistsError where there is one
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from extract.core.durable import place
from ledgerhouse.publish.books import open_books, quoted
from ledgerhouse.warehouse.views import IN_BOOKS

OBJECTS = """
    SELECT schema_name || '.' || view_name, comment FROM duckdb_views()
    WHERE database_name = 'books' AND schema_name IN ('curated', 'raw', 'ops') ORDER BY 1
"""


@dataclass(frozen=True)
class Exported:
    """What was written: tables, their rows, and the size of the file."""

    tables: int
    rows: int
    bytes: int


def export(
    file: Path,
    root: Path | None = None,
    *,
    overwrite: bool = False,
    on_table: Callable[[str], None] = lambda table: None,
) -> Exported:
    """Write the newest published books of `root` into `file`, which needs no other file to be read.

    It appears whole, by one rename; comments and types are those of the books. Raises
    FileExistsError where `file` is there and may not be replaced, FileNotFoundError where nothing
    is published or the folder is missing. `on_table` is called before each table.
    """
    file = Path(file).resolve()
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file} is there already: name another file, or use --force")
    if not file.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {file.parent}: make it first")
    partial, rows = file.with_name(f".{file.name}.part"), 0
    partial.unlink(missing_ok=True)
    views = {view.name: view for view in IN_BOOKS}
    try:
        with open_books(root) as con:
            objects = con.execute(OBJECTS).fetchall()
            con.execute(f"ATTACH {quoted(partial)} AS export")
            for schema in ("curated", "raw", "ops"):
                con.execute(f"CREATE SCHEMA export.{schema}")
            tables = [(name, words) for name, words in objects if name not in views]
            for name, words in tables:
                on_table(name)
                con.execute(f"CREATE TABLE export.{name} AS FROM books.{name}")
                ((count,),) = con.execute(f"SELECT count(*) FROM export.{name}").fetchall()
                rows += count
                if words:
                    con.execute(f"COMMENT ON TABLE export.{name} IS {quoted(words)}")
                _comment_columns(con, name)
            con.execute("CREATE TABLE export.published AS FROM books.main.published")
            con.execute("USE export")
            for view in (view for view in IN_BOOKS if view.tables <= {name for name, _ in objects}):
                for statement in view.statements():
                    con.execute(statement)
            con.execute("USE books; DETACH export")
        place(partial, file)
    finally:
        partial.unlink(missing_ok=True)
        partial.with_name(partial.name + ".wal").unlink(missing_ok=True)
    return Exported(len(tables), rows, file.stat().st_size)


def _comment_columns(con, name: str) -> None:
    """The comments of a view's columns, on the table made of it."""
    schema, table = name.split(".")
    for column, words in con.execute(
        "SELECT column_name, comment FROM duckdb_columns() WHERE database_name = 'books' AND "
        "schema_name = ? AND table_name = ? AND comment IS NOT NULL",
        [schema, table],
    ).fetchall():
        con.execute(f'COMMENT ON COLUMN export.{name}."{column}" IS {quoted(words)}')
