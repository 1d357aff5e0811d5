"""The heartbeat: what says that nothing runs, where nothing runs."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from ledgerhouse.operate.alerts.channels import NotDelivered
from ledgerhouse.warehouse.connection import open_warehouse
from tests.ledgerhouse.operate.alerts.scene import HOOK, UTC, connection


def read_through(hours_ago: float) -> None:
    """The warehouse has one account, read until then, and another whose key was refused long ago."""
    with open_warehouse(owner="test") as con:
        con.execute("DELETE FROM ops.coverage")
        for account, hours in (("0xa", hours_ago), ("0xb", 900)):
            con.execute(
                "INSERT INTO ops.coverage BY NAME SELECT 'debank' AS source, ? AS account, "
                "'onchain_transactions' AS dataset, TIMESTAMP '2020-01-01' AS start_ts, "
                "?::TIMESTAMPTZ::TIMESTAMP AS end_ts, end_ts AS read_at, 'end' AS reason, "
                "'r' AS run_id, 'b' AS batch_id, end_ts AS recorded_at",
                [account, datetime.now(UTC) - timedelta(hours=hours)],
            )


@pytest.fixture
def watcher(monkeypatch, web):
    with connection(monkeypatch, "alerts_heartbeat", conn_type="http", host=web.url + HOOK):
        yield web


def test_while_syncs_come_every_run_says_so_and_then_no_more(alert, watcher, logged):
    alert(False)
    assert watcher.got == [], "nothing was ever read"
    read_through(11)
    alert(False), alert(True)
    assert watcher.got == [HOOK, HOOK], "an account that fails is an alert, and no sign of silence"
    read_through(13)
    alert(False)
    assert len(watcher.got) == 2
    alert(False, "[alerts]\nstale_after_hours = 14\n")
    assert len(watcher.got) == 3
    assert HOOK not in logged()


@pytest.mark.parametrize("fault", [500, 302])
def test_a_heartbeat_that_was_not_heard_is_tried_again_and_no_alert_is_sent_twice(
    alert, watcher, fault, logged
):
    read_through(1)
    watcher.get_answers += [fault]
    with pytest.raises(NotDelivered, match="alerts_heartbeat did not hear"):
        alert()
    alert(number=2)
    assert watcher.got == [HOOK, HOOK]
    assert logged().count("WARNING stale coverage") == 1 and HOOK not in logged()


def test_a_watcher_that_is_named_and_not_there_is_said(alert, logged):
    read_through(1)
    alert(False)
    assert "heartbeat" not in logged(), "nobody asked for one"
    alert(False, '[alerts]\nheartbeat = "my_watcher"\n')
    assert "names my_watcher for the heartbeat" in logged()
