"""Compaction of the warehouse file: small row groups are merged, and space that is free given back.

Every load and transform leaves row groups of its own, which DuckDB merges only when it is asked to
(see `open_warehouse`), and a DuckDB file never shrinks: what was rewritten leaves free blocks. So
the file is merged in passes, each for a second or two in the warehouse's hands; and where most of
it is free it is copied into a new file, which one rename puts in its place. The copy is encrypted
as the setting says, whatever the file was.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core import durable
from ledgerhouse.warehouse.connection import WAIT_S, connected, hold, open_warehouse, wal
from ledgerhouse.warehouse.encrypted import attach

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)
PASSES = 4  # 150 row groups were 30 after one, 3 after two
LEAST_FREE = 64 * 2**20  # bytes: less is not worth a copy
FOLDER = "compact"  # beside the warehouse: the draft, gone afterwards


@dataclass(frozen=True)
class Compacted:
    """Bytes of the file before and after, and how many of those before were free blocks."""

    before: int
    after: int
    free: int
    rewritten: bool


def compact(
    path: Path,
    *,
    owner: str,
    free_percent: int = 50,
    wait_s: float = WAIT_S,
    least_free: int = LEAST_FREE,
) -> Compacted:
    """Merge row groups, and copy the file where more than `free_percent` of it is free.

    Raises WarehouseBusy. Killed anywhere, the warehouse is the one from before or the one from
    after: the copy is compared, table by table, before it is put in place.
    """
    before, used = path.stat().st_size, -1
    for _ in range(PASSES):
        with open_warehouse(path, owner=owner, wait_s=wait_s, compact=True) as con:
            # A checkpoint that has something to write merges, whatever table it is of.
            con.execute("CREATE OR REPLACE TABLE ops.compaction AS SELECT 1 AS pass")
            con.execute("CHECKPOINT")
            con.execute("DROP TABLE ops.compaction")
            con.execute("CHECKPOINT")
            now_used, free = _blocks(con)
        if now_used == used:
            break
        used = now_used
    rewritten = free >= least_free and 100 * free > free_percent * (free + used)
    if rewritten:
        with hold(path, owner, wait_s):
            rewritten = rewrite(path, used)
    return Compacted(before, path.stat().st_size, free, rewritten)


def _blocks(con: duckdb.DuckDBPyConnection) -> tuple[int, int]:
    """Bytes in use, and bytes of free blocks."""
    ((size, used, free),) = con.execute(
        "SELECT block_size, used_blocks, free_blocks FROM pragma_database_size() "
        "WHERE database_name = current_database()"
    ).fetchall()
    return size * used, size * free


def rewrite(path: Path, used: int) -> bool:
    """Put a copy of all that is in the file, `used` bytes, in its place; whether there was room for
    it. The caller holds the warehouse."""
    if shutil.disk_usage(path.parent).free < 2 * used:
        log.warning("%s is mostly free space, but its copy needs %d bytes of disk", path, 2 * used)
        return False
    draft = path.parent / FOLDER / path.name
    shutil.rmtree(draft.parent, ignore_errors=True)
    draft.parent.mkdir()
    try:
        with connected(path, compact=True) as con:
            source = con.execute("SELECT current_database()").fetchall()[0][0]
            attach(con, draft, "draft")
            con.execute(f'COPY FROM DATABASE "{source}" TO draft')
            rows, copied = _rows(con, source), _rows(con, "draft")
            con.execute("DETACH draft")
        if rows != copied:
            different = sorted(dict(set(rows.items()) ^ set(copied.items())))
            raise RuntimeError(
                f"the copy of {path} differs in {', '.join(different)}; the file is as it was"
            )
        if wal(path).exists():
            raise RuntimeError(f"{path} has a write-ahead log that was not taken in; as it was")
        durable.place(draft, path)
    finally:
        shutil.rmtree(draft.parent, ignore_errors=True)
    return True


def _rows(con: duckdb.DuckDBPyConnection, database: str) -> dict[str, object]:
    """Every table with its columns and number of rows, and every view and macro by name."""
    tables = con.execute(
        "SELECT schema_name, table_name, comment FROM duckdb_tables() WHERE database_name = ?",
        [database],
    ).fetchall()
    found: dict[str, object] = {}
    for schema, table, comment in tables:
        columns = con.execute(
            "SELECT column_name || ' ' || data_type || coalesce(comment, '') FROM duckdb_columns() "
            "WHERE (database_name, schema_name, table_name) = (?, ?, ?) ORDER BY column_index",
            [database, schema, table],
        ).fetchall()
        ((count,),) = con.execute(
            f'SELECT count(*) FROM "{database}"."{schema}"."{table}"'
        ).fetchall()
        found[f"{schema}.{table}"] = (count, comment, tuple(name for (name,) in columns))
    for kind, name in (("views", "view_name"), ("functions", "function_name")):
        for schema, each in con.execute(
            f"SELECT schema_name, {name} FROM duckdb_{kind}() "
            "WHERE database_name = ? AND NOT internal",
            [database],
        ).fetchall():
            found[f"{kind} {schema}.{each}"] = True
    return found
