"""The commands: `up`, `ui`, `models`, `replay`, `clean`, and `airflow` and `shell`, which run in
the settings of the stack."""

from __future__ import annotations

import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from ledgerhouse.operate.commands.progress import Steps
from ledgerhouse.transform import sqlmesh_context
from stack import settings as at
from stack.airflow import environment, models_environment
from stack.live import Stack, launch, sandbox_accounts, this_second
from stack.lock import StackBusy, holder, lock
from stack.processes import Stopped
from stack.settings import API_PORT, PROJECT, Settings, SettingsError

DAGS_S = 3.0  # DAG files are parsed within a second of each other


def _settings(environ: Mapping[str, str]) -> tuple[Settings, dict[str, str], bool]:
    """(settings, environment, whether a sandbox is asked for), with a free port for it."""
    base, values = dict(environ), at.read_env(environ)
    preferred = at.sandbox_port(values)
    if preferred:
        base["SANDBOX_PORT"] = str(at.free_port(preferred))
        values = at.read_env(base)
    return Settings(at.var_dir(values), values), base, preferred is not None


@contextmanager
def _until_stopped(
    title: str, settings: Settings, base: Mapping[str, str], command: str, **options: Any
) -> Iterator[tuple[Steps, Stack]]:
    """A stack started as one step on the screen; after the block it runs until Ctrl-C (Stopped)."""
    screen = Steps()
    with ExitStack() as live:
        with screen.step(title) as step:
            options |= {"api_port": API_PORT, "tell": step.note}
            stack = live.enter_context(launch(settings, base, command, **options))
            if not options.get("airflow", True):
                stack.create_metadata()
                stack.serve_api()
        yield screen, stack
        stack.keep(screen.line)


@contextmanager
def _stop_is_success() -> Iterator[None]:
    """Ctrl-C is how the commands end that run until then."""
    try:
        yield
    except Stopped:
        print("Stopped; nothing is left running.")


def up() -> int:
    """Run everything until Ctrl-C: the sandbox's clock runs with the real one, DAGs unpaused."""
    settings, base, with_sandbox = _settings(os.environ)
    sandbox, where = None, "No sandbox: SANDBOX_PORT is not set, real vendors are called"
    if with_sandbox:
        start = settings.values.get("START_TS")
        if not start:
            raise SettingsError(
                "START_TS is empty in .env; write when the sandbox's history "
                "begins, for example 2024-11-01T00:00:00Z"
            )
        seed = settings.values.get("SANDBOX_SEED") or "7"
        sandbox = ["--seed", seed, "--now", this_second(), "--start", start, "--tick"]
        _, opened = sandbox_accounts(settings.values["SANDBOX_PORT"])
        base = opened | base  # where .env has a Connection of that name, it is that one
    title = f"start PostgreSQL{', the sandbox' if sandbox else ''} and Airflow"
    started = _until_stopped(title, settings, base, "stack up", sandbox=sandbox)
    with _stop_is_success(), started as (screen, stack):
        with screen.step("register and unpause the DAGs"):
            stack.rest.wait_for_dags("sync")
            time.sleep(DAGS_S)
            for dag in stack.rest.dags():
                stack.rest.unpause(dag)
        screen.line(f"Airflow: {stack.rest.url}  {stack.login(screen.live)}")
        screen.line(f"The books: {stack.rest.url}/plugin/ledgerhouse")
        screen.line(f"Sandbox: {stack.sandbox_url}" if sandbox else where)
        screen.line(f"Logs: {settings.var / 'logs'}. Ctrl-C stops everything.")
    return 0


def ui() -> int:
    """The books of the last demo in Airflow's UI, until Ctrl-C; no scheduler, no sandbox.

    Raises SettingsError where no demo has published books, StackBusy while one is running.
    """
    values = at.read_env(os.environ)
    settings = Settings(at.var_dir(values) / "demo", values)
    if not (settings.var / "published" / "books.duckdb").exists():
        raise SettingsError(f"no books in {settings.var}: make demo makes them")
    title = "start PostgreSQL and Airflow's API server"
    base = dict(os.environ) | {"LEDGERHOUSE_ACCOUNTS": str(settings.var / "accounts.toml")}
    started = _until_stopped(title, settings, base, "stack ui", airflow=False)
    with _stop_is_success(), started as (screen, stack):
        screen.line(f"The books: {stack.rest.url}/plugin/ledgerhouse  {stack.login(screen.live)}")
        screen.line("Ctrl-C stops it.")
    return 0


def models(*arguments: str) -> int:
    """Lint and test the models, which needs no warehouse; with arguments, `sqlmesh ARGUMENTS` on
    the warehouse, also beside a running stack."""
    if arguments:
        with _models_state("stack models"):
            return sqlmesh_context.sqlmesh(arguments)
    os.environ |= models_environment()
    with TemporaryDirectory(prefix="ledgerhouse-models-") as var:
        file = Path(var, "warehouse.duckdb")
        return max(sqlmesh_context.sqlmesh([check], file) for check in ("lint", "test"))


def replay(*arguments: str) -> int:
    """The warehouse again from its landing, then transform, check and publish; no call is made.

    `--accept-less`: also where landed files are missing or damaged.
    """
    if set(arguments) - {"--accept-less"}:
        raise SettingsError(f"replay knows --accept-less only, not {' '.join(arguments)}")
    from ledgerhouse.operate.commands.replaying import replay_and_publish

    with _models_state("stack replay"):
        return replay_and_publish("table", "stack replay", accept_less=bool(arguments))


@contextmanager
def _models_state(command: str) -> Iterator[None]:
    """SQLMesh's state in reach: the running stack's PostgreSQL, else one started meanwhile."""
    settings, base, _ = _settings(os.environ)
    with ExitStack() as live:
        try:
            sockets = live.enter_context(launch(settings, base, command, airflow=False)).sockets
        except StackBusy:
            running = holder(settings.var)
            if running is None or "postgres" not in running.addresses:
                raise
            sockets = Path(running.addresses["postgres"])
        os.environ |= {"LEDGERHOUSE_VAR": str(settings.var), **models_environment(sockets)}
        os.environ |= at.encryption_variables(settings.values)
        yield


def clean() -> int:
    """Remove `var/`; StackBusy when a stack is running in it."""
    var = at.var_dir(at.read_env(os.environ))
    with ExitStack() as held:
        for folder in filter(Path.exists, (var, var / "demo")):
            held.enter_context(lock(folder, "stack clean"))
        if not var.is_relative_to(PROJECT):
            raise SettingsError(
                f"LEDGERHOUSE_VAR is {var}, outside the project: remove that folder yourself"
            )
        shutil.rmtree(var, ignore_errors=not var.exists())
    return 0


def attached(environ: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """What a process of the stack in the var folder sees, and whether that stack is running.

    The user's terminal knows nothing of the stack's ports, databases and secrets; this gives them
    to a command without ever printing them.
    """
    base, values = dict(environ), at.read_env(environ)
    var = at.var_dir(values)
    running = holder(var)
    addresses = running.addresses if running else {}
    if sandbox := urlsplit(addresses.get("sandbox", "")).port:
        base["SANDBOX_PORT"] = str(sandbox)
        values = at.read_env(base)
    sockets = Path(addresses.get("postgres", var / "postgres"))
    port = urlsplit(addresses.get("ui", "")).port or API_PORT
    return environment(Settings(var, values), base, port, sockets), bool(addresses)


def airflow(*arguments: str) -> int:
    """`airflow ARGUMENTS`, in the place of this process."""
    env, alive = attached(os.environ)
    if not alive and arguments[:1] != ("warehouse",):
        where = env["LEDGERHOUSE_VAR"]
        print(f"No stack is running in {where}: start it with make up", file=sys.stderr)
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *arguments], env)


def shell() -> int:
    """The user's shell, in which `airflow …` is that of the stack."""
    env, alive = attached(os.environ)
    where = env["LEDGERHOUSE_VAR"] + ("" if alive else ", which is not running (make up)")
    print(f"airflow … here is that of the stack in {where}; exit leaves", file=sys.stderr)
    program = env.get("SHELL") or "/bin/sh"
    os.execve(program, [program], env)
