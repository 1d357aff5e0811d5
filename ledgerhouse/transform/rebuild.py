"""Rebuild of the curated tables from raw, in a separate copy, compared with production row by row.

    rebuild(var, batches=…, owner=…) -> Rebuilt       raises RebuildMismatch where a table differs

Incremental models are right only if no day was ever missed; this finds a missed one. Nothing here
writes to production: its file is copied while nobody else has it (the only time it is held), and
everything else happens in `var/rebuild/`, a SQLMesh environment with physical tables and a state
of its own. (A dev environment of the warehouse itself would point its views at production's
tables, and restating it would write them.) The folder is removed at the end, and by the next
rebuild where this one was killed.

In the copy, production's tables get other names; then the models run as a first
transform does, over every day there is. Then both are compared (ledgerhouse.transform.compare).

Needs room for another warehouse and another curated; memory stays within what DuckDB may take.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from ledgerhouse.transform.compare import TABLES, Difference, compare, physical
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import marks_of, touched, transform
from ledgerhouse.warehouse.connection import WAIT_S, connected, hold
from ledgerhouse.warehouse.schema import create_all
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

FOLDER = "rebuild"
DISK_FACTOR = 2.2  # of the warehouse's size: the copy, and what is built in it
STATE_URI = "LEDGERHOUSE_STATE_URI"
RAW_MARKS = (
    "exchanges_ledger",
    "exchanges_trades",
    "onchain_transactions",
    "onchain_transfers",
    "adjustments",
)


class DiskFull(RuntimeError):
    """The disk has no room for the rebuild; production is as it was."""


class RebuildMismatch(RuntimeError):
    """Production's curated is not what its raw rows give."""

    def __init__(self, rebuilt: Rebuilt):
        self.rebuilt = rebuilt
        stale = (
            " The models in the project are not those that production runs ("
            + ", ".join(rebuilt.stale)
            + "): run `make plan` first."
            if rebuilt.stale
            else ""
        )
        super().__init__("; ".join(map(str, rebuilt.differences)) + "." + stale)


@dataclass(frozen=True)
class Rebuilt:
    """Result of one rebuild. `rows`: compared, by table; `left_out`: days loaded meanwhile."""

    rows: dict[str, int]
    differences: tuple[Difference, ...]
    left_out: tuple[date, ...]
    stale: tuple[str, ...]
    held_s: float
    seconds: float
    bytes: int


def rebuild(
    var: Path, *, batches: Iterable[str] = (), owner: str = "rebuild", wait_s: float = WAIT_S
) -> Rebuilt:
    """Build curated again from a copy of the warehouse in `var`, and compare.

    `batches` are those transformed: days that others have marked since may lag behind their raw
    rows and are left out. Raises RebuildMismatch, DiskFull, WarehouseBusy or TransformFailed; the
    folder is gone afterwards in any case.
    """
    began, root = time.monotonic(), Path(var).resolve() / FOLDER
    with hold(root, owner, wait_s):  # a second rebuild would remove the folder of this one
        shutil.rmtree(root, ignore_errors=True)
        try:
            held_s = _copy(root.parent / FILE, root / FILE, owner, wait_s)
            with _own_state():
                left_out, versions = _rename_production(root / FILE, set(batches))
                transform(root / FILE, owner=owner, wait_s=wait_s, settled=True)
                rows, differences, stale = compare(root / FILE, left_out, versions)
            size = sum(f.stat().st_size for f in root.rglob("*") if f.is_file())
        finally:
            shutil.rmtree(root, ignore_errors=True)
    rebuilt = Rebuilt(
        rows,
        tuple(differences),
        tuple(sorted(left_out)),
        stale,
        held_s,
        time.monotonic() - began,
        size,
    )
    log.info(
        "%s rows of curated compared with their rebuild in %.0f s, of which the warehouse "
        "was held %.1f s; %.1f GB of disk",
        f"{sum(rows.values()):,}",
        rebuilt.seconds,
        held_s,
        size / 1e9,
    )
    if differences:
        raise RebuildMismatch(rebuilt)
    return rebuilt


def record(con: duckdb.DuckDBPyConnection, run_id: str, rebuilt: Rebuilt) -> None:
    """The comparison as critical expectations of the run in ops.checkpoints: none may fail."""
    wrong = {difference.table: str(difference) for difference in rebuilt.differences}
    with transaction(con):
        con.execute(
            "DELETE FROM ops.checkpoints WHERE run_id = ? AND checkpoint = ?", [run_id, FOLDER]
        )
        for table, rows in rebuilt.rows.items():
            con.execute(
                "INSERT INTO ops.checkpoints BY NAME SELECT ? AS run_id, ? AS checkpoint, "
                "? AS expectation, 'critical' AS severity, ? AS success, ? AS observed, "
                "(now() AT TIME ZONE 'UTC')::TIMESTAMP AS checked_at",
                [
                    run_id,
                    FOLDER,
                    f"{table} equals its rebuild from raw",
                    table not in wrong,
                    wrong.get(table, f"{rows:,} rows"),
                ],
            )


def _copy(warehouse: Path, draft: Path, owner: str, wait_s: float) -> float:
    """Copies the warehouse's file between two writers; returns the seconds it was held."""
    draft.parent.mkdir(parents=True)
    with hold(warehouse, owner, wait_s) as held:
        began = time.monotonic()
        if not held.exists():
            raise FileNotFoundError(f"{held} is not there: a sync creates it")
        log_file = held.with_name(held.name + ".wal")  # left by a writer that was killed
        parts = [part for part in (held, log_file) if part.exists()]
        needed, free = (
            DISK_FACTOR * sum(p.stat().st_size for p in parts),
            shutil.disk_usage(draft.parent),
        )
        if free.free < needed:
            raise DiskFull(
                f"comparing curated with its rebuild needs {needed / 1e9:.1f} GB of disk "
                f"in {draft.parent}, and {free.free / 1e9:.1f} GB are free. Make room and "
                "clear this task; production was not touched"
            )
        for part in parts:
            shutil.copyfile(part, draft.with_name(part.name))
        return time.monotonic() - began


@contextmanager
def _own_state() -> Iterator[None]:
    """Without LEDGERHOUSE_STATE_URI: the copy keeps the state of its models in its own file."""
    uri = os.environ.pop(STATE_URI, None)
    try:
        yield
    finally:
        if uri is not None:
            os.environ[STATE_URI] = uri


def _rename_production(draft: Path, batches: set[str]) -> tuple[set[date], dict[str, str]]:
    """Makes production's tables `production.<table>`, drops the models, and marks every day.

    Returns the days whose marks are of batches not among `batches`, and the physical name of
    each table in production.
    """
    with connected(draft) as con:
        create_all(con)
        others = {batch for _, _, batch in marks_of(con)} - batches
        left_out = set().union(*touched(con, others)[1].values())
        con.execute("CREATE SCHEMA production")
        # A view over daily_flows: computed while that still has its name.
        running = [t for t in TABLES if t.running]
        for table in running:
            con.execute(f"CREATE TABLE production.{table.short} AS FROM {table.name}")
        versions = {}
        for table in TABLES:
            schema, versions[table.name] = physical(con, table.name)
            if table not in running:
                kind = (
                    "TABLE"
                    if con.execute(
                        "SELECT 1 FROM duckdb_tables() WHERE schema_name = ? AND table_name = ?",
                        [schema, versions[table.name]],
                    ).fetchone()
                    else "VIEW"
                )
                con.execute(
                    f'ALTER {kind} {schema}."{versions[table.name]}" '
                    f"RENAME TO production__{table.short}"
                )
                con.execute(
                    f"CREATE VIEW production.{table.short} AS "
                    f"FROM {schema}.production__{table.short}"
                )
        _drop_models(con)
        con.execute("DELETE FROM ops.touched_days")
        for name in RAW_MARKS:
            con.execute(
                f"INSERT INTO ops.touched_days (dataset, day, batch_id) "
                f"SELECT DISTINCT '{name}', ts::DATE, "
                f"'{FOLDER}' FROM raw.{name}"
            )
    return left_out, versions


def _drop_models(con: duckdb.DuckDBPyConnection) -> None:
    """Drops everything of SQLMesh's but production's renamed tables."""
    ours = ("raw", "ops", "production", "main", "information_schema", "pg_catalog")
    for kind in ("view", "table"):
        for schema, name in con.execute(
            f"SELECT schema_name, {kind}_name FROM duckdb_{kind}s() WHERE NOT internal "
            "AND database_name = current_database()"
        ).fetchall():
            if schema not in ours and not name.startswith("production__"):
                con.execute(f'DROP {kind.upper()} IF EXISTS "{schema}"."{name}"')
