"""`ops.quarantined_files`: the quarantines of a var folder as a table, for alerts and readers.

The folders are the truth: a file that is removed from its quarantine leaves the table with the next
load.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core.quarantine import quarantined
from extract.fetch import landing
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

PLACES = ("", "landing", "calls", "attempts", "account_units", "data_docs")
STAMP = "%Y%m%dT%H%M%S"


def record_quarantined(con: duckdb.DuckDBPyConnection, var: Path) -> int:
    """Make ops.quarantined_files say what is in quarantine; how many files that is."""
    rows = []
    for place in PLACES:
        for file, reason, found_at in quarantined(Path(var) / place):
            source = account = ""
            start = end = None
            if place == "landing" and (match := landing.NAME.match(file.name)):
                source, account, first, last, *_ = match[0].split("~")
                start, end = datetime.strptime(first, STAMP), datetime.strptime(last, STAMP)
            at = found_at.replace(tzinfo=None, microsecond=0)
            rows.append((place, file.name, source, account, start, end, reason, at))
    names = "place, file, source, account, start_ts, end_ts, reason, found_at"
    known = con.execute(f"SELECT {names} FROM ops.quarantined_files").fetchall()
    if sorted(map(repr, known)) != sorted(map(repr, rows)):
        with transaction(con):
            con.execute("DELETE FROM ops.quarantined_files")
            for row in rows:
                con.execute(
                    f"INSERT INTO ops.quarantined_files ({names}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                    row,
                )
    return len(rows)
