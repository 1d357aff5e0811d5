"""Deadlines, live: what hangs is ended and reported, by a real scheduler on LocalExecutor."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import psutil
import pytest

from ledgerhouse.operate.airflow.api import FINAL
from stack.live import running
from tests.helpers.receiver import receiver

pytestmark = pytest.mark.live

# `hung` sleeps with the warehouse in its hands; nothing of its own run can say so. `python`
# is ended by its timeout, `run` by its run's.
DAGS = """
import time
from datetime import datetime, timedelta, timezone
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.definitions.callback import SyncCallback
from airflow.sdk.definitions.deadline import DeadlineAlert, DeadlineReference
from ledgerhouse.airflow import late_alert_dag, maintenance_dag
from ledgerhouse.config import warehouse_path
from ledgerhouse.operate.airflow.context import REPORT_LATE
from ledgerhouse.warehouse.connection import hold

late_alert_dag()
maintenance_dag()

class Hang(BaseOperator):
    def execute(self, context):
        with hold(warehouse_path(), "task hung.hang"):
            time.sleep(600)

with DAG(
    "hung",
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    is_paused_upon_creation=False,
    dagrun_timeout=timedelta(seconds=20),
    deadline=DeadlineAlert(
        DeadlineReference.DAGRUN_QUEUED_AT,
        timedelta(seconds=5),
        SyncCallback(REPORT_LATE, kwargs={"hours": 0}),
    ),
):
    Hang(task_id="hang")

with DAG(
    "slow",
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    is_paused_upon_creation=False,
):
    Hang(task_id="hang", execution_timeout=timedelta(seconds=3))
"""


def wait(until, limit_s: float = 60.0):
    deadline = time.monotonic() + limit_s
    while not (value := until()):
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.3)
    return value


def test_a_run_that_hangs_with_the_warehouse_ends_in_an_alert_and_is_stopped(tmp_path):
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "hung.py").write_text(DAGS)
    now = datetime(2026, 1, 31, 6, tzinfo=UTC)
    with receiver() as web:
        env = {
            "LEDGERHOUSE_DAGS": str(tmp_path / "dags"),
            "AIRFLOW_CONN_ALERTS_SLACK": json.dumps(
                {"conn_type": "slackwebhook", "password": "T/B/x", "host": web.url}
            ),
        }
        var = tmp_path / "var"
        with running(var, now=now, start=now - timedelta(days=2), env=env) as stack:
            stack.rest.wait_for_dags("hung", "slow", "late_alert", "maintenance")
            stack.rest.unpause("late_alert")
            # One channel in the environment, which a callback may read, and one in the database.
            webhook = {"connection_id": "alerts_webhook", "conn_type": "http", "host": web.url}
            stack.rest.call("POST", "/connections", webhook)
            slow, run = stack.rest.trigger("slow"), stack.rest.trigger("hung")
            wait(lambda: web.asked)
            assert stack.rest.run("hung", run)["state"] == "running", "no task of it has ended"
            wait(lambda: len(web.asked) == 2)
            wait(lambda: stack.rest.run("slow", slow)["state"] == "failed")
            (task,) = stack.rest.task_instances("slow", slow)
            assert "AirflowTaskTimeout" in "\n".join(stack.rest.log(task))
            wait(lambda: stack.rest.run("hung", run)["state"] == "failed")
            # And a maintenance, which may clean the rows of the very database that runs it.
            stack.rest.unpause("maintenance")
            kept = stack.rest.trigger("maintenance")
            wait(lambda: stack.rest.run("maintenance", kept)["state"] in FINAL, 150)
            tasks = stack.rest.task_instances("maintenance", kept)
            states = {task["task_id"]: task["state"] for task in tasks}
            work = dict.fromkeys(("airflow_rows", "logs", "files", "landed"), "success")
            assert states == {**states, **work, "complete": "success", "alert": "success"}, states
    late = [body for body in web.took() if "late run" in json.dumps(body)]
    slack, body = sorted(late, key=lambda body: "incidents" in body)
    assert slack["text"].startswith("*Ledgerhouse: late run: hung"), (
        "it came by the callback itself"
    )
    (notice,) = body["incidents"]
    assert (notice["kind"], notice["subject"]) == ("late_run", f"hung {run}")
    assert "held by task hung.hang" in notice["text"]
    assert "hang (running since" in notice["text"]
    assert "/dags/late_alert/runs/" in body["link"], "a task sent it: a callback may not"
    assert (var / "alerts_late_hung.json").exists()


TRIVIAL = """
from datetime import datetime, timezone
from airflow.sdk import DAG
from airflow.providers.standard.operators.empty import EmptyOperator

class Run(EmptyOperator):  # a bare EmptyOperator is ended by the scheduler, without a process
    def execute(self, context):
        pass

with DAG(
    "trivial",
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=timezone.utc),
    is_paused_upon_creation=False,
):
    Run(task_id="run", on_success_callback=print)
"""


def test_a_stopped_scheduler_and_killed_services_come_back_and_the_next_run_is_green(
    tmp_path, monkeypatch
):
    monkeypatch.setattr("stack.live.HEALTH_S", 1.0)
    monkeypatch.setattr("stack.live.SETTLE_S", 45.0)
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags" / "trivial.py").write_text(TRIVIAL)
    now = datetime(2026, 1, 31, 6, tzinfo=UTC)
    env = {
        "LEDGERHOUSE_DAGS": str(tmp_path / "dags"),
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "12",
    }
    notes: list[str] = []
    with running(tmp_path / "var", now=now, start=now - timedelta(days=2), env=env) as stack:
        stack.rest.wait_for_dags("trivial")
        first = {service.name: service for service in stack.processes.services}
        for name in ("scheduler", "dag-processor", "api-server"):
            for process in psutil.Process(first[name].guard.pid).children():
                process.suspend() if name == "scheduler" else process.kill()

        def again() -> bool:
            stack.watch(notes.append)
            ours = [s for s in stack.processes.services if s.guard.poll() is None]
            return len(ours) == len(first) and first["scheduler"] not in ours

        wait(again, 180)
        wait(lambda: stack.watch(notes.append) or stack.rest.healthy(), 90)
        run = stack.rest.trigger("trivial")
        wait(lambda: stack.rest.run("trivial", run)["state"] == "success")
    text = "\n".join(notes)
    assert "scheduler lives, and has done nothing for a minute: it is ended" in text
    for name in ("scheduler", "dag-processor", "api-server"):
        assert f"{name} is started again" in text
