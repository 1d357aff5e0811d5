"""What a task fails with is in the run log, wherever it was raised."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from ledgerhouse.operate.airflow.operators import load, plan, refresh
from ledgerhouse.operate.airflow.operators.fetch import FetchOperator
from ledgerhouse.operate.run_log import attempts

WRONG = "2026-02-31T00:00:00Z"
INTERVAL = {"interval_start": "", "interval_end": ""}
PLANNED = {"connection": "debank_x", "history_start": "2024-01-01T00:00:00Z", "close_gaps": True}
FETCH = {
    "source": "debank",
    "account": "0x1",
    "connection": "debank_x",
    "interval_start": "2026-01-02T00:00:00Z",
    "interval_end": WRONG,
    "read_from": "2026-01-01T00:00:00Z",
    "snapshot": False,
}


def context(params: dict, pulled: object = None) -> dict:
    return {
        "params": params,
        "dag_run": SimpleNamespace(run_type="manual"),
        "ti": SimpleNamespace(
            dag_id="sync",
            run_id="r1",
            task_id="t",
            map_index=-1,
            try_number=1,
            xcom_pull=lambda **_: pulled,
            xcom_push=lambda **_: None,
        ),
    }


@pytest.mark.parametrize(
    ("make", "params", "accounts", "words"),
    [
        (lambda: plan.PlanOperator(task_id="t", **INTERVAL, **PLANNED), {}, "", "no data interval"),
        (
            lambda: plan.PlanOperator(task_id="t", **INTERVAL, **PLANNED),
            {"interval_start": "2026-01-01T00:00:00Z", "interval_end": "2026-01-02T00:00:00Z"},
            "[[account",
            "accounts.toml",
        ),
        (lambda: plan.RefuseOperator(task_id="t", why="no such source"), {}, "", "no such source"),
        (
            lambda: refresh.RefreshPlanOperator(task_id="t", connection="debank_x"),
            {"interval_start": WRONG},
            "",
            "give both params",
        ),
        (
            lambda: refresh.RefreshReportOperator(task_id="t", plans=["p"], **INTERVAL),
            {"interval_start": WRONG},
            "",
            "give both params",
        ),
        (lambda: FetchOperator(task_id="t", **FETCH), {}, "", WRONG),
        (
            lambda: load.CheckOperator(task_id="t", transform="transform", **INTERVAL),
            {},
            "",
            "no data interval",
        ),
    ],
)
def test_an_error_before_the_work_begins_leaves_its_words(
    tmp_path, monkeypatch, make, params, accounts, words
):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    (tmp_path / "accounts.toml").write_text(accounts)
    with pytest.raises(Exception, match=words):
        make().execute(context(params))
    _, known = attempts.read(tmp_path / "attempts")
    ((key, record),) = known.items()
    assert key == ("sync", "r1", "t", -1, 1)
    assert record["state"] == "failed" and words in record["error"]
    if isinstance(made := make(), FetchOperator):
        assert (record["source"], record["account"]) == (made.source, made.account)
