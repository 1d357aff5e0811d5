"""### weekly_refresh: read a part of the history again, and rebuild curated to compare it

Sundays at 02:00 UTC. Nothing is wiped: a part of the history is **read again**, also where it is
covered, and what the vendor answers differently by now is loaded like any other row. **report**
says how many rows are new, changed, vanished and the same (`ops.refreshes`), lists those that
vanished, and warns of new ones: they came later than any lookback reached. **rebuild** builds
curated from raw a second time, separately, and compares it with production row by row; a
difference fails the run, naming table, day, key and both values.

`scope`: **quarter** (default) is the fourth part of an account's months that was read longest ago,
by `ops.coverage`: in four weeks every month has been read. An API that cannot seek (Coinbase) is
read whole, every fourth week. **full** is everything. Or give `interval_start` and `interval_end`.
Only what is covered is read; holes are the sync's.

Before the first sync has published there is nothing to compare: then the run skips itself.

What it costs is estimated in the log of the plan, and counted in `ops.refreshes`. Against a full
refresh a day, reading everything once a week caps the savings at 1 - 1/7 = 86 %, a quarter of it
at 1 - 1/28 = 96 %.
"""

import jinja2
from airflow.sdk import DAG, CronDataIntervalTimetable, TaskGroup

from ledgerhouse.operate.airflow.operators.refresh import PARAMS
from ledgerhouse.operate.airflow.pipelines import (
    DEFAULT_ARGS,
    INTERVAL_READ,
    SINCE,
    books_first,
    complete_mirror_alert,
    plan_fetch_load_again,
    rebuild_before_publish,
    report_refresh,
    run_limits,
    transform_check_publish,
)

with DAG(
    "weekly_refresh",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 2 * * 0", timezone="UTC"),
    start_date=SINCE,
    catchup=False,
    max_active_runs=1,
    **run_limits("weekly_refresh"),
    params=PARAMS,
    template_undefined=jinja2.Undefined,
    default_args=DEFAULT_ARGS,
    tags=["ledgerhouse"],
):
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
