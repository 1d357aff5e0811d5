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
import select
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from functools import partial
from logging.handlers import RotatingFileHandler
from threading import Thread

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


def keep_log(output: int, path: str, most: int, files: int) -> None:
    """Write what a pipe brings into a log file of `most` bytes, beside `files` full ones, until
    the pipe closes: the command holds the pipe and not the file, so that no log grows forever.

    A disk that is full costs lines, never the command: a pipe that nobody reads would stop it.
    """
    rotation = RotatingFileHandler(path, backupCount=files, delay=True)
    while text := os.read(output, 1 << 16):
        with suppress(OSError):
            if os.path.exists(path) and os.path.getsize(path) + len(text) > most:
                rotation.doRollover()
            with open(path, "ab", buffering=0, opener=partial(os.open, mode=0o600)) as file:
                file.write(text)


def ended(process: subprocess.Popen) -> bool:
    """Whether the command has ended; its orphans, children of the guard by now, are reaped too."""
    with suppress(ChildProcessError):
        pid = -1
        while pid:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == process.pid:
                process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode is not None


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


def main() -> int:
    spec, supervisor, hurry = json.loads(sys.argv[1]), os.getppid(), []
    signal.signal(signal.SIGTERM, lambda *_: hurry.append(True))
    for ignored in (signal.SIGINT, signal.SIGHUP):  # SIG_IGN would pass to the command
        signal.signal(ignored, lambda *_: None)
    prctl(PR_SET_CHILD_SUBREAPER, 1)  # an orphan of the command becomes a child of the guard
    output, its_end = os.pipe()
    process = subprocess.Popen(
        sys.argv[2:],
        stdin=subprocess.DEVNULL,
        stdout=its_end,
        stderr=its_end,
        pass_fds=[spec["record"]],
        preexec_fn=lambda: die_with_parent(spec["stop"]),  # one thread so far: this is safe
        **spec["user"],
    )
    os.close(its_end)
    log = Thread(target=keep_log, args=(output, *spec["log"]), daemon=True)
    log.start()
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
    log.join(KILL_S)
    if spec["remove"]:
        shutil.rmtree(spec["remove"], ignore_errors=True)
    code = process.returncode or 0
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
