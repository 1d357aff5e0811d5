"""Late runs: reported by no task of theirs."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from extract.core.interval import iso
from ledgerhouse.warehouse.connection import hold
from tests.ledgerhouse.operate.alerts.scene import NOW, kinds


@pytest.fixture
def late(tmp_path, monkeypatch):
    """late() is what Airflow calls when a run's deadline is missed, as its executor calls it."""
    from airflow.sdk.execution_time.callback_supervisor import execute_callback

    from ledgerhouse.operate.airflow.context import REPORT_LATE

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))

    def report(dag="sync", run="scheduled__1", state="running") -> bool:
        run = {"dag_id": dag, "dag_run_id": run, "state": state, "queued_at": iso(NOW)}
        kwargs = {"hours": 3, "context": {"dag_run": run}}
        log = SimpleNamespace(**dict.fromkeys(("debug", "info", "exception"), lambda *_, **__: 0))
        return execute_callback(REPORT_LATE, kwargs, "", None, log)[0]

    return report


def test_a_run_that_hangs_with_the_warehouse_is_reported_and_named(late, webhook, tmp_path):
    with hold(tmp_path / "warehouse.duckdb", "task sync.transform of run scheduled__1"):
        assert late()
    ((_, _, body, _),) = webhook.asked
    (notice,) = body["incidents"]
    assert (notice["kind"], notice["severity"]) == ("late_run", "warning")
    assert "has not succeeded 3 hours after it was queued" in notice["text"]
    assert "held by task sync.transform of run scheduled__1 (process" in notice["text"]
    assert notice["todo"] and not (tmp_path / "warehouse.duckdb").exists(), "it opens nothing"


def test_nobody_is_blamed_for_a_lock_that_is_free(late, webhook, tmp_path):
    with hold(tmp_path / "warehouse.duckdb", "task sync.load"):
        pass
    assert late()
    assert "held by" not in webhook.took()[0]["incidents"][0]["text"]


def test_a_late_run_is_sent_once_and_that_it_is_over_by_the_dags_next_alert(alert, late, webhook):
    assert late() and late()
    alert(False), alert(False)
    assert kinds(webhook) == [
        ("late_run", event, "sync scheduled__1") for event in ("opened", "resolved")
    ]


def test_a_late_run_after_a_late_one_is_another_incident(late, webhook):
    late(), late(run="scheduled__2")
    assert [subject for *_, subject in kinds(webhook)] == ["sync scheduled__1", "sync scheduled__2"]


def test_who_was_down_is_told_by_the_next_alert_of_any_dag(alert, late, webhook, tmp_path):
    webhook.answers.append(500)
    assert not late(dag="history"), "the callback failed, and Airflow shows it so"
    alert(False), alert(False)
    assert kinds(webhook) == [("late_run", "opened", "history scheduled__1")]
    assert (tmp_path / "alerts_late_history.json").exists(), "no alert of a history has come"


def test_a_file_of_a_late_run_that_nobody_can_read_stops_no_alert(alert, webhook, tmp_path):
    for name, text in (("sync", ""), ("history", "[1]"), ("replay", '{"id": "1"}')):
        (tmp_path / f"alerts_late_{name}.json").write_text(text)
    alert()
    assert [kind for kind, *_ in kinds(webhook)] == ["stale_coverage"]
