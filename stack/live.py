"""The whole stack as one context manager: what it yields runs until the block ends.

`running` is for the demo and for tests: the sandbox with a clock of its own, free ports, no
scheduled run. `launch` is what it and `stack up` share.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import requests

from ledgerhouse.operate.airflow.api import AirflowApi
from stack import postgres
from stack.airflow import environment, write_airflow_files
from stack.leftovers import lock
from stack.processes import Processes, Service, StackFailed, tail
from stack.settings import HOST, PROJECT, USER, Settings, free_port, iso, read_env
from stack.signals import OneStop

SANDBOX = (sys.executable, "-m", "sandbox")
AIRFLOW = ("scheduler", "dag-processor", "api-server")
START_LIMIT_S = 120.0
CHECK_S = 1.0
LOCK_WAIT_S = 15.0  # a keeper may still be ending the stack that was killed here before

Tell = Callable[[str], None]


@dataclass
class Stack:
    """A running stack. `env` is what its processes see; `timings` are seconds by step."""

    settings: Settings
    env: dict[str, str]
    processes: Processes
    rest: AirflowApi
    sandbox_url: str | None
    ui: str
    timings: dict[str, float]

    def login(self, in_full: bool) -> str:
        """Who may enter; the password itself only `in_full`, where nothing keeps the line."""
        secret = (
            f"password {self.settings.password}"
            if in_full
            else f"password in {self.settings.airflow_home / 'passwords.json'}"
        )
        return f"user {USER}, {secret}"

    def keep(self) -> None:
        """Until somebody stops it (Stopped), or a process ends by itself (StackFailed)."""
        while True:
            self.processes.check()
            time.sleep(CHECK_S)

    def stop_airflow(self) -> None:
        """End Airflow (running tasks may finish first), so that the warehouse is free."""
        self.rest.close()
        self.processes.stop(AIRFLOW)

    def stop(self) -> None:
        """End everything now; leaving the context does so too."""
        self.rest.close()
        self.processes.finish()


@contextmanager
def launch(
    settings: Settings,
    base: Mapping[str, str],
    command: str,
    *,
    sandbox: list[str] | None = None,
    api_port: int | None = None,
    airflow: bool = True,
    tell: Tell = lambda _: None,
) -> Iterator[Stack]:
    """Start PostgreSQL, the sandbox (`sandbox`: its arguments) and Airflow; end them on leaving.

    Raises StackBusy when the var folder is in use and StackFailed when a process does not come up.
    """
    var, began = settings.var, time.monotonic()
    timings: dict[str, float] = {}
    port = free_port(api_port)
    env = environment(settings, base, port, postgres.socket_dir(var / "postgres"))
    with lock(var, LOCK_WAIT_S):
        processes = Processes(var, command)
        with OneStop(lambda: setattr(processes, "hurry", True)) as signals:
            stack = Stack(
                settings,
                env,
                processes,
                AirflowApi(f"http://{HOST}:{port}", USER, settings.password),
                sandbox_url=f"http://{HOST}:{env['SANDBOX_PORT']}" if sandbox else None,
                ui=f"http://{HOST}:{port}",
                timings=timings,
            )
            try:
                try:
                    _start(stack, sandbox, airflow, tell, began)
                    yield stack
                finally:
                    signals.close()
            finally:
                ending = time.monotonic()
                stack.rest.close()
                processes.finish()
                timings["stopped"] = round(time.monotonic() - ending, 1)


def _start(stack: Stack, sandbox, airflow: bool, tell: Tell, began: float) -> None:
    processes, env, var = stack.processes, stack.env, stack.settings.var

    def done(step: str) -> None:
        stack.timings[step] = round(time.monotonic() - began, 1)
        tell(step)

    ended = processes.begin()
    if ended:
        tell(f"ended {ended} processes an earlier start had left behind")
    if sandbox:
        argv = [*SANDBOX, "--port", env["SANDBOX_PORT"], *sandbox]
        processes.start("sandbox", argv, env)
    sockets = processes.start_postgres(var / "postgres", env)
    processes.record.facts.update({"ui": stack.ui, "sandbox": stack.sandbox_url or ""})
    processes.record.save(var)
    processes.wait("PostgreSQL", lambda: postgres.is_ready(sockets), START_LIMIT_S)
    done("PostgreSQL ready")
    if airflow:
        _start_airflow(stack, done)
    if sandbox:
        processes.wait("the sandbox", lambda: _answers(f"{stack.sandbox_url}/_stats"), 60)
        done("sandbox ready")


def _start_airflow(stack: Stack, done: Tell) -> None:
    processes, env = stack.processes, stack.env
    write_airflow_files(stack.settings)
    airflow = [sys.executable, "-m", "airflow"]
    init = _start_init(stack)
    # No log server: it listens on every interface, and here task logs are local files anyway.
    processes.start("scheduler", [*airflow, "scheduler", "--skip-serve-logs"], env, drain_s=20.0)
    _wait_for_init(stack, init)
    done("metadata database ready")
    _start_api(stack)
    processes.start("dag-processor", [*airflow, "dag-processor"], env)
    processes.wait("Airflow's API", stack.rest.health, START_LIMIT_S)
    # Tasks meet an API of their own that is built at its first request, in 2.8 s: ask for it now.
    _answers(f"{stack.ui}/execution/health")
    processes.wait("Airflow", stack.rest.healthy, START_LIMIT_S)
    done("Airflow healthy")


def serve_api(stack: Stack) -> None:
    """Start the API server alone, and wait until it answers."""
    _start_api(stack)
    stack.processes.wait("Airflow's API", stack.rest.health, START_LIMIT_S)


def _start_api(stack: Stack) -> None:
    port = stack.env["AIRFLOW__API__PORT"]
    api = [sys.executable, "-m", "airflow", "api-server", "--host", HOST, "--port", port]
    stack.processes.start("api-server", api, stack.env, drain_s=2.0)


def make_metadata(stack: Stack) -> None:
    """Make Airflow's tables and pools, or bring them up to date, and wait for it."""
    write_airflow_files(stack.settings)
    _wait_for_init(stack, _start_init(stack))


def _start_init(stack: Stack) -> Service:
    init = stack.processes.start("init", [sys.executable, "-m", "stack.init"], stack.env)
    stack.processes.services.remove(init)  # it is meant to end; `finish` still knows its session
    return init


def _wait_for_init(stack: Stack, init: Service) -> None:
    stack.processes.wait(
        "the metadata database", lambda: init.popen.poll() is not None, START_LIMIT_S
    )
    if init.popen.returncode:
        raise StackFailed(f"the metadata database was not made; {init.log}:\n{tail(init.log)}")
    stack.settings.metadata_ready.touch()


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.RequestException:
        return False


@contextmanager
def running(
    var_dir: str | Path,
    *,
    seed: int = 7,
    now: datetime,
    start: datetime,
    scale: float = 1.0,
    airflow: bool = True,
    command: str = "tests",
    env: Mapping[str, str] | None = None,
    tell: Tell = lambda _: None,
) -> Iterator[Stack]:
    """A stack with the sandbox whose clock stands at `now` and whose history begins at `start`.

    The scheduler makes no sync run before the second boundary of six hours from now: the sync
    DAG starts now, by the real clock. `env`: variables on top of `.env.example`; Airflow's own
    from outside are not let in.
    """
    base = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
    base.pop("LEDGERHOUSE_STATE_URI", None)
    base.update(
        {
            "SANDBOX_PORT": str(free_port()),
            "SANDBOX_SEED": str(seed),
            "START_TS": iso(start),
            "SYNC_START_DATE": iso(datetime.now(UTC).replace(microsecond=0)),
        }
    )
    base.update(env or {})
    settings = Settings(Path(var_dir).resolve(), read_env(base, PROJECT / ".env.example"))
    arguments = ["--seed", str(seed), "--now", iso(now), "--start", iso(start)]
    if scale != 1.0:
        arguments += ["--scale", str(scale)]
    with launch(settings, base, command, sandbox=arguments, airflow=airflow, tell=tell) as stack:
        yield stack
