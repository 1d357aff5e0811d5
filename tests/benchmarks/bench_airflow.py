"""A warm sync run through Airflow: the whole stack, a small world, little new."""

from __future__ import annotations

import tempfile
from datetime import UTC, datetime, timedelta
from statistics import median

from demo.story import set_clock
from stack.follow import follow
from stack.live import running
from tests.benchmarks.measure import bench_var, row, tell

NOW = datetime(2026, 1, 31, tzinfo=UTC)
SIX_HOURS = timedelta(hours=6)


def rows(runs: int = 3, days: int = 90) -> list[dict]:
    """The table's row on Airflow: a history, a sync that warms up, then `runs` measured."""
    walls: list[float] = []
    slowest: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory(dir=bench_var()) as var,
        running(
            var,
            now=NOW,
            start=NOW - timedelta(days=days),
            command="benchmark",
            env={"SANDBOX_MESS": "no"},
            tell=tell,
        ) as stack,
    ):
        stack.rest.wait_for_dags("history", "sync")
        for dag in ("history", "sync"):
            stack.rest.unpause(dag)
        first, last = NOW - timedelta(days=days), NOW
        history = stack.rest.trigger(
            "history", {"interval_start": first.isoformat(), "interval_end": last.isoformat()}
        )
        follow(stack, "history", history, lambda _: None)
        tell(f"history of {days} days took {_wall(stack.rest.run('history', history)):.1f} s")
        for n in range(runs + 1):
            first, last = last, last + SIX_HOURS
            set_clock(stack, last)
            run = stack.rest.trigger("sync", interval=(first, last))
            follow(stack, "sync", run, lambda _: None)
            wall = _wall(stack.rest.run("sync", run))
            tell(f"sync {n}: {wall:.1f} s" + ("" if n else ", not counted"))
            if n:
                walls.append(wall)
                for task in stack.rest.task_instances("sync", run):
                    slowest.setdefault(task["task_id"], []).append(task["duration"] or 0)
    parts = sorted(((median(v), k) for k, v in slowest.items()), reverse=True)[:4]
    return [
        row(
            "a warm sync run through Airflow with little new, wall (preload)",
            f"**{median(walls):.1f} s** ({min(walls):.1f}–{max(walls):.1f}): "
            + ", ".join(f"{name} {took:.1f} s" for took, name in parts),
            "≤ 15 s",
            "≤ 6 s",
            median(walls) <= 15,
            f"Airflow, PostgreSQL and the sandbox as `make demo` starts them; {days} days of history, "
            f"one sync to warm up, then {len(walls)} of six hours each; from the run's start_date to "
            "its end_date",
        )
    ]


def _wall(run: dict) -> float:
    start, end = (
        datetime.fromisoformat(run[k].replace("Z", "+00:00")) for k in ("start_date", "end_date")
    )
    return (end - start).total_seconds()
