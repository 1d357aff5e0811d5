"""`airflow warehouse verify`: every damaged file, and what restores it."""

from __future__ import annotations

import logging
from typing import Any

from ledgerhouse.operate.commands.progress import Steps
from ledgerhouse.operate.commands.tables import Answer
from ledgerhouse.process import quiet


def verify(args: Any) -> int:
    """Look at everything that is kept; 1 when something is wrong."""
    from ledgerhouse.config import var_dir
    from ledgerhouse.operate.verification import verify as look_at_all

    with (
        quiet("extract", "ledgerhouse", level=logging.CRITICAL),  # the table says it
        Steps(stderr=True).step("verify what is kept") as step,
    ):
        done = look_at_all(var_dir(), "airflow warehouse verify", step.note)
    answer = Answer(args.output, counts=done.counts, folder=str(var_dir()))
    lines = [vars(finding) for finding in done.findings]
    answer.table(
        "findings",
        f"Damage in {var_dir()}",
        lines,
        {"file": "file", "what": "what is wrong", "cure": "what restores it"},
        marked=lambda row: True,
    )
    looked_at = ", ".join(f"{count:,} {kind}" for kind, count in done.counts.items())
    answer.say(
        f"✗ {len(lines)} findings in {looked_at}" if lines else f"✓ {looked_at}: all as written",
        style="bold red" if lines else None,
    )
    answer.end()
    return int(bool(lines))
