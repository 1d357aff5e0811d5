"""`make demo`: two years of history and two syncs through the real stack, against the sandbox.

It works in `$VAR/demo`, emptied at each start and kept afterwards to look at; `$VAR/demo.json` has
everything it prints. It takes the sandbox's own accounts and keys, never those of `.env`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests

from demo.story import RUNS, SIX_HOURS, judge, play, times
from extract.core.interval import iso
from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.commands.balances import show_balances
from ledgerhouse.operate.commands.progress import Steps
from ledgerhouse.operate.commands.runs import show_runs
from ledgerhouse.operate.commands.tables import Answer, plain
from ledgerhouse.warehouse.connection import open_warehouse
from stack.__main__ import reported
from stack.live import running
from stack.lock import lock
from stack.settings import SettingsError, read_env, var_dir

PACKAGES = ("apache-airflow", "duckdb", "sqlmesh", "great-expectations")


def shown(path: Path) -> Path:
    """A path as people read it: from the working folder on, where it is below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def clear(var: Path) -> None:
    """Remove the state of an earlier demo; StackBusy when one is running there."""
    with lock(var, "make demo"):
        for entry in var.iterdir():
            if entry.name not in ("stack.lock", "stack.json"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def main() -> int:
    """Run the demo and print its report; 0 when all is well, else 1."""
    screen, var = Steps(), var_dir(read_env(os.environ))
    text, folder = os.environ.get("SANDBOX_SEED", "").strip() or "7", var / "demo"
    if not text.removeprefix("-").isdigit():
        raise SettingsError(f"SANDBOX_SEED is {text!r}; write a whole number")
    start, until, now = times(datetime.now(UTC))
    screen.line(
        f"Ledgerhouse demo, seed {text}: history {iso(start)} to {iso(until)}, then "
        f"two syncs up to {iso(now)}. State: {shown(folder)} (made again)"
    )
    clear(folder)
    os.environ["LEDGERHOUSE_ACCOUNTS"] = str(folder / "accounts.toml")  # written by running
    answer = Answer("table", seed=int(text), start=start, until=until, now=now)
    with ExitStack() as live:
        with screen.step("start PostgreSQL, the sandbox and Airflow") as step:
            options: dict[str, Any] = {"command": "make demo", "tell": step.note}
            stack = live.enter_context(
                running(folder, seed=int(text), now=until, start=start, **options)
            )
        play(screen, stack, start, until, now)
        with screen.step("stop Airflow"):
            stack.stop_airflow()
        with screen.step("compare the books with what the sandbox knows"):
            wrong = judge(stack, start, [until + SIX_HOURS, now])
            stats = requests.get(f"{stack.sandbox_url}/_stats", timeout=30).json()
        with screen.step("stop PostgreSQL and the sandbox"):
            live.close()
    with open_warehouse(folder / "warehouse.duckdb", owner="make demo", read_only=True) as con:
        accounts = AccountsFile.read().accounts()
        show_balances(con, answer, sorted((a.source, a.account) for a in accounts))
        answer.say("What each status means: docs/concepts.md, Statuses.\n", style="dim")
        show_runs(con, answer, len(RUNS))
    for sentence in wrong:
        screen.line(f"✗ {sentence}")
    if not wrong:
        screen.line(
            f"✓ every balance is what the sandbox's truth says of it, every critical check passed, "
            f"and the sandbox counted the same {sum(stats['total'].values()):,} calls and "
            f"{stats['units_spent']:,} units"
        )
    total = round(time.monotonic() - screen.began, 1)
    environment = {"system": platform.platform(), "python": platform.python_version()}
    environment |= {"cpus": os.cpu_count()} | {name: version(name) for name in PACKAGES}
    answer.document |= {"wrong": wrong, "ok": not wrong, "sandbox": stats}
    answer.document |= {"timings": {**screen.timings, "total": total}, "environment": environment}
    (var / "demo.json").write_text(json.dumps(plain(answer.document), indent=1) + "\n")
    screen.line(
        f"{total:.0f} s in all. Everything is in {shown(var / 'demo.json')}; the warehouse is "
        f"{shown(folder / 'warehouse.duckdb')}. To see the books in Airflow's UI: make ui"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(reported(main))
