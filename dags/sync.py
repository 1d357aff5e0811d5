"""### sync: every six hours, what is new since the last sync

For each account: **plan** what is missing (from the coverage, so a hole that a failed run left
is closed too), **fetch** it into the landing, **load**, **transform** the days that were
touched, **check**. A failed source does not keep the others from arriving, but fails the run.

Trigger by hand with `interval_start` and `interval_end` to fetch a span of your own.
"""

import os
from datetime import datetime, timedelta, timezone

import jinja2
from airflow.sdk import DAG, CronDataIntervalTimetable

from extract.operators import PARAMS, pipeline

with DAG(
    "sync",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("0 */6 * * *", timezone="UTC"),
    start_date=datetime.fromisoformat(
        os.environ.get("SYNC_START_DATE") or "2020-01-01").replace(tzinfo=timezone.utc),
    catchup=False,           # one run closes the whole hole after downtime
    max_active_runs=1,
    params=PARAMS,
    template_undefined=jinja2.Undefined,   # a missing interval gets our message, not jinja's
    default_args={
        "retries": 2, "retry_exponential_backoff": True,
        "retry_delay": timedelta(seconds=float(os.environ.get("RETRY_DELAY_S") or 20)),
    },
    tags=["ledgerhouse"],
):
    pipeline(whole=True)
