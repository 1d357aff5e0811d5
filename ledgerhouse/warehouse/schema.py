"""The tables of the warehouse: raw from the datasets, ops from here.

`create_all` is idempotent. SQLMesh owns the schema `curated` and what lies under it.
"""

from __future__ import annotations

import hashlib
from functools import cache

from extract.core.datasets import DATASETS, META, PAYLOAD, Dataset
from ledgerhouse.warehouse.migrate import add_columns
from ledgerhouse.warehouse.ops_comments import COLUMNS, TABLES, describe
from ledgerhouse.warehouse.spending_views import statements
from ledgerhouse.warehouse.transaction import transaction
from ledgerhouse.warehouse.views import CHANGES, GAPS, SYNC_LOG, as_of

OPS = """
CREATE TABLE IF NOT EXISTS raw.history (
    dataset VARCHAR NOT NULL,        -- raw table the row was in
    key VARCHAR NOT NULL,            -- its key, as JSON text
    ts TIMESTAMP,                    -- its event time
    row_hash UBIGINT NOT NULL,
    valid_from TIMESTAMP NOT NULL,   -- vendor's clock when this version was first met
    valid_to TIMESTAMP NOT NULL,     -- vendor's clock when the next version was met
    change VARCHAR NOT NULL,         -- changed, removed, vanished, or stale (met too late)
    batch_id VARCHAR NOT NULL,       -- the load that replaced it
    row VARCHAR NOT NULL             -- the whole row as JSON text, amounts as text
);
CREATE TABLE IF NOT EXISTS ops.batches (
    batch_id VARCHAR NOT NULL, file VARCHAR NOT NULL, source VARCHAR NOT NULL,
    account VARCHAR NOT NULL, dataset VARCHAR NOT NULL, run_id VARCHAR NOT NULL,
    rows BIGINT NOT NULL, new BIGINT NOT NULL, changed BIGINT NOT NULL, same BIGINT NOT NULL,
    stale BIGINT NOT NULL, removed BIGINT NOT NULL, vanished BIGINT NOT NULL,
    loaded_at TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.landed_files (
    file VARCHAR NOT NULL,           -- name in the landing
    batch_id VARCHAR NOT NULL,       -- the load that has read it
    sequence BIGINT NOT NULL,        -- order of the loads
    loaded_at TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.coverage (
    source VARCHAR NOT NULL, account VARCHAR NOT NULL, dataset VARCHAR NOT NULL,
    start_ts TIMESTAMP NOT NULL, end_ts TIMESTAMP NOT NULL,   -- [start_ts, end_ts), disjoint
    read_at TIMESTAMP NOT NULL,      -- vendor's clock when its newest reading began
    reason VARCHAR NOT NULL,         -- why paging ended
    run_id VARCHAR NOT NULL, batch_id VARCHAR NOT NULL, recorded_at TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.touched_days (
    dataset VARCHAR NOT NULL, day DATE NOT NULL, batch_id VARCHAR NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.api_calls (
    call_id VARCHAR NOT NULL, called_at TIMESTAMP NOT NULL, dag_id VARCHAR, run_id VARCHAR,
    task_id VARCHAR, map_index INTEGER, try_number INTEGER, source VARCHAR NOT NULL,
    account VARCHAR NOT NULL, endpoint VARCHAR NOT NULL, status INTEGER,
    duration_ms INTEGER NOT NULL, rows INTEGER, units INTEGER NOT NULL,
    units_left BIGINT,               -- as the vendor counts them, where the answer says so
    error VARCHAR,
    answered_at TIMESTAMP            -- the vendor's own clock on a good answer
);
CREATE TABLE IF NOT EXISTS ops.checkpoints (
    run_id VARCHAR NOT NULL, checkpoint VARCHAR NOT NULL, expectation VARCHAR NOT NULL,
    severity VARCHAR NOT NULL, success BOOLEAN NOT NULL, observed VARCHAR,
    start_ts TIMESTAMP, end_ts TIMESTAMP, checked_at TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.refreshes (
    run_id VARCHAR NOT NULL,
    scope VARCHAR NOT NULL,          -- quarter, full, or the interval asked for
    source VARCHAR NOT NULL, account VARCHAR NOT NULL,
    dataset VARCHAR NOT NULL,        -- '' where nothing of the account was read whole
    start_ts TIMESTAMP, end_ts TIMESTAMP,          -- what was read again, [start_ts, end_ts)
    rows_new BIGINT NOT NULL, rows_changed BIGINT NOT NULL, rows_vanished BIGINT NOT NULL,
    rows_removed BIGINT NOT NULL,    -- legs that their transaction no longer has
    rows_same BIGINT NOT NULL,
    -- of the account in the whole run, on the first of its rows only, so that sums are right
    calls BIGINT NOT NULL, units BIGINT NOT NULL,
    estimated_calls BIGINT NOT NULL, estimated_units BIGINT NOT NULL,
    recorded_at TIMESTAMP NOT NULL
);
CREATE TABLE IF NOT EXISTS ops.incidents (
    incident_id VARCHAR NOT NULL,
    kind VARCHAR NOT NULL,           -- failed_source, stale_coverage, …: see alerts.KINDS
    source VARCHAR NOT NULL, account VARCHAR NOT NULL,   -- '' where it is nobody's
    subject VARCHAR NOT NULL,        -- token, limit, type, task or expectation it is about
    severity VARCHAR NOT NULL,       -- critical or warning
    text VARCHAR NOT NULL,           -- as last seen while it was open
    opened_at TIMESTAMP NOT NULL, opened_by VARCHAR NOT NULL,      -- the run that noticed it
    resolved_at TIMESTAMP, resolved_by VARCHAR                     -- NULL while it lasts
);
CREATE TABLE IF NOT EXISTS ops.notices (
    incident_id VARCHAR NOT NULL,
    event VARCHAR NOT NULL,          -- opened or resolved
    channel VARCHAR NOT NULL,        -- log, or the Airflow Connection it goes by
    noticed_at TIMESTAMP NOT NULL,
    sent_at TIMESTAMP,               -- NULL until it was delivered
    tries INTEGER NOT NULL           -- deliveries that were tried
);
CREATE TABLE IF NOT EXISTS ops.sync_runs (
    dag_id VARCHAR NOT NULL, run_id VARCHAR NOT NULL, run_type VARCHAR, task_id VARCHAR NOT NULL,
    map_index INTEGER NOT NULL, try_number INTEGER NOT NULL, source VARCHAR, account VARCHAR,
    interval_start TIMESTAMP, interval_end TIMESTAMP, state VARCHAR,
    rows BIGINT, calls BIGINT, units BIGINT, started TIMESTAMP, ended TIMESTAMP,
    error VARCHAR, mirrored_at TIMESTAMP NOT NULL
);
"""
# Payloads are most of the warehouse, and this halves it. A file of before DuckDB 1.2 has no zstd,
# and what asks for it there is not compressed at all.
ZSTD = " USING COMPRESSION zstd"
FILE_VERSION = (
    "SELECT tags['storage_version'] FROM duckdb_databases() WHERE database_name = "
    "current_database()"
)


def create_statement(dataset: Dataset) -> str:
    columns = ", ".join(
        f"{c.name} {c.type}"
        + (" NOT NULL" if c.name in (*dataset.key, "ts") else "")
        + (ZSTD if c == PAYLOAD else "")
        for c in (*dataset.columns, *META)
    )
    return f"CREATE TABLE IF NOT EXISTS {dataset.table} ({columns})"


def create_all(con) -> None:
    """Make every schema, table, column and comment that is not there yet, and the views anew (one
    transaction); nothing where this has been done, told by a digest on ops.batches.

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
        old = con.execute(FILE_VERSION).fetchone() == ("v1.0.0+",)
        for statement in _statements():
            con.execute(statement.replace(ZSTD, "") if old else statement)
        describe(con)
        con.execute(f"COMMENT ON TABLE ops.batches IS '{digest}'")


@cache
def _statements() -> tuple[str, ...]:
    made = ["CREATE SCHEMA IF NOT EXISTS raw; CREATE SCHEMA IF NOT EXISTS ops;", OPS]
    for dataset in DATASETS.values():
        made.append(create_statement(dataset))
        for column in (*dataset.columns, *META):
            comment = column.comment.replace("'", "''")
            made.append(f"COMMENT ON COLUMN {dataset.table}.{column.name} IS '{comment}'")
        made.append(as_of(dataset))
    return (*made, SYNC_LOG, CHANGES, GAPS, *statements())


@cache
def _digest() -> str:
    return (
        "schema "
        + hashlib.md5(";".join((*_statements(), repr((COLUMNS, TABLES)))).encode()).hexdigest()
    )
