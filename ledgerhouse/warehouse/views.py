"""Views of ops, and the table macros raw.<dataset>_as_of: the SQL that makes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from extract.core.datasets import Column, Dataset
from ledgerhouse.warehouse.ops_tables import SHARED, TABLES, comment_columns, comment_on


@dataclass(frozen=True)
class View:
    """A view: what a row is, its columns with what they hold, and its query."""

    name: str
    comment: str
    columns: Mapping[str, str]
    query: str

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

# One line a source, as somebody expects who kept a table of last syncs by hand.
SYNC_LOG = View(
    "ops.sync_log",
    "A line a source: its last sync",
    shared("source")
    | {
        "last_sync_ts": "end of the newest interval fetched, UTC",
        "last_txid": "id of the newest transaction known",
        "sync_count": "runs that fetched it with success",
        "sync_status": "state of the last run; failed where one of its fetches failed",
        "updated_at": "when the last fetch ended, UTC",
    },
    """
WITH fetches AS (
    SELECT * FROM ops.sync_runs WHERE source IS NOT NULL AND task_id LIKE 'fetch%'
    QUALIFY try_number = max(try_number) OVER (PARTITION BY dag_id, run_id, task_id, map_index)
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
GAPS = View(
    "ops.gaps",
    "A hole between the first and the last instant that was ever read",
    shared("source", "account", "dataset", "start_ts", "end_ts"),
    """
SELECT source, account, dataset, reached AS start_ts, start_ts AS end_ts FROM (
    SELECT source, account, dataset, start_ts, max(end_ts) OVER (
        PARTITION BY source, account, dataset ORDER BY start_ts
        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS reached
    FROM ops.coverage WHERE dataset <> 'balances')
WHERE start_ts > reached
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
VIEWS = (SYNC_LOG, CHANGES, GAPS)


def as_of(dataset: Dataset) -> str:
    """The table macro raw.<dataset>_as_of(moment): live rows as the vendor told them by then."""
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
