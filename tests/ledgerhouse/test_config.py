"""The settings: read when they are asked for, each part of the file judged on its own, once written."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ledgerhouse import config
from ledgerhouse.config import AccountsFile
from ledgerhouse.transform.sqlmesh_context import FIRST_DAY

ROOT = Path(__file__).parents[2]
ACCOUNT = '[[account]]\nsource = "coinbase"\naccount = "a"\nconnection = "c"\n'


def test_the_environment_is_read_when_a_setting_is_asked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("LEDGERHOUSE_VAR", raising=False)
    monkeypatch.delenv("LEDGERHOUSE_ACCOUNTS", raising=False)
    assert config.accounts_file() == ROOT / "accounts.toml" and config.var_dir() == ROOT / "var"
    assert config.state_uri() is None
    assert config.sync_start() == datetime(2020, 1, 1, tzinfo=UTC)
    assert config.retry_delay() == timedelta(seconds=20)
    for name, value in {
        "LEDGERHOUSE_ACCOUNTS": tmp_path / "mine.toml",
        "LEDGERHOUSE_VAR": tmp_path,
        "LEDGERHOUSE_STATE_URI": "postgresql://p@/s?host=/run",
        "SYNC_START_DATE": "2024-05-06",
        "RETRY_DELAY_S": "0.5",
    }.items():
        monkeypatch.setenv(name, str(value))
    assert config.accounts_file() == tmp_path / "mine.toml"
    assert config.warehouse_path() == tmp_path / "warehouse.duckdb"
    assert config.state_uri() == "postgresql://p@/s?host=/run"
    assert config.sync_start() == datetime(2024, 5, 6, tzinfo=UTC)
    assert config.retry_delay() == timedelta(seconds=0.5)


def test_it_is_not_read_at_import():
    code = "import os; os.environ = None; import ledgerhouse.config"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, env=dict(os.environ))


@pytest.mark.parametrize(
    "wrong, part",
    [
        ("[budget]\nx = 1", "limits"),
        ("[alerts]\nx = 1", "rules"),
        ("[checks]\noff = true", "checks"),
        ("[checks]\nof = 'hold'", "checks"),
        ("[deadlines]\ntask_hours = 0", "deadlines"),
        ("[deadlines]\ntask_hours = 8785", "deadlines"),
        ("[deadlines]\ntask_hours = 1.5", "deadlines"),
        ("[deadlines]\ntask_hours = true", "deadlines"),
        ("[deadlines]\ntask = 1", "deadlines"),
        ("[maintenance]\ncall_log_days = 31", "maintenance"),
        ("[[account]]", "accounts"),
    ],
)
def test_what_is_wrong_in_one_part_costs_no_other(wrong, part, tmp_path):
    (tmp_path / "accounts.toml").write_text(ACCOUNT + wrong)
    file = AccountsFile.read(tmp_path / "accounts.toml")
    for name in ("limits", "rules", "checks", "deadlines", "maintenance", "accounts"):
        if name == part:
            with pytest.raises(ValueError, match=re.escape(str(file.path))):
                getattr(file, name)()
        else:
            getattr(file, name)()
    assert [account.account for account in file.entries()[0]] == ["a"]


def test_sqlmesh_settings_that_cannot_import_ours_are_the_same():
    text = (ROOT / "sqlmesh_project/config.py").read_text()
    assert re.findall(r'"memory_limit": "(.*?)"', text) == [config.MEMORY_LIMIT]
    assert re.findall(r'^FIRST_DAY = "(.*?)"', text, re.MULTILINE) == [str(FIRST_DAY)]
