"""Publishing after the checks: only what has passed, and the marks of its days."""

from __future__ import annotations

import json
import random
import shutil
from datetime import date, datetime

import pytest

from extract.core.interval import joined
from ledgerhouse.check.checkpoints import CheckResult, record
from ledgerhouse.publish import publish as publishing
from ledgerhouse.publish.books import open_books
from ledgerhouse.publish.gate import NotChecked, publish_checked, require_passed
from ledgerhouse.transform import touched_days
from ledgerhouse.transform.sqlmesh_context import FILE
from ledgerhouse.transform.touched_days import Superseded, marks_of, touched, transform
from ledgerhouse.warehouse.connection import open_warehouse
from tests.ledgerhouse.publish.scene import (
    DAY,
    Killed,
    checked,
    contents,
    mark,
    months,
    published,
    stamps,
    sync,
)


# ---- after the checks
@pytest.fixture
def var(built, tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    shutil.copy(built, tmp_path)
    return tmp_path


def marks_left() -> set[str]:
    with open_warehouse(owner="test") as con:
        return {b for (b,) in con.execute("SELECT batch_id FROM ops.touched_days").fetchall()}


def test_what_the_checks_have_passed_is_published_and_its_marks_go(var):
    checked("r1", critical=True, warning=False)
    publish_checked(["b0"], run_id="r1", owner="test")
    assert marks_left() == set()
    with open_warehouse(owner="test") as con:
        assert published(var / "published") == contents(con)
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    checked("r2", critical=True)
    done = publish_checked(["b1"], run_id="r2", owner="test")
    assert months(done, "curated.tx_unified") == ["02"], "days come from the marks"


def test_a_failed_or_missing_check_publishes_nothing_and_keeps_the_marks(var):
    checked("r1", critical=True)
    publish_checked(["b0"], run_id="r1", owner="test")
    before = stamps(var / "published")
    with open_warehouse(owner="test") as con:
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    with pytest.raises(NotChecked, match="no check is recorded for run r2"):
        publish_checked(["b1"], run_id="r2", owner="test")
    checked("r2", critical=False, warning=True)
    with pytest.raises(NotChecked, match="1 critical expectation.*for run r2"):
        publish_checked(["b1"], run_id="r2", owner="test")
    assert stamps(var / "published") == before and marks_left() == {"b1"}


def test_the_decision_is_made_of_severity_and_success_and_names_what_failed():
    def result(severity: str, success: bool) -> CheckResult:
        return CheckResult("raw.t", f"a_{severity}", severity, success)

    require_passed([result("critical", True), result("warning", False)], "r1")
    with pytest.raises(NotChecked, match="no check is recorded for run r1") as refused:
        require_passed([], "r1")
    assert refused.value.failed == ()
    failed = result("critical", False)
    with pytest.raises(
        NotChecked, match=r"1 critical .* for run r1: raw.t a_critical\."
    ) as refused:
        require_passed([result("info", True), failed, result("warning", False)], "r1")
    assert refused.value.failed == (failed,)


def test_the_days_given_are_published_and_not_computed_again(var, monkeypatch):
    monkeypatch.setattr(touched_days, "touched", None)
    checked("r1", critical=True)
    publish_checked(["b0"], {}, run_id="r1", owner="test")
    with open_warehouse(owner="test") as con:
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    checked("r2", critical=True)
    february = (date(2031, 2, 28), date(2031, 3, 1))
    done = publish_checked(["b1"], {"curated.tx_unified": [february]}, run_id="r2", owner="test")
    assert months(done, "curated.tx_unified") == ["02"] and marks_left() == set()
    assert months(done, "curated.daily_flows") == []


def test_days_that_another_run_has_loaded_since_wait_for_their_own_check(var):
    with open_warehouse(owner="test") as con:
        mark(con, sync(con, 1, {date(2031, 2, 28): 1}, date(2031, 4, 28)), "b1")
    checked("r1", critical=True)
    with pytest.raises(Superseded, match="1 batch.*not transformed and checked yet"):
        publish_checked(["b0"], run_id="r1", owner="test")
    assert not (var / "published").exists() and marks_left() == {"b0", "b1"}
    checked("r2", critical=True)
    publish_checked(["b0", "b1"], run_id="r2", owner="test")
    assert marks_left() == set()


def test_a_publish_that_dies_keeps_the_marks(var, monkeypatch):
    checked("r1", critical=True)
    with monkeypatch.context() as patched:
        patched.setattr(publishing, "build", lambda *_: (_ for _ in ()).throw(Killed))
        with pytest.raises(Killed):
            publish_checked(["b0"], run_id="r1", owner="test")
    assert marks_left() == {"b0"}
    publish_checked(["b0"], run_id="r1", owner="test")
    assert marks_left() == set()


@pytest.mark.slow
def test_the_days_of_the_marks_are_all_that_the_real_transform_changed(tmp_path, monkeypatch):
    """Also where a row changes another month: a fill the day before its entry."""
    from tests.helpers.recomputed import load_batch, money
    from tests.helpers.recomputed import put as put_rows

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    path, root = tmp_path / FILE, tmp_path / "published"
    entry = {
        "source": "kraken",
        "account": "main",
        "entry_id": "e99",
        "asset": "BTC",
        "ts": datetime(2077, 3, 1, 10),
        "kind": "trade",
        "is_settled": True,
        "order_id": "o9",
        **money("amount", "1"),
    }
    fill = {
        "source": "kraken",
        "account": "main",
        "symbol": "BTC/USD",
        "trade_id": "t99",
        "ts": datetime(2077, 2, 28, 20),
        "order_id": "o9",
        **money("price", "7"),
    }
    for number, (table, row) in enumerate(
        [("exchanges_ledger", entry), ("exchanges_trades", fill)]
    ):
        with open_warehouse(path, owner="test") as con:
            if number == 0:
                load_batch(con, random.Random(11), datetime(2077, 2, 24), number)
            put_rows(con, table, [row], f"c{number}")
        done = transform(path, owner="test")
        with open_warehouse(path, owner="test") as con:
            assert dict(done.changed) == {
                table: tuple(joined((day, day + DAY) for day in days))
                for table, days in touched(con, done.batches)[1].items()
            }
            record(
                con, [CheckResult("curated.tx_unified", "a", "critical", True)], "r", done.spans[0]
            )
        publish_checked(done.batches, done.changed, run_id="r", owner="test")
        with open_warehouse(path, owner="test") as con:
            assert published(root) == contents(con), f"after batch {number}"
            assert marks_of(con) == ()
    with open_books(root) as books:
        assert books.execute(
            "SELECT price, fills FROM curated.tx_unified WHERE txid = 'e99'"
        ).fetchall() == [(7, 1)]


@pytest.mark.slow
def test_the_tasks_hand_on_the_days_that_the_transform_computed(tmp_path, monkeypatch):
    """Transform and publish as Airflow calls them: what goes between them is JSON."""
    from types import SimpleNamespace

    from airflow.sdk.exceptions import AirflowFailException

    from ledgerhouse.operate.airflow.operators import load
    from tests.helpers.recomputed import load_batch

    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    monkeypatch.setattr(load, "gc_off", lambda: None)  # this process goes on
    with open_warehouse(owner="test") as con:
        load_batch(con, random.Random(11), datetime(2077, 2, 24), 0)
    xcom: dict[str, object] = {}

    def context(task: str) -> dict[str, object]:
        names = {"dag_id": "sync", "run_id": "r1", "task_id": task, "map_index": -1}
        pull = SimpleNamespace(xcom_pull=lambda task_ids: xcom[task_ids])
        return {"ti": SimpleNamespace(**names, try_number=1, **vars(pull))}

    done = load.TransformOperator(task_id="transform").execute(context("transform"))
    xcom["transform"] = json.loads(json.dumps(done))
    publish_task = load.PublishOperator(task_id="publish", transform="transform")
    checked("r1", critical=False)
    with pytest.raises(AirflowFailException, match="1 critical expectation.*for run r1"):
        publish_task.execute(context("publish"))
    checked("r1", critical=True)
    with monkeypatch.context() as patched:
        patched.setattr(touched_days, "touched", None)
        first = publish_task.execute(context("publish"))
    assert first["rows"] and marks_left() == set()
    with open_warehouse(owner="test") as con:
        assert published(tmp_path / "published") == contents(con)
        mark(con, ["2077-02-25"], "b9")
    # A run that an older version has transformed does not say which days changed.
    xcom["transform"] = {"batches": ["b9"], "spans": []}
    again = publish_task.execute(context("publish"))
    with open_books(tmp_path / "published") as con:
        assert con.execute(
            "SELECT month FROM published_files WHERE table_name = 'curated.tx_unified' "
            "AND generation = ?",
            [again["generation"]],
        ).fetchall() == [(date(2077, 2, 1),)]
    assert marks_left() == set()
