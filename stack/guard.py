"""Guard of one service: runs its command, and ends all of it once the guard's pipe closes.

    guard.py SPEC COMMAND ...      (SPEC: JSON, written by `stack.processes`)

The supervisor holds the other end of the pipe on standard input: it closes when the supervisor
stops the service, and by itself when the supervisor dies, even by SIGKILL. The guard then sends
the command its stop signal, waits, and kills what is left: on Linux every descendant, elsewhere
orphans stay for `stack.lock.end_members`. If the guard itself is killed, the kernel sends the
command its stop signal (Linux). It imports nothing of ours: a guard starts in 20 ms.

What the command prints goes through the guard into the log file, which is rotated by size: the
command holds a pipe open and not the file, so no log grows forever.
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
from collections.abc import Callable
from contextlib import suppress

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # prctl(2)
POLL_S = 0.1
CHUNK, CHUNKS = 1 << 16, 64
APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND
KILL_S = 10.0
CRASH_DRAIN_S = 5.0  # after the supervisor's death, when what a task needs is ending too


def prctl(option: int, value: int) -> None:
    """Ask Linux for something; elsewhere nothing."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


class Log:
    """What a command prints, from the pipe `output` into a log file of about `most` bytes; of the
    full ones before it `keep` stay, .1 the newest.

    A disk that is full costs lines, and never the command, which a pipe that nobody reads would stop.
    """

    def __init__(self, output: int, path: str, most: int, keep: int) -> None:
        self.output, self.path, self.most, self.keep = [output], path, most, keep
        self.file = os.open(path, APPEND, 0o600)

    def pump(self, wait_s: float = 0.0, *more: object) -> list:
        """Write what has been printed; which of `more` can be read, after `wait_s` at most."""
        ready = select.select([*self.output, *more], [], [], wait_s)[0]
        for _ in range(CHUNKS):  # a command that never stops printing may be stopped all the same
            if not self.output or not select.select(self.output, [], [], 0)[0]:
                break
            text = os.read(self.output[0], CHUNK)
            if not text:  # all ends of the pipe are closed
                self.output = []
            with suppress(OSError):
                self.write(text)
        return [each for each in ready if each in more]

    def write(self, text: bytes) -> None:
        size = os.fstat(self.file).st_size
        if size and size + len(text) > self.most:
            for number in range(self.keep, 1, -1):
                with suppress(FileNotFoundError):
                    os.replace(f"{self.path}.{number - 1}", f"{self.path}.{number}")
            os.replace(self.path, f"{self.path}.1")
            os.close(self.file)
            self.file = os.open(self.path, APPEND, 0o600)
        os.write(self.file, text)


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
    output, its_end = os.pipe()
    log = Log(output, spec["log"], spec["log_bytes"], spec["log_files"])
    process = subprocess.Popen(
        sys.argv[2:],
        stdin=subprocess.DEVNULL,
        stdout=its_end,
        stderr=its_end,
        pass_fds=[spec["record"]],
        preexec_fn=lambda: die_with_parent(spec["stop"]),  # one thread: this is safe
        **user,
    )
    os.close(its_end)
    while not ended(process) and not log.pump(POLL_S, sys.stdin):
        pass
    if not ended(process):
        process.send_signal(spec["stop"])
        crashed = os.getppid() != supervisor
        drain_s = min(spec["drain_s"], CRASH_DRAIN_S) if crashed else spec["drain_s"]
        deadline = time.monotonic() + drain_s
        while not ended(process) and not hurry and time.monotonic() < deadline:
            log.pump()
            time.sleep(POLL_S / 5)
    kill_descendants(process, log.pump)
    log.pump()
    if spec["remove"]:
        shutil.rmtree(spec["remove"], ignore_errors=True)
    code = process.returncode or 0
    return code if code >= 0 else 128 - code


def kill_descendants(process: subprocess.Popen, meanwhile: Callable[[], object]) -> None:
    """What forks while it is being killed is met on the next round."""
    import psutil

    deadline = time.monotonic() + KILL_S
    while (left := psutil.Process().children(recursive=True)) and time.monotonic() < deadline:
        for descendant in left:
            with suppress(psutil.Error):
                descendant.kill()
        meanwhile()
        time.sleep(POLL_S / 5)
        ended(process)


if __name__ == "__main__":
    sys.exit(main())
