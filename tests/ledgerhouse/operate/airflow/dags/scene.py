"""What the DAG files are run with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[5]
HEAVY = ("ccxt", "pandas", "sqlmesh", "great_expectations", "duckdb", "sqlalchemy.dialects.duckdb")

# Parses the DAG folder in a process of its own, as the DAG processor does.
FACTS = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
airflow = set(sys.modules)
bag = DagBag(sys.argv[1])
def fact(task):
    return {
        "kind": type(task).__name__ if not task.is_mapped else task.operator_class.__name__,
        "timeout": task.execution_timeout and task.execution_timeout.total_seconds() / 3600,
        "pool": task.pool, "retries": task.retries, "delay": task.retry_delay.total_seconds(),
        "rule": str(getattr(task.trigger_rule, "value", task.trigger_rule)),
        "teardown": task.is_teardown, "fails_run": task.on_failure_fail_dagrun,
        "mapped": bool(task.is_mapped), "templates": list(task.template_fields),
        "interval": {name: getattr(task, name) for name in ("interval_start", "interval_end")
                     if not task.is_mapped and hasattr(task, name)},
        "upstream": sorted(task.upstream_task_ids), "downstream": sorted(task.downstream_task_ids),
    }
def deadline(alerts):
    for alert in alerts or ():
        return [alert.reference.reference_name, alert.interval.total_seconds() / 3600,
                      type(alert.callback).__name__, alert.callback.path, alert.callback.kwargs]
dags = {name: {
    "timeout": dag.dagrun_timeout and dag.dagrun_timeout.total_seconds() / 3600,
    "deadline": deadline(dag.deadline),
    "timetable": type(dag.timetable).__name__, "cron": getattr(dag.timetable, "expression", None)
        or getattr(dag.timetable, "_expression", None), "zone": str(dag.timezone),
    "catchup": dag.catchup, "active": dag.max_active_runs, "doc": dag.doc_md,
    "start": dag.start_date.isoformat(), "params": sorted(dag.params),
    "tags": sorted(dag.tags), "file": dag.fileloc,
    "groups": {name: sorted(group.children) for name, group in
               dag.task_group.get_task_group_dict().items() if name},
    "tasks": {task.task_id: fact(task) for task in dag.tasks},
} for name, dag in bag.dags.items()}
print(json.dumps({"dags": dags, "errors": bag.import_errors,
                  "heavy": sorted((set(sys.modules) - airflow) & set(sys.argv[2].split()))}))
"""


def run(script: str, home: Path, *arguments: str, **variables: str):
    env = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")} | {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        **variables,
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env=env,
        cwd=home,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])
