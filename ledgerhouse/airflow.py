"""Ledgerhouse's DAGs for a dags folder of your own: `from ledgerhouse.airflow import sync_dag`.

    from ledgerhouse.airflow import sync_dag

    sync_dag()

Each call makes one DAG, the same as the file of that name in Ledgerhouse's own dags/. The accounts
are those of the file that LEDGERHOUSE_ACCOUNTS names; Airflow needs the Connections it names, the
pools `warehouse` and `api_<connection>` with one slot each, the Variable `start_ts` (how far back
a new account is read), and the Connection `airflow_api` (type http; host: Airflow's own address,
login and password), with which a run is copied into ops.sync_runs.

`tags` are added to the tag `ledgerhouse`, by which the mirror and the commands know these DAGs.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import jinja2
from airflow.sdk import DAG, CronDataIntervalTimetable, TaskGroup

from ledgerhouse.operate.airflow.context import REPLAY_PARAMS
from ledgerhouse.operate.airflow.operators.refresh import PARAMS as REFRESH_PARAMS
from ledgerhouse.operate.airflow.pipelines import (
    DEFAULT_ARGS,
    INTERVAL_READ,
    PARAMS,
    SINCE,
    TAG,
    TIMEOUT,
    books_first,
    complete_mirror_alert,
    keep_house,
    plan_fetch_load,
    plan_fetch_load_again,
    rebuild_before_publish,
    replay_landing,
    report_refresh,
    run_limits,
    send_late,
    transform_check_publish,
)

__all__ = [
    "history_dag",
    "late_alert_dag",
    "maintenance_dag",
    "replay_dag",
    "sync_dag",
    "weekly_refresh_dag",
]

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def sync_dag(
    dag_id: str = "sync",
    *,
    schedule: Any = "0 */6 * * *",
    start_date: datetime = SINCE,
    tags: Iterable[str] = (),
) -> DAG:
    """Fetch what is new since the last sync, load, transform, check and publish it.

    `schedule` is a cron expression in UTC, or a timetable whose runs have a data interval.
    `ops.spending` compares with the syncs of a DAG named `sync`.
    """
    with _dag(sync_dag, dag_id, schedule, start_date, tags, PARAMS) as dag:
        _fetch_and_publish(close_gaps=True)
    return dag


def history_dag(dag_id: str = "history", *, tags: Iterable[str] = ()) -> DAG:
    """Fetch a long range in one run: trigger it with interval_start and interval_end."""
    with _dag(history_dag, dag_id, None, LONG_AGO, tags, PARAMS) as dag:
        _fetch_and_publish(close_gaps=False)
    return dag


def weekly_refresh_dag(
    dag_id: str = "weekly_refresh",
    *,
    schedule: Any = "0 2 * * 0",
    start_date: datetime = SINCE,
    tags: Iterable[str] = (),
) -> DAG:
    """Read a part of the history again, and rebuild curated a second time to compare it."""
    with _dag(weekly_refresh_dag, dag_id, schedule, start_date, tags, REFRESH_PARAMS) as dag:
        with TaskGroup("sources", prefix_group_id=False):
            plans, fetches, load = plan_fetch_load_again()
            books_first(plans)
            report = report_refresh(plans, load)
        with TaskGroup("curated", prefix_group_id=False):
            transform, check, publish = transform_check_publish(report, interval=INTERVAL_READ)
            rebuild = rebuild_before_publish(check, publish)
        complete_mirror_alert(
            [*fetches, load, publish], [load, report, transform, check, rebuild, publish]
        )
    return dag


def replay_dag(dag_id: str = "replay", *, tags: Iterable[str] = ()) -> DAG:
    """Rebuild the warehouse from the landing, without a call."""
    with _dag(replay_dag, dag_id, None, LONG_AGO, tags) as dag:
        dag.params.update(REPLAY_PARAMS)
        with TaskGroup("sources", prefix_group_id=False):
            replay = replay_landing()
        with TaskGroup("curated", prefix_group_id=False):
            transform, check, publish = transform_check_publish(replay)
        complete_mirror_alert([replay, publish], [replay, transform, check, publish])
    return dag


def maintenance_dag(
    dag_id: str = "maintenance",
    *,
    schedule: Any = "30 3 * * *",
    start_date: datetime = SINCE,
    tags: Iterable[str] = (),
) -> DAG:
    """Remove what is kept elsewhere, compact the warehouse, and see that syncs still come."""
    with _dag(maintenance_dag, dag_id, schedule, start_date, tags, {}, max_active_tasks=1) as dag:
        tasks = keep_house()
        complete_mirror_alert(tasks, tasks)
    return dag


def late_alert_dag(dag_id: str = "late_alert", *, tags: Iterable[str] = ()) -> DAG:
    """Send what the callback of a missed deadline may not: it is started by that, by this id."""
    with _dag(late_alert_dag, dag_id, None, LONG_AGO, tags, {}) as dag:
        send_late()
    return dag


def _fetch_and_publish(*, close_gaps: bool) -> None:
    with TaskGroup("sources", prefix_group_id=False):
        _, fetches, load = plan_fetch_load(close_gaps=close_gaps)
    with TaskGroup("curated", prefix_group_id=False):
        transform, check, publish = transform_check_publish(load)
    complete_mirror_alert([*fetches, load, publish], [load, transform, check, publish])


def _dag(
    build: Callable[..., DAG],
    dag_id: str,
    schedule: Any,
    start_date: datetime,
    tags: Iterable[str],
    params: Mapping[str, Any] | None = None,
    **more: Any,
) -> DAG:
    """The empty DAG; its page in Airflow is the docstring of the function that builds it."""
    if isinstance(schedule, str):  # by itself Airflow 3 gives such a run an empty interval
        schedule = CronDataIntervalTimetable(schedule, timezone="UTC")
    settings: dict[str, Any] = {
        "doc_md": inspect.getdoc(build),
        "schedule": schedule,
        "start_date": start_date,
        "catchup": False,  # one run closes the whole hole after downtime
        "max_active_runs": 1,
        **run_limits(build.__name__.removesuffix("_dag")),
        "params": params or {},
        "template_undefined": jinja2.Undefined,  # a missing interval gets our message
        "default_args": TIMEOUT if params is None else DEFAULT_ARGS,
        "tags": [TAG, *tags],
        **more,
    }
    return DAG(dag_id, **settings)
