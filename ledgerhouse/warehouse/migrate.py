"""Migration of a warehouse of an older version: which columns are added, and what is refused.

    add_columns(con, wanted) -> tuple[str, ...]     columns added, e.g. "raw.balances.note VARCHAR"

A nullable column that a raw or ops table lacks is added, at its end: old rows have NULL there (for
raw, `make replay` fills it from the landing, without a call). Anything else would lose or invent
something: SchemaChanged, before a byte is written. Nothing reads or writes these tables by the
order of their columns.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

COLUMNS = """
    SELECT schema_name || '.' || table_name, column_name, data_type, NOT is_nullable
    FROM duckdb_columns() JOIN duckdb_tables() USING (database_name, schema_name, table_name)
    WHERE database_name = current_database() AND schema_name IN ('raw', 'ops')
    ORDER BY 1, column_index
"""
# A dataset's key stands in the macro raw.<dataset>_as_of, in warehouses of any version.
KEYS = """
    SELECT 'raw.' || replace(function_name, '_as_of', ''), macro_definition
    FROM duckdb_functions() WHERE database_name = current_database() AND schema_name = 'raw'
        AND function_type = 'table_macro'
"""
# The loader gives every raw row these, and compares by them: a NULL would be no older value.
FILLED = ("row_hash", "first_seen_at", "changed_at", "batch_id")
KEY = re.compile(r"PARTITION BY (.*?) ORDER BY", re.DOTALL)


class SchemaChanged(RuntimeError):
    """The warehouse has a table that this version would have to change by more than adding."""


class Column(NamedTuple):
    """A column's type and nullability, as DuckDB has them."""

    type: str
    required: bool

    def __str__(self) -> str:
        return self.type + (" NOT NULL" if self.required else "")


def add_columns(con: duckdb.DuckDBPyConnection, wanted: Iterable[str]) -> tuple[str, ...]:
    """Add the nullable columns that existing tables lack and that `wanted`, the statements that
    create a new warehouse, give them. Belongs inside the caller's transaction.

    Raises SchemaChanged naming every table and column that differs otherwise.
    """
    import duckdb

    existing, existing_keys = columns(con), _keys(con)
    if not existing:
        return ()
    with duckdb.connect() as fresh:
        for statement in wanted:
            fresh.execute(statement)
        expected, expected_keys = columns(fresh), _keys(fresh)
    missing, wrong = [], []
    for table in sorted(existing.keys() & expected.keys()):
        old, new = existing[table], expected[table]
        wrong += [
            f"{table}.{name} ({old[name]}) is no column of this version"
            for name in old.keys() - new.keys()
        ]
        wrong += [
            f"{table}.{name} is {old[name]} in the warehouse, {new[name]} in this version"
            for name in old.keys() & new.keys()
            if old[name] != new[name]
        ]
        wrong += [
            f"{table}.{name} ({new[name]}) is new, and the rows there are have no value for it"
            for name in new.keys() - old.keys()
            if new[name].required or name in FILLED
        ]
        if existing_keys.get(table) != expected_keys.get(table) and table in existing_keys:
            old_key, new_key = (
                ", ".join(keys.get(table, ())) for keys in (existing_keys, expected_keys)
            )
            wrong.append(
                f"the key of {table} is ({old_key}) in the warehouse, ({new_key}) in this version"
            )
        missing += [(table, name, new[name]) for name in new if name not in old]
    if wrong:
        raise SchemaChanged(
            "; ".join(sorted(wrong)) + ". Nothing was written. `make replay` makes the warehouse "
            "again from its landing, without a call, and keeps what both versions have of the "
            "other tables; or go back to the version that made it"
        )
    for table, name, column in missing:
        con.execute(f'ALTER TABLE {table} ADD COLUMN "{name}" {column}')
    added = tuple(f"{table}.{name} {column}" for table, name, column in missing)
    if added:
        raw = any(table.startswith("raw.") for table, *_ in missing)
        log.warning(
            "added to the warehouse: %s. Old rows have NULL there%s",
            ", ".join(added),
            "; `make replay` fills the raw ones from the landing, without a call" if raw else "",
        )
    return added


def columns(
    con: duckdb.DuckDBPyConnection, database: str = "current_database()"
) -> dict[str, dict[str, Column]]:
    """The tables of raw and ops, by name, with their columns; `database` is SQL of its name."""
    tables: dict[str, dict[str, Column]] = {}
    for table, name, kind, required in con.execute(
        COLUMNS.replace("current_database()", database)
    ).fetchall():
        tables.setdefault(table, {})[name] = Column(kind, required)
    return tables


def shared(new: dict[str, Column], old: dict[str, Column]) -> Sequence[str]:
    """Columns that two versions of a table have alike, in the order of the new one."""
    return [name for name in new if name in old and new[name].type == old[name].type]


def _keys(con) -> dict[str, tuple[str, ...]]:
    """The columns of each raw table's key, sorted."""
    return {
        table: tuple(sorted(re.findall(r"\w+", match[1])))
        for table, macro in con.execute(KEYS).fetchall()
        if (match := KEY.search(macro))
    }
