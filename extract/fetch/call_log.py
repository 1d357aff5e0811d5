"""The call log: a line for every HTTP request, failed ones too, written while it happens.

A fetch never opens the warehouse, so it appends a line a request to a file of its own; the load
task moves finished files into `ops.api_calls`. The file is locked while its writer lives, so
the log of a fetch that was killed is picked up too, up to its last whole line.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from extract.core import durable, sealed
from extract.core.interval import UTC

NEEDED = {"call_id", "called_at", "source", "account", "units"}
TORN = re.compile(rb'\{"(?!.*,"sum":"[0-9a-f]{16}"\}).*', re.DOTALL)  # a line without its end
RUN_FIELDS = ("dag_id", "run_id", "task_id", "map_index", "try_number")


@contextmanager
def call_log(root: Path, run: dict[str, Any]) -> Iterator[Callable[[dict[str, Any]], None]]:
    """Open a new file of the inbox; gives a function that writes one call (a dict) to it."""
    inbox = Path(root) / "inbox"
    durable.folder(inbox)
    run_key = {key: run.get(key) for key in RUN_FIELDS}
    with open(inbox / f"{uuid4().hex}.jsonl", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def record(call: dict[str, Any]) -> None:
            file.write(sealed.seal({**run_key, **call}) + "\n")
            file.flush()

        yield record


def logged(root: Path, first: date | None = None) -> Iterator[dict[str, Any]]:
    """Calls of the logs: those of the inbox, also of a fetch that goes on; with `first`, of loaded
    logs too, if they were written since that UTC day. What cannot be read is passed.
    """
    files = list((Path(root) / "inbox").glob("*.jsonl"))
    if first:
        since = datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()
        files += [
            file for file in Path(root).glob("????-??/*.jsonl") if file.stat().st_mtime >= since
        ]
    for file in files:
        for call, _ in calls(file):
            if call:
                yield call


def calls(file: Path) -> Iterator[tuple[dict[str, Any] | None, str]]:
    """The calls of a log, and in the place of one that cannot be read None, with what is wrong.
    Half a line at the end, which a kill has left, is passed."""
    every = list(sealed.lines(file))
    is_cut = not file.read_bytes().endswith(b"\n") and every[-1:]
    torn = every[-1][0] if is_cut and TORN.fullmatch(every[-1][1]) else 0
    for number, _, call in every:
        if isinstance(call, sealed.Damaged):
            if number != torn:
                yield None, f"line {number}: {call}"
        elif lacking := NEEDED - call.keys():
            yield None, f"line {number}: it has no {', '.join(sorted(lacking))}"
        else:
            yield call, ""
