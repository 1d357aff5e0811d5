"""What a stack has started, so that all of it can be found and ended: even by somebody else.

`$VAR/stack.json` names the stack's sessions before and while they run, and every process
carries the stack's id in its environment. A process is the stack's when its session is listed
(Airflow's tasks move to process groups of their own and overwrite their environment, but stay
in the session) or its environment has the id (what starts sessions of its own).

Run as `python -m stack.leftovers VAR ID` this is the keeper: it waits on a pipe that only the
supervisor holds, and ends everything when the supervisor dies by SIGKILL.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

from stack.settings import write_private

MARK = "LEDGERHOUSE_STACK"
POSTGRES = "postgres"


class StackBusy(RuntimeError):
    """Another stack runs in this var folder; the message says which process."""


@dataclass
class Record:
    """What one stack has started. `sessions`: name -> [pid of the session's leader, its birth]."""

    id: str
    command: str
    supervisor: int
    started: float
    boot: float = field(default_factory=psutil.boot_time)
    sessions: dict[str, list[float]] = field(default_factory=dict)
    facts: dict[str, str] = field(default_factory=dict)  # addresses; never a secret

    def save(self, var: Path) -> None:
        write_private(var / "stack.json", json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, var: Path) -> Record | None:
        try:
            return cls(**json.loads((var / "stack.json").read_text()))
        except (OSError, ValueError, TypeError):
            return None


@contextmanager
def lock(var: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold `var` for one stack; freed by the kernel when the holder ends.

    Raises StackBusy when another stack runs there, or its keeper takes longer than `wait_s`
    seconds to end what a killed one has left.
    """
    var.mkdir(parents=True, exist_ok=True)
    handle = os.open(var / "stack.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                other = Record.load(var)
                ending = other is None or not psutil.pid_exists(other.supervisor)
                if ending and time.monotonic() < deadline:
                    time.sleep(0.1)
                    continue
                who = f"`{other.command}` (process {other.supervisor})" if other else "another"
                raise StackBusy(
                    f"{who} is using {var}; stop it first (Ctrl-C where it runs), or set "
                    "LEDGERHOUSE_VAR to another folder"
                ) from None
        yield
    finally:
        os.close(handle)


def alive(record: Record) -> list[psutil.Process]:
    """Every living process of the stack, this one excepted."""
    if abs(record.boot - psutil.boot_time()) > 60:  # the machine has restarted since
        return []
    sessions = {int(pid) for pid, _ in record.sessions.values()}
    for pid, birth in record.sessions.values():
        with suppress(psutil.Error):
            if abs(psutil.Process(int(pid)).create_time() - birth) > 2:
                sessions.discard(int(pid))  # the number was given to somebody else
    found: dict[int, psutil.Process] = {}
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            if process.create_time() < record.started - 2:
                continue
            if os.getsid(process.pid) in sessions or _marked(process, record.id):
                found[process.pid] = process
                found.update((child.pid, child) for child in process.children(recursive=True))
    found.pop(os.getpid(), None)
    return list(found.values())


def _marked(process: psutil.Process, stack: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.environ().get(MARK) == stack
    return False


def is_postgres(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.name() == POSTGRES
    return False


def end(find: Callable[[], list[psutil.Process]], sign: int, grace_s: float) -> None:
    """Send `sign` to all that `find` finds, wait up to `grace_s`, then KILL until none is left."""
    for process in find():
        with suppress(psutil.Error):
            process.send_signal(sign)
    deadline = time.monotonic() + grace_s
    while find() and time.monotonic() < deadline:
        time.sleep(0.1)
    for _ in range(50):  # what forks while it is being killed is met on the next round
        left = find()
        if not left:
            return
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        time.sleep(0.1)


def sweep(var: Path, record: Record, grace_s: float = 5.0) -> int:
    """End what is left of a stack, PostgreSQL last; how many processes that were."""
    others = lambda: [p for p in alive(record) if not is_postgres(p)]  # noqa: E731
    count = len(alive(record))
    end(others, signal.SIGTERM, grace_s)
    end(lambda: alive(record), signal.SIGINT, grace_s)  # PostgreSQL's fast shutdown
    forget(var, record)
    return count


def forget(var: Path, record: Record) -> None:
    """Remove the stack's record and its socket folder, once nothing of it lives."""
    sockets = record.facts.get("socket_dir")
    if sockets and not Path(sockets).is_relative_to(var):
        shutil.rmtree(sockets, ignore_errors=True)
    known = Record.load(var)
    if known and known.id == record.id:
        (var / "stack.json").unlink(missing_ok=True)


def main() -> None:
    """The keeper: outlives Ctrl-C, ends with its pipe."""
    var, stack = Path(sys.argv[1]), sys.argv[2]
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    sys.stdin.buffer.read()
    for _ in range(100):  # our pipe may close before the dying supervisor's lock does
        record = Record.load(var)
        if record is None or record.id != stack:
            return  # it ended well, or the next stack has begun and sweeps itself
        with suppress(StackBusy), lock(var):
            sweep(var, record)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
