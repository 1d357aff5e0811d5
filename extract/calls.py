"""The call log: every HTTP request, failed ones too, written down while it happens.

A fetch never opens the warehouse, so it appends a line a request to a file of its own; the load
task moves finished files into `ops.api_calls`. The file is locked while its writer lives, so
the log of a fetch that was killed is picked up too, up to its last whole line.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from extract.core.interval import UTC

RUN_FIELDS = ("dag_id", "run_id", "task_id", "map_index", "try_number")

_COLUMNS = (
    "call_id VARCHAR, called_at VARCHAR, dag_id VARCHAR, run_id VARCHAR, task_id VARCHAR, "
    "map_index INTEGER, try_number INTEGER, source VARCHAR, account VARCHAR, endpoint VARCHAR, "
    "status INTEGER, duration_ms INTEGER, rows INTEGER, units INTEGER, units_left BIGINT, "
    "error VARCHAR, answered_at VARCHAR"
)


@contextmanager
def call_log(root: Path, run: dict[str, Any]) -> Iterator:
    """A function that writes one call (a dict) down at once, in a new file of the inbox."""
    inbox = Path(root) / "inbox"
    inbox.mkdir(parents=True, exist_ok=True)
    facts = {key: run.get(key) for key in RUN_FIELDS}
    with open(inbox / f"{uuid4().hex}.jsonl", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)

        def record(call: dict[str, Any]) -> None:
            file.write(json.dumps({**facts, **call}) + "\n")
            file.flush()

        yield record


def load_calls(con, root: Path) -> int:
    """Move finished logs into ops.api_calls; the number of new calls. Twice equals once."""
    files = [f for f in sorted((Path(root) / "inbox").glob("*.jsonl")) if _finished(f)]
    if not files:
        return 0
    fields = dict(field.split(" ") for field in _COLUMNS.split(", "))
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in fields.items())
    con.execute(f"""
        CREATE OR REPLACE TEMP TABLE calls AS
        SELECT * REPLACE (called_at::TIMESTAMPTZ::TIMESTAMP AS called_at,
                          answered_at::TIMESTAMPTZ::TIMESTAMP AS answered_at)
        FROM read_json(?, format = 'newline_delimited', ignore_errors = true,
                       columns = {{{columns}}}) WHERE call_id IS NOT NULL""",
        [[str(f) for f in files]])
    names = ", ".join(fields)
    (since,) = con.execute("SELECT min(called_at) FROM calls").fetchone()
    (new,) = con.execute(f"""
        INSERT INTO ops.api_calls ({names}) SELECT {names} FROM calls ANTI JOIN (
            SELECT call_id FROM ops.api_calls WHERE called_at >= ?) USING (call_id)""",
        [since or datetime.min]).fetchone()
    for file in files:
        folder = Path(root) / datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m")
        folder.mkdir(exist_ok=True)
        os.replace(file, folder / file.name)
    return new


def logged(root: Path, first: date | None = None) -> Iterator[dict[str, Any]]:
    """Calls of the logs: those of the inbox, also of a fetch that goes on; with `first`, of loaded
    logs too, if they were written since that UTC day. Half a line is passed.
    """
    files = list((Path(root) / "inbox").glob("*.jsonl"))
    if first:
        since = datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp()
        files += [file for file in Path(root).glob("????-??/*.jsonl")
                  if file.stat().st_mtime >= since]
    for file in files:
        for line in file.read_bytes().splitlines():
            try:
                call = json.loads(line)
            except ValueError:
                continue
            yield call


def _finished(file: Path) -> bool:
    with open(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
