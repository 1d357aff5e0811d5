"""`ops.sync_runs`: Airflow's run history in the warehouse, a row per task attempt.

Airflow's REST API (v2) says how every attempt ended, also the killed ones; the attempts' own
records say what they did (rows, calls, units). Both are merged by (dag, run, task, map index,
try). A run that was not over when it was mirrored, such as the one the mirror itself is part of,
is mirrored again by the next one; so is one that was cleared since.

https://airflow.apache.org/docs/apache-airflow/stable/stable-rest-api-ref.html
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from extract.core.interval import UTC, utc
from ledgerhouse.operate.airflow.api import AirflowApi, AirflowApiError, run_path
from ledgerhouse.operate.run_log import attempts
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

RECENT_RUNS = 50
FINAL = ("success", "failed", "skipped", "upstream_failed", "removed")

COLUMNS = (
    "dag_id",
    "run_id",
    "run_type",
    "task_id",
    "map_index",
    "try_number",
    "source",
    "account",
    "interval_start",
    "interval_end",
    "state",
    "rows",
    "calls",
    "units",
    "started",
    "ended",
    "error",
    "error_type",
    "error_fields",
)


def mirror(
    con: duckdb.DuckDBPyConnection,
    airflow: AirflowApi,
    records: Path,
    dag_ids: Iterable[str],
    own: tuple | None = None,
) -> int:
    """Bring ops.sync_runs up to date; the number of attempts written.

    `own` is the attempt (KEY) that is doing this: when the transaction commits it has succeeded,
    so it is written as such.
    """
    mirrored_at = datetime.now(UTC)
    files, known = attempts.read(records)
    rows: dict[tuple, dict[str, Any]] = {}
    for dag_id, run_id in _runs_to_read(con, airflow, dag_ids, known):
        rows |= _run(airflow, dag_id, run_id)
    for key, record in known.items():
        # How it ended is Airflow's to say; a record says what was done.
        row = rows.setdefault(key, dict(zip(attempts.KEY, key)))
        row |= {
            k: v
            for k, v in record.items()
            if k not in ("state", "started", "ended")
            or row.get(k) is None
            or (k == "state" and row[k] not in FINAL)
        }
    if own in rows:
        rows[own]["state"] = "success"
    _write(con, rows.values(), files, mirrored_at)
    return len(rows)


def mirror_records(
    con: duckdb.DuckDBPyConnection, records: Path, older_than: datetime
) -> list[Path]:
    """Write what the records of attempts say that no mirror has read since before `older_than`;
    their files, which are gone then.

    How such an attempt ended Airflow may know better: the next mirror that reaches it asks.
    """
    files, known = attempts.read(records, older_than)
    rows = [dict(zip(attempts.KEY, key)) | record for key, record in known.items()]
    where = " AND ".join(f"{k} = ?" for k in attempts.KEY)
    for row in rows:
        [ended] = con.execute(
            f"SELECT count(*) > 0 FROM ops.sync_runs WHERE {where} AND list_contains(?, state)",
            [*(row[k] for k in attempts.KEY), list(FINAL)],
        ).fetchall()[0]
        if ended:  # by Airflow's word, which a record that was left behind does not change
            row.update(dict.fromkeys(("state", "started", "ended")))
    _write(con, rows, files, datetime.now(UTC))
    return files


def _write(
    con: duckdb.DuckDBPyConnection,
    rows: Iterable[dict[str, Any]],
    files: Iterable[Path],
    mirrored_at: datetime,
) -> None:
    with transaction(con):
        for row in rows:
            _upsert(con, row, mirrored_at)
    for file in files:
        file.unlink(missing_ok=True)


def note_own_attempt(con: duckdb.DuckDBPyConnection, own: dict[str, Any], at: datetime) -> None:
    """Write the attempt that calls this, and comes after its run's mirror, as succeeded; the next
    mirror sees whether it has. `own` holds the fields of KEY."""
    ((run_type,),) = con.execute(
        "SELECT any_value(run_type) FROM ops.sync_runs WHERE dag_id = ? AND run_id = ?",
        [own["dag_id"], own["run_id"]],
    ).fetchall()
    _upsert(con, {**own, "run_type": run_type, "state": "success"}, at)


def _runs_to_read(
    con: duckdb.DuckDBPyConnection,
    airflow: AirflowApi,
    dag_ids: Iterable[str],
    known: Iterable[tuple],
) -> list[tuple[str, str]]:
    """Runs with unread records, runs the mirror left unfinished, and recent ones not seen since
    they ended: a task that never started, or does nothing, leaves no record.
    """
    wanted = {(key[0], key[1]) for key in known}
    wanted |= set(
        con.execute(
            "SELECT DISTINCT dag_id, run_id FROM ops.sync_runs WHERE state IS NULL OR "
            f"state NOT IN {FINAL}"
        ).fetchall()
    )
    mirrored = {
        (dag_id, run_id): utc(at)
        for dag_id, run_id, at in con.execute(
            "SELECT dag_id, run_id, max(mirrored_at) FROM ops.sync_runs GROUP BY ALL"
        ).fetchall()
    }
    for dag_id in dag_ids:
        recent = airflow.call("GET", f"/dags/{dag_id}/dagRuns", order_by="-id", limit=RECENT_RUNS)
        for run in recent["dag_runs"]:
            at, ended = mirrored.get((dag_id, run["dag_run_id"])), run.get("end_date")
            if at is None or ended is None or utc(ended) >= at:
                wanted.add((dag_id, run["dag_run_id"]))
    return sorted(wanted)


def _run(airflow: AirflowApi, dag_id: str, run_id: str) -> dict[tuple, dict[str, Any]]:
    """Every attempt of a run by its key, as Airflow has it."""
    path = run_path(dag_id, run_id)
    try:
        run = airflow.call("GET", path)
    except AirflowApiError as error:
        if error.status != 404:
            raise
        log.warning(
            "run %s of %s is gone from Airflow; its records are kept as they are", run_id, dag_id
        )
        return {}
    rows: dict[tuple, dict[str, Any]] = {}
    for task in airflow.all(f"{path}/taskInstances", "task_instances"):
        tries = [task]
        if task["try_number"] > 1:
            where = f"{path}/taskInstances/{task['task_id']}"
            where += f"/{task['map_index']}" if task["map_index"] >= 0 else ""
            tries = airflow.call("GET", f"{where}/tries")["task_instances"]
        for each in tries:
            if not each["try_number"] and each["state"] not in FINAL:
                continue  # it has not begun, so it is no attempt yet
            row = {
                "dag_id": dag_id,
                "run_id": run_id,
                "run_type": run.get("run_type"),
                "task_id": task["task_id"],
                "map_index": task["map_index"],
                "try_number": each["try_number"],
                "state": each["state"],
                "interval_start": run.get("data_interval_start"),
                "interval_end": run.get("data_interval_end"),
                "started": each.get("start_date"),
                "ended": each.get("end_date"),
            }
            rows[tuple(row[k] for k in attempts.KEY)] = row
    return rows


def _upsert(con: duckdb.DuckDBPyConnection, row: dict[str, Any], mirrored_at: datetime) -> None:
    """Write one attempt; what an earlier mirror knew and this one does not is kept."""
    key = [row[k] for k in attempts.KEY]
    where = " AND ".join(f"{k} = ?" for k in attempts.KEY)
    old = con.execute(
        f"SELECT {', '.join(COLUMNS)} FROM ops.sync_runs WHERE {where}", key
    ).fetchone()
    if old:
        row = {k: row.get(k) if row.get(k) is not None else v for k, v in zip(COLUMNS, old)}
        con.execute(f"DELETE FROM ops.sync_runs WHERE {where}", key)
    times = ("interval_start", "interval_end", "started", "ended")
    marks = ", ".join(
        "?::TIMESTAMPTZ::TIMESTAMP" if c in times and isinstance(row.get(c), str) else "?"
        for c in COLUMNS
    )
    con.execute(
        f"INSERT INTO ops.sync_runs ({', '.join(COLUMNS)}, mirrored_at) VALUES ({marks}, ?)",
        [*(row.get(c) for c in COLUMNS), mirrored_at.replace(tzinfo=None)],
    )
