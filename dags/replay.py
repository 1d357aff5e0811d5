"""### replay: the warehouse again, from what was landed, without a call

Rebuilds raw, history, coverage and curated from the landing alone: after a change of a mapping, or
when the warehouse file is lost. The task `replay` logs what is not as it was; the old warehouse
stays in place until the new one is whole. Where landed files are missing or damaged nothing is
done, unless the run is triggered with `accept_less`. `make replay` does the same from a terminal.
"""

from datetime import UTC, datetime

import jinja2
from airflow.sdk import DAG, TaskGroup

from ledgerhouse.operate.airflow.context import REPLAY_PARAMS
from ledgerhouse.operate.airflow.pipelines import (
    TIMEOUT,
    complete_mirror_alert,
    replay_landing,
    run_limits,
    transform_check_publish,
)

with DAG(
    "replay",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    **run_limits("replay"),
    params=REPLAY_PARAMS,
    template_undefined=jinja2.Undefined,
    default_args=TIMEOUT,
    tags=["ledgerhouse"],
):
    with TaskGroup("sources", prefix_group_id=False):
        replay = replay_landing()
    with TaskGroup("curated", prefix_group_id=False):
        transform, check, publish = transform_check_publish(replay)
    complete_mirror_alert([replay, publish], [replay, transform, check, publish])
