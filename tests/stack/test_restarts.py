"""What dies or hangs is started again, and its log stays small."""

from __future__ import annotations

import os
import sys
import time
from unittest.mock import MagicMock

import psutil
import psycopg2
import pytest
import requests

from stack import postgres, settings
from stack.live import Stack, launch, running
from stack.processes import StackFailed, supervised, tail
from tests.helpers.processes import GONE_S, NOW, START, await_lines, belonging_to

pytestmark = pytest.mark.live

EXAMPLE = settings.PROJECT / ".env.example"


def revive_until(processes, done, notes: list[str]) -> None:
    deadline = time.monotonic() + GONE_S
    while not done():
        assert time.monotonic() < deadline, notes
        processes.revive(notes.append)
        time.sleep(0.02)


# --- what dies is started again -------------------------------------------------------------------


def test_a_process_that_dies_is_started_again_and_that_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("stack.processes.BACKOFF_S", 0.1)
    with supervised(tmp_path, "tests") as processes:
        script = "import time; print('ready', flush=True); time.sleep(60)"
        first = processes.start("frail", [sys.executable, "-c", script], os.environ)
        await_lines(first.log, 1)
        (child,) = psutil.Process(first.guard.pid).children()
        child.kill()
        notes: list[str] = []
        revive_until(processes, lambda: first not in processes.services, notes)
        await_lines(first.log, 2)
        (second,) = processes.services
        assert second.guard.poll() is None and len(second.deaths) == 1
    assert "frail ended with code 137" in notes[0] and "1 of at most 5 times" in notes[0]
    assert notes[1] == "frail is started again"
    said = (tmp_path / "logs" / "stack.log").read_text()
    assert all(line.splitlines()[0] in said for line in notes)
    assert not belonging_to(tmp_path)


def test_a_process_that_keeps_dying_is_given_up_loudly(tmp_path, monkeypatch):
    monkeypatch.setattr("stack.processes.BACKOFF_S", 0.01)
    with supervised(tmp_path, "tests") as processes:
        frail = [sys.executable, "-c", "raise SystemExit('the reason')"]
        processes.start("frail", frail, os.environ)
        notes: list[str] = []
        with pytest.raises(StackFailed, match="(?s)ended 6 times in 10 minutes.*the reason"):
            revive_until(processes, lambda: False, notes)
    assert notes.count("frail is started again") == 5
    assert "ERROR it has ended 6 times" in (tmp_path / "logs" / "stack.log").read_text()


def test_postgres_and_a_ticking_sandbox_come_back_where_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr("stack.processes.BACKOFF_S", 0.1)
    base = {**os.environ, "LEDGERHOUSE_VAR": str(tmp_path), "SANDBOX_PORT": "0"}
    base["SANDBOX_PORT"] = str(settings.free_port())
    base.pop("LEDGERHOUSE_STATE_URI", None)
    ours = settings.Settings(tmp_path, settings.read_env(base, EXAMPLE))
    ticking = ["--now", "2026-01-31T06:00:00Z", "--start", "2026-01-11T06:00:00Z", "--tick"]
    with launch(ours, base, "tests", sandbox=ticking, airflow=False) as stack:
        with psycopg2.connect(stack.env["LEDGERHOUSE_STATE_URI"]) as con:
            con.cursor().execute("CREATE TABLE kept (a int)")
        con.close()
        before = list(stack.processes.services)
        for service in before:
            for child in psutil.Process(service.guard.pid).children():
                child.kill()
        notes: list[str] = []
        revive_until(
            stack.processes,
            lambda: not set(map(id, before)) & set(map(id, stack.processes.services)),
            notes,
        )
        revive_until(stack.processes, lambda: postgres.is_ready(stack.sockets), notes)
        revive_until(stack.processes, lambda: _answers(f"{stack.sandbox_url}/_stats"), notes)
        with psycopg2.connect(stack.env["LEDGERHOUSE_STATE_URI"]) as con:
            con.cursor().execute("SELECT * FROM kept")
        con.close()
    assert not belonging_to(tmp_path)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False


def test_a_sandbox_whose_clock_was_set_is_not_started_with_another(tmp_path):
    with running(tmp_path, now=NOW, start=START, airflow=False) as stack:
        (sandbox,) = [s for s in stack.processes.services if s.name == "sandbox"]
        for child in psutil.Process(sandbox.guard.pid).children():
            child.kill()
        with pytest.raises(StackFailed, match="cannot be started again where it was"):
            revive_until(stack.processes, lambda: False, [])


def test_a_scheduler_that_lives_and_does_nothing_is_ended_and_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr("stack.processes.BACKOFF_S", 0.1)
    monkeypatch.setattr("stack.live.HEALTH_S", 0.0)
    with supervised(tmp_path, "tests") as processes:
        script = "import time; print('ready', flush=True); time.sleep(60)"
        first = processes.start(
            "scheduler", [sys.executable, "-c", script], os.environ, drain_s=0.2
        )
        await_lines(first.log, 1)
        (child,) = psutil.Process(first.guard.pid).children()
        child.suspend()
        health = {"scheduler": "healthy"}
        rest = MagicMock(health=lambda: health)
        notes: list[str] = []
        stack = Stack(None, {}, processes, rest, "", tmp_path, lambda _: None)
        for _ in range(5):
            stack.watch(notes.append)
        health["scheduler"] = "unhealthy"
        for _ in range(9):
            stack.watch(notes.append)  # it has only begun
        assert notes == []
        monkeypatch.setattr("stack.live.SETTLE_S", 0.0)
        stack.watch(notes.append)
        health["scheduler"] = "healthy"  # it was a laptop's sleep
        stack.watch(notes.append)
        assert notes == []
        health["scheduler"] = "unhealthy"
        deadline = time.monotonic() + GONE_S
        while first in processes.services and time.monotonic() < deadline:
            stack.watch(notes.append)
            time.sleep(0.02)
        await_lines(first.log, 2)
    assert "lives, and has done nothing" in notes[0] and notes[-1] == "scheduler is started again"
    assert not belonging_to(tmp_path)


# --- logs of the processes ------------------------------------------------------------------------


def test_the_log_of_a_process_is_rotated_while_it_holds_it(tmp_path, monkeypatch):
    monkeypatch.setenv("LEDGERHOUSE_ACCOUNTS", str(tmp_path / "accounts.toml"))
    text = "[maintenance]\nprocess_log_megabytes = 1\nprocess_log_files = 2\n"
    (tmp_path / "accounts.toml").write_text(text)
    script = (
        "import time\nfor n in range(60_000): print(f'{n:06} ' + 'x' * 93, flush=n % 1000 == 0)\n"
        "print('ready', flush=True)\ntime.sleep(60)"
    )
    with supervised(tmp_path, "tests") as processes:
        service = processes.start("chatty", [sys.executable, "-c", script], os.environ)
        deadline = time.monotonic() + GONE_S
        while "ready" not in tail(service.log, 3) and time.monotonic() < deadline:
            time.sleep(0.05)
    files = sorted((tmp_path / "logs").glob("chatty.log*"))
    assert [file.name for file in files] == ["chatty.log", "chatty.log.1", "chatty.log.2"]
    assert all(file.stat().st_size <= 1_000_000 for file in files)
    lines = "".join(file.read_text() for file in reversed(files)).splitlines()
    numbers = [int(line[:6]) for line in lines if line[:6].isdigit() and len(line) == 100]
    assert numbers[-1] == 59_999 and numbers == list(range(numbers[0], 60_000)), "no line is lost"
