"""Waiting for a DAG run: what it is doing meanwhile, and why it failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from ledgerhouse.operate.airflow.api import FINAL
from stack.live import Stack

POLL_S = 0.4
LOG_TAIL = 30
ACTIVE = {"running", "queued", "scheduled", "up_for_retry", "restarting"}
ENDED = {"success", "skipped", "failed", "upstream_failed", "removed"}


class RunFailed(RuntimeError):
    """A run failed; the message has the task and the end of its log."""


def follow(stack: Stack, dag: str, run: str, note: Callable[[str], None]) -> None:
    """Wait until a run has ended, saying what it does; RunFailed with a log when it failed."""
    while True:
        state = stack.rest.run(dag, run)["state"]
        tasks = stack.rest.task_instances(dag, run)
        if state in FINAL:
            break
        stack.processes.check()
        note(doing(tasks))
        time.sleep(POLL_S)
    if state == "failed":
        raise RunFailed(f"{dag} run {run} failed.\n{failures(stack, tasks)}")
    if not tasks:
        raise RunFailed(
            f"{dag} run {run} ended without a task: it is dated before the start of its DAG"
        )


def doing(tasks: list[dict]) -> str:
    """'fetch_debank 30 of 75, plan_coinbase_main': the tasks at work, or about to be."""
    total, done = Counter(t["task_id"] for t in tasks), Counter()
    active: dict[str, None] = {}
    for task in tasks:
        done[task["task_id"]] += task["state"] in ENDED
        if task["state"] in ACTIVE:
            active[task["task_id"]] = None
    parts = [
        f"{name} {done[name]} of {total[name]}" if total[name] > 1 else name for name in active
    ]
    return ", ".join(parts) or "waiting for the scheduler"


def failures(stack: Stack, tasks: list[dict]) -> str:
    """Each failed task with the end of its log (three at most)."""
    failed = [t for t in tasks if t["state"] == "failed"]
    parts = []
    for task in failed[:3]:
        mapped = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
        lines = stack.rest.log(task)[-LOG_TAIL:]
        parts.append(
            f"task {task['task_id']}{mapped}, try {task['try_number']}:\n  " + "\n  ".join(lines)
        )
    more = len(failed) - len(parts)
    return (
        "\n".join(parts)
        + (f"\nand {more} more failed" if more else "")
        + f"\nAll logs: {stack.settings.airflow_home / 'logs'}"
    )
