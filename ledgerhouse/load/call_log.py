"""Loading of the call logs into ops.api_calls.

A finished file of `extract.fetch.call_log` is one whose lock is free: its writer has ended, or was
killed, and then the log is good up to its last whole line.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core import durable
from extract.core.quarantine import quarantine
from extract.fetch.call_log import calls

if TYPE_CHECKING:
    import duckdb

_COLUMNS = (
    "call_id VARCHAR, called_at VARCHAR, dag_id VARCHAR, run_id VARCHAR, task_id VARCHAR, "
    "map_index INTEGER, try_number INTEGER, source VARCHAR, account VARCHAR, endpoint VARCHAR, "
    "status INTEGER, duration_ms INTEGER, rows INTEGER, units INTEGER, units_left BIGINT, "
    "error VARCHAR, answered_at VARCHAR"
)


def load_calls(con: duckdb.DuckDBPyConnection, root: Path) -> int:
    """Move finished logs into ops.api_calls; the number of new calls. Twice equals once.

    A log with lines that are not as they were written goes to the quarantine of `root`; its other
    lines are loaded.
    """
    root = Path(root)
    files = [f for f in sorted((root / "inbox").glob("*.jsonl")) if _finished(f)]
    damaged = {file: wrong for file in files if (wrong := [why for _, why in calls(file) if why])}
    whole = [file for file in files if file not in damaged]
    new = 0
    if files:
        rest = root / ".rest.jsonl"
        rest.write_text(
            "".join(json.dumps(call) + "\n" for file in damaged for call, _ in calls(file) if call)
        )
        new = _insert(con, [*whole, rest])
        rest.unlink()
    folders = set()
    for file in whole:
        month = datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m")
        folder = durable.folder(root / month)
        durable.place(file, folder / file.name, sync_folders=False)
        folders |= {folder, file.parent}
    for folder in folders:
        durable.sync(folder)
    for file, wrong in damaged.items():
        quarantine(
            root, file, f"{len(wrong)} of its lines are not as they were written, {wrong[0]}"
        )
    return new


def _insert(con: duckdb.DuckDBPyConnection, files: Sequence[Path]) -> int:
    """Insert the calls of logs that ops.api_calls does not have; how many those are."""
    fields = [tuple(field.split(" ")) for field in _COLUMNS.split(", ")]
    columns = ", ".join(f"{name}: '{kind}'" for name, kind in fields)
    con.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE calls AS
        SELECT * REPLACE (called_at::TIMESTAMPTZ::TIMESTAMP AS called_at,
                          answered_at::TIMESTAMPTZ::TIMESTAMP AS answered_at)
        FROM read_json(?, format = 'newline_delimited', ignore_errors = true,
                       columns = {{{columns}}}) WHERE call_id IS NOT NULL""",
        [[str(f) for f in files]],
    )
    names = ", ".join(name for name, _ in fields)
    [(since,)] = con.execute("SELECT min(called_at) FROM calls").fetchall()
    [(new,)] = con.execute(
        f"""
        INSERT INTO ops.api_calls ({names}) SELECT {names} FROM calls ANTI JOIN (
            SELECT call_id FROM ops.api_calls WHERE called_at >= ?) USING (call_id)""",
        [since or datetime.min],
    ).fetchall()
    return new


def _finished(file: Path) -> bool:
    """Whether nobody writes the file any more."""
    with open(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
