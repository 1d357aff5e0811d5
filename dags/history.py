"""### history: a long range in one run

Give `interval_start` and `interval_end`: the range is cut into months where the API can seek in
time, and every month is one mapped task. What is covered already costs no call.
"""

from datetime import UTC, datetime

import jinja2
from airflow.sdk import DAG

from ledgerhouse.operate.airflow.pipelines import DEFAULT_ARGS, PARAMS, pipeline

with DAG(
    "history",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params=PARAMS,
    template_undefined=jinja2.Undefined,
    default_args=DEFAULT_ARGS,
    tags=["ledgerhouse"],
):
    pipeline(close_gaps=False)
