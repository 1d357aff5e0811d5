"""Waiting for a DAG run: what it is doing meanwhile, and why it failed."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

from ledgerhouse.operate.airflow.api import FINAL
from stack.live import Stack

POLL_S = 0.4
LOG_TAIL = 30
SHOWN = 3  # failed tasks
ACTIVE = {"running", "queued", "scheduled", "up_for_retry", "restarting"}
ENDED = {"success", "skipped", "failed", "upstream_failed", "removed"}


class RunFailed(RuntimeError):
    """A run failed; the message has the task and the end of its log."""


def follow(stack: Stack, dag: str, run: str, note: Callable[[str], None]) -> None:
    """Wait until a run has ended, noting its progress; RunFailed with a log when it failed."""
    while True:
        state = stack.rest.run(dag, run)["state"]
        tasks = stack.rest.task_instances(dag, run)
        if state in FINAL:
            break
        stack.processes.revive(note)
        note(progress(tasks))
        time.sleep(POLL_S)
    if state == "failed":
        raise RunFailed(f"{dag} run {run} failed.\n{failures(stack, tasks)}")
    if not tasks:
        raise RunFailed(
            f"{dag} run {run} ended without a task: it is dated before the start of its DAG"
        )


def progress(tasks: list[dict]) -> str:
    """'fetch_debank 30 of 75, plan_coinbase_main': the tasks at work, or about to be."""
    total = Counter(task["task_id"] for task in tasks)
    ended = Counter(task["task_id"] for task in tasks if task["state"] in ENDED)
    active = dict.fromkeys(task["task_id"] for task in tasks if task["state"] in ACTIVE)
    parts = (
        f"{name} {ended[name]} of {total[name]}" if total[name] > 1 else name for name in active
    )
    return ", ".join(parts) or "waiting for the scheduler"


def failures(stack: Stack, tasks: list[dict]) -> str:
    """Each failed task with the end of its log (three at most)."""
    failed = [task for task in tasks if task["state"] == "failed"]
    parts = []
    for task in failed[:SHOWN]:
        mapped = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
        lines = "\n  ".join(stack.rest.log(task)[-LOG_TAIL:])
        parts.append(f"task {task['task_id']}{mapped}, try {task['try_number']}:\n  {lines}")
    if len(failed) > SHOWN:
        parts.append(f"and {len(failed) - SHOWN} more failed")
    return "\n".join([*parts, f"All logs: {stack.settings.airflow_home / 'logs'}"])
