"""Unit balances: what the vendor says is left, before and after the fetches of a run, against our
own count.

The tasks that ask for a balance leave a small file each, since a plan has closed the warehouse by
then; the load moves the files of its run into `ops.account_units`. A balance that cannot be read
is logged and missed, nothing else: it is never the reason why a run fails.
"""

from __future__ import annotations

import logging
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from extract.core import durable, sealed
from extract.core.interval import UTC, utc
from extract.core.quarantine import quarantine

if TYPE_CHECKING:
    import duckdb

log = logging.getLogger(__name__)

FIELDS = {"reading_at", "source", "connection", "run_id", "moment", "balance", "accounts"}
LEFT_BEHIND = timedelta(days=1)  # a run that never came to its load


def note(
    root: Path,
    *,
    source: str,
    connection: str,
    run_id: str,
    moment: str,
    balance: int,
    accounts: list[str],
) -> None:
    """Leave a balance read just now; `accounts` are those that share the connection."""
    durable.write(
        Path(root) / f"{uuid4().hex}.json",
        sealed.seal(
            {
                "reading_at": datetime.now(UTC).isoformat(),
                "source": source,
                "connection": connection,
                "run_id": run_id,
                "moment": moment,
                "balance": balance,
                "accounts": accounts,
            }
        ),
    )


def waiting(root: Path) -> list[tuple[Path, dict[str, Any]]]:
    """Balances not loaded yet, oldest first: (file, content). A file that cannot be read goes to
    quarantine: a balance is missed, no more."""
    balances = []
    for file in Path(root).glob("*.json"):
        try:
            balance = sealed.read(file)
        except sealed.Damaged as error:
            quarantine(root, file, str(error))
            continue
        if lacking := FIELDS - balance.keys():
            quarantine(root, file, f"it has no {', '.join(sorted(lacking))}")
        else:
            balances.append((file, balance))
    return sorted(balances, key=lambda entry: entry[1]["reading_at"])


def load_unit_balances(con: duckdb.DuckDBPyConnection, root: Path, run_id: str) -> None:
    """Move the run's balances into ops.account_units, twice equals once; a difference is logged.

    Needs the run's calls in ops.api_calls. Balances of other runs wait for theirs, for a day.
    """
    oldest = datetime.now(UTC) - LEFT_BEHIND
    for file, reading in waiting(root):
        if reading["run_id"] != run_id and utc(reading["reading_at"]) > oldest:
            continue
        _insert(con, reading)
        file.unlink()


def _insert(con, reading: dict[str, Any]) -> None:
    """Insert one balance, with what was used since the one before the fetches; log both counts."""
    at = utc(reading["reading_at"]).replace(tzinfo=None)
    key = [reading["source"], reading["connection"], reading["run_id"], reading["moment"]]
    of_run = "source = ? AND connection = ? AND run_id = ? AND moment = ?"
    if con.execute(
        f"SELECT 1 FROM ops.account_units WHERE {of_run} AND reading_at = ?", [*key, at]
    ).fetchone():
        return
    used = counted = None
    before = con.execute(
        f"SELECT reading_at, balance FROM ops.account_units WHERE {of_run} AND reading_at < ? "
        "ORDER BY reading_at DESC LIMIT 1",
        [*key[:3], "before", at],
    ).fetchone()
    if reading["moment"] == "after" and before:
        used = before[1] - reading["balance"]
        (counted,) = con.execute(
            "SELECT coalesce(sum(units), 0)::BIGINT FROM ops.api_calls WHERE source = ? AND "
            "list_contains(?, account) AND called_at >= ? AND called_at < ?",
            [reading["source"], reading["accounts"], before[0], at],
        ).fetchone()
    con.execute(
        "INSERT INTO ops.account_units (reading_at, source, connection, run_id, moment, "
        "balance, used, counted) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        [at, *key, reading["balance"], used, counted],
    )
    if used is None:
        return
    words = (
        f"{reading['source']}, connection {reading['connection']}: {used:,} units by the vendor's "
        f"count, {counted:,} by ours; {reading['balance']:,} are left"
    )
    if used == counted:
        log.info("%s", words)
    elif used < 0:
        log.warning("%s. They were refilled meanwhile", words)
    else:
        log.warning(
            "%s. Where no other run used the key at the time, the prices assumed are off: "
            'set them in the Connection\'s extra, {"units": {endpoint: units}}',
            words,
        )
