"""The warehouse that a replay replaces: what of it can still be read, and how it makes way.

A damaged file is what a replay is there to cure, so nothing here trusts it: each table is read
whole before it is used, by a connection of its own, since an error may end all of a DuckDB.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core import durable
from extract.core.interval import UTC, utc
from extract.fetch.landing import Load
from ledgerhouse.warehouse.connection import connected, wal

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

TABLES = """
    SELECT schema_name || '.' || table_name FROM duckdb_tables()
    WHERE database_name = current_database() AND schema_name IN ('raw', 'ops') ORDER BY 1
"""
LOADS = """
    SELECT batch_id, min(sequence), min(loaded_at), list(file ORDER BY file) FROM ops.landed_files
    GROUP BY batch_id ORDER BY 2
"""


def loads_of(con: duckdb.DuckDBPyConnection) -> list[Load]:
    """The batches that a warehouse holds, in their order, without digests."""
    return [
        Load(sequence, batch_id, utc(loaded_at), tuple(files))
        for batch_id, sequence, loaded_at, files in con.execute(LOADS).fetchall()
    ]


@dataclass(frozen=True)
class OldWarehouse:
    """What of an old warehouse can be read; nothing where there is none.

    path     the file to read it from; None where nothing can be read
    tables   those of raw and ops that were read whole
    damage   what cannot be read, in words; empty where all can
    loads    the batches that it holds
    """

    path: Path | None = None
    tables: frozenset[str] = frozenset()
    damage: tuple[str, ...] = ()
    loads: tuple[Load, ...] = ()


def examine(path: Path, scratch: Path) -> OldWarehouse:
    """Read all of raw and ops in a warehouse whose lock is held. It is not changed, except that a
    sound one has its write-ahead log brought into the file.

    `scratch` is an empty folder on the same file system.
    """
    import duckdb

    if not path.exists():
        return OldWarehouse()
    if not path.stat().st_size:
        return OldWarehouse(damage=("the file: it is empty",))
    damage: list[str] = []
    try:
        tables = _tables(path)
    except duckdb.Error as error:
        damage.append(f"the file: {_line(error)}")
        if not wal(path).exists():
            return OldWarehouse(damage=tuple(damage))
        # It may be the log that is damaged: without it the file is as of its last checkpoint.
        alone = scratch / path.name
        _link(path, alone)
        try:
            tables = _tables(alone)
        except duckdb.Error:
            return OldWarehouse(damage=tuple(damage))
        damage = [f"what was written last ({wal(path).name}): {_line(error)}"]
        path = alone
    wrong = unreadable(path, tables)
    damage += [f"{table}: {words}" for table, words in wrong.items()]
    readable = [table for table in tables if table not in wrong]
    loads: list[Load] = []
    if "ops.landed_files" in readable:
        with connected(path, read_only=True) as con:
            loads = loads_of(con)
    if not damage and wal(path).exists():
        with connected(path) as con:
            con.execute("CHECKPOINT")
    return OldWarehouse(path, frozenset(readable), tuple(damage), tuple(loads))


def replace(path: Path, draft: Path, *, keep: bool) -> Path | None:
    """Put the new file in the place of the old; where that is kept, if it is.

    A death at any step leaves the old warehouse or the new one, and never the new one with the
    log of the old, which DuckDB would apply to it. The log is there only where the old file is
    damaged (see examine): it goes first, and is kept.
    """
    aside = path.with_name(f"{path.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S}")
    kept = None
    if keep and path.exists():
        _link(path, aside)
        durable.sync(path.parent)
        kept = aside
    if wal(path).exists():
        durable.place(wal(path), wal(aside))
    durable.place(draft, path)
    return kept


def unreadable(path: Path, tables: Sequence[str]) -> dict[str, str]:
    """Tables that cannot be read whole, and why; every block of the others has been read."""
    import duckdb

    wrong: dict[str, str] = {}
    left = list(tables)
    while left:  # an error may have ended all of a connection
        try:
            with connected(path, read_only=True) as con:
                while left:
                    con.execute(f"SELECT bit_xor(hash(t)) FROM {left[0]} t").fetchall()
                    left.pop(0)
        except duckdb.Error as error:
            wrong[left.pop(0)] = _line(error)
    return wrong


def _tables(path: Path) -> Sequence[str]:
    with connected(path, read_only=True) as con:
        return [name for (name,) in con.execute(TABLES).fetchall()]


def _link(path: Path, other: Path) -> None:
    """A second name of a file; a copy where the file system has none."""
    try:
        os.link(path, other)
    except OSError:
        shutil.copy2(path, other)
        durable.sync(other)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
