"""Guard of one service: runs its command, and ends all of it once the guard's pipe closes.

    guard.py SPEC COMMAND ...      (SPEC: JSON, written by `stack.processes`)

The supervisor holds the other end of the pipe on standard input: it closes when the supervisor
stops the service, and by itself when the supervisor dies, even by SIGKILL. The guard then sends
the command its stop signal, waits, and kills what is left: on Linux every descendant, elsewhere
orphans stay for `stack.lock.end_members`. If the guard itself is killed, the kernel sends the
command its stop signal (Linux). It imports nothing of ours: a guard starts in 20 ms.
"""

import ctypes
import json
import os
import pwd
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
POLL_S = 0.1
KILL_S = 10.0
CRASH_DRAIN_S = 5.0  # after the supervisor's death, when what a task needs is ending too


def prctl(option: int, value: int) -> None:
    """Ask Linux for something; elsewhere nothing."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def die_with_parent(sign: int = signal.SIGTERM) -> None:
    """Ask for `sign` when this process's parent ends, even by SIGKILL (Linux)."""
    prctl(PR_SET_PDEATHSIG, sign)


def ended(process: subprocess.Popen) -> bool:
    """Whether the command has ended; its orphans, children of the guard by now, are reaped too."""
    with suppress(ChildProcessError):
        pid = -1
        while pid:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode is not None


def main() -> int:
    spec, supervisor, hurry = json.loads(sys.argv[1]), os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: hurry.append(True))
    for ignored in (signal.SIGINT, signal.SIGHUP):  # SIG_IGN would pass to the command
        signal.signal(ignored, lambda *_: None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # an orphan of the command becomes a child of the guard
    user = {}
    if spec["user"]:
        group = pwd.getpwnam(spec["user"]).pw_gid
        user = {"user": spec["user"], "group": group, "extra_groups": []}
    process = subprocess.Popen(
        sys.argv[2:],
        stdin=subprocess.DEVNULL,
        pass_fds=[spec["record"]],
        preexec_fn=lambda: die_with_parent(spec["stop"]),  # one thread: this is safe
        **user,
    )
    while not ended(process) and not select.select([sys.stdin], [], [], POLL_S)[0]:
        pass
    if not ended(process):
        process.send_signal(spec["stop"])
        crashed = os.getppid() != supervisor
        drain_s = min(spec["drain_s"], CRASH_DRAIN_S) if crashed else spec["drain_s"]
        deadline = time.monotonic() + drain_s
        while not ended(process) and not hurry and time.monotonic() < deadline:
            time.sleep(POLL_S / 5)
    kill_descendants(process)
    if spec["remove"]:
        shutil.rmtree(spec["remove"], ignore_errors=True)
    code = process.returncode or 0
    return code if code >= 0 else 128 - code


def kill_descendants(process: subprocess.Popen) -> None:
    """What forks while it is being killed is met on the next round."""
    import psutil

    deadline = time.monotonic() + KILL_S
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for descendant in left:
            with suppress(psutil.Error):
                descendant.kill()
        time.sleep(POLL_S / 5)
        ended(process)


if __name__ == "__main__":
    sys.exit(main())
