"""`make airflow ARGS="…"` and `make shell`: the settings of the stack that runs, for a command.

The user's terminal knows nothing of the stack's ports, databases and secrets; these give them to
one command, or to a shell, without ever printing them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

import psutil

from stack import postgres
from stack.airflow import environment
from stack.leftovers import Record
from stack.settings import API_PORT, Settings, read_env, var_dir


def attached(environ: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """What a process of the stack in the var folder sees, and whether that stack is running."""
    base, values = dict(environ), read_env(environ)
    var = var_dir(values)
    record = Record.load(var)
    alive = bool(record and psutil.pid_exists(record.supervisor) and record.facts.get("ui"))
    sockets, port = postgres.socket_dir(var / "postgres"), API_PORT
    if alive:
        sockets = Path(record.facts["socket_dir"])
        port = urlsplit(record.facts["ui"]).port or API_PORT
        sandbox = urlsplit(record.facts.get("sandbox", "")).port
        if sandbox:
            base["SANDBOX_PORT"] = str(sandbox)
            values = read_env(base)
    return environment(Settings(var, values), base, port, sockets), alive


def airflow(arguments: list[str]) -> int:
    """`airflow ARGUMENTS`, in the place of this process."""
    env, alive = attached(os.environ)
    if not alive and arguments[:1] != ["warehouse"]:
        print(
            f"No stack is running in {env['LEDGERHOUSE_VAR']}: start it with make up",
            file=sys.stderr,
        )
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *arguments], env)


def shell(_: list[str]) -> int:
    """The user's shell, in which `airflow …` is that of the stack."""
    env, alive = attached(os.environ)
    print(
        f"airflow … here is that of the stack in {env['LEDGERHOUSE_VAR']}"
        + ("" if alive else ", which is not running (make up)")
        + "; exit leaves",
        file=sys.stderr,
    )
    program = env.get("SHELL") or "/bin/sh"
    os.execve(program, [program], env)
