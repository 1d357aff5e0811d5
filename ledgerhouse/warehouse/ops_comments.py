"""What the tables of `ops`, and raw.history, hold: a comment for each table and column.

`COLUMNS` has the words that mean the same in every table; `TABLES` those of one table, which win.
A comment that a statement of its own has set stays.
"""

from __future__ import annotations

COLUMNS = {
    "source": "the API, e.g. coinbase",
    "account": "the account within the source: a name, or a wallet address",
    "dataset": "raw table, without the schema",
    "run_id": "Airflow's run",
    "dag_id": "Airflow's DAG",
    "task_id": "Airflow's task",
    "map_index": "number of the mapped task; -1 where it is not mapped",
    "try_number": "1, 2, … of the task",
    "batch_id": "the load that wrote it (ops.batches)",
    "start_ts": "start, UTC, included",
    "end_ts": "end, UTC, excluded",
    "loaded_at": "when, by our clock, UTC",
    "recorded_at": "when it was written down, by our clock, UTC",
    "calls": "HTTP requests made, retries too",
    "units": "units spent, by our own count",
    "endpoint": "path of the API, without what stands in it for an account",
    "error": "text of the error, secrets struck out; NULL where there was none",
    "state": "Airflow's word: success, failed, running, skipped, …",
}

# table: (what a row is, {column: what it holds})
TABLES: dict[str, tuple[str, dict[str, str]]] = {
    "raw.history": (
        "An older version of a raw row, and what became of it",
        {
            "dataset": "raw table the row was in, without the schema",
            "key": "the row's key as JSON text",
            "ts": "its event time, UTC; NULL for dimensions",
            "row_hash": "hash of the row's columns",
            "valid_from": "vendor's clock when this version was first met, UTC",
            "valid_to": "vendor's clock when the next version was met, UTC",
            "change": "changed, removed, vanished, or stale (met after a newer one)",
            "batch_id": "the load that replaced it (ops.batches)",
            "row": "the whole row as JSON text, amounts as text",
        },
    ),
    "ops.batches": (
        "A load of one landed file into one dataset",
        {
            "batch_id": "the load; several files and datasets share it",
            "file": "name of the landed file",
            "rows": "records in the file, of this dataset",
            "new": "rows that were not there",
            "changed": "rows that replaced an older version",
            "same": "rows that were there already",
            "stale": "rows older than what was there: kept in raw.history only",
            "removed": "legs that their transaction no longer has",
            "vanished": "rows that a whole reading of their time lacked",
            "loaded_at": "when it was committed, by our clock, UTC",
        },
    ),
    "ops.landed_files": (
        "A landed file that has been loaded",
        {
            "file": "its name in the landing",
            "sequence": "order of the loads",
            "loaded_at": "when it was committed, by our clock, UTC",
        },
    ),
    "ops.coverage": (
        "A stretch of time of which a dataset is known whole; those of an account and "
        "dataset are disjoint",
        {
            "read_at": "vendor's clock when its newest reading began, UTC",
            "reason": "why paging ended there",
            "run_id": "the run that read it",
        },
    ),
    "ops.gaps": ("A hole between the first and the last instant that was ever read", {}),
    "ops.touched_days": (
        "A mark: a load changed rows of this day, and the books do not have them yet",
        {"day": "UTC day of the rows"},
    ),
    "ops.api_calls": (
        "An HTTP request to a vendor",
        {
            "call_id": "id of the request",
            "called_at": "when it was sent, by our clock, UTC",
            "status": "HTTP status; NULL where there was no answer",
            "duration_ms": "milliseconds to its answer or failure",
            "rows": "records in the answer; NULL where they were not counted",
            "units": "price of the call by our own list",
            "units_left": "units left as the vendor counts them, where the answer says so",
            "answered_at": "the vendor's own clock on a good answer, UTC",
        },
    ),
    "ops.checkpoints": (
        "What an expectation found in a run",
        {
            "checkpoint": "the table that was checked",
            "expectation": "its name in the suite",
            "severity": "critical (nothing is published), warning or info",
            "success": "whether it held",
            "observed": "what was found, as text",
            "start_ts": "start of what was checked, UTC, included",
            "end_ts": "end of what was checked, UTC, excluded",
            "checked_at": "when, by our clock, UTC",
        },
    ),
    "ops.refreshes": (
        "What a weekly refresh found when it read a part of the history again",
        {
            "scope": "quarter, full, or the interval asked for",
            "dataset": "raw table; '' where nothing of the account was read whole",
            "rows_new": "rows that came later than any lookback reached",
            "rows_changed": "rows the vendor tells differently by now",
            "rows_vanished": "rows the vendor no longer has",
            "rows_removed": "legs that their transaction no longer has",
            "rows_same": "rows that are as they were",
            "calls": "requests of the account in the whole run, on the first of its rows only",
            "units": "units of the account in the whole run, on the first of its rows only",
            "estimated_calls": "requests estimated before, on the first row only",
            "estimated_units": "units estimated before, on the first row only",
        },
    ),
    "ops.sync_runs": (
        "An attempt of a task, from Airflow's run history",
        {
            "run_type": "scheduled, manual or backfill",
            "source": "the API; NULL for other tasks",
            "account": "the account; NULL for other tasks",
            "interval_start": "start of what was fetched, UTC, included",
            "interval_end": "end of what was fetched, UTC, excluded",
            "rows": "rows new and changed (load), pages (fetch), otherwise what the task counts",
            "started": "when it began, UTC",
            "ended": "when it ended, UTC; NULL while it runs",
            "mirrored_at": "when it was copied from Airflow, UTC",
        },
    ),
    "ops.sync_log": (
        "A line a source: its last sync",
        {
            "last_sync_ts": "end of the newest interval fetched, UTC",
            "last_txid": "id of the newest transaction known",
            "sync_count": "runs that fetched it with success",
            "sync_status": "state of the last run; failed where one of its fetches failed",
            "updated_at": "when the last fetch ended, UTC",
        },
    ),
    "ops.changes": (
        "The trail of raw.history, with the run behind each change",
        {
            "key": "the row's key as JSON text",
            "ts": "event time of the row, UTC",
            "change": "changed, removed, vanished, or stale (met after a newer one)",
            "valid_from": "vendor's clock when this version was first met, UTC",
            "valid_to": "vendor's clock when the next version was met, UTC",
            "changed_by_run": "Airflow's run that replaced it",
            "batch_id": "the load that replaced it (ops.batches)",
            "row": "the whole row as JSON text, amounts as text",
        },
    ),
    "ops.budgets": (
        "What accounts.toml allows a source",
        {
            "measure": "units or calls",
            "period": "day or month, UTC",
            "allowed": "as accounts.toml said when a run was last planned",
        },
    ),
    "ops.account_units": (
        "Units left by the vendor's own count, around the fetches of a run",
        {
            "reading_at": "when it was asked, by our clock, UTC",
            "connection": "the Airflow Connection whose key was asked",
            "moment": "before or after the fetches of the run",
            "balance": "units left, as the vendor says",
            "used": "after: by how much the balance fell since before",
            "counted": "after: our own count of the calls in between",
        },
    ),
    "ops.listings": (
        "What a full refresh asks for, as the sources say (Source.whole)",
        {
            "dataset": "whose rows it lists; '': one call an account",
            "page": "rows a call",
            "more": "1: a full page is followed by another call",
            "asked_by": "asked once for every value of this column",
            "listed": "lists the values of this column instead of rows",
        },
    ),
    "ops.full_refreshes": (
        "What a full refresh in the place of a sync would have cost",
        {
            "run_id": "the run of the DAG sync",
            "moment": "its first call, by our clock, UTC",
            "calls": "calls it would have made",
            "units": "units it would have spent",
        },
    ),
    "ops.incidents": (
        "Something that was wrong, from when it was noticed to when it was over",
        {
            "incident_id": "its id",
            "kind": "failed_source, stale_coverage, …: see alerts.KINDS",
            "source": "the API; '' where it is nobody's",
            "account": "the account; '' where it is nobody's",
            "subject": "the token, limit, type, task or expectation it is about",
            "severity": "critical or warning",
            "text": "as last seen while it was open",
            "opened_at": "when it was noticed, by our clock, UTC",
            "opened_by": "the run that noticed",
            "resolved_at": "when it was seen to be over, UTC; NULL while it lasts",
            "resolved_by": "the run that saw it over",
        },
    ),
    "ops.notices": (
        "A notice of an incident to one channel, sent or still to be sent",
        {
            "incident_id": "the incident (ops.incidents)",
            "event": "opened or resolved",
            "channel": "log, or the Airflow Connection it goes by",
            "noticed_at": "when it was written down, by our clock, UTC",
            "sent_at": "when it was delivered, UTC; NULL until it was",
            "tries": "deliveries that were tried",
        },
    ),
    "ops.spending": ("Calls and units a day and source", {}),
}


def describe(con) -> None:
    """Comment on what has no comment yet; ops.batches itself keeps the digest of the schema."""
    for schema, table, column in con.execute("""
        SELECT schema_name, table_name, column_name FROM duckdb_columns()
        WHERE database_name = current_database() AND comment IS NULL
            AND (schema_name = 'ops' OR (schema_name, table_name) = ('raw', 'history'))
        """).fetchall():
        name = f"{schema}.{table}"
        words = TABLES.get(name, ("", {}))[1].get(column) or COLUMNS.get(column)
        if words:
            con.execute(f'COMMENT ON COLUMN {name}."{column}" IS {_text(words)}')
    for kind in ("table", "view"):
        for (name,) in con.execute(
            f"SELECT schema_name || '.' || {kind}_name FROM duckdb_{kind}s() WHERE "
            "database_name = current_database() AND comment IS NULL"
        ).fetchall():
            if name in TABLES and name != "ops.batches":
                con.execute(f"COMMENT ON {kind} {name} IS {_text(TABLES[name][0])}")


def _text(words: str) -> str:
    return "'" + words.replace("'", "''") + "'"
