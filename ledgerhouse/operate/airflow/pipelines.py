"""The runs of Ledgerhouse as tasks and their order; the operators are in *_operators.py.

Fetch runs in parallel and never opens the warehouse. All others open it, so they share the
pool `warehouse`, which has one slot.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from airflow.sdk import BaseOperator

from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.airflow.context import (
    DEFAULT_ARGS,
    INTERVAL,
    PARAMS,
    SINCE,
    WAREHOUSE_POOL,
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


def pipeline(*, close_gaps: bool) -> None:
    """The tasks of one run, inside a DAG: plan → fetch (per account) → load … mirror."""
    load, complete, _ = plan_fetch_load(
        lambda **task: PlanOperator(
            history_start="{{ var.value.start_ts }}", close_gaps=close_gaps, **INTERVAL, **task
        )
    )
    load >> complete
    transform_check_publish(load, complete)


def plan_fetch_load(
    plan: Callable[..., PlanOperator],
) -> tuple[BaseOperator, BaseOperator, list[PlanOperator]]:
    """A `plan(task_id=, pool=, connection=)` and its fetches for every connection: the load that
    follows all of them, `complete`, and the plans.

    A failed fetch does not keep the others from being loaded, and fails the run: `complete`
    is a leaf that succeeds only when every fetch and the check did. A wrong entry of accounts.toml
    is a task that says so, and keeps no other account from being fetched.
    """
    from airflow.providers.standard.operators.empty import EmptyOperator

    load = LoadOperator(task_id="load", pool=WAREHOUSE_POOL, trigger_rule="all_done")
    complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
    listed, wrong = AccountsFile.read().entries()
    for number, why in wrong.items():
        RefuseOperator(task_id=f"account_{number}_of_accounts_toml", why=why, retries=0) >> complete
    plans = []
    for connection, pool in {a.connection: a.pool for a in listed}.items():
        plans.append(plan(task_id=f"plan_{connection}", pool=WAREHOUSE_POOL, connection=connection))
        fetch = FetchOperator.partial(task_id=f"fetch_{connection}", pool=pool).expand_kwargs(
            plans[-1].output
        )
        fetch >> [load, complete]
    return load, complete, plans


def replay_pipeline() -> None:
    """The tasks of a replay: replay → transform → check → publish … mirror."""
    from airflow.providers.standard.operators.empty import EmptyOperator

    replay = ReplayOperator(task_id="replay", pool=WAREHOUSE_POOL)
    complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
    replay >> complete
    transform_check_publish(replay, complete)


def transform_check_publish(
    rows: BaseOperator,
    complete: BaseOperator,
    *,
    interval: Mapping[str, str] = INTERVAL,
    doubt: BaseOperator | None = None,
) -> MirrorOperator:
    """What follows new raw rows, however they came: transform → check → publish, the mirror, and
    the alerts, which want to know how the run went. The mirror.

    Where no day was touched, `interval` is checked; `doubt` comes between check and publish.
    """
    from ledgerhouse.operate.airflow.operators.alert import AlertOperator

    # A file that could not be loaded keeps the others' days from nobody.
    transform = TransformOperator(task_id="transform", pool=WAREHOUSE_POOL, trigger_rule="all_done")
    check = CheckOperator(task_id="check", pool=WAREHOUSE_POOL, transform="transform", **interval)
    mirror = MirrorOperator(task_id="mirror", pool=WAREHOUSE_POOL).as_teardown(
        on_failure_fail_dagrun=False
    )
    publish = PublishOperator(task_id="publish", pool=WAREHOUSE_POOL, transform="transform")
    rows >> transform >> check >> publish >> complete
    if doubt:
        check >> doubt >> [publish, mirror]
    # `complete` is done with the first fetch that fails, while the others still run.
    [rows, transform, check, publish, complete] >> mirror
    # No slot of the pool: it takes its turn at the warehouse's lock, and sends without it.
    mirror >> AlertOperator(task_id="alert").as_teardown(on_failure_fail_dagrun=False)
    return mirror


def refresh_pipeline() -> None:
    """The tasks of a refresh, inside a DAG: as a sync's, with the report before the models and the
    rebuild before publishing."""
    load, complete, plans = plan_fetch_load(RefreshPlanOperator)
    report = RefreshReportOperator(
        task_id="report",
        pool=WAREHOUSE_POOL,
        trigger_rule="all_done",
        plans=[plan.task_id for plan in plans],
        **INTERVAL,
    )
    load >> [report, complete]
    # Where no day was touched the checks look at what was read, not at the week that has passed.
    read = {name: f"{{{{ ti.xcom_pull(task_ids='report')['{name}'] }}}}" for name in INTERVAL}
    mirror = transform_check_publish(
        report,
        complete,
        interval=read,
        doubt=RebuildOperator(task_id="rebuild", transform="transform"),
    )
    load >> mirror


__all__ = [
    "DEFAULT_ARGS",
    "PARAMS",
    "SINCE",
    "pipeline",
    "plan_fetch_load",
    "refresh_pipeline",
    "replay_pipeline",
    "transform_check_publish",
]
