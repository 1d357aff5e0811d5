"""The lock of a var folder: one stack at a time, and who that is.

`$VAR/stack.lock` is held by the supervisor, and freed by the kernel when it ends. `$VAR/stack.json`
says who it is and where its services answer; every process of a stack inherits that file open for
writing, so that the next start finds what a killed stack has left, and ends it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GUARD = Path(__file__).with_name("guard.py")
GUARDS_S = 30.0  # guards end their services in this time, after their supervisor was killed
KILL_S = 5.0


class StackBusy(RuntimeError):
    """Another stack runs in this var folder; the message says which process."""


@dataclass
class Holder:
    """The process that holds a var folder. `addresses`: where its services answer."""

    file: Path
    command: str
    pid: int
    addresses: dict[str, str] = field(default_factory=dict)
    descriptor: int = -1  # of `file`, in the holder itself
    ended: int = 0  # processes of an earlier stack that had to be killed

    def publish(self, **addresses: str) -> None:
        """Write down where services answer; never a secret."""
        self.addresses |= addresses
        text = json.dumps(
            {"command": self.command, "pid": self.pid, "addresses": self.addresses}
        ).encode()
        os.pwrite(self.descriptor, text, 0)
        os.ftruncate(self.descriptor, len(text))


def holder(var: Path) -> Holder | None:
    """The living process that holds `var`; None when nobody does."""
    file = var.resolve() / "stack.json"
    with suppress(OSError, ValueError, TypeError, KeyError, psutil.Error):
        known = Holder(file, **json.loads(file.read_text()))
        if _writes(psutil.Process(known.pid), file):
            return known
    return None


@contextmanager
def lock(var: Path, command: str) -> Iterator[Holder]:
    """Hold `var`, with nothing of an earlier stack left. Raises StackBusy."""
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
        file = var.resolve() / "stack.json"
        ended = end_members(file)
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            ours = Holder(file, command, os.getpid(), {}, descriptor, ended)
            ours.publish()
            yield ours
        finally:
            file.unlink(missing_ok=True)
            os.close(descriptor)


def members(file: Path) -> list[psutil.Process]:
    """Every process of the stack whose record `file` is, this one excepted."""
    return [p for p in psutil.process_iter() if p.pid != os.getpid() and _writes(p, file)]


def _writes(process: psutil.Process, file: Path) -> bool:
    with suppress(psutil.Error, OSError):
        return any(
            opened.path == str(file) and getattr(opened, "mode", "r+") == "r+"  # macOS has no mode
            for opened in process.open_files()
        )
    return False


def end_members(file: Path) -> int:
    """End every process of the stack: guards are given time to do so, the rest is killed.

    The number of processes killed. Raises StackBusy when one survives that.
    """
    killed: set[int] = set()
    began = time.monotonic()
    while left := members(file):
        waited = time.monotonic() - began
        if waited > GUARDS_S + KILL_S:
            raise StackBusy(f"processes {[p.pid for p in left]} do not end; end them yourself")
        if waited > GUARDS_S or not any(map(_is_guard, left)):
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
                    killed.add(process.pid)
        time.sleep(0.05)
    return len(killed)


def _is_guard(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return str(GUARD) in process.cmdline()
    return False
