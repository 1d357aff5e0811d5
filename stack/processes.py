"""The processes of one stack: each started under a guard of its own, and ended in order."""

from __future__ import annotations

import json
import logging
import pwd
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import IO, Any

from ledgerhouse.config import maintenance
from stack.lock import end_members, lock

GUARD = Path(__file__).with_name("guard.py")
POSTGRES = "postgres"
STOP_ORDER = (("scheduler", "dag-processor"), ("api-server", "sandbox"), (POSTGRES,))
CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TAIL_LINES = 25
RESTARTS, WINDOW_S = 5, 600.0  # of one service, until it is given up
BACKOFF_S = 1.0  # before the first restart; doubled each time
POLL_S = 0.1


class StackFailed(RuntimeError):
    """A process of the stack ended or stayed silent; the message has the end of its log."""


class Stopped(KeyboardInterrupt):
    """A signal asked the stack to stop; `number` is the signal's."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.number = number


@dataclass
class Service:
    """A service of the stack: its guard (see `stack.guard`), the log of its command, and how it is
    started again (None: it cannot be)."""

    name: str
    guard: subprocess.Popen
    pipe: IO[bytes]  # of the guard: closed, the service ends
    log: Path
    again: Callable[[], object] | None = None
    deaths: list[float] = field(default_factory=list)  # monotonic times, those of WINDOW_S
    began: float = field(default_factory=time.monotonic)
    due: float | None = None  # when it is started again; None while it runs

    def ended(self) -> str:
        """That it has ended, and the end of its log; '' while it runs."""
        if (code := self.guard.poll()) is None:
            return ""
        return f"{self.name} ended with code {code}; the end of {self.log}:\n{tail(self.log)}"


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log file, '(empty)' when there are none."""
    text = log.read_text(errors="replace").rstrip() if log.exists() else ""
    return "\n".join(text.splitlines()[-lines:]) or "(empty)"


class Processes:
    """The services of one stack, in the order they were started; `record`: the descriptor by which
    `stack.lock` knows our processes."""

    def __init__(self, var: Path, record: int) -> None:
        self.var, self.logs, self.record = var, var / "logs", record
        self.logs.mkdir(parents=True, exist_ok=True)
        self.services: list[Service] = []
        self.ending = False  # from then on a signal means hurry
        self.hurry = False  # a second Ctrl-C: no more waiting for tasks to end
        keep = maintenance()
        self.rotation = keep.process_log_megabytes * 1_000_000, keep.process_log_files
        self.log = logging.Logger("stack")
        own = RotatingFileHandler(self.logs / "stack.log", "a", *self.rotation, delay=True)
        own.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.log.addHandler(own)

    def start(self, name: str, command: list[str], env: Mapping[str, str], **how: Any) -> Service:
        """Start `command` in `var`, as `user`; its output goes to logs/<name>.log.

        It is ended by the signal `stop` (SIGTERM) and killed `drain_s` (5) seconds later; then the
        folder `remove` goes. Guards hold PostgreSQL's pipe too: after a killed supervisor it ends
        last.
        """
        log = self.logs / f"{name}.log"
        spec: dict[str, Any] = {"stop": signal.SIGTERM, "drain_s": 5.0, "remove": ""} | how
        spec |= {"record": self.record, "log": [str(log), *self.rotation], "user": {}}
        if user := how.get("user"):
            group = pwd.getpwnam(user).pw_gid
            spec["user"] = {"user": user, "group": group, "extra_groups": []}
        last = [s.pipe.fileno() for s in self.services if s.name == POSTGRES]
        with log.open("ab") as out:
            guard = subprocess.Popen(
                [sys.executable, "-I", str(GUARD), json.dumps(spec), *command],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self.var,
                env=dict(env),
                pass_fds=[self.record, *last],
            )
        assert guard.stdin
        again = partial(self.start, name, command, env, **how)
        self.services.append(Service(name, guard, guard.stdin, log, again))
        return self.services[-1]

    def revive(self, tell: Callable[[str], None]) -> None:
        """Start again what has ended by itself, each time after a longer wait; never waits itself.

        `tell` gets each death, and so does logs/stack.log. StackFailed where a service cannot be
        started again, or has ended more than RESTARTS times in WINDOW_S.
        """
        now = time.monotonic()
        for service in [service for service in self.services if service.ended()]:
            if service.due is None:
                said = self._note_death(service, now)
            elif now >= service.due and service.again:
                self.services.remove(service)
                service.pipe.close()
                service.again()
                self.services[-1].deaths, self.services[-1].again = service.deaths, service.again
                said = f"{service.name} is started again"
            else:
                continue
            self.log.warning("%s", said)
            tell(said)

    def _note_death(self, service: Service, now: float) -> str:
        service.deaths = [at for at in service.deaths if now - at < WINDOW_S] + [now]
        count, window = len(service.deaths), f"{WINDOW_S / 60:.0f} minutes"
        if service.again is None or count > RESTARTS:
            reason = "it cannot be started again where it was"
            if service.again:
                reason = f"it has ended {count} times in {window}, and is given up"
            self.log.error("%s. %s", reason, service.ended())
            raise StackFailed(f"{reason}. {service.ended()}")
        wait_s = BACKOFF_S * 2 ** (count - 1)
        service.due = now + wait_s
        often = f"{count} of at most {RESTARTS} times in {window}"
        return f"{service.ended()}\n{service.name} is started again in {wait_s:.0f} s ({often})"

    def wait(self, what: str, ready: Callable[[], object], limit_s: float) -> None:
        """Wait until `ready()`; StackFailed when a process ends first or `limit_s` is over."""
        deadline = time.monotonic() + limit_s
        while not ready():
            if ended := next(filter(None, (service.ended() for service in self.services)), ""):
                raise StackFailed(ended)
            if time.monotonic() > deadline:
                late = f"{what} was not ready after {limit_s:.0f} s"
                raise StackFailed(f"{late}; see the logs in {self.logs}")
            time.sleep(POLL_S)

    def stop(self, *names: str) -> None:
        """End the named services together, and wait until they have ended."""
        chosen = [service for service in self.services if service.name in names]
        for service in chosen:
            service.pipe.close()
        for service in chosen:
            while service.guard.poll() is None:
                if self.hurry and service.name != POSTGRES:
                    service.guard.terminate()
                time.sleep(POLL_S / 2)
            self.services.remove(service)

    def finish(self) -> None:
        """End everything, PostgreSQL last, and whatever a killed guard has left."""
        self.ending = True
        others = {s.name for s in self.services}.difference(*STOP_ORDER)
        for group in (others, *STOP_ORDER):
            self.stop(*group)
        end_members(self.var)
        for handler in self.log.handlers:
            handler.close()

    def signalled(self, number: int, _frame: object) -> None:
        """The first signal raises Stopped; one while the stack is ending makes it hurry."""
        if self.ending:
            self.hurry = True
        else:
            self.ending = True
            raise Stopped(number)


@contextmanager
def supervised(var: Path, command: str, **addresses: str) -> Iterator[Processes]:
    """The var folder held, and every process started in it ended on leaving.

    Ctrl-C, SIGTERM and a closed terminal raise Stopped, once, and never during the ending.
    Raises StackBusy when another stack runs there.
    """
    with lock(var, command, **addresses) as record:
        processes = Processes(var, record)
        main = threading.current_thread() is threading.main_thread()
        before = {n: signal.signal(n, processes.signalled) for n in CAUGHT if main}
        try:
            yield processes
        finally:
            processes.finish()
            for number, handler in before.items():
                signal.signal(number, handler)
