"""Starting the stack's processes and ending them: a session each, PostgreSQL first in, last out."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from stack import postgres
from stack.leftovers import MARK, POSTGRES, Record, alive, end, forget, is_postgres, sweep

CHILD = Path(__file__).with_name("child.py")
TAIL_LINES = 25
POLL_S = 0.1


class StackFailed(RuntimeError):
    """A process of the stack ended or stayed silent; the message has the end of its log."""


@dataclass
class Service:
    """One process (and what it forks), its log, and how long it may take to stop."""

    name: str
    popen: subprocess.Popen
    log: Path
    drain_s: float


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file, '(empty)' when there are none."""
    try:
        text = log.read_text(errors="replace").rstrip()
    except OSError:
        text = ""
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


class Processes:
    """All processes of one stack, in the order they were started."""

    def __init__(self, var: Path, command: str) -> None:
        self.var, self.logs = var, var / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.services: list[Service] = []
        self.sockets: Path | None = None
        self.keeper: subprocess.Popen | None = None
        self.hurry = False  # set by a second Ctrl-C: no more waiting for tasks to end
        self.record = Record(uuid.uuid4().hex, command, os.getpid(), time.time())

    def begin(self) -> int:
        """End what an earlier stack left here, then start the keeper; how many were ended."""
        earlier = Record.load(self.var)
        ended = sweep(self.var, earlier) if earlier else 0
        self.record.save(self.var)
        self.keeper = subprocess.Popen(
            [sys.executable, "-m", "stack.leftovers", str(self.var), self.record.id],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd=Path(__file__).parents[1],
        )
        return ended

    def start(
        self,
        name: str,
        command: list[str],
        env: Mapping[str, str],
        *,
        user: str | None = None,
        drain_s: float = 5.0,
    ) -> Service:
        """Start `command` in a session of its own; its output goes to logs/<name>.log."""
        log = self.logs / f"{name}.log"
        with log.open("ab") as out:
            popen = subprocess.Popen(
                [sys.executable, "-I", "-S", str(CHILD), str(os.getpid()), user or "-", *command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.var,
                env={**env, MARK: self.record.id},
            )
        service = Service(name, popen, log, drain_s)
        self.services.append(service)
        self.record.sessions[name] = [popen.pid, psutil.Process(popen.pid).create_time()]
        self.record.save(self.var)
        return service

    def start_postgres(self, data: Path, env: Mapping[str, str]) -> Path:
        """Start PostgreSQL (made on first use) without waiting for it; its socket's folder."""
        server = postgres.initialised(data)
        self.sockets = postgres.make_socket_dir(data, server.system_user)
        self.record.facts["socket_dir"] = str(self.sockets)
        self.record.save(self.var)
        plain = {name: env[name] for name in ("PATH", "LANG", "LC_ALL", "TZ") if name in env}
        command = postgres.command(server, self.sockets)
        self.start(POSTGRES, command, plain, user=server.system_user, drain_s=15.0)
        return self.sockets

    def check(self) -> None:
        """Raise StackFailed when a process has ended by itself."""
        for service in self.services:
            code = service.popen.poll()
            if code is not None:
                raise StackFailed(
                    f"{service.name} ended with code {code}; the end of {service.log}:\n"
                    f"{tail(service.log)}"
                )

    def wait(self, what: str, ready: Callable[[], bool], limit_s: float) -> None:
        """Wait until `ready()`; StackFailed when a process ends first or `limit_s` is over."""
        deadline = time.monotonic() + limit_s
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise StackFailed(
                    f"{what} was not ready after {limit_s:.0f} s; see the logs in {self.logs}"
                )
            time.sleep(POLL_S)

    def stop(self, names: tuple[str, ...] | None = None) -> None:
        """TERM the named services (default: all, PostgreSQL last), drain, KILL what stays.

        The signal goes to each service's first process, which ends its own (a scheduler waits
        for its running tasks); after the service's `drain_s` its whole session is killed.
        """
        chosen = [s for s in self.services if names is None or s.name in names]
        if names is None:
            order = (("scheduler", "dag-processor"), ("api-server", "sandbox"), (POSTGRES,))
            known = {name for group in order for name in group}
            rest = tuple(s.name for s in chosen if s.name not in known)
            for group in (rest, *order):
                self.stop(group)
            return
        for service in chosen:
            if service.popen.poll() is None:
                sign = signal.SIGINT if service.name == POSTGRES else signal.SIGTERM
                service.popen.send_signal(sign)
        for service in chosen:
            deadline = time.monotonic() + service.drain_s
            while service.popen.poll() is None and time.monotonic() < deadline:
                if self.hurry and service.name != POSTGRES:
                    break
                time.sleep(0.05)
            if service.name == POSTGRES and service.popen.poll() is None:
                service.popen.send_signal(signal.SIGQUIT)  # it kills its own, then ends
                time.sleep(1.0)
            self._kill_session(service)
            self.services.remove(service)

    def _kill_session(self, service: Service) -> None:
        only = Record(
            **{
                **vars(self.record),
                "id": "-",
                "sessions": {service.name: self.record.sessions[service.name]},
            }
        )
        end(lambda: alive(only), signal.SIGKILL, 0.0)
        service.popen.wait()

    def finish(self) -> int:
        """Stop everything and the keeper; how many processes had to be hunted down after that."""
        self.stop()
        left = [p for p in alive(self.record) if p.pid != getattr(self.keeper, "pid", None)]
        if left:
            end(lambda: [p for p in alive(self.record) if not is_postgres(p)], signal.SIGTERM, 1.0)
            end(lambda: alive(self.record), signal.SIGINT, 5.0)
        forget(self.var, self.record)
        if self.keeper:
            self.keeper.stdin.close()
            self.keeper.wait()
        return len(left)
