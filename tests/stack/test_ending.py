"""Whatever ends the supervisor, nothing it started outlives it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import MagicMock

import psycopg2
import pytest
import requests

from stack import commands, settings
from stack.live import running
from stack.lock import Holder, StackBusy, holder, lock
from stack.processes import StackFailed, Stopped, supervised
from tests.helpers.processes import GONE_S, NOW, START, await_lines, belonging_to

pytestmark = pytest.mark.live

LONG = "a folder with a name so long that no unix socket fits below it " * 2

# Starts a stack without Airflow, says so, and waits to be killed.
SUPERVISOR = """
import sys, time
from datetime import datetime, timedelta, timezone
from stack.live import running
now = datetime(2026, 1, 31, 6, tzinfo=timezone.utc)
with running(sys.argv[1], now=now, start=now - timedelta(days=20), airflow=False) as stack:
    print("ready", stack.sockets, flush=True)
    time.sleep(60)
"""


def wait_until_gone(var: Path) -> list[str]:
    deadline = time.monotonic() + GONE_S
    while belonging_to(var) and time.monotonic() < deadline:
        time.sleep(0.1)
    return belonging_to(var)


# --- processes ------------------------------------------------------------------------------------


def test_postgres_and_the_sandbox_run_and_leave_nothing(tmp_path):
    """In a folder with spaces and a path longer than a unix socket's may be."""
    var = tmp_path / LONG
    with running(var, now=NOW, start=START, airflow=False) as stack:
        with psycopg2.connect(stack.env["LEDGERHOUSE_STATE_URI"]) as con:
            assert con.info.dbname == "sqlmesh"
        con.close()
        assert requests.get(f"{stack.sandbox_url}/_stats", timeout=10).ok
        sockets = stack.sockets
        assert sockets.stat().st_mode & 0o077 == 0
        with (
            pytest.raises(StackBusy, match="tests"),
            running(var, now=NOW, start=START, airflow=False),
        ):
            pass
    assert not belonging_to(var)
    assert not sockets.exists() and not (var / "stack.json").exists()


@pytest.mark.parametrize("sign", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_supervisor_that_is_killed_leaves_nothing(tmp_path, sign, capfd):
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)],
        cwd=settings.PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    ready, sockets = supervisor.stdout.readline().split()
    assert ready == "ready" and Path(sockets).exists()
    assert len(belonging_to(tmp_path)) >= 3  # it, PostgreSQL, the sandbox
    supervisor.send_signal(sign)
    supervisor.wait(GONE_S)
    supervisor.stdout.close()
    assert not wait_until_gone(tmp_path)
    assert not Path(sockets).exists() and holder(tmp_path) is None
    with lock(tmp_path, "tests"):  # free, and there is nothing to clear away
        assert capfd.readouterr().err == ""


@pytest.mark.parametrize("after_s", [0.01, 0.5, 1.0, 2.0])
def test_a_supervisor_that_is_killed_while_it_starts_leaves_nothing(tmp_path, after_s):
    supervisor = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)],
        cwd=settings.PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while not (tmp_path / "stack.json").exists():
        time.sleep(0.01)
    time.sleep(after_s)
    record = json.loads((tmp_path / "stack.json").read_text())
    supervisor.kill()
    supervisor.wait()
    assert not wait_until_gone(tmp_path)
    assert not Path(record["addresses"]["postgres"]).exists()


FORKING = """
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork() == 0:
    os.{how}()
    if os.fork():
        os._exit(0)  # its child is an orphan
print("ready", flush=True)
time.sleep(60)
"""

# Starts a service that is stubborn, says which process guards it, and waits.
STUBBORN = """
import os, sys
from pathlib import Path
from stack.processes import supervised
with supervised(Path(sys.argv[1]), "tests") as processes:
    command = [sys.executable, "-c", sys.argv[2]]
    service = processes.start("stubborn", command, os.environ, drain_s=1.0)
    print(service.guard.pid, flush=True)
    service.guard.wait()
"""


def stubborn(var: Path, how: str) -> tuple[subprocess.Popen, int]:
    """A supervisor whose service ignores SIGTERM and has forked, and the pid of its guard."""
    supervisor = subprocess.Popen(
        [sys.executable, "-c", STUBBORN, str(var), FORKING.format(how=how)],
        cwd=settings.PROJECT,
        stdout=subprocess.PIPE,
        text=True,
    )
    guard = int(supervisor.stdout.readline())
    await_lines(var / "logs" / "stubborn.log", 2)
    return supervisor, guard


@pytest.mark.parametrize("how", ["setpgrp", "setsid"])
def test_a_killed_supervisor_leaves_no_stubborn_service(tmp_path, how):
    supervisor, _ = stubborn(tmp_path, how)
    supervisor.kill()
    supervisor.communicate()
    assert not wait_until_gone(tmp_path)


@pytest.mark.parametrize("how", ["setpgrp", "setsid"])
def test_what_killed_guards_left_is_ended_by_the_next_start(tmp_path, how, monkeypatch, capsys):
    monkeypatch.setattr("stack.lock.GUARDS_S", 0.5)
    supervisor, guard = stubborn(tmp_path, how)
    os.kill(supervisor.pid, signal.SIGSTOP)  # it would end them, seeing its guard gone
    os.kill(guard, signal.SIGKILL)
    supervisor.kill()
    supervisor.communicate()
    assert len(belonging_to(tmp_path)) == 2 and holder(tmp_path) is None
    with supervised(tmp_path, "tests"):
        assert not belonging_to(tmp_path)
    assert "Ended 2 processes" in capsys.readouterr().err


def test_a_start_in_a_folder_that_is_held_names_the_holder(tmp_path):
    with lock(tmp_path, "stack up", ui="http://127.0.0.1:1"):
        known = holder(tmp_path)
        assert known == Holder("stack up", os.getpid(), {"ui": "http://127.0.0.1:1"})
        with (
            pytest.raises(StackBusy, match=rf"`stack up` \(process {os.getpid()}\)"),
            lock(tmp_path, "tests"),
        ):
            pass
    assert holder(tmp_path) is None


def test_a_process_that_dies_at_the_start_is_reported_with_its_log(tmp_path):
    with supervised(tmp_path, "tests") as processes:
        frail = [sys.executable, "-c", "raise SystemExit('the reason')"]
        processes.start("frail", frail, os.environ)
        with pytest.raises(StackFailed, match="frail ended with code 1.*\n.*the reason"):
            processes.wait("frail", lambda: False, 10)
    assert not belonging_to(tmp_path)


# --- logs of the processes ------------------------------------------------------------------------


def test_a_process_that_never_stops_printing_is_stopped_all_the_same(tmp_path):
    with supervised(tmp_path, "tests") as processes:
        script = "import signal\nwhile True: print('x' * 9999)"
        service = processes.start("loud", [sys.executable, "-c", script], os.environ, drain_s=0.5)
        time.sleep(1)
        began = time.monotonic()
    assert time.monotonic() - began < 10 and service.guard.poll() is not None
    assert not belonging_to(tmp_path)


@pytest.mark.parametrize("how", ["setpgrp", "setsid"])
def test_a_process_that_ignores_the_end_is_killed(tmp_path, how):
    with supervised(tmp_path, "tests") as processes:
        deaf = [sys.executable, "-c", FORKING.format(how=how)]
        processes.start("deaf", deaf, os.environ, drain_s=0.5)
        await_lines(tmp_path / "logs" / "deaf.log", 2)
    assert not belonging_to(tmp_path)


@pytest.mark.parametrize("moment", ["starts", "runs"])
def test_ctrl_c_is_the_ordinary_end_of_make_up(tmp_path, monkeypatch, capsys, moment):
    @contextmanager
    def launch(*_, **__):
        if moment == "starts":
            raise Stopped(signal.SIGINT)
        yield MagicMock(keep=MagicMock(side_effect=Stopped(signal.SIGINT)))

    monkeypatch.setattr(commands, "launch", launch)
    monkeypatch.setattr(commands, "DAGS_S", 0)
    monkeypatch.setenv("LEDGERHOUSE_VAR", str(tmp_path))
    assert commands.up() == 0
    assert capsys.readouterr().out.endswith("Stopped; nothing is left running.\n")


def test_the_second_ctrl_c_does_not_wait_for_what_drains(tmp_path):
    with supervised(tmp_path, "tests") as processes:
        deaf = [sys.executable, "-c", FORKING.format(how="setpgrp")]
        processes.start("deaf", deaf, os.environ, drain_s=60.0)
        await_lines(tmp_path / "logs" / "deaf.log", 2)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        began = time.monotonic()
    assert time.monotonic() - began < GONE_S
    assert not belonging_to(tmp_path)
