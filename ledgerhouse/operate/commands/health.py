"""`airflow warehouse health`: whether syncs still come, for cron, systemd and monitors."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from extract.core.interval import iso
from ledgerhouse.operate.alerts.heartbeat import is_alive, newest_read
from ledgerhouse.operate.commands.books import ago


def health(args: Any) -> int:
    """One line; 1 where no sync has come for longer than `stale_after_hours`, or never.

    It needs the published books alone: no scheduler, no Airflow that runs, no warehouse.
    """
    from ledgerhouse.config import AccountsFile
    from ledgerhouse.operate.commands import CommandFailed
    from ledgerhouse.operate.commands.tables import Answer
    from ledgerhouse.publish.books import open_books

    try:
        rules = AccountsFile.read(what="alerts").rules()
    except ValueError as error:
        raise CommandFailed(str(error)) from None
    with open_books() as con:
        newest = newest_read(con)
    now, limit = datetime.now(UTC), rules.stale_after
    alive = is_alive(newest, limit, now)
    hours = f"{limit.total_seconds() / 3600:g} hours"
    answer = Answer(args.output, alive=alive, read_through=newest, stale_after=hours)
    if newest is None:
        answer.say("✗ nothing was ever read", style="bold red")
    elif alive:
        answer.say(f"✓ syncs come: read through {iso(newest)}, {ago(now - newest)} ago")
    else:
        answer.say(
            f"✗ no sync has come for {ago(now - newest)}, and {hours} are allowed: read through "
            f"{iso(newest)}. See that Airflow's scheduler runs, and that the DAG sync is not paused",
            style="bold red",
        )
    answer.end()
    return int(not alive)
