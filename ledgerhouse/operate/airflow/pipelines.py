"""Steps of the DAGs: plan, fetch and load; transform, check and publish; the end of a run.

dags/ and ledgerhouse/airflow.py put them together. A task that asks a vendor (probe, fetch, units)
never opens the warehouse, and runs beside others. All others open it, so they share the pool
`warehouse`, which has one slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from airflow.sdk import BaseOperator

from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.airflow.context import (
    DEFAULT_ARGS,
    INTERVAL,
    LONG_TIMEOUT,
    PARAMS,
    SINCE,
    TAG,
    TIMEOUT,
    WAREHOUSE_POOL,
    WRONG_DEADLINES,
    run_limits,
)
from ledgerhouse.operate.airflow.operators.fetch import FetchOperator
from ledgerhouse.operate.airflow.operators.load import (
    CheckOperator,
    LoadOperator,
    MirrorOperator,
    PublishOperator,
    ReplayOperator,
    TransformOperator,
)
from ledgerhouse.operate.airflow.operators.plan import PlanOperator, RefuseOperator
from ledgerhouse.operate.airflow.operators.refresh import (
    RebuildOperator,
    RefreshPlanOperator,
    RefreshReportOperator,
)
from ledgerhouse.operate.airflow.operators.vendor import ProbeOperator, UnitsOperator

# Where no day was touched the checks look at what was read, not at the week that has passed.
INTERVAL_READ = {name: f"{{{{ ti.xcom_pull(task_ids='report')['{name}'] }}}}" for name in INTERVAL}


class Sources(NamedTuple):
    """The tasks of plan_fetch_load: `fetches` are those that a whole run needs, of each connection."""

    plans: list[PlanOperator]
    fetches: list[Any]
    load: LoadOperator


class Curated(NamedTuple):
    """The tasks of transform_check_publish."""

    transform: TransformOperator
    check: CheckOperator
    publish: PublishOperator


def plan_fetch_load(*, close_gaps: bool) -> Sources:
    """For every connection of accounts.toml a plan, a probe of its host and its fetches, and the
    load that follows all.

    `close_gaps`: holes before the run's interval are fetched too, and balances.
    """
    return _plan_fetch_load(
        partial(
            PlanOperator,
            history_start="{{ var.value.start_ts }}",
            close_gaps=close_gaps,
            **INTERVAL,
        )
    )


def plan_fetch_load_again() -> Sources:
    """As plan_fetch_load, of what is covered: the part of it that `scope` asks for."""
    return _plan_fetch_load(RefreshPlanOperator)


def _plan_fetch_load(plan: Callable[..., PlanOperator]) -> Sources:
    """A failed fetch does not keep the others from being loaded, nor a failed probe; of a probe that
    failed no fetch is begun. A wrong entry of accounts.toml is a task that says so, and keeps no
    other account from being fetched."""
    units = UnitsOperator(task_id="units", trigger_rule="all_done")
    load = LoadOperator(task_id="load", pool=WAREHOUSE_POOL, trigger_rule="all_done")
    accounts, wrong = AccountsFile.read().entries()
    plans: list[PlanOperator] = []
    fetches: list[Any] = [
        RefuseOperator(task_id=f"account_{number}_of_accounts_toml", why=why, retries=0)
        for number, why in wrong.items()
    ]
    if WRONG_DEADLINES:
        fetches.append(
            RefuseOperator(task_id="deadlines_of_accounts_toml", why=WRONG_DEADLINES, retries=0)
        )
    for connection, (pool, source) in {a.connection: (a.pool, a.source) for a in accounts}.items():
        planned = plan(task_id=f"plan_{connection}", pool=WAREHOUSE_POOL, connection=connection)
        probe = ProbeOperator(
            task_id=f"probe_{connection}",
            pool=pool,
            connection=connection,
            source=source,
            plan=planned.task_id,
        )
        fetch = FetchOperator.partial(
            task_id=f"fetch_{connection}", pool=pool, **LONG_TIMEOUT
        ).expand_kwargs(planned.output)
        planned >> probe >> fetch >> units
        plans.append(planned)
        fetches.append(fetch)
    units >> load
    return Sources(plans, fetches, load)


def books_first(plans: Sequence[PlanOperator]) -> BaseOperator:
    """Before there are books nothing can be compared: then all of the run but its end skips itself."""
    from airflow.providers.standard.operators.python import ShortCircuitOperator

    from ledgerhouse.operate.airflow.operators.refresh import there_are_books

    books = ShortCircuitOperator(task_id="books", python_callable=there_are_books)
    books >> list(plans)
    return books


def report_refresh(plans: Sequence[PlanOperator], load: BaseOperator) -> RefreshReportOperator:
    """What was read again, row by row: before the models, so that it is published with the rows."""
    report = RefreshReportOperator(
        task_id="report",
        pool=WAREHOUSE_POOL,
        trigger_rule="all_done",
        plans=[plan.task_id for plan in plans],
        **INTERVAL,
    )
    load >> report
    return report


def replay_landing() -> ReplayOperator:
    """Raw, history and coverage again, from the landing alone."""
    return ReplayOperator(task_id="replay", pool=WAREHOUSE_POOL, **LONG_TIMEOUT)


def transform_check_publish(
    rows: BaseOperator, *, interval: Mapping[str, str] = INTERVAL
) -> Curated:
    """What follows new raw rows, however they came. Where no day was touched, `interval` is checked."""
    # A file that could not be loaded keeps the others' days from nobody.
    transform = TransformOperator(task_id="transform", pool=WAREHOUSE_POOL, trigger_rule="all_done")
    check = CheckOperator(task_id="check", pool=WAREHOUSE_POOL, transform="transform", **interval)
    publish = PublishOperator(task_id="publish", pool=WAREHOUSE_POOL, transform="transform")
    rows >> transform >> check >> publish
    return Curated(transform, check, publish)


def rebuild_before_publish(check: CheckOperator, publish: PublishOperator) -> RebuildOperator:
    """Curated a second time from raw; nothing is published where production differs."""
    rebuild = RebuildOperator(task_id="rebuild", transform="transform")
    check >> rebuild >> publish
    return rebuild


def complete_mirror_alert(
    needed: Sequence[BaseOperator], writers: Sequence[BaseOperator]
) -> MirrorOperator:
    """The end of a run: `complete` succeeds only when all `needed` have, and decides how the run
    ended; the mirror copies the run into ops.sync_runs, and the alerts want to know how it went.

    `writers` are the tasks that the mirror waits for besides: `complete` has ended with the first
    fetch that fails, while the others still run.
    """
    from airflow.providers.standard.operators.empty import EmptyOperator

    from ledgerhouse.operate.airflow.operators.alert import AlertOperator

    complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
    mirror = MirrorOperator(task_id="mirror", pool=WAREHOUSE_POOL).as_teardown(
        on_failure_fail_dagrun=False
    )
    # No slot of the pool: it takes its turn at the warehouse's lock, and sends without it.
    alert = AlertOperator(task_id="alert").as_teardown(on_failure_fail_dagrun=False)
    list(needed) >> complete
    [*writers, complete] >> mirror
    mirror >> alert
    return mirror


def keep_house() -> list[BaseOperator]:
    """The tasks of maintenance; one that fails keeps no other from its work."""
    from ledgerhouse.operate.airflow.operators.maintain import (
        CleanAirflowRowsOperator,
        CompactOperator,
        PackLandedFilesOperator,
        RemoveFilesOperator,
        RemoveLogsOperator,
    )

    return [
        CleanAirflowRowsOperator(task_id="airflow_rows"),
        RemoveLogsOperator(task_id="logs"),
        RemoveFilesOperator(task_id="files"),
        PackLandedFilesOperator(task_id="landed"),
        CompactOperator(task_id="compact"),
    ]


def send_late() -> BaseOperator:
    """That runs are late, sent by a task: it waits for no pool, and for no warehouse."""
    from ledgerhouse.operate.airflow.operators.alert import SendLateOperator

    return SendLateOperator(task_id="send")


__all__ = [
    "DEFAULT_ARGS",
    "INTERVAL_READ",
    "PARAMS",
    "SINCE",
    "TAG",
    "TIMEOUT",
    "books_first",
    "complete_mirror_alert",
    "keep_house",
    "plan_fetch_load",
    "plan_fetch_load_again",
    "rebuild_before_publish",
    "replay_landing",
    "report_refresh",
    "run_limits",
    "send_late",
    "transform_check_publish",
]
