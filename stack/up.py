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
from datetime import datetime, timezone
from pathlib import Path
from tempfile import TemporaryDirectory

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
            screen.line(f"The books: {stack.ui}/plugin/ledgerhouse")
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
    """`sqlmesh plan ARGUMENTS`, also beside a running stack."""
    from extract.transform import sqlmesh_plan

    with _models_state("stack plan"):
        return sqlmesh_plan(arguments)


def models(arguments: list[str]) -> int:
    """Lint and test the models, which needs no warehouse; with arguments, `sqlmesh ARGUMENTS` on
    the warehouse."""
    from extract.transform import PROJECT as MODELS
    from extract.transform import sqlmesh

    if arguments:
        with _models_state("stack models"):
            return sqlmesh(arguments)
    command = [str(Path(sys.executable).with_name("sqlmesh")), "--paths", str(MODELS)]
    with TemporaryDirectory(prefix="ledgerhouse-models-") as var:
        environ = {k: v for k, v in os.environ.items() if k != "LEDGERHOUSE_STATE_URI"}
        environ |= {"LEDGERHOUSE_VAR": var, "SQLMESH__DISABLE_ANONYMIZED_ANALYTICS": "true"}
        return max(subprocess.run([*command, "--log-file-dir", var, check], env=environ,
                                  check=False).returncode for check in ("lint", "test"))


def replay() -> int:
    """The warehouse again from its landing, then transform, check and publish; no call is made."""
    from extract.checkpoints import failed_critical
    from extract.checks import check, publish_checked
    from extract.replay import ReplayFailed
    from extract.replay import replay as rebuild
    from extract.source import Interval
    from extract.sources import all_sources
    from extract.transform import coalesce, transform
    from extract.warehouse import var_dir as working_dir, warehouse_path

    screen, who = Screen(), "stack replay"
    run_id = f"replay__{iso(datetime.now(timezone.utc))}"
    with _models_state(who):
        try:
            with screen.step("replay the landing") as step:
                done = rebuild(warehouse_path(), working_dir() / "landing", all_sources(), who=who,
                               tell=step.note)
        except ReplayFailed as error:
            screen.line(f"✗ {error}")
            return 1
        screen.line(f"  {done.loads} loads, {done.loaded.rows:,} rows; "
                    + ("row for row as it was" if not done.differences else "not as it was: "
                       + ", ".join(f"{t} {n:,} rows" for t, n in done.differences.items())))
        with screen.step("transform every day"):
            built = transform(who=who)
        if not built.days:
            screen.line("✓ the landing holds no rows: nothing to check")
            return 0
        with screen.step("check and publish"):
            spans = [Interval(str(a), str(b)) for a, b in
                     coalesce((day for _, day, _ in built.marks), limit=64)]
            results = check(Interval(spans[0].start, spans[-1].end), run_id=run_id, who=who,
                            spans=spans)
            critical = failed_critical(results)
            if not critical:
                publish_checked(sorted({batch for _, _, batch in built.marks}), run_id=run_id,
                                who=who)
        for result in critical:
            screen.line(f"✗ {result}")
        return 1 if critical else 0


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
            raise SettingsError(f"LEDGERHOUSE_VAR is {var}, outside the project: remove that "
                                "folder yourself")
        shutil.rmtree(var, ignore_errors=False) if var.exists() else None
    return 0
