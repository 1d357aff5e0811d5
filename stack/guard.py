"""Guard of one service: runs its command, and ends all of it once the guard's pipe closes.

    guard.py SPEC COMMAND ...      (SPEC: JSON, written by `stack.processes`)

The supervisor holds the other end of the pipe on standard input: it closes when the supervisor
stops the service, and by itself when the supervisor dies, even by SIGKILL. The guard then sends
the command its stop signal, waits, and kills what is left of the session. If the guard itself is
killed, the kernel sends the command that signal (Linux). It imports nothing of ours: it starts
in 20 ms, and a command run as another user need not be able to read this project.
"""

import ctypes  # here: a user to whom we change may not be able to read our Python
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
POLL_S = 0.1
CRASH_DRAIN_S = 5.0  # after the supervisor's death, when what a task needs is ending too


def prctl(option: int, value: int) -> None:
    """Ask Linux for something; elsewhere nothing."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_parent(sign: int = signal.SIGTERM) -> None:
    """Ask for `sign` when this process's parent ends, even by SIGKILL (Linux)."""
    prctl(PR_SET_PDEATHSIG, sign)


class Guard:
    """The command of one service, its process and its descendants."""

    def __init__(self, spec: dict, command: list[str]) -> None:
        self.spec, self.supervisor = spec, os.getppid()
        self.hurry = False
        signal.signal(signal.SIGTERM, self._hurry)
        for ignored in (signal.SIGINT, signal.SIGHUP):  # SIG_IGN would pass to the command
            signal.signal(ignored, lambda *_: None)
        prctl(PR_SET_CHILD_SUBREAPER, 1)  # an orphan of the command becomes a child of ours
        user = {}
        if spec["user"]:
            import pwd

            group = pwd.getpwnam(spec["user"]).pw_gid
            user = {"user": spec["user"], "group": group, "extra_groups": []}
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[spec["record"]],
            preexec_fn=lambda: die_with_parent(spec["stop"]),  # one thread: this is safe
            **user,
        )

    def _hurry(self, *_: object) -> None:
        self.hurry = True

    def run(self) -> int:
        """Until the command has ended and nothing of it is left; its exit code."""
        while self._running() and not select.select([sys.stdin], [], [], POLL_S)[0]:
            pass
        if self._running():
            self.process.send_signal(self.spec["stop"])
            drain_s = self.spec["drain_s"]
            if os.getppid() != self.supervisor:
                drain_s = min(drain_s, CRASH_DRAIN_S)
            deadline = time.monotonic() + drain_s
            while self._running() and not self.hurry and time.monotonic() < deadline:
                time.sleep(POLL_S / 5)
        for _ in range(500):  # what forks while it is being killed is met on the next round
            family = self._family()
            if not family:
                break
            for pid in family:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_S / 5)
            self._running()
        if self.spec["remove"]:
            shutil.rmtree(self.spec["remove"], ignore_errors=True)
        code = self.process.returncode or 0
        return code if code >= 0 else 128 - code

    def _running(self) -> bool:
        """Whether the command runs; reaps it and its orphans."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == self.process.pid:
                    self.process.returncode = os.waitstatus_to_exitcode(status)
                if not pid:
                    break
        return self.process.returncode is None

    def _family(self) -> set[int]:
        """All descendants of the guard, and all processes of its session."""
        import psutil

        me = os.getpid()
        family = {child.pid for child in psutil.Process().children(recursive=True)}
        for pid in psutil.pids():
            with suppress(OSError):
                if os.getsid(pid) == me:
                    family.add(pid)
        return family - {me}


if __name__ == "__main__":
    sys.exit(Guard(json.loads(sys.argv[1]), sys.argv[2:]).run())
