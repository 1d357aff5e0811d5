"""The commands beside the demo: `up` keeps the stack running, `init`, `plan` and `clean`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path

from stack.airflow import state_uri
from stack.leftovers import Record, StackBusy, lock, sweep
from stack.live import launch, make_metadata
from stack.screen import Screen
from stack.settings import (
    PROJECT, USER, Settings, SettingsError, free_port, iso, read_env, sandbox_port, var_dir,
)
from stack.signals import Stopped

API_PORT = 8080
CHECK_S = 1.0
DAGS_S = 3.0  # DAG files are parsed within a second of each other


def _settings(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str], bool]:
    """(settings, environment, whether a sandbox is asked for), with a free port for it."""
    base, values = dict(environ), read_env(environ)
    wanted = sandbox_port(values)
    if wanted:
        base["SANDBOX_PORT"] = str(free_port(wanted))
        values = read_env(base)
    return Settings(var_dir(values), values), base, wanted is not None


def up() -> int:
    """Run everything until Ctrl-C: the sandbox's clock runs with the real one, DAGs unpaused."""
    screen = Screen()
    settings, base, with_sandbox = _settings(os.environ)
    sandbox = None
    if with_sandbox:
        start = settings.values.get("START_TS")
        if not start:
            raise SettingsError("START_TS is empty in .env; write when the sandbox's history "
                                "begins, for example 2024-11-01T00:00:00Z")
        now = datetime.now(timezone.utc).replace(microsecond=0)
        seed = settings.values.get("SANDBOX_SEED") or "7"
        sandbox = ["--seed", seed, "--now", iso(now), "--start", start, "--tick"]
    try:
        with ExitStack() as live:
            with screen.step("start PostgreSQL, the sandbox and Airflow" if sandbox else
                             "start PostgreSQL and Airflow") as step:
                stack = live.enter_context(launch(
                    settings, base, "stack up", sandbox=sandbox, api_port=API_PORT,
                    tell=step.note))
            with screen.step("register and unpause the DAGs"):
                stack.rest.wait_for_dags("sync")
                time.sleep(DAGS_S)
                for dag in stack.rest.dags():
                    stack.rest.unpause(dag)
            secret = settings.airflow_home / "passwords.json"
            login = f"password {settings.password}" if screen.live else f"password in {secret}"
            screen.line(f"Airflow: {stack.ui}  user {USER}, {login}")
            screen.line(f"Sandbox: {stack.sandbox_url}" if sandbox else
                        "No sandbox: SANDBOX_PORT is not set, real vendors are called")
            screen.line(f"Logs: {settings.logs}. Ctrl-C stops everything.")
            while True:
                stack.processes.check()
                time.sleep(CHECK_S)
    except Stopped:
        screen.line("Stopped; nothing is left running.")
        return 0


def init() -> int:
    """Make the databases, Airflow's tables and its pools, without starting anything for good."""
    screen = Screen()
    settings, base, _ = _settings(os.environ)
    with screen.step("make the databases, tables and pools"), \
            launch(settings, base, "stack init", airflow=False) as stack:
        make_metadata(stack)
    return 0


def plan(arguments: list[str]) -> int:
    """`sqlmesh plan`, with the running stack's PostgreSQL, else one started for the purpose."""
    from extract.transform import sqlmesh_plan

    settings, base, _ = _settings(os.environ)
    os.environ["LEDGERHOUSE_VAR"] = str(settings.var)
    os.environ["SQLMESH__DISABLE_ANONYMIZED_ANALYTICS"] = "true"
    with ExitStack() as live:
        try:
            stack = live.enter_context(launch(settings, base, "stack plan", airflow=False))
            sockets = stack.processes.sockets
        except StackBusy:
            record = Record.load(settings.var)
            if record is None or "socket_dir" not in record.facts:
                raise
            sockets = Path(record.facts["socket_dir"])
        os.environ["LEDGERHOUSE_STATE_URI"] = state_uri(sockets)
        return sqlmesh_plan(arguments)


def clean() -> int:
    """Remove `var/`; StackBusy when a stack is running in it."""
    var = var_dir(read_env(os.environ))
    with ExitStack() as held:
        for folder in (var, var / "demo"):
            if folder.exists():
                held.enter_context(lock(folder))
                left = Record.load(folder)
                if left:
                    sweep(folder, left)
        if not var.is_relative_to(PROJECT):
            raise SettingsError(f"LEDGERHOUSE_VAR is {var}, outside the project: remove that "
                                "folder yourself")
        shutil.rmtree(var, ignore_errors=False) if var.exists() else None
    return 0
