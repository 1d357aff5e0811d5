"""### sync: every six hours, what is new since the last sync

For each account: **plan** what is missing (from the coverage, so a hole that a failed run left
is closed too), **probe** the host once, **fetch** it into the landing, **load**, **transform** the days that were
touched, **check**. A failed source does not keep the others from arriving, but fails the run.

Trigger by hand with `interval_start` and `interval_end` to fetch a span of your own.
"""

import jinja2
from airflow.sdk import DAG, CronDataIntervalTimetable, TaskGroup

from ledgerhouse.operate.airflow.pipelines import (
    DEFAULT_ARGS,
    PARAMS,
    SINCE,
    complete_mirror_alert,
    plan_fetch_load,
    run_limits,
    transform_check_publish,
)

with DAG(
    "sync",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 */6 * * *", timezone="UTC"),
    start_date=SINCE,
    catchup=False,  # one run closes the whole hole after downtime
    max_active_runs=1,
    **run_limits("sync"),
    params=PARAMS,
    template_undefined=jinja2.Undefined,  # a missing interval gets our message, not jinja's
    default_args=DEFAULT_ARGS,
    tags=["ledgerhouse"],
):
    with TaskGroup("sources", prefix_group_id=False):
        _, fetches, load = plan_fetch_load(close_gaps=True)
    with TaskGroup("curated", prefix_group_id=False):
        transform, check, publish = transform_check_publish(load)
    complete_mirror_alert([*fetches, load, publish], [load, transform, check, publish])
