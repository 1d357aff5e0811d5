"""Views of ops, and the table macros raw.<dataset>_as_of: the SQL that makes them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from extract.core.datasets import Column, Dataset
from ledgerhouse.warehouse.ops_tables import SHARED, TABLES, comment_columns, comment_on

if TYPE_CHECKING:
    import duckdb

TABLE = re.compile(r"\b(?:raw|ops)\.\w+")  # in a query


@dataclass(frozen=True)
class View:
    """A view: what a row is, its columns with what they hold, and its query."""

    name: str
    comment: str
    columns: Mapping[str, str]
    query: str

    @property
    def tables(self) -> set[str]:
        """The tables and views of raw and ops that the query names."""
        return set(TABLE.findall(self.query))

    def statements(self) -> list[str]:
        """SQL that creates the view, or replaces it, and says on it what it holds."""
        columns = [Column(name, "", words) for name, words in self.columns.items()]
        return [
            f"CREATE OR REPLACE VIEW {self.name} AS {self.query}",
            comment_on("VIEW", self.name, self.comment),
            *comment_columns(self.name, columns),
        ]


def shared(*names: str) -> dict[str, str]:
    """Columns that mean the same in every table, with their words."""
    return {name: SHARED[name] for name in names}


_HISTORY = {column.name: column.comment for column in TABLES["raw.history"].columns}
_ATTEMPT = {column.name: column.comment for column in TABLES["ops.sync_runs"].columns}

# Whatever columns ops.sync_runs has: those of an older version's books are fewer.
# An attempt that never began has left no record of what it was to fetch: an earlier one may have.
# The columns are not listed: an older ops.sync_runs, which may only be read, has fewer.
_OF_RECORD = ("source", "account", "interval_start", "interval_end")
LAST_ATTEMPTS = View(
    "ops.last_attempts",
    "The newest attempt of each task of a run; what it was to fetch is taken from an earlier one "
    "where it never began",
    _ATTEMPT,
    f"""
SELECT * EXCLUDE (known) REPLACE ({", ".join(f"known.{c} AS {c}" for c in _OF_RECORD)})
FROM (
    SELECT *, arg_max(struct_pack({", ".join(f"{c} := {c}" for c in _OF_RECORD)}),
                      (source IS NOT NULL, try_number)) OVER task AS known
    FROM ops.sync_runs
    WINDOW task AS (PARTITION BY dag_id, run_id, task_id, map_index)
    QUALIFY try_number = max(try_number) OVER task)
""",
)
# How each account's fetches ended. Of a probe that failed no fetch was begun: it counts for every
# account that its connection fetched last.
FETCHES = """
SELECT * FROM ops.last_attempts
WHERE source IS NOT NULL AND account IS NOT NULL AND task_id LIKE 'fetch%'
UNION ALL
SELECT p.* REPLACE (f.source AS source, f.account AS account)
FROM ops.last_attempts p JOIN (
    SELECT source, account, arg_max(task_id, started) AS task_id FROM ops.last_attempts
    WHERE source IS NOT NULL AND account IS NOT NULL AND task_id LIKE 'fetch%' GROUP BY ALL
) f ON p.task_id = 'probe_' || substr(f.task_id, length('fetch_') + 1)
WHERE p.state = 'failed'"""
# A sync leaves a segment: four years of them are 6,000 a dataset.
COVERED_SPANS = View(
    "ops.covered_spans",
    "A span of time of which a dataset of an account is known whole: the segments of ops.coverage "
    "that touch, as one",
    shared("source", "account", "dataset", "start_ts", "end_ts")
    | {
        "segments": "segments of ops.coverage that it is made of",
        "read_at": "vendor's clock when the newest fetch of any of it began, UTC",
        "reason": "why paging ended at its end",
        "run_id": "the run that read its end",
    },
    """
WITH marked AS (
    SELECT *, CASE WHEN start_ts <= max(end_ts) OVER (
        PARTITION BY source, account, dataset ORDER BY start_ts
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) THEN 0 ELSE 1 END AS is_new
    FROM ops.coverage
), numbered AS (
    SELECT *, sum(is_new) OVER (PARTITION BY source, account, dataset ORDER BY start_ts) AS span
    FROM marked
)
SELECT source, account, dataset, min(start_ts) AS start_ts, max(end_ts) AS end_ts,
       count(*) AS segments, max(read_at) AS read_at, arg_max(reason, end_ts) AS reason,
       arg_max(run_id, end_ts) AS run_id
FROM numbered GROUP BY source, account, dataset, span
""",
)
# From the segments, not from ops.covered_spans, which would take twice as long.
GAPS = View(
    "ops.gaps",
    "A hole between the first and the last instant that was ever read",
    shared("source", "account", "dataset", "start_ts", "end_ts"),
    """
SELECT source, account, dataset, reached AS start_ts, start_ts AS end_ts FROM (
    SELECT source, account, dataset, start_ts, max(end_ts) OVER (
        PARTITION BY source, account, dataset ORDER BY start_ts
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM ops.coverage WHERE dataset NOT IN ('balances', 'positions'))
WHERE start_ts > reached
""",
)
REACHED = View(
    "ops.reached",
    "How far an account is read",
    shared("source", "account")
    | {
        "since": "the first instant that was read of any dataset, UTC",
        "whole_to": "known whole until then, UTC: its first gap, or the end of the dataset that is "
        "least far read",
        "until": "read of every dataset until then, UTC, but for the gaps",
        "gaps": "number of gaps (ops.gaps); those that datasets share count once",
    },
    """
SELECT source, account, min(since) AS since, least(any_value(gap), min(until)) AS whole_to,
       min(until) AS until, coalesce(any_value(gaps), 0) AS gaps
FROM (SELECT source, account, dataset, min(start_ts) AS since, max(end_ts) AS until
      FROM ops.coverage WHERE dataset NOT IN ('balances', 'positions') GROUP BY ALL)
LEFT JOIN (SELECT source, account, min(start_ts) AS gap, count(DISTINCT (start_ts, end_ts)) AS gaps
           FROM ops.gaps GROUP BY ALL) USING (source, account)
GROUP BY source, account
""",
)

# One line a source, as somebody expects who kept a table of last syncs by hand.
SYNC_LOG = View(
    "ops.sync_log",
    "A line a source: its last sync",
    shared("source")
    | {
        "last_sync_ts": "end of the newest interval fetched, UTC",
        "last_txid": "id of the newest transaction known",
        "sync_count": "runs that fetched it with success",
        "sync_status": "state of the last run; failed where one of its fetches failed, or the "
        "probe before them",
        "updated_at": "when the last fetch ended, UTC",
    },
    f"""
WITH fetches AS ({FETCHES}
), newest AS (
    SELECT source, max(entry_id) AS txid FROM raw.exchanges_ledger
    WHERE (source, ts) IN (SELECT source, max(ts) FROM raw.exchanges_ledger GROUP BY source)
    GROUP BY source
    UNION ALL
    SELECT source, max(tx_id) FROM raw.onchain_transactions
    WHERE (source, ts) IN (SELECT source, max(ts) FROM raw.onchain_transactions GROUP BY source)
    GROUP BY source
)
SELECT f.source,
       max(f.interval_end) FILTER (f.state = 'success') AS last_sync_ts,
       any_value(n.txid) AS last_txid,
       count(DISTINCT f.run_id) FILTER (f.state = 'success') AS sync_count,
       CASE WHEN bool_or(f.state = 'failed') FILTER (f.run_id = l.run_id) THEN 'failed'
            ELSE arg_max(f.state, coalesce(f.ended, f.started)) END AS sync_status,
       max(coalesce(f.ended, f.started)) AS updated_at
FROM fetches f
JOIN (SELECT source, arg_max(run_id, started) AS run_id FROM fetches GROUP BY source) l
    ON l.source = f.source
LEFT JOIN newest n ON n.source = f.source
GROUP BY f.source
""",
)
CHANGES = View(
    "ops.changes",
    "The trail of raw.history, with the run behind each change",
    shared("dataset")
    | {
        "key": _HISTORY["key"],
        "ts": "event time of the row, UTC",
        "change": _HISTORY["change"],
        "valid_from": _HISTORY["valid_from"],
        "valid_to": _HISTORY["valid_to"],
        "changed_by_run": "Airflow's run that replaced it",
        "batch_id": _HISTORY["batch_id"],
        "row": _HISTORY["row"],
    },
    """
SELECT h.dataset, h.key, h.ts, h.change, h.valid_from, h.valid_to, b.run_id AS changed_by_run,
       h.batch_id, h.row
FROM raw.history h
LEFT JOIN ops.batches b ON b.batch_id = h.batch_id AND b.dataset = h.dataset
""",
)
VIEWS = (LAST_ATTEMPTS, COVERED_SPANS, GAPS, REACHED, SYNC_LOG, CHANGES)  # in order of their needs
# Views of the books too, over the published tables: no file is written for them.
IN_BOOKS = (LAST_ATTEMPTS, COVERED_SPANS, REACHED)


def add_missing_views(con: duckdb.DuckDBPyConnection) -> None:
    """Give a connection to books or a warehouse of an older version, which may only be read, those
    of IN_BOOKS that are missing there: they are made beside it, in memory, and found by name.

    A view whose tables are missing too, or cannot be read, stays missing.
    """
    import duckdb

    (database,) = con.execute("SELECT current_database()").fetchone() or ("",)
    present = {  # information_schema.tables would take twenty times as long
        name
        for (name,) in con.execute(
            "SELECT schema_name || '.' || view_name FROM duckdb_views() WHERE database_name = "
            "current_database() UNION ALL SELECT schema_name || '.' || table_name FROM "
            "duckdb_tables() WHERE database_name = current_database()"
        ).fetchall()
    }
    missing = [v for v in IN_BOOKS if v.name not in present and v.tables <= present]
    if not missing:
        return
    con.execute("ATTACH ':memory:' AS newer (READ_WRITE); CREATE SCHEMA newer.ops")
    con.execute(f"""SET search_path = '"{database}".main,"{database}".ops,newer.ops'""")
    for view in missing:
        with suppress(duckdb.Error):
            con.execute(
                f"CREATE VIEW newer.{view.name} AS " + TABLE.sub(rf'"{database}".\g<0>', view.query)
            )


def as_of(dataset: Dataset) -> str:
    """The table macro raw.<dataset>_as_of(moment): live rows as the vendor reported them by then."""
    columns = ", ".join(c.name for c in dataset.columns)
    old = ", ".join(f"CAST(row->>'$.{c.name}' AS {c.type}) AS {c.name}" for c in dataset.columns)
    key = ", ".join(dataset.key)
    return f"""
CREATE OR REPLACE MACRO raw.{dataset.name}_as_of(moment) AS TABLE
SELECT {columns} FROM (
    SELECT *, row_number() OVER (PARTITION BY {key} ORDER BY valid_from DESC, is_raw DESC) AS age
    FROM (
        SELECT {columns}, changed_at AS valid_from, vanished_at AS ended_at, true AS is_raw
        FROM {dataset.table} WHERE changed_at <= moment
        UNION ALL
        SELECT {old}, valid_from,
               CASE WHEN change IN ('removed', 'vanished') THEN valid_to END, false
        FROM raw.history WHERE dataset = '{dataset.name}' AND valid_from <= moment))
WHERE age = 1 AND (ended_at IS NULL OR ended_at > moment)"""
