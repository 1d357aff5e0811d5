"""`make demo`: two years of history and two syncs through the real stack, against the sandbox.

It works in `$VAR/demo`, emptied at each start and kept afterwards to look at; `$VAR/demo.json` has
everything it prints. It takes the sandbox's own accounts and keys, never those of `.env`.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests

from extract.core.interval import iso
from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.commands.progress import Steps
from stack import truth
from stack.follow import follow
from stack.live import Stack, running
from stack.lock import lock
from stack.settings import read_env, var_dir

SIX_HOURS = timedelta(hours=6)
TOO_CLOSE = timedelta(minutes=15)  # a scheduled sync must not start in the middle of the demo
HISTORY_DAYS = 730


def times(clock: datetime) -> tuple[datetime, datetime, datetime]:
    """(start of the history, end of the history, end of the last sync), whole six hours in UTC."""
    now = clock.replace(hour=clock.hour // 6 * 6, minute=0, second=0, microsecond=0)
    if now + SIX_HOURS - clock < TOO_CLOSE:
        now += SIX_HOURS
    until = now - 6 * SIX_HOURS  # the second sync comes after a day without one
    start = (until - timedelta(days=HISTORY_DAYS)).replace(hour=0)
    return start, until, now


def shown(path: Path) -> Path:
    """A path as people read it: from the working folder on, where it is below that."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def clear(var: Path) -> None:
    """Remove the state of an earlier demo; StackBusy when one is running there."""
    with lock(var, "stack demo"):
        for entry in var.iterdir():
            if entry.name not in ("stack.lock", "stack.json"):
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def main() -> int:
    """Run the demo and print its report; 0 when all is well, else 1."""
    screen, var, seed = Steps(), var_dir(read_env(os.environ)), _seed()
    start, until, now = times(datetime.now(UTC))
    folder = var / "demo"
    screen.line(
        f"Ledgerhouse demo, seed {seed}: history {iso(start)} to {iso(until)}, then "
        f"two syncs up to {iso(now)}. State: {shown(folder)} (made again)"
    )
    clear(folder)
    os.environ["LEDGERHOUSE_ACCOUNTS"] = str(folder / "accounts.toml")  # written by running
    with ExitStack() as live:
        with screen.step("start PostgreSQL, the sandbox and Airflow") as step:
            stack = live.enter_context(
                running(
                    folder,
                    seed=seed,
                    now=until,
                    start=start,
                    command="stack demo",
                    tell=step.note,
                )
            )
        runs = play(screen, stack, start, until, now)
        stats = requests.get(f"{stack.sandbox_url}/_stats", timeout=30).json()
        snapshots = [run["clock"] for run in runs if run["sync"]]
        listed = {account.source for account in AccountsFile.read().accounts()}
        expected = truth.ask(stack.sandbox_url, iso(start), snapshots, listed)
        with screen.step("stop Airflow"):
            stack.stop_airflow()
        with screen.step("stop PostgreSQL and the sandbox"):
            live.close()
    result = {
        "seed": seed,
        "start": iso(start),
        "until": iso(until),
        "now": iso(now),
        "environment": machine(),
        "runs": runs,
        "startup": stack.timings,
        "sandbox": stats,
    }
    return conclude(screen, var, folder, result, expected)


def play(
    screen: Steps, stack: Stack, start: datetime, until: datetime, now: datetime
) -> list[dict]:
    """The three runs, played one after the other: name, run_id, clock and whether it is a sync."""
    with screen.step("register the DAGs"):
        stack.rest.wait_for_dags("history", "sync")
        for dag in ("history", "sync"):
            stack.rest.unpause(dag)
    middle, runs = until + SIX_HOURS, []
    for name, dag, first, last in (
        ("history", "history", start, until),
        ("sync 1", "sync", until, middle),
        ("sync 2", "sync", middle, now),
    ):
        with screen.step(f"{name}: [{iso(first)}, {iso(last)})") as step:
            set_clock(stack, last)
            # An interval given as params is fetched alone; a data interval also brings the
            # snapshot of balances.
            params = {"interval_start": iso(first), "interval_end": iso(last)}
            run = (
                stack.rest.trigger(dag, params)
                if dag == "history"
                else stack.rest.trigger(dag, interval=(first, last))
            )
            runs.append({"name": name, "run_id": run, "clock": iso(last), "sync": dag == "sync"})
            follow(stack, dag, run, step.note)
    return runs


def conclude(
    screen: Steps, var: Path, folder: Path, result: dict[str, Any], expected: truth.Expectations
) -> int:
    """Print the report, write demo.json; 0 when all is well, else 1."""
    from ledgerhouse.warehouse.connection import open_warehouse
    from stack import report as reports
    from stack import tables

    warehouse, stats = folder / "warehouse.duckdb", result["sandbox"]
    with open_warehouse(warehouse, owner="stack demo", read_only=True) as con:
        report = reports.read(con, result["runs"])
    tables.show(screen.console, report)
    listed = [(a.source, a.account) for a in AccountsFile.read().accounts()]
    names = [run["name"] for run in result["runs"]]
    wrong = reports.verdict(report, listed, result["now"], stats, names, expected)
    total = round(time.monotonic() - screen.began, 1)
    result |= {"timings": {**screen.timings, "total": total}, **report}
    result |= {"wrong": wrong, "ok": not wrong}
    (var / "demo.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    for sentence in wrong:
        screen.line(f"✗ {sentence}")
    if not wrong:
        calls = sum(stats["total"].values())
        screen.line(
            f"✓ every balance is what the sandbox's truth says of it, every critical check passed, "
            f"and the sandbox counted the same {calls:,} calls and {stats['units_spent']:,} units"
        )
    screen.line(
        f"{total:.0f} s in all. Everything is in {shown(var / 'demo.json')}; the warehouse is "
        f"{shown(warehouse)}. To see the books in Airflow's UI: make ui"
    )
    return 1 if wrong else 0


def set_clock(stack: Stack, now: datetime) -> None:
    """Move the sandbox's clock."""
    requests.post(
        f"{stack.sandbox_url}/_control/clock", json={"now": iso(now)}, timeout=30
    ).raise_for_status()


def machine() -> dict[str, Any]:
    """The machine and the versions the timings belong to."""
    packages = ("apache-airflow", "duckdb", "sqlmesh", "great-expectations")
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        **{name: version(name) for name in packages},
    }


def _seed() -> int:
    text = os.environ.get("SANDBOX_SEED", "").strip() or "7"
    try:
        return int(text)
    except ValueError:
        raise SystemExit(f"SANDBOX_SEED is {text!r}; write a whole number") from None
