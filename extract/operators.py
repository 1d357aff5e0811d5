"""The runs of Ledgerhouse as tasks and their order; the operators are in *_operators.py.

Fetch runs in parallel and never opens the warehouse. All others open it, so they share the
pool `warehouse`, which has one slot.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import BaseOperator

from extract.fetch_operators import FetchOperator, PlanOperator, RefuseOperator
from extract.load_operators import (
    CheckOperator, LoadOperator, MirrorOperator, PublishOperator, ReplayOperator, TransformOperator,
)
from extract.sources import read_accounts
from extract.task import PARAMS, WAREHOUSE_POOL, accounts_file


def pipeline(*, whole: bool) -> None:
    """The tasks of one run, inside a DAG: plan → fetch (per account) → load … mirror.

    A failed fetch does not keep the others from being loaded, and fails the run: `complete`
    is a leaf that succeeds only when every fetch and the check did.
    """
    from airflow.providers.standard.operators.empty import EmptyOperator

    interval = {"interval_start": "{{ data_interval_start }}",
                "interval_end": "{{ data_interval_end }}"}
    load = LoadOperator(task_id="load", pool=WAREHOUSE_POOL, trigger_rule="all_done")
    complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
    listed, wrong = read_accounts(accounts_file())
    for number, why in wrong.items():
        RefuseOperator(task_id=f"account_{number}_of_accounts_toml", why=why, retries=0) >> complete
    for connection, pool in {a.connection: a.pool for a in listed}.items():
        plan = PlanOperator(
            task_id=f"plan_{connection}", pool=WAREHOUSE_POOL, connection=connection,
            history_start="{{ var.value.start_ts }}", whole=whole, **interval)
        fetch = FetchOperator.partial(task_id=f"fetch_{connection}", pool=pool).expand_kwargs(
            plan.output)
        fetch >> [load, complete]
    believe(load, complete)


def replay_pipeline() -> None:
    """The tasks of a replay: replay → transform → check → publish … mirror."""
    from airflow.providers.standard.operators.empty import EmptyOperator

    complete = EmptyOperator(task_id="complete", trigger_rule="none_failed")
    believe(ReplayOperator(task_id="replay", pool=WAREHOUSE_POOL), complete)


def believe(load: BaseOperator, complete: BaseOperator) -> None:
    """What follows new raw rows, however they came: transform → check → publish, the mirror, and
    the alerts, which want to know how the run went."""
    from extract.alert_operators import AlertOperator

    interval = {"interval_start": "{{ data_interval_start }}",
                "interval_end": "{{ data_interval_end }}"}
    # A file that could not be loaded keeps the others' days from nobody.
    transform = TransformOperator(task_id="transform", pool=WAREHOUSE_POOL,
                                  trigger_rule="all_done")
    check = CheckOperator(task_id="check", pool=WAREHOUSE_POOL, transform="transform", **interval)
    mirror = MirrorOperator(task_id="mirror", pool=WAREHOUSE_POOL).as_teardown(
        on_failure_fail_dagrun=False)
    publish = PublishOperator(task_id="publish", pool=WAREHOUSE_POOL, transform="transform")
    load >> transform >> check >> publish >> complete
    load >> complete
    # `complete` is done with the first fetch that fails, while the others still run.
    [load, transform, check, publish, complete] >> mirror
    # No slot of the pool: it takes its turn at the warehouse's lock, and sends without it.
    mirror >> AlertOperator(task_id="alert").as_teardown(on_failure_fail_dagrun=False)


__all__ = ["PARAMS", "believe", "pipeline", "replay_pipeline"]
