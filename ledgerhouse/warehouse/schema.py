"""The schema of the warehouse: every table and view of raw and ops, created where it is missing.

Raw tables are those of the datasets (extract.core.datasets), the others stand in ops_tables and
views. `create_all` is idempotent. SQLMesh owns the schema `curated` and what lies under it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

from extract.core.datasets import DATASETS, META, PAYLOAD, Dataset
from ledgerhouse.warehouse.migrate import add_columns
from ledgerhouse.warehouse.ops_tables import TABLES, comment_columns
from ledgerhouse.warehouse.spending_views import views as spending_views
from ledgerhouse.warehouse.transaction import transaction
from ledgerhouse.warehouse.views import VIEWS, as_of

if TYPE_CHECKING:
    import duckdb

# Payloads are most of the warehouse, and this halves it. A file of before DuckDB 1.2 has no zstd,
# and what asks for it there is not compressed at all.
ZSTD = " USING COMPRESSION zstd"
FILE_VERSION = (
    "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = "
    "current_database()"
)


def create_statement(dataset: Dataset) -> str:
    """SQL that creates the raw table of a dataset."""
    columns = ", ".join(
        f"{c.name} {c.type}"
        + (" NOT NULL" if c.name in (*dataset.key, "ts") else "")
        + (ZSTD if c == PAYLOAD else "")
        for c in (*dataset.columns, *META)
    )
    return f"CREATE TABLE IF NOT EXISTS {dataset.table} ({columns})"


def create_all(con: duckdb.DuckDBPyConnection) -> None:
    """Create every schema, table and column that is missing, and write all views and comments
    again (one transaction); nothing where the digest on ops.batches says that this was done.

    Raises SchemaChanged, with nothing written, where an older version's table would have to
    change otherwise than by a new column.
    """
    digest = _digest()
    if con.execute(
        "SELECT comment FROM duckdb_tables() WHERE database_name = current_database() "
        "AND schema_name = 'ops' AND table_name = 'batches'"
    ).fetchone() == (digest,):
        return
    with transaction(con):
        add_columns(con, _statements())
        without_zstd = con.execute(FILE_VERSION).fetchone() == ("v1.0.0+",)
        for statement in _statements():
            con.execute(statement.replace(ZSTD, "") if without_zstd else statement)
        write_digest(con, digest)


def write_digest(con: duckdb.DuckDBPyConnection, digest: str) -> None:
    """Note on ops.batches, in the place of its comment, what create_all has done."""
    con.execute(f"COMMENT ON TABLE ops.batches IS '{digest}'")


@cache
def _statements() -> tuple[str, ...]:
    statements = ["CREATE SCHEMA IF NOT EXISTS raw; CREATE SCHEMA IF NOT EXISTS ops;"]
    for table in TABLES.values():
        statements += table.statements()
    for dataset in DATASETS.values():
        statements += [
            create_statement(dataset),
            *comment_columns(dataset.table, (*dataset.columns, *META)),
            as_of(dataset),
        ]
    for view in (*VIEWS, *spending_views()):
        statements += view.statements()
    return tuple(statements)


@cache
def _digest() -> str:
    return "schema " + hashlib.md5(";".join(_statements()).encode()).hexdigest()
