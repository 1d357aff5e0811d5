"""`airflow warehouse export`: the books as one file, to hand over."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ledgerhouse.operate.commands.books import opened
from ledgerhouse.operate.commands.progress import Steps


def export(args: Any) -> int:
    """Write the file; 1 where it is there already, or the folder is not."""
    from ledgerhouse.publish import export as exporting

    steps, file = Steps(stderr=True), Path(args.duckdb).expanduser()
    with opened(args.output) as (_, answer):
        with steps.step(f"write {file}") as step:
            done = exporting.export(file, overwrite=args.force, on_table=step.note)
        answer.document |= {
            "file": str(file.resolve()),
            "tables": done.tables,
            "rows": done.rows,
            "bytes": done.bytes,
        }
        answer.say(
            f"{done.tables} tables, {done.rows:,} rows, {done.bytes / 1e6:.1f} MB in {file}: "
            "it needs no other file"
        )
    return 0
