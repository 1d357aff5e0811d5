"""Runs that are late: reported when a deadline of Airflow is missed, by no task of the run.

The scheduler starts `report_late_run` in a process of its own (a SyncCallback, which needs no
triggerer). The run may hang with the warehouse in its hands, so nothing here opens it; whose turn
it is, is read from its lock. The alert of the DAG's next run that gets so far says that it is over.

A callback may not read Connections of Airflow's database. Where there may be some, it starts a run
of the DAG `late_alert`, whose task may: `send_late_runs`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ledgerhouse.config import AccountsFile, Rules, var_dir, warehouse_path
from ledgerhouse.operate.airflow.api import AirflowApi
from ledgerhouse.operate.alerts import unrecorded
from ledgerhouse.operate.alerts.channels import LOG, NotDelivered, channels, deliverer
from ledgerhouse.warehouse.connection import holder, is_held

log = logging.getLogger(__name__)
LATE_ALERT = "late_alert"
AT_WORK = ("running", "queued", "up_for_retry", "scheduled")


def late_file(dag_id: str) -> Path:
    """The file that is there while a run of the DAG is late."""
    return var_dir() / f"alerts_late_{dag_id}.json"


def report_late_run(hours: int, context: Mapping[str, Any]) -> None:
    """Send that a run has not succeeded `hours` after it was queued.

    `context` is what Airflow hands to callbacks of deadlines: `dag_run` as its REST API shows it.
    Raises NotDelivered where a channel did not take it; the next alert of any run tries again.
    """
    run = context["dag_run"]
    dag_id, run_id = run["dag_id"], run["dag_run_id"]
    denied: list[str] = []
    senders = channels(rules_or_defaults(log), log, denied)
    senders[LOG] = (lambda message: log.warning("%s", "\n".join(message.lines))), ()
    late = unrecorded.open_incident(
        late_file(dag_id),
        senders,
        deliverer(senders, log, dag_id, run_id),
        kind="late_run",
        severity="warning",
        subject=f"{dag_id} {run_id}",
        text=_words(run, hours),
        now=datetime.now(UTC),
    )
    if denied:
        _start_late_alert(denied)
    if late:
        raise NotDelivered(f"{', '.join(late)} did not take that {dag_id} {run_id} is late")


def send_late_runs(dag_id: str, run_id: str) -> int:
    """Send what is late to the channels that do not know yet, from a task; how many lasted.

    Raises NotDelivered where a channel did not take it.
    """
    senders, failed = channels(rules_or_defaults(log), log), set()
    files = sorted(var_dir().glob("alerts_late_*.json"))
    for file in files:
        failed |= set(unrecorded.send_again(file, senders, deliverer(senders, log, dag_id, run_id)))
    if failed:
        raise NotDelivered(f"{', '.join(sorted(failed))} did not take what is late")
    return len(files)


def rules_or_defaults(log: Any) -> Rules:
    """[alerts]; the defaults, with an error in the log, where it is wrong: alerts go all the same."""
    try:
        return AccountsFile.read(what="alerts").rules()
    except ValueError as error:
        log.error("%s. Until it is fixed, [alerts] is as if it were not there", error)
        return Rules()


def _start_late_alert(denied: list[str]) -> None:
    """A task may read the Connections that a callback may not; where none can be started, what is
    left is sent by the next alert of any run."""
    try:
        airflow = AirflowApi.for_task()
        run = airflow.trigger(LATE_ALERT)
        airflow.close()
    except Exception as error:
        log.error(
            "%s cannot be read by a callback, and no run of %s can be started (%s: %s): the next "
            "alert of any run sends it. Put the Connection into the environment of the scheduler "
            "(AIRFLOW_CONN_…) to have it sent at once",
            ", ".join(denied),
            LATE_ALERT,
            type(error).__name__,
            error,
        )
    else:
        log.info("%s may be in Airflow's database: %s of %s sends", denied, run, LATE_ALERT)


def _words(run: Mapping[str, Any], hours: int) -> str:
    text = (
        f"it has not succeeded {hours} hours after it was queued ({run.get('queued_at')}); "
        f"its state is {run.get('state')}"
    )
    if at_work := _tasks(run["dag_id"], run["dag_run_id"]):
        text += f". At work, or waiting: {at_work}"
    if is_held(warehouse_path()):
        text += f". The warehouse is held by {holder(warehouse_path())}"
    return text


def _tasks(dag_id: str, run_id: str) -> str:
    """The run's tasks that have not ended, oldest first; '' where Airflow cannot be asked."""
    try:
        airflow = AirflowApi.for_task()
        tasks = airflow.task_instances(dag_id, run_id)
        airflow.close()
    except Exception as error:  # what is late is said without it
        log.warning("which tasks are at work cannot be asked: %s: %s", type(error).__name__, error)
        return ""
    left = sorted(
        (task.get("start_date") or "~", task["task_id"], task["state"])
        for task in tasks
        if task["state"] in AT_WORK
    )
    return ", ".join(
        f"{name} ({state}{'' if since == '~' else f' since {since[:19]}Z'})"
        for since, name, state in left[:5]
    )


__all__ = ["late_file", "report_late_run", "rules_or_defaults", "send_late_runs"]
