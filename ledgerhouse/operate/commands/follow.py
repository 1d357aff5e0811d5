"""Following runs in Airflow from the command line, with progress, until they have ended."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote

from extract.core.interval import Interval, iso, utc
from ledgerhouse.operate.airflow.api import FINAL, AirflowApi, AirflowApiError, run_path
from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.progress import Progress

POLL_S, POLL_RUN_S = 1.0, 0.4
ACTIVE = {"running", "queued", "scheduled", "up_for_retry", "restarting"}
ENDED = {"success", "skipped", "failed", "upstream_failed", "removed"}
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


def follow_run(
    airflow: AirflowApi, dag_id: str, run: str, meanwhile: Callable[[list[dict[str, Any]]], object]
) -> tuple[str, list[dict[str, Any]]]:
    """Wait until a run has ended: (its state, its task instances); `meanwhile` gets them so far."""
    while True:
        state = airflow.run(dag_id, run)["state"]
        tasks = airflow.task_instances(dag_id, run)
        if state in FINAL:
            return state, tasks
        meanwhile(tasks)
        time.sleep(POLL_RUN_S)


def at_work(tasks: list[dict[str, Any]]) -> str:
    """'fetch_debank 30 of 75, plan_coinbase_main': the tasks at work, or about to be."""
    total = Counter(task["task_id"] for task in tasks)
    ended = Counter(task["task_id"] for task in tasks if task["state"] in ENDED)
    active = dict.fromkeys(task["task_id"] for task in tasks if task["state"] in ACTIVE)
    parts = (f"{n} {ended[n]} of {total[n]}" if total[n] > 1 else n for n in active)
    return ", ".join(parts) or "waiting for the scheduler"


def follow_history(airflow: AirflowApi, dag_id: str, run: str, span: Interval) -> int:
    """Wait until the run of the DAG history has ended; 0 when it has succeeded."""
    where = f"{airflow.url}/dags/{dag_id}/runs/{quote(run, safe='')}"
    try:
        with Progress(f"{dag_id} {span}", 1) as progress:

            def show(tasks: list[dict[str, Any]]) -> None:
                done = Counter(task["state"] for task in tasks)
                progress.total = max(len(tasks), 1)
                progress.show(done["success"] + done["skipped"], done["failed"], at_work(tasks))

            state, _ = follow_run(airflow, dag_id, run, show)
    except KeyboardInterrupt:
        print(f"\nThe run goes on in Airflow: {where}", file=sys.stderr)
        return 130
    good = state == "success"
    print(
        f"✓ {dag_id} over {span} succeeded" if good else f"✗ {dag_id} over {span} failed: {where}"
    )
    return 0 if good else 1
