"""`airflow warehouse health`."""

from __future__ import annotations

import json
from datetime import timedelta
from types import SimpleNamespace

import pytest

from extract.core.interval import utc
from ledgerhouse.operate.commands import health
from tests.ledgerhouse.operate.commands.scene import NOW

pytestmark = pytest.mark.slow


def test_health_is_a_line_and_an_exit_code_by_the_books_alone(airflow, kept, tmp_path, monkeypatch):
    """For cron and monitors: it is to be believed while nothing of Airflow runs."""
    code, out, _ = airflow("warehouse", "health")
    assert code == 1 and "no sync has come for" in out and "12 hours are allowed" in out
    assert "read through 2024-11-22T12:00:00Z" in out and "scheduler" in out
    rules = tmp_path / "accounts.toml"
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(rules))
    for age, allowed, wanted in ((11, 12, 0), (13, 12, 1), (13, 14, 0)):
        rules.write_text(f"[alerts]\nstale_after_hours = {allowed}\n")
        now = utc(NOW) + timedelta(hours=age)
        monkeypatch.setattr(health, "datetime", SimpleNamespace(now=lambda _, now=now: now))
        code, out, _ = airflow("warehouse", "health", "-o", "json")
        assert (code, json.loads(out)["alive"]) == (wanted, not wanted)
    rules.write_text("[alerts]\nstale_after_hours = 0\n")
    code, _, err = airflow("warehouse", "health")
    assert code == 1 and "stale_after_hours is 0; write hours" in err
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path / "nothing"))
    rules.write_text("")
    code, _, err = airflow("warehouse", "health")
    assert code == 1 and "no published books" in err
