"""`make demo`: two years of history and two syncs through the real stack, against the sandbox.

It works in `$VAR/demo`, made anew each time and kept afterwards to look at; `$VAR/demo.json` has
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
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests

from stack.follow import follow
from stack.leftovers import Record, lock, sweep
from stack.live import Stack, running
from stack.screen import Screen
from stack.settings import PROJECT, iso, read_env, var_dir

SIX_HOURS = timedelta(hours=6)
TOO_CLOSE = timedelta(minutes=15)  # a scheduled sync must not start in the middle of the demo
HISTORY_DAYS = 730


def times(clock: datetime) -> tuple[datetime, datetime, datetime]:
    """(start of the history, end of the history, end of the last sync), whole six hours in UTC."""
    now = clock.replace(hour=clock.hour // 6 * 6, minute=0, second=0, microsecond=0)
    if now + SIX_HOURS - clock < TOO_CLOSE:
        now += SIX_HOURS
    until = now - 2 * SIX_HOURS
    start = (until - timedelta(days=HISTORY_DAYS)).replace(hour=0)
    return start, until, now


def clear(var: Path) -> None:
    """Remove the state of an earlier demo; StackBusy when one is running there."""
    with lock(var):
        earlier = Record.load(var)
        if earlier:
            sweep(var, earlier)
        for entry in var.iterdir():
            if entry.name != "stack.lock":
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def main() -> int:
    from ledgerhouse.config import accounts

    screen, var = Screen(), var_dir(read_env(os.environ))
    start, until, now = times(datetime.now(UTC))
    seed = _seed()
    where = var / "demo"
    screen.line(
        f"Ledgerhouse demo, seed {seed}: history {iso(start)} to {iso(until)}, then "
        f"two syncs up to {iso(now)}. State: {where} (made anew)"
    )
    clear(where)
    os.environ["LEDGERHOUSE_ACCOUNTS"] = str(PROJECT / "accounts.toml")
    facts: dict[str, Any] = {
        "seed": seed,
        "start": iso(start),
        "until": iso(until),
        "now": iso(now),
        "environment": environment_facts(),
    }
    runs: list[dict[str, Any]] = []
    with ExitStack() as live:
        with screen.step("start PostgreSQL, the sandbox and Airflow") as step:
            stack = live.enter_context(
                running(
                    where, seed=seed, now=until, start=start, command="stack demo", tell=step.note
                )
            )
        stats = play(screen, stack, runs, start, until, now)
        with screen.step("stop PostgreSQL and the sandbox"):
            live.close()
    return conclude(
        screen,
        var,
        where,
        facts,
        runs,
        stats,
        stack,
        [(a.source, a.account) for a in accounts(PROJECT / "accounts.toml")],
    )


def play(
    screen: Screen, stack: Stack, runs: list, start: datetime, until: datetime, now: datetime
) -> dict:
    """The three runs, each appended to `runs`; the sandbox's statistics, with Airflow stopped."""
    with screen.step("register the DAGs"):
        stack.rest.wait_for_dags("history", "sync")
        for dag in ("history", "sync"):
            stack.rest.unpause(dag)
    middle = until + SIX_HOURS
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
            runs.append({"name": name, "run_id": run, "clock": last, "sync": dag == "sync"})
            follow(stack, dag, run, step.note)
    stats = requests.get(f"{stack.sandbox_url}/_stats", timeout=30).json()
    with screen.step("stop Airflow"):
        stack.stop_airflow()
    return stats


def conclude(
    screen: Screen,
    var: Path,
    where: Path,
    facts: dict,
    runs: list,
    stats: dict,
    stack: Stack,
    accounts: list[tuple[str, str]],
) -> int:
    """Print the report, write demo.json; 0 when all is well, else 1."""
    from ledgerhouse.warehouse.connection import open_warehouse
    from stack import report as reports
    from stack import tables

    with open_warehouse(where / "warehouse.duckdb", owner="stack demo", read_only=True) as con:
        report = reports.read(con, runs)
    tables.show(screen.console, report)
    wrong = reports.verdict(report, accounts, facts["now"], stats, [r["name"] for r in runs])
    total = round(time.monotonic() - screen.began, 1)
    result = {
        **facts,
        "runs": [{**run, "clock": iso(run["clock"])} for run in runs],
        "timings": {**screen.timings, "total": total},
        "startup": stack.timings,
        **report,
        "sandbox": stats,
        "wrong": wrong,
        "ok": not wrong,
    }
    (var / "demo.json").write_text(json.dumps(result, indent=1, default=str) + "\n")
    for sentence in wrong:
        screen.line(f"✗ {sentence}")
    if not wrong:
        calls = sum(stats["total"].values())
        screen.line(
            f"✓ every account reconciles, every critical check passed, and the sandbox "
            f"counted the same {calls:,} calls and {stats['units_spent']:,} units"
        )
    screen.line(
        f"{total:.0f} s in all. Everything is in {var / 'demo.json'}; the warehouse is "
        f"{where / 'warehouse.duckdb'}. To see the books in Airflow's UI: make ui"
    )
    return 1 if wrong else 0


def set_clock(stack: Stack, now: datetime) -> None:
    """Move the sandbox's clock."""
    requests.post(
        f"{stack.sandbox_url}/_control/clock", json={"now": iso(now)}, timeout=30
    ).raise_for_status()


def environment_facts() -> dict[str, Any]:
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


if __name__ == "__main__":
    sys.exit(main())
