"""Run a command that ends when its supervisor does: `child.py PARENT_PID USER|- COMMAND ...`.

A file of its own, started with `python -I -S`, because the parent-death signal must be asked
for in the child, after a change of user (which clears it) and before the command starts; doing
so in `preexec_fn` would run Python between fork and exec of a process that has threads.
"""

import ctypes  # here, not later: the other user may not be able to read our Python
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # prctl(2)


def die_with_parent(parent: int | None = None) -> None:
    """Ask for SIGTERM when the parent ends, even by SIGKILL (Linux; elsewhere nothing)."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if parent is not None and os.getppid() != parent:  # it ended before we asked
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    parent, user, *command = sys.argv[1:]
    if user != "-":
        import pwd

        entry = pwd.getpwnam(user)
        os.setgroups([])
        os.setgid(entry.pw_gid)
        os.setuid(entry.pw_uid)
    die_with_parent(int(parent))
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
