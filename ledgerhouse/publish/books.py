"""The file `books.duckdb`: opening it, reading what it says of itself, and building the next one.

    open_books().sql("FROM curated.tx_unified")

The views name their files in the folder in which they were published. Moved or copied books are
read by open_books(), or by a connection with the setting file_search_path at their folder, and
refuse anything else; the names of files are unique, so those of other books are never read.

Reading takes no lock and waits for nobody. A connection keeps the generation it opened, whole,
for publish.GRACE; after that its files may be gone, so open one per question, not one per day.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.core.interval import first_of_month
from ledgerhouse.config import var_dir
from ledgerhouse.warehouse import encrypted
from ledgerhouse.warehouse.views import IN_BOOKS, add_missing_views

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

BOOKS = "books.duckdb"
DIGEST = "books.duckdb.sha256"  # of the books themselves, as sha256sum writes and checks it
ROOT_VARIABLE = "published_root"

COLUMNS = {  # of the tables in which the books describe themselves
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
    """A published Parquet file: all rows of a table from day `start` to before `end`.

    Both are None where the file is the whole of a small table. `made_from` is a digest of the
    table's definition (of some tables, also of the content), `sha256` that of the file; 0.1 noted
    none. `key_id` is that of the key it is encrypted under, None where it is not.
    """

    table_name: str
    start: date | None
    end: date | None
    path: str  # relative to the published folder
    rows: int
    bytes: int
    generation: int
    made_from: str
    sha256: str | None = None
    key_id: str | None = None

    @property
    def month(self) -> date | None:
        return self.start and first_of_month(self.start)


TYPES = {"str": "VARCHAR", "str | None": "VARCHAR", "int": "BIGINT", "date | None": "DATE"}
COLUMNS["published_files"] = {f.name: TYPES[str(f.type)] for f in fields(File)}


@dataclass(frozen=True)
class TableDefinition:
    """A published table's columns and comments; `digest` is that of its definition."""

    columns: list[tuple[str, str, str | None]]  # name, type, comment
    comment: str | None
    digest: str


@dataclass
class BooksContent:
    """What the newest books say of themselves; empty where there are none, or damaged ones."""

    generation: int = 0
    files: list[File] = field(default_factory=list)
    published: tuple[Any, ...] = ()  # published_at, through, run_id
    retired: dict[str, datetime] = field(default_factory=dict)


def published_dir() -> Path:
    """Where the books are published: `published/` beside the warehouse."""
    return var_dir() / "published"


def open_books(root: Path | None = None) -> duckdb.DuckDBPyConnection:
    """A DuckDB connection whose schemas curated, raw and ops are the newest published books.

    The books may have been copied or moved: the folder given is the one that is read. Raises
    FileNotFoundError where nothing has been published, EncryptionError where they are encrypted
    and the key is missing or another one. Attached rather than connected to, since within one
    process DuckDB answers a second connect to a path with the file it has open.
    """
    import duckdb

    path = Path(root or published_dir()).resolve() / BOOKS
    if not path.exists():
        raise FileNotFoundError(
            f"no published books at {path}: they appear with the first sync whose checks pass"
        )
    con = duckdb.connect(config=encrypted.settings())
    try:
        con.execute("SET TimeZone = 'UTC'")
        encrypted.prepared(con)
        encrypted.attach(con, path, "books", read_only=True)
        encrypted.add_parquet_keys(con)
        con.execute("USE books")
        con.execute(f"SET VARIABLE {ROOT_VARIABLE} = {quoted(path.parent)}")
        add_missing_views(con)
    except Exception:
        con.close()
        raise
    return con


def has(con: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether the books have the table: an older version, which lacked it, may have made them."""
    schema, name = table.split(".")
    ((count,),) = con.execute(
        "SELECT count(*) FROM information_schema.tables WHERE table_catalog = current_database() "
        "AND table_schema = ? AND table_name = ?",
        [schema, name],
    ).fetchall()
    return bool(count)


def listed(con: duckdb.DuckDBPyConnection) -> list[File]:
    """The files that open books read; those of an older version lack some of the fields."""
    cursor = con.execute("SELECT * FROM main.published_files")
    names = [column[0] for column in cursor.description or ()]
    rows = [dict(zip(names, row)) for row in cursor.fetchall()]
    return [
        File(**{k: v for k, v in row.items() if k in COLUMNS["published_files"]}) for row in rows
    ]


def read_content(root: Path) -> BooksContent:
    """What the books in `root` say of themselves.

    No files where one of them is missing or cut off, which is logged; nothing where the books
    cannot be read.
    """
    import duckdb

    try:
        with open_books(root) as con:
            ((generation, *published),) = con.execute(
                "SELECT generation, published_at, through, run_id FROM main.published"
            ).fetchall()
            files = listed(con)
            retired = dict(
                con.execute("SELECT path, retired_at FROM main.retired_files").fetchall()
            )
    except (FileNotFoundError, ValueError, duckdb.Error):
        return BooksContent()
    for file in files:
        path = root / file.path
        if not path.exists() or path.stat().st_size != file.bytes:
            log.error("%s is missing or cut off: the books in %s cannot be relied on", path, root)
            return BooksContent(generation, retired=retired)
    return BooksContent(generation, files, tuple(published), retired)


def build(
    root: Path,
    definitions: Mapping[str, TableDefinition],
    live: Sequence[File],
    retired: Mapping[str, datetime],
    published: tuple[Any, ...],
) -> Path:
    """Write the new books under a temporary name; its path.

    `definitions` are by table, `live` the files that the books read, `retired` the times at which
    others were dropped, `published` the row of that table.
    """
    partial = root / f".{BOOKS}.part"
    with encrypted.connect(partial) as books:
        encrypted.add_parquet_keys(books)
        columns = {
            name: ", ".join(f'"{column}" {kind}' for column, kind in kinds.items())
            for name, kinds in COLUMNS.items()
        }
        books.execute(f"""
            BEGIN;
            CREATE SCHEMA curated; CREATE SCHEMA raw; CREATE SCHEMA ops;
            CREATE TABLE published ({columns["published"]});
            CREATE TABLE published_files ({columns["published_files"]},
                month DATE GENERATED ALWAYS AS (date_trunc('month', "start")::DATE) VIRTUAL);
            CREATE TABLE retired_files ({columns["retired_files"]});
            COMMENT ON COLUMN published.through IS 'end of the newest interval covered, UTC';
            COMMENT ON TABLE retired_files IS 'not read by these books; removed after a while'""")
        _insert(books, "published", [published])
        _insert(books, "published_files", [tuple(vars(file).values()) for file in live])
        _insert(books, "retired_files", list(retired.items()))
        for name, definition in definitions.items():
            mine = [f for f in live if f.table_name == name]
            books.execute(f"CREATE VIEW {name} AS {_view(root, definition, mine)}")
            if definition.comment:
                books.execute(f"COMMENT ON VIEW {name} IS {quoted(definition.comment)}")
            for column, _, comment in definition.columns:
                if comment:
                    books.execute(f'COMMENT ON COLUMN {name}."{column}" IS {quoted(comment)}')
        for view in IN_BOOKS:
            if view.tables <= definitions.keys():
                for statement in view.statements():
                    books.execute(statement)
        books.execute("COMMIT")
        books.execute("CHECKPOINT")
    return partial


def _view(root: Path, definition: TableDefinition, files: Sequence[File]) -> str:
    """The SELECT of a table from its files."""
    if not files:
        nothing = ", ".join(
            f'CAST(NULL AS {kind}) AS "{name}"' for name, kind, _ in definition.columns
        )
        return f"SELECT {nothing} WHERE false"
    root_variable = f"getvariable('{ROOT_VARIABLE}')"
    place = (
        f"CASE WHEN {root_variable} IS NOT NULL THEN {root_variable} || '/' "
        f"WHEN current_setting('file_search_path') <> '' THEN '' ELSE {quoted(f'{root}/')} END"
    )
    # One text of all names: an expression a file takes ten times as long to read.
    scans = []
    for key_id in sorted({file.key_id or "" for file in files}):
        paths = sorted(file.path for file in files if (file.key_id or "") == key_id)
        names = f"{place} || replace({quoted(chr(10).join(paths))}, chr(10), chr(10) || {place})"
        split = f"string_split({names}, chr(10))"
        scans.append(f"FROM {encrypted.scan(split, key_id, 'hive_partitioning = false')}")
    scan = scans[0].removeprefix("FROM ")
    if len(scans) > 1:  # one read takes one key
        scan = f"({' UNION ALL BY NAME '.join(scans)})"
    # A copy must not read the files of the books it was copied from.
    at_home = (
        f"{root_variable} IS NOT NULL OR current_setting('file_search_path') <> '' OR EXISTS "
        f"(SELECT 1 FROM duckdb_databases() WHERE path = {quoted(root / BOOKS)})"
    )
    moved = quoted(
        f"these books were published in {root} and have been moved or copied: open them with the "
        f"setting file_search_path, or the variable {ROOT_VARIABLE}, at the folder they are in"
    )
    return f"SELECT * FROM {scan} WHERE CASE WHEN {at_home} THEN true ELSE error({moved}) END"


def _insert(con: duckdb.DuckDBPyConnection, table: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Insert rows as one JSON text: binding parameters makes DuckDB import pandas, half of a small publish, and
    literals are read four times as slowly."""
    text = json.dumps([dict(zip(COLUMNS[table], row)) for row in rows], default=str)
    con.execute(
        f"INSERT INTO {table} SELECT unnest(from_json({quoted(text)}, "
        f"{quoted(json.dumps([COLUMNS[table]]))}), recursive := true)"
    )


def quoted(text: object) -> str:
    """A string literal of SQL."""
    return "'" + str(text).replace("'", "''") + "'"
