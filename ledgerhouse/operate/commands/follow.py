"""Following runs in Airflow from the command line, with progress, until they have ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from extract.core.interval import Interval, iso, utc
from ledgerhouse.operate.airflow.api import FINAL, AirflowApi, AirflowApiError, run_path
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.progress import Progress

POLL_S = 1.0
LOOK_AFTER_S = 30.0  # without a change, ask whether anything can change at all


def follow(
    airflow: AirflowApi, args: Any, created: Mapping[str, Any], wanted: Mapping[datetime, Interval]
) -> int:
    """Wait until every wanted run has ended; 0 only when all have succeeded.

    `wanted`: logical date → interval. The first failure stops what has not started, unless
    --continue-on-failures.
    """
    dag_id, stopping = created["dag_id"], False
    changed, seen = time.monotonic(), None
    try:
        with Progress(f"{dag_id} backfill {created['id']}", len(wanted)) as progress:
            while True:
                runs = {
                    utc(r["logical_date"]): r
                    for r in backfill_runs(airflow, created)
                    if utc(r["logical_date"]) in wanted
                }
                states = Counter(run["state"] for run in runs.values())
                running = sorted(wanted[d] for d, r in runs.items() if r["state"] == "running")
                progress.show(
                    states["success"],
                    states["failed"],
                    ", ".join(map(str, running[:2])) or "waiting for the scheduler",
                )
                ended = states["success"] + states["failed"]
                if ended >= len(wanted) or (stopping and not running):
                    break
                if states["failed"] and not (args.continue_on_failures or stopping):
                    stopping = change(airflow, created, "pause")
                if states != seen:
                    changed, seen = time.monotonic(), states
                elif time.monotonic() - changed > LOOK_AFTER_S:
                    _require_progress(airflow, dag_id)
                    changed = time.monotonic()
                time.sleep(POLL_S * max(1, len(wanted) // 100))
    except KeyboardInterrupt:
        print(
            f"\nThe backfill goes on in Airflow. Follow it again: airflow dags backfill --follow "
            f"{dag_id}; end it: airflow dags backfill --cancel {dag_id}",
            file=sys.stderr,
        )
        return 130
    cancelled = len(wanted) - ended
    if stopping:
        change(airflow, created, "cancel")
    return _report(airflow, dag_id, wanted, runs, cancelled)


def _report(airflow: AirflowApi, dag_id: str, wanted, runs, cancelled: int) -> int:
    """Print how the wanted runs ended and what failed; the exit code."""
    failed = sorted((d, r) for d, r in runs.items() if r["state"] == "failed")
    good = sum(r["state"] == "success" for r in runs.values())
    print(
        f"{'✓' if good == len(wanted) else '✗'} {good} of {len(wanted)} runs succeeded"
        + (f", {len(failed)} failed" if failed else "")
        + (
            f", {cancelled} were not started (--continue-on-failures starts them)"
            if cancelled
            else ""
        )
    )
    for date, run in failed[:5]:
        tasks = airflow.call(
            "GET",
            f"{run_path(dag_id, run['dag_run_id'])}/taskInstances",
            state="failed",
            limit=10,
        )["task_instances"]
        names = ", ".join(dict.fromkeys(task["task_id"] for task in tasks)) or "no task"
        print(
            f"  {wanted[date]}: {names} failed; {airflow.url}/dags/{dag_id}/runs/"
            f"{quote(run['dag_run_id'], safe='')}"
        )
    if len(failed) > 5:
        print(f"  and {len(failed) - 5} more")
    if failed:
        print(
            "  What they lack stays uncovered: the next sync fetches it, or run this again with "
            "--rerun-failed-tasks"
        )
    return 0 if good == len(wanted) else 1


def change(airflow: AirflowApi, created: Mapping[str, Any], what: str) -> bool:
    """Pause or cancel a backfill; that one has ended meanwhile is no error."""
    try:
        airflow.call("PUT", f"/backfills/{created['id']}/{what}")
    except AirflowApiError:
        pass
    return True


def _require_progress(airflow: AirflowApi, dag_id: str) -> None:
    """CommandFailed when no run of the DAG can start or end."""
    why = "no scheduler is alive" * (not airflow.scheduler_is_alive())
    if airflow.call("GET", f"/dags/{dag_id}")["is_paused"]:
        why = f"{dag_id} was paused meanwhile"
    if why:
        raise CommandFailed(
            f"{why}: the backfill waits. Once that is fixed: airflow dags "
            f"backfill --follow {dag_id}"
        )


def runs_between(
    airflow: AirflowApi, dag_id: str, first: datetime, last: datetime, **only: Any
) -> list[dict[str, Any]]:
    """Runs of a DAG whose logical dates are in a range, both ends included."""
    return airflow.all(
        f"/dags/{dag_id}/dagRuns",
        "dag_runs",
        logical_date_gte=iso(first),
        logical_date_lte=iso(last),
        **only,
    )


def backfill_runs(airflow: AirflowApi, created: Mapping[str, Any]) -> list:
    """Backfill runs in the range of a backfill (older ones of the same dates too)."""
    return runs_between(
        airflow,
        created["dag_id"],
        utc(created["from_date"]),
        utc(created["to_date"]),
        run_type="backfill",
    )


def follow_history(airflow: AirflowApi, dag_id: str, run: str, span: Interval) -> int:
    """Wait until the run of the DAG history has ended; 0 when it has succeeded."""
    path = run_path(dag_id, run)
    try:
        with Progress(f"{dag_id} {span}", 1) as progress:
            while (state := airflow.call("GET", path)["state"]) not in FINAL:
                tasks = Counter(
                    (t["task_id"], t["state"])
                    for t in airflow.all(f"{path}/taskInstances", "task_instances")
                )
                done = Counter({"success": 0, "failed": 0})
                for (_, ended), count in tasks.items():
                    done[ended] += count
                progress.total = max(sum(tasks.values()), 1)
                progress.show(
                    done["success"] + done["skipped"],
                    done["failed"],
                    ", ".join(dict.fromkeys(task for task, s in tasks if s == "running"))
                    or "waiting",
                )
                time.sleep(POLL_S)
    except KeyboardInterrupt:
        print(
            f"\nThe run goes on in Airflow: {airflow.url}/dags/{dag_id}/runs/{quote(run, safe='')}",
            file=sys.stderr,
        )
        return 130
    print(
        f"✓ {dag_id} over {span} succeeded"
        if state == "success"
        else f"✗ {dag_id} over {span} failed: {airflow.url}/dags/{dag_id}/runs/"
        f"{quote(run, safe='')}"
    )
    return 0 if state == "success" else 1
