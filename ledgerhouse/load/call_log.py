"""Loading of the call logs into ops.api_calls.

A finished file of `extract.fetch.call_log` is one whose lock is free: its writer has ended, or was
killed, and then the log is good up to its last whole line.
"""

from __future__ import annotations

import fcntl
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core import durable

if TYPE_CHECKING:
    import duckdb

_COLUMNS = (
    "call_id VARCHAR, called_at VARCHAR, dag_id VARCHAR, run_id VARCHAR, task_id VARCHAR, "
    "map_index INTEGER, try_number INTEGER, source VARCHAR, account VARCHAR, endpoint VARCHAR, "
    "status INTEGER, duration_ms INTEGER, rows INTEGER, units INTEGER, units_left BIGINT, "
    "error VARCHAR, answered_at VARCHAR"
)


def load_calls(con: duckdb.DuckDBPyConnection, root: Path) -> int:
    """Move finished logs into ops.api_calls; the number of new calls. Twice equals once."""
    files = [f for f in sorted((Path(root) / "inbox").glob("*.jsonl")) if _finished(f)]
    if not files:
        return 0
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
    folders = set()
    for file in files:
        month = datetime.fromtimestamp(file.stat().st_mtime).strftime("%Y-%m")
        folder = durable.folder(Path(root) / month)
        durable.place(file, folder / file.name, sync_folders=False)
        folders |= {folder, file.parent}
    for folder in folders:
        durable.sync(folder)
    return new


def _finished(file: Path) -> bool:
    """Whether nobody writes the file any more."""
    with open(file) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True
