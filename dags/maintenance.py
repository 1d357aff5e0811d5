"""### maintenance: daily, what is kept elsewhere is removed, and the warehouse file compacted

03:30 UTC, between two syncs. **airflow_rows** is Airflow's own `airflow db clean`, **logs** removes
old logs of tasks and of parsing, **files** call logs and records of attempts that are in the
warehouse and drafts that killed writers have left, **landed** puts old landed files into an archive
of their month, **compact** merges the warehouse's small row groups and copies a file that is mostly
free space. No task waits for another's success, and none takes the slot of the pool `warehouse`:
each takes its turn at the lock. How long things are kept: `[maintenance]` in `accounts.toml`.

Its **alert** sees what no sync can say: that none comes any more.
"""

import jinja2
from airflow.sdk import DAG, CronDataIntervalTimetable

from ledgerhouse.operate.airflow.pipelines import (
    DEFAULT_ARGS,
    SINCE,
    complete_mirror_alert,
    keep_house,
    run_limits,
)

with DAG(
    "maintenance",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("30 3 * * *", timezone="UTC"),
    start_date=SINCE,
    catchup=False,
    max_active_runs=1,
    max_active_tasks=1,  # the machine is the syncs'
    **run_limits("maintenance"),
    template_undefined=jinja2.Undefined,
    default_args=DEFAULT_ARGS,
    tags=["ledgerhouse"],
):
    tasks = keep_house()
    complete_mirror_alert(tasks, tasks)
