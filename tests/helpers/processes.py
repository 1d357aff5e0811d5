"""Processes that belong to a var folder, and services that fork, ignore signals or die."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil

NOW = datetime(2026, 1, 31, 6, tzinfo=UTC)
START = NOW - timedelta(days=20)
GONE_S = 15.0


def belonging_to(var: Path) -> list[str]:
    """Living processes with `var` in their command line, environment or working folder."""
    living = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            command = process.cmdline()
            traces = [*command, *process.environ().values(), process.cwd()]
        except (psutil.Error, OSError):
            continue
        if any(str(var) in trace for trace in traces):
            living.append(f"{process.pid} {' '.join(command)[:120]}")
    return living


def await_lines(log: Path, count: int) -> None:
    deadline = time.monotonic() + GONE_S
    while log.read_text().count("ready") < count and time.monotonic() < deadline:
        time.sleep(0.05)
    assert log.read_text().count("ready") == count
