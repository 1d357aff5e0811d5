"""The launcher: its settings, and that nothing it starts outlives it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest.mock import MagicMock

import psutil
import psycopg2
import pytest
import requests

from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.airflow.context import WAREHOUSE_POOL
from ledgerhouse.operate.airflow.init import pools
from ledgerhouse.operate.commands.follow import at_work
from stack import commands, postgres, settings
from stack.airflow import environment
from stack.demo import RUNS, failed, times
from stack.live import Stack, launch, running
from stack.lock import Holder, StackBusy, holder, lock
from stack.processes import StackFailed, Stopped, supervised, tail

pytestmark = pytest.mark.live

NOW = datetime(2026, 1, 31, 6, tzinfo=UTC)
START = NOW - timedelta(days=20)
GONE_S = 15.0
ACCOUNTS = settings.PROJECT / "accounts.toml"
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


def example(environ=None):
    return settings.read_env(environ or {}, settings.PROJECT / ".env.example")


def belonging_to(var: Path) -> list[str]:
    """Living processes with `var` in their command line, environment or working folder."""
    living = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = process.cmdline()
            traces = [*command, *process.environ().values(), process.cwd()]
        except (psutil.Error, OSError):
            continue
        if any(str(var) in trace for trace in traces):
            living.append(f"{process.pid} {' '.join(command)[:120]}")
    return living


def wait_until_gone(var: Path) -> list[str]:
    deadline = time.monotonic() + GONE_S
    while belonging_to(var) and time.monotonic() < deadline:
        time.sleep(0.1)
    return belonging_to(var)


# --- settings ---------------------------------------------------------------------------------


def test_the_example_opens_the_sandbox_with_its_own_keys():
    from sandbox.keys import DEBANK_KEY, KEY_NAME, KEY_PEM

    values = example()
    port = values["SANDBOX_PORT"]
    coinbase = json.loads(values["AIRFLOW_CONN_COINBASE_MAIN"])
    debank = json.loads(values["AIRFLOW_CONN_DEBANK"])
    assert coinbase == {
        "conn_type": "coinbase",
        "host": f"http://127.0.0.1:{port}/coinbase",
        "login": KEY_NAME,
        "password": KEY_PEM,
    }
    assert debank == {
        "conn_type": "debank",
        "host": f"http://127.0.0.1:{port}/debank",
        "login": "",
        "password": DEBANK_KEY,
    }


def test_every_connection_of_the_accounts_is_in_the_example():
    missing = {
        f"AIRFLOW_CONN_{name.upper()}" for name in AccountsFile.read(ACCOUNTS).connections()
    } - set(example())
    assert not missing, f"add {missing} to .env.example, or fix accounts.toml"


def test_every_variable_of_the_example_has_a_comment():
    lines = (settings.PROJECT / ".env.example").read_text().splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        if line and not line.startswith("#"):
            assert before.startswith("#"), f"say above {line.split('=')[0]} what it is for"


def test_the_environment_wins_also_inside_other_variables():
    values = example({"SANDBOX_PORT": "4711"})
    assert values["SANDBOX_PORT"] == "4711"
    assert "127.0.0.1:4711/debank" in values["AIRFLOW_CONN_DEBANK"]


def test_defaults_in_variables_are_filled_in(tmp_path):
    file = tmp_path / ".env"
    file.write_text('A=${NOWHERE:-one}\nB=${A}/two\nC=\'{"k": "a\\nb"}\'\n')
    assert settings.read_env({}, file) == {"A": "one", "B": "one/two", "C": '{"k": "a\\nb"}'}


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, True), (0o644, True)])
def test_an_env_file_that_others_can_read_is_named(tmp_path, monkeypatch, mode, warned):
    monkeypatch.setattr(settings, "PROJECT", tmp_path)
    assert settings.readable_by_others() == ""
    (tmp_path / ".env").write_text("KEY=secret")
    (tmp_path / ".env").chmod(mode)
    assert ("chmod 600 .env" in settings.readable_by_others()) == warned


def test_the_way_to_the_cluster_can_be_passed_through_and_not_read(tmp_path):
    home = tmp_path / "home"
    cluster = home / "var" / "postgres"
    cluster.mkdir(parents=True, mode=0o700)
    for folder in (home, home / "var"):
        folder.chmod(0o700)
    with postgres.only_passable(cluster):
        for folder in (home, home / "var"):
            folder.chmod(0o755)
    assert [f.stat().st_mode & 0o777 for f in (home, home / "var")] == [0o701, 0o701]


@pytest.mark.skipif(os.getuid() != 0, reason="only root needs a user of its own for the server")
def test_run_as_root_the_server_opens_nobodys_home(tmp_path):
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    postgres.initialised(home / "var" / "postgres")
    assert home.stat().st_mode & 0o777 == 0o701


def test_stacks_of_root_make_the_servers_user_one_after_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(postgres.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(postgres.os, "geteuid", lambda: 0)
    with postgres._one_at_a_time():
        (file,) = tmp_path.iterdir()
        with file.open("a") as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("text", ["http", "0", "70000", "-1"])
def test_a_port_that_is_none_is_named(text):
    with pytest.raises(settings.SettingsError, match="SANDBOX_PORT"):
        settings.sandbox_port({"SANDBOX_PORT": text})


@pytest.mark.parametrize("values", [{}, {"SANDBOX_PORT": ""}, {"SANDBOX_PORT": "  "}])
def test_without_a_port_there_is_no_sandbox(values):
    assert settings.sandbox_port(values) is None


def test_a_busy_port_is_not_taken():
    import socket

    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        port = busy.getsockname()[1]
        assert settings.free_port(port) != port


def test_a_pool_with_one_slot_for_the_warehouse_and_for_each_connection():
    used = {account.pool for account in AccountsFile.read(ACCOUNTS).accounts()}
    assert set(pools()) == used | {WAREHOUSE_POOL}


def test_a_broken_accounts_file_is_named(tmp_path):
    file = tmp_path / "accounts.toml"
    file.write_text("[account]\nsource = 'debank'\n")
    with pytest.raises(ValueError, match="accounts.toml"):
        AccountsFile.read(file).connections()


def test_secrets_stay_the_same_and_are_for_us_only(tmp_path):
    ours = settings.Settings(tmp_path, {})
    assert ours.password == settings.Settings(tmp_path, {}).password
    assert (tmp_path / "secrets.json").stat().st_mode & 0o077 == 0


def test_outside_settings_do_not_lead_to_another_database(tmp_path):
    base = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "sqlite://", "AIRFLOW_HOME": "/elsewhere"}
    env = environment(settings.Settings(tmp_path, {}), base, 1234, tmp_path)
    assert env["AIRFLOW_HOME"] == str(tmp_path / "airflow")
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith("postgresql+psycopg2://")


# --- the demo -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("clock", "now"),
    [
        ("2026-11-24T00:13", "2026-11-24T00:00"),
        ("2026-11-24T05:44", "2026-11-24T00:00"),
        ("2026-11-24T05:46", "2026-11-24T06:00"),
        ("2026-11-24T23:59", "2026-11-25T00:00"),
    ],
)
def test_the_demo_ends_at_a_boundary_of_six_hours(clock, now):
    start, until, end = times(datetime.fromisoformat(clock + ":00+00:00"))
    assert end == datetime.fromisoformat(now + ":00+00:00")
    assert end - until == timedelta(hours=36)
    assert start.hour == 0 and timedelta(days=730) <= until - start < timedelta(days=731)


def test_progress_counts_mapped_tasks():
    tasks = [{"task_id": "fetch", "state": s} for s in ("success", "running", "scheduled")]
    assert at_work([*tasks, {"task_id": "load", "state": None}]) == "fetch 1 of 3"
    assert at_work([]) == "waiting for the scheduler"


def test_the_demo_is_not_well_where_a_check_failed_or_none_was_made():
    checks = [{"run_id": run, "checkpoint": "raw.x", "critical": 0} for run in RUNS]
    assert failed(checks) == []
    assert failed(checks[1:]) == ["history: no checkpoint was recorded"]
    assert "sync-2: 2 critical" in failed([*checks[:2], checks[2] | {"critical": 2}])[0]


# --- processes --------------------------------------------------------------------------------


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


def await_lines(log: Path, count: int) -> None:
    deadline = time.monotonic() + GONE_S
    while log.read_text().count("ready") < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.read_text().count("ready") == count


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


# --- what dies is started again -------------------------------------------------------------------


def revive_until(processes, done, notes: list[str]) -> None:
    deadline = time.monotonic() + GONE_S
    while not done():
        assert time.monotonic() < deadline, notes
        processes.revive(notes.append)
        time.sleep(0.02)


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
    ours = settings.Settings(tmp_path, example(base))
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
