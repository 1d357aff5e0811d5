"""The commands beside the demo: `up` keeps the stack running; `init`, `plan`, `models`, `replay`,
`clean`."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from stack.airflow import state_uri
from stack.leftovers import Record, StackBusy, lock, sweep
from stack.live import launch, make_metadata
from stack.screen import Screen
from stack.settings import (
    API_PORT,
    PROJECT,
    Settings,
    SettingsError,
    free_port,
    iso,
    read_env,
    sandbox_port,
    var_dir,
)
from stack.signals import Stopped

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
            raise SettingsError(
                "START_TS is empty in .env; write when the sandbox's history "
                "begins, for example 2024-11-01T00:00:00Z"
            )
        now = datetime.now(UTC).replace(microsecond=0)
        seed = settings.values.get("SANDBOX_SEED") or "7"
        sandbox = ["--seed", seed, "--now", iso(now), "--start", start, "--tick"]
    try:
        with ExitStack() as live:
            with screen.step(
                "start PostgreSQL, the sandbox and Airflow"
                if sandbox
                else "start PostgreSQL and Airflow"
            ) as step:
                stack = live.enter_context(
                    launch(
                        settings,
                        base,
                        "stack up",
                        sandbox=sandbox,
                        api_port=API_PORT,
                        tell=step.note,
                    )
                )
            with screen.step("register and unpause the DAGs"):
                stack.rest.wait_for_dags("sync")
                time.sleep(DAGS_S)
                for dag in stack.rest.dags():
                    stack.rest.unpause(dag)
            screen.line(f"Airflow: {stack.ui}  {stack.login(screen.live)}")
            screen.line(f"The books: {stack.ui}/plugin/ledgerhouse")
            screen.line(
                f"Sandbox: {stack.sandbox_url}"
                if sandbox
                else "No sandbox: SANDBOX_PORT is not set, real vendors are called"
            )
            screen.line(f"Logs: {settings.logs}. Ctrl-C stops everything.")
            stack.keep()
    except Stopped:
        screen.line("Stopped; nothing is left running.")
        return 0


def init() -> int:
    """Make the databases, Airflow's tables and its pools, without starting anything for good."""
    screen = Screen()
    settings, base, _ = _settings(os.environ)
    with (
        screen.step("make the databases, tables and pools"),
        launch(settings, base, "stack init", airflow=False) as stack,
    ):
        make_metadata(stack)
    return 0


def plan(arguments: list[str]) -> int:
    """`sqlmesh plan ARGUMENTS`, also beside a running stack."""
    from ledgerhouse.transform.sqlmesh_context import sqlmesh_plan

    with _models_state("stack plan"):
        return sqlmesh_plan(arguments)


def models(arguments: list[str]) -> int:
    """Lint and test the models, which needs no warehouse; with arguments, `sqlmesh ARGUMENTS` on
    the warehouse."""
    from ledgerhouse.transform.sqlmesh_context import PROJECT as MODELS
    from ledgerhouse.transform.sqlmesh_context import sqlmesh

    if arguments:
        with _models_state("stack models"):
            return sqlmesh(arguments)
    command = [str(Path(sys.executable).with_name("sqlmesh")), "--paths", str(MODELS)]
    with TemporaryDirectory(prefix="ledgerhouse-models-") as var:
        environ = {k: v for k, v in os.environ.items() if k != "LEDGERHOUSE_STATE_URI"}
        environ |= {"LEDGERHOUSE_VAR": var, "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true"}
        return max(
            subprocess.run(
                [*command, "--log-file-dir", var, check], env=environ, check=False
            ).returncode
            for check in ("lint", "test")
        )


def replay() -> int:
    """The warehouse again from its landing, then transform, check and publish; no call is made."""
    from ledgerhouse.operate.commands import CommandFailed
    from ledgerhouse.operate.commands.replaying import anew

    with _models_state("stack replay"):
        try:
            return anew("table", "stack replay")
        except CommandFailed as error:
            Screen().line(f"✗ {error}")
            return 1


@contextmanager
def _models_state(command: str) -> Iterator[None]:
    """SQLMesh's state in reach: the running stack's PostgreSQL, else one started meanwhile."""
    settings, base, _ = _settings(os.environ)
    os.environ["LEDGERHOUSE_VAR"] = str(settings.var)
    os.environ["SQLMESH__DISABLE_ANONYMIZED_ANALYTICS"] = "true"
    with ExitStack() as live:
        try:
            stack = live.enter_context(launch(settings, base, command, airflow=False))
            sockets = stack.processes.sockets
        except StackBusy:
            record = Record.load(settings.var)
            if record is None or "socket_dir" not in record.facts:
                raise
            sockets = Path(record.facts["socket_dir"])
        os.environ["LEDGERHOUSE_STATE_URI"] = state_uri(sockets)
        yield


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
            raise SettingsError(
                f"LEDGERHOUSE_VAR is {var}, outside the project: remove that folder yourself"
            )
        shutil.rmtree(var, ignore_errors=False) if var.exists() else None
    return 0
