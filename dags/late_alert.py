"""### late_alert: send what the callback of a missed deadline may not

Airflow keeps Connections in its database from callbacks. Where the channels of the alerts may be
there, the report of a late run starts this DAG, whose only task sends it.
"""

from datetime import UTC, datetime

from airflow.sdk import DAG

from ledgerhouse.operate.airflow.pipelines import DEFAULT_ARGS, run_limits, send_late

with DAG(
    "late_alert",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    **run_limits("late_alert"),
    default_args=DEFAULT_ARGS,
    tags=["ledgerhouse"],
):
    send_late()
