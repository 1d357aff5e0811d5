"""Every task and every run ends: deadlines are settings."""

from __future__ import annotations

from pathlib import Path

from tests.helpers.books import ACCOUNTS_TOML
from tests.ledgerhouse.operate.airflow.dags.scene import FACTS, ROOT, run


def test_every_task_and_every_run_ends(parsed):
    """A task without a limit holds its pool's only slot forever, and then no task of any DAG runs."""
    for name, dag in parsed["dags"].items():
        assert dag["timeout"] == (24 if name == "sync" else 168), name
        for task, fact in dag["tasks"].items():
            long = fact["kind"] in ("FetchOperator", "ReplayOperator")
            assert fact["timeout"] == (12 if long else 2), f"{name}.{task}"


def test_a_late_run_is_reported_by_a_callback_that_needs_no_triggerer(parsed):
    from ledgerhouse.operate.airflow.late_run import report_late_run

    path = f"{report_late_run.__module__}.{report_late_run.__qualname__}"
    for name, dag in parsed["dags"].items():
        hours = 3 if name == "sync" else 24
        assert dag["deadline"] == [
            "DagRunQueuedAtDeadline",
            hours,
            "SyncCallback",
            path,
            {"hours": hours},
        ], name


def with_deadlines(text: str, home: Path, **variables: str):
    accounts = home / "accounts.toml"
    accounts.write_text(ACCOUNTS_TOML + "\n" + text)
    return run(
        FACTS, home, str(ROOT / "dags"), "", LEDGERHOUSE_ACCOUNTS=str(accounts), **variables
    )["dags"]


def test_deadlines_are_settings(tmp_path):
    text = "[deadlines]\ntask_hours = 1\nlong_task_hours = 30\nsync_hours = 40\n"
    dags = with_deadlines(text + "sync_late_hours = 0\nlate_hours = 5\n", tmp_path)
    assert (dags["sync"]["timeout"], dags["sync"]["deadline"]) == (40, None)
    assert dags["history"]["deadline"][1] == 5 and dags["history"]["timeout"] == 168
    tasks = dags["sync"]["tasks"]
    assert (tasks["load"]["timeout"], tasks["fetch_debank"]["timeout"]) == (1, 30)


def test_wrong_deadlines_leave_the_defaults_and_a_task_that_says_so(tmp_path):
    dags = with_deadlines("[deadlines]\ntask_hours = 0\n", tmp_path)
    assert dags["sync"]["tasks"]["load"]["timeout"] == 2, "an account is synced all the same"
    assert dags["sync"]["tasks"]["deadlines_of_accounts_toml"]["downstream"] == ["complete"]


def test_an_executor_that_runs_no_callbacks_gets_no_deadline(tmp_path):
    """Its scheduler would end at the first missed one: queue_workload raises NotImplementedError."""
    executor = "airflow.providers.cncf.kubernetes.executors.kubernetes_executor.KubernetesExecutor"
    dags = with_deadlines("", tmp_path, AIRFLOW__CORE__EXECUTOR=executor)
    assert dags["sync"]["deadline"] is None and dags["sync"]["timeout"] == 24
