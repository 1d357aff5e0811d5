"""Waiting for a DAG run of a stack: what it is doing meanwhile, and why it failed."""

from __future__ import annotations

from collections.abc import Callable

from ledgerhouse.operate.commands.follow import at_work, follow_run
from stack.live import Stack

LOG_TAIL = 30
SHOWN = 3  # failed tasks


class RunFailed(RuntimeError):
    """A run failed; the message has the task and the end of its log."""


def follow(stack: Stack, dag: str, run: str, note: Callable[[str], None]) -> None:
    """Wait until a run has ended, noting its progress; RunFailed with a log when it failed."""

    def meanwhile(tasks: list[dict]) -> None:
        stack.processes.revive(note)
        note(at_work(tasks))

    state, tasks = follow_run(stack.rest, dag, run, meanwhile)
    if state == "failed":
        failed = [task for task in tasks if task["state"] == "failed"]
        said = [f"{dag} run {run} failed."]
        for task in failed[:SHOWN]:
            mapped = f"[{task['map_index']}]" if task["map_index"] >= 0 else ""
            lines = "\n  ".join(stack.rest.log(task)[-LOG_TAIL:])
            said.append(f"task {task['task_id']}{mapped}, try {task['try_number']}:\n  {lines}")
        if len(failed) > SHOWN:
            said.append(f"and {len(failed) - SHOWN} more failed")
        raise RunFailed("\n".join([*said, f"All logs: {stack.settings.airflow_home / 'logs'}"]))
    if not tasks:
        reason = "ended without a task: it is dated before the start of its DAG"
        raise RunFailed(f"{dag} run {run} {reason}")
