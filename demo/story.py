"""The demo's story, two years of history and two syncs, and whether it ended well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import requests

from extract.core.interval import iso
from ledgerhouse.config import AccountsFile
from ledgerhouse.operate.commands.balances import BALANCES
from ledgerhouse.operate.commands.progress import Steps
from ledgerhouse.operate.commands.tables import rows
from ledgerhouse.warehouse.connection import open_warehouse
from stack.follow import follow
from stack.live import Stack

SIX_HOURS = timedelta(hours=6)
TOO_CLOSE = timedelta(minutes=15)  # a scheduled sync must not start in the middle of the demo
HISTORY_DAYS = 730
RUNS = ("history", "sync-1", "sync-2")
MEASURES = ("calls", "units")
SPENT = """SELECT source, count(*) AS calls, coalesce(sum(units), 0)::BIGINT AS units
    FROM ops.api_calls GROUP BY ALL"""
CHECKED = """SELECT run_id, checkpoint,
    count(*) FILTER (NOT success AND severity = 'critical') AS critical
    FROM ops.checkpoints GROUP BY ALL ORDER BY ALL"""


def times(clock: datetime) -> tuple[datetime, datetime, datetime]:
    """(start of the history, end of the history, end of the last sync), whole six hours in UTC."""
    now = clock.replace(hour=clock.hour // 6 * 6, minute=0, second=0, microsecond=0)
    if now + SIX_HOURS - clock < TOO_CLOSE:
        now += SIX_HOURS
    until = now - 6 * SIX_HOURS  # the second sync comes after a day without one
    start = (until - timedelta(days=HISTORY_DAYS)).replace(hour=0)
    return start, until, now


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
    with open_warehouse(file, owner="make demo", read_only=True) as con:
        balances, spent, checks = (rows(con, sql) for sql in (BALANCES, SPENT, CHECKED))
    body = {"since": iso(start), "snapshots": [*map(iso, snapshots)], "rows": balances}
    body |= {"vendors": sorted({account.source for account in AccountsFile.read().accounts()})}
    body["spent"] = {f"{row['source']} {what}": row[what] for row in spent for what in MEASURES}
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
