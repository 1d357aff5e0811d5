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
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests

from extract.core.interval import iso
from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.commands.balances import BALANCES, show_balances
from ledgerhouse.operate.commands.progress import Steps
from ledgerhouse.operate.commands.runs import show_runs
from ledgerhouse.operate.commands.tables import Answer, plain, rows
from ledgerhouse.warehouse.connection import open_warehouse
from stack.follow import follow
from stack.live import Stack, running
from stack.lock import lock
from stack.settings import PROJECT, SettingsError, read_env, var_dir

SIX_HOURS = timedelta(hours=6)
TOO_CLOSE = timedelta(minutes=15)  # a scheduled sync must not start in the middle of the demo
HISTORY_DAYS = 730
RUNS = ("history", "sync-1", "sync-2")
SPENT = """SELECT source, count(*) AS calls, coalesce(sum(units), 0)::BIGINT AS units
    FROM ops.api_calls GROUP BY ALL"""
CHECKED = """SELECT run_id, checkpoint,
    count(*) FILTER (NOT success AND severity = 'critical') AS critical
    FROM ops.checkpoints GROUP BY ALL ORDER BY ALL"""
PACKAGES = ("apache-airflow", "duckdb", "sqlmesh", "great-expectations")


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
    os.environ["LEDGERHOUSE_ACCOUNTS"] = str(PROJECT / "accounts.toml")
    answer = Answer("table", seed=int(text), start=start, until=until, now=now)
    with ExitStack() as live:
        with screen.step("start PostgreSQL, the sandbox and Airflow") as step:
            options: dict[str, Any] = {"command": "stack demo", "tell": step.note}
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
    with open_warehouse(folder / "warehouse.duckdb", owner="stack demo", read_only=True) as con:
        accounts = AccountsFile.read(PROJECT / "accounts.toml").accounts()
        show_balances(con, answer, [(account.source, account.account) for account in accounts])
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


def play(screen: Steps, stack: Stack, start: datetime, until: datetime, now: datetime) -> None:
    """The three runs, played one after the other, each with the sandbox's clock at its end."""
    with screen.step("register the DAGs"):
        stack.rest.wait_for_dags("history", "sync")
        for dag in ("history", "sync"):
            stack.rest.unpause(dag)
    middle = until + SIX_HOURS
    for name, first, last in zip(RUNS, (start, until, middle), (until, middle, now), strict=True):
        with screen.step(f"{name}: [{iso(first)}, {iso(last)})") as step:
            set_clock(stack, last)
            # An interval given as params is fetched alone; a data interval also brings the
            # snapshot of balances.
            params = {"interval_start": iso(first), "interval_end": iso(last)}
            options = {"conf": params} if name == "history" else {"interval": (first, last)}
            dag = name.partition("-")[0]
            follow(stack, dag, stack.rest.trigger(dag, run_id=name, **options), step.note)


def judge(stack: Stack, start: datetime, snapshots: Sequence[datetime]) -> list[str]:
    """What is wrong, in sentences: checks that failed, and what the sandbox knows otherwise, of each
    balance at the last of the `snapshots` and of calls and units."""
    file = stack.settings.var / "warehouse.duckdb"
    with open_warehouse(file, owner="stack demo", read_only=True) as con:
        balances, spent, checks = (rows(con, sql) for sql in (BALANCES, SPENT, CHECKED))
    body = {"since": iso(start), "snapshots": [*map(iso, snapshots)], "rows": balances}
    counts = {f"{row['source']} calls": row["calls"] for row in spent}
    body |= {"spent": counts | {"units": sum(row["units"] for row in spent)}}
    truth = requests.post(f"{stack.sandbox_url}/_truth/differences", json=body, timeout=120)
    truth.raise_for_status()
    return [*truth.json(), *failed(checks)]


def failed(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """The runs that were not checked, and the critical expectations that failed, in sentences."""
    known = {row["run_id"] for row in checks}
    return [f"{run}: no checkpoint was recorded" for run in RUNS if run not in known] + [
        f"{row['run_id']}: {row['critical']} critical expectation(s) of {row['checkpoint']} failed"
        for row in checks
        if row["critical"]
    ]


def set_clock(stack: Stack, now: datetime) -> None:
    """Move the sandbox's clock."""
    body = {"now": iso(now)}
    requests.post(f"{stack.sandbox_url}/_control/clock", json=body, timeout=30).raise_for_status()
