"""### history: a long range in one run

Give `interval_start` and `interval_end`: the range is cut into months where the API can seek in
time, and every month is one mapped task. What is covered already costs no call.
"""

from datetime import UTC, datetime

import jinja2
from airflow.sdk import DAG, TaskGroup

from ledgerhouse.operate.airflow.pipelines import (
    DEFAULT_ARGS,
    PARAMS,
    complete_mirror_alert,
    plan_fetch_load,
    run_limits,
    transform_check_publish,
)

with DAG(
    "history",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    **run_limits("history"),
    params=PARAMS,
    template_undefined=jinja2.Undefined,
    default_args=DEFAULT_ARGS,
    tags=["ledgerhouse"],
):
    with TaskGroup("sources", prefix_group_id=False):
        _, fetches, load = plan_fetch_load(close_gaps=False)
    with TaskGroup("curated", prefix_group_id=False):
        transform, check, publish = transform_check_publish(load)
    complete_mirror_alert([*fetches, load, publish], [load, transform, check, publish])
