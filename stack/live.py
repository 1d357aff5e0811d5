"""The whole stack as one context manager: what it yields runs until the block ends.

`running` is for the demo and for tests: the sandbox with a clock of its own, free ports, no
scheduled run. `launch` is what it and `stack up` share.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import requests

from extract.core.interval import iso
from ledgerhouse.operate.airflow.api import AirflowApi
from stack import postgres
from stack.airflow import environment, write_airflow_files
from stack.processes import Processes, Service, supervised
from stack.settings import HOST, PROJECT, USER, Settings, free_port, read_env

START_LIMIT_S = 120.0
CHECK_S = 1.0
HEALTH_S, UNWELL = 20.0, 3
SETTLE_S = 120.0  # an API server took 17 s to its first answer on two busy cores

Tell = Callable[[str], None]


@dataclass
class Stack:
    """A running stack. `env` is what its processes see."""

    settings: Settings
    env: dict[str, str]
    processes: Processes
    rest: AirflowApi
    sandbox_url: str  # '' without a sandbox
    sockets: Path  # the folder of PostgreSQL's socket
    tell: Tell
    asked: float = float("-inf")  # when Airflow was last asked how it is
    unwell: Counter[str] = field(default_factory=Counter)

    def login(self, in_full: bool) -> str:
        """Who may enter; the password itself only `in_full`, where nothing keeps the line."""
        file = f"in {self.settings.airflow_home / 'passwords.json'}"
        return f"user {USER}, password {self.settings.password if in_full else file}"

    def keep(self, tell: Tell) -> None:
        """Wait until a signal stops the stack (Stopped). A process that ends, or lives and does not
        work, is started again; StackFailed when it keeps ending."""
        while True:
            self.watch(tell)
            time.sleep(CHECK_S)

    def watch(self, tell: Tell) -> None:
        """One look at the processes; see `keep`. Airflow's own word on its parts is asked for every
        HEALTH_S, and must be bad UNWELL times in a row: after a laptop's sleep it is bad once. Of a
        service that began less than SETTLE_S ago nothing is expected yet."""
        self.processes.revive(tell)
        if time.monotonic() - self.asked < HEALTH_S:
            return
        self.asked, health = time.monotonic(), self.rest.health()
        for service in self.processes.services:
            status = health.get(service.name.replace("-", "_"))
            if service.name == "api-server":
                status = "" if health else "unhealthy"
            young = time.monotonic() - service.began < SETTLE_S
            bad = status == "unhealthy" and not young and service.guard.poll() is None
            self.unwell[service.name] = self.unwell[service.name] + 1 if bad else 0
            if self.unwell[service.name] >= UNWELL:
                self.unwell[service.name] = 0
                tell(f"{service.name} lives, and has done nothing for a minute: it is ended")
                service.pipe.close()  # `revive` starts it again

    def stop_airflow(self) -> None:
        """End Airflow, so that the warehouse is free: running tasks may finish first."""
        self.rest.close()
        self.processes.stop("scheduler", "dag-processor", "api-server")

    def start_sandbox(self, arguments: Sequence[str]) -> None:
        """Start the sandbox. One whose clock stands still is not started again: somebody may have
        set it since."""
        service = self._start("sandbox", "sandbox", "--port", self.env["SANDBOX_PORT"], *arguments)
        service.again = None
        if "--tick" in arguments:
            place = [*arguments].index("--now") + 1
            before, after = arguments[:place], arguments[place + 1 :]
            service.again = lambda: self.start_sandbox([*before, this_second(), *after])

    def start_postgres(self) -> None:
        """Start PostgreSQL, and wait until its databases are there."""
        data = self.settings.var / "postgres"
        start = partial(postgres.start, self.processes, data, self.sockets, self.env)
        start()
        self.processes.services[-1].again = start  # its socket's folder has gone with it
        self.processes.wait("PostgreSQL", lambda: postgres.is_ready(self.sockets), START_LIMIT_S)
        self.tell("PostgreSQL ready")

    def create_metadata(self, beside: Callable[[], object] = lambda: None) -> None:
        """Create Airflow's tables and pools, or bring them up to date, and wait for it."""
        write_airflow_files(self.settings)
        init = self._start("init", "ledgerhouse.operate.airflow.init")
        beside()
        ready = lambda: init.guard.poll() == 0  # noqa: E731
        self.processes.wait("the metadata database", ready, START_LIMIT_S)
        self.processes.services.remove(init)  # it is meant to end
        init.pipe.close()
        self.settings.metadata_ready.touch()
        self.tell("metadata database ready")

    def serve_api(self) -> None:
        """Start the API server, and wait until it answers."""
        self._start("api-server", "airflow", "api-server", drain_s=2.0)
        self.processes.wait("Airflow's API", self.rest.health, START_LIMIT_S)

    def start_airflow(self) -> None:
        """The scheduler imports while the metadata database is being prepared (airflow.PRELOAD)."""
        # No log server: it listens on every interface, and here task logs are local files anyway.
        scheduler = partial(self._start, "scheduler", "airflow", "scheduler", "--skip-serve-logs")
        self.create_metadata(partial(scheduler, drain_s=20.0))
        self._start("dag-processor", "airflow", "dag-processor")
        self.serve_api()
        # Tasks meet an API of their own, built at its first request, in 2.8 s: ask for it now.
        _ok(f"{self.rest.url}/execution/health")
        self.processes.wait("Airflow", self.rest.healthy, START_LIMIT_S)
        self.tell("Airflow healthy")

    def _start(self, name: str, module: str, *arguments: str, drain_s: float = 5.0) -> Service:
        command = [sys.executable, "-m", module, *arguments]
        return self.processes.start(name, command, self.env, drain_s=drain_s)


def this_second() -> str:
    """Now, in UTC, as ISO text."""
    return iso(datetime.now(UTC).replace(microsecond=0))


def sandbox_accounts(port: int | str) -> tuple[str, dict[str, str]]:
    """(text of an accounts.toml, the variables of its Connections) of the sandbox at this port."""
    command = [sys.executable, "-m", "sandbox.accounts", f"http://{HOST}:{port}"]
    listed = json.loads(subprocess.check_output(command, text=True, cwd=PROJECT))
    opened = listed["connections"].items()
    return listed["accounts"], {f"AIRFLOW_CONN_{n.upper()}": json.dumps(c) for n, c in opened}


def _ok(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.RequestException:
        return False


@contextmanager
def launch(
    settings: Settings,
    base: Mapping[str, str],
    command: str,
    *,
    sandbox: Sequence[str] | None = None,
    api_port: int | None = None,
    airflow: bool = True,
    tell: Tell = lambda _: None,
) -> Iterator[Stack]:
    """Start PostgreSQL, the sandbox (`sandbox`: its arguments) and Airflow; end them on leaving.

    Raises StackBusy when the var folder is in use and StackFailed when a process does not come up.
    """
    port, sockets = free_port(api_port), postgres.socket_folder()
    ui, env = f"http://{HOST}:{port}", environment(settings, base, port, sockets)
    url = f"http://{HOST}:{env['SANDBOX_PORT']}" if sandbox else ""
    addresses = {"ui": ui, "sandbox": url, "postgres": str(sockets)}
    with (
        supervised(settings.var, command, **addresses) as processes,
        closing(AirflowApi(ui, USER, settings.password)) as rest,
    ):
        stack = Stack(settings, env, processes, rest, url, sockets, tell)
        if sandbox:
            stack.start_sandbox(sandbox)
        stack.start_postgres()
        if airflow:
            stack.start_airflow()
        if sandbox:
            processes.wait("the sandbox", lambda: _ok(f"{url}/_stats"), START_LIMIT_S)
        yield stack


@contextmanager
def running(
    var_dir: str | Path,
    *,
    now: datetime,
    start: datetime,
    seed: int = 7,
    scale: float = 1.0,
    command: str = "tests",
    env: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[Stack]:
    """A stack with the sandbox whose clock stands at `now` and whose history begins at `start`.

    Its accounts are the sandbox's, in the file accounts.toml of `var_dir`, never the user's own.
    The scheduler makes no sync run before the second boundary of six hours from now: the sync
    DAG starts now, by the real clock. `env`: variables on top of `.env.example`; Airflow's own
    from outside are not let in. `options`: of `launch`.
    """
    base = {k: v for k, v in os.environ.items() if not k.startswith("AIRFLOW")}
    base.pop("LEDGERHOUSE_STATE_URI", None)
    var, port = Path(var_dir).resolve(), free_port()
    accounts, opened = sandbox_accounts(port)
    var.mkdir(parents=True, exist_ok=True)
    (var / "accounts.toml").write_text(accounts)
    base |= {**opened, "LEDGERHOUSE_ACCOUNTS": str(var / "accounts.toml")}
    base |= {"SANDBOX_PORT": str(port), "SANDBOX_SEED": str(seed), "START_TS": iso(start)}
    base |= {"SYNC_START_DATE": this_second(), **(env or {})}
    settings = Settings(var, read_env(base, PROJECT / ".env.example"))
    sandbox = ["--seed", str(seed), "--now", iso(now), "--start", iso(start), "--scale", str(scale)]
    with launch(settings, base, command, sandbox=sandbox, **options) as stack:
        yield stack
