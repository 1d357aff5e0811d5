"""What every task needs: the interval of its run, its own key in the run log, common DAG settings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import Param
from airflow.sdk.configuration import conf
from airflow.sdk.definitions.callback import SyncCallback  # not in the stub of airflow.sdk
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference

from extract.core.interval import Interval, utc
from ledgerhouse.config import AccountsFile, Deadlines, retry_delay, sync_start

WAREHOUSE_POOL = "warehouse"
INTERVAL = {
    "interval_start": "{{ data_interval_start }}",
    "interval_end": "{{ data_interval_end }}",
}


def _deadlines() -> tuple[Deadlines, str]:
    """[deadlines] of accounts.toml; where it cannot be used the defaults, and why."""
    try:
        return AccountsFile.read(what="deadlines").deadlines(), ""
    except ValueError as error:
        return Deadlines(), str(error)


# What the DAGs have in common; the environment is that of .env.
SINCE = sync_start()
DEADLINES, WRONG_DEADLINES = _deadlines()
# Airflow ends a try that takes longer. A fetch lands what it has read only when it is whole, so its
# limit is far beyond the longest: ended too soon, it would begin again each time.
TIMEOUT: dict[str, Any] = {"execution_timeout": timedelta(hours=DEADLINES.task_hours)}
LONG_TIMEOUT: dict[str, Any] = {"execution_timeout": timedelta(hours=DEADLINES.long_task_hours)}
DEFAULT_ARGS = {
    "retries": 2,
    "retry_exponential_backoff": True,
    "retry_delay": retry_delay(),
    **TIMEOUT,
}
REPORT_LATE = "ledgerhouse.operate.airflow.late_run.report_late_run"
TAG = "ledgerhouse"  # of every DAG of ours, whatever its id: by it the mirror knows them
# Params of every DAG that fetches; empty means: the run's own data interval.
PARAMS = {
    "interval_start": Param(None, type=["null", "string"], description="start, UTC, included"),
    "interval_end": Param(None, type=["null", "string"], description="end, UTC, excluded"),
    "refetch": Param(False, type="boolean", description="ask again for what is covered already"),
}

REPLAY_PARAMS = {
    "accept_less": Param(
        False,
        type="boolean",
        description="go on without landed files that are missing or damaged; the old warehouse is "
        "kept, and what they cover is fetched again",
    ),
}


def run_limits(kind: str) -> dict[str, Any]:
    """Of a DAG of this kind (sync, history …): how long a run may take, and when it is late.

    A run that is still going after `dagrun_timeout` is failed by the scheduler, also where a task
    hangs in C, which `execution_timeout` cannot end. One that has not succeeded by its deadline is
    reported by a process of its own, which needs neither the run nor the warehouse.
    """
    of_sync = kind == "sync"
    hours = DEADLINES.sync_hours if of_sync else DEADLINES.run_hours
    late = DEADLINES.sync_late_hours if of_sync else DEADLINES.late_hours
    limits: dict[str, Any] = {"dagrun_timeout": timedelta(hours=hours)}
    if late and _executor_takes_callbacks():
        limits["deadline"] = DeadlineAlert(
            reference=DeadlineReference.DAGRUN_QUEUED_AT,
            interval=timedelta(hours=late),
            callback=SyncCallback(REPORT_LATE, kwargs={"hours": late}),
            name=f"{kind} is late",
        )
    return limits


def _executor_takes_callbacks() -> bool:
    """Whether the first executor, which callbacks go to, is one of those that run them. In Airflow
    3.3 a scheduler with another one ends at the first missed deadline (NotImplementedError)."""
    first = conf.get("core", "executor", fallback="").split(",")[0].split(":")[-1]
    return first.rsplit(".")[-1] in ("LocalExecutor", "CeleryExecutor")


def resolve_interval(params: dict[str, Any], start: str, end: str) -> Interval:
    """The interval of a run: the params, else its non-empty data interval, else ValueError.

    `start` and `end` are the rendered data interval; a manual run without one renders "" or
    "None", and a plain cron schedule would render an empty one.
    """
    params = {k: v for k, v in params.items() if v}
    if "interval_start" in params or "interval_end" in params:
        if not {"interval_start", "interval_end"} <= params.keys():
            raise ValueError("give both params, interval_start and interval_end, or neither")
        return Interval(utc(params["interval_start"]), utc(params["interval_end"]))
    if str(start) in ("", "None") or str(end) in ("", "None"):
        raise ValueError(
            "this run has no data interval (a manual run has none). Trigger it with the params "
            '{"interval_start": "2026-01-01T00:00:00Z", "interval_end": "2026-01-01T06:00:00Z"}'
        )
    if str(start) == str(end):
        raise ValueError(
            f"this run's data interval is empty ({start} to {end}): its DAG needs "
            "CronDataIntervalTimetable, or give the params interval_start and interval_end"
        )
    return Interval(utc(str(start)), utc(str(end)))


def attempt_key(context: Any) -> dict[str, Any]:
    """The key of this task attempt in ops.sync_runs."""
    ti = context["ti"]
    return {
        "dag_id": ti.dag_id,
        "run_id": ti.run_id,
        "task_id": ti.task_id,
        "map_index": ti.map_index if ti.map_index is not None else -1,
        "try_number": ti.try_number,
    }


def lock_owner(context: Any) -> str:
    """This task, in words: the lock names it to who waits for the warehouse."""
    return "task {dag_id}.{task_id} of run {run_id}".format(**attempt_key(context))
