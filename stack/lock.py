"""The lock of a var folder: one stack at a time, and who that is.

`$VAR/stack.lock` is held by the supervisor, and freed by the kernel when it ends. `$VAR/stack.json`
says who it is and where its services answer; every process of a stack inherits that file open for
writing, so that the next start finds what a killed stack has left, and ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

import psutil

GUARDS_S = 20.0  # guards end their services in this time, after their supervisor was killed
KILL_ROUNDS = 100


class StackBusy(RuntimeError):
    """Another stack runs in this var folder; the message says which process."""


@dataclass
class Holder:
    """The process that holds a var folder. `addresses`: where its services answer; no secret."""

    command: str
    pid: int
    addresses: dict[str, str] = field(default_factory=dict)


def record(var: Path) -> Path:
    """The file that names the holder of `var`, as the kernel names it."""
    return var.resolve() / "stack.json"


def holder(var: Path) -> Holder | None:
    """The living process that holds `var`; None when nobody does."""
    with suppress(OSError, ValueError, TypeError, psutil.Error):
        known = Holder(**json.loads(record(var).read_text()))
        if _has_open(psutil.Process(known.pid), record(var)):
            return known
    return None


@contextmanager
def lock(var: Path, command: str, **addresses: str) -> Iterator[int]:
    """Hold `var`, with nothing of an earlier stack left; the record's descriptor, to be inherited.

    Raises StackBusy.
    """
    var.mkdir(parents=True, exist_ok=True)
    with (var / "stack.lock").open("a") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            other = holder(var)
            owner = f"`{other.command}` (process {other.pid})" if other else "another stack"
            raise StackBusy(
                f"{owner} is using {var}; stop it first (Ctrl-C where it runs), or set "
                "LEDGERHOUSE_VAR to another folder"
            ) from None
        if ended := end_members(var, GUARDS_S):
            print(f"Ended {ended} processes an earlier start had left behind", file=sys.stderr)
        record(var).unlink(missing_ok=True)
        descriptor = os.open(record(var), os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(
                descriptor, json.dumps(asdict(Holder(command, os.getpid(), addresses))).encode()
            )
            yield descriptor
        finally:
            record(var).unlink(missing_ok=True)
            os.close(descriptor)


def members(var: Path) -> list[psutil.Process]:
    """Every process of the stack in `var`, this one excepted."""
    others = (process for process in psutil.process_iter() if process.pid != os.getpid())
    return [process for process in others if _has_open(process, record(var))]


def _has_open(process: psutil.Process, file: Path) -> bool:
    """Whether a process has `file` open for writing; macOS does not tell for what."""
    with suppress(psutil.Error, OSError):
        opened = process.open_files()
        return any(f.path == str(file) and getattr(f, "mode", "r+") == "r+" for f in opened)
    return False


def end_members(var: Path, grace_s: float = 0.0) -> int:
    """End every process of the stack in `var`: what is left after `grace_s` seconds is killed.

    Returns the number of processes killed. Raises StackBusy when one survives that.
    """
    killed: set[int] = set()
    psutil.wait_procs(members(var), timeout=grace_s)
    for _ in range(KILL_ROUNDS):  # what forks while it is being killed is met on the next round
        left = members(var)
        if not left:
            return len(killed)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
                killed.add(process.pid)
        time.sleep(0.05)
    raise StackBusy(f"processes {[p.pid for p in left]} do not end; end them yourself")
