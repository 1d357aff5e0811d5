"""`airflow warehouse encrypt`: all that is kept, written again under the key that is set."""

from __future__ import annotations

import logging
from typing import Any

from ledgerhouse.operate.commands import CommandFailed
from ledgerhouse.operate.commands.progress import Steps
from ledgerhouse.operate.commands.tables import Answer
from ledgerhouse.process import quiet


def encrypt(args: Any) -> int:
    """Exit code 1 where a file could not be read, and is as it was."""
    import duckdb

    from ledgerhouse.config import var_dir
    from ledgerhouse.operate import encrypting
    from ledgerhouse.publish.reencrypt import BooksDamaged
    from ledgerhouse.transform.rebuild import DiskFull

    try:
        with (
            quiet("extract", "ledgerhouse", level=logging.CRITICAL),
            Steps(stderr=True).step("write what is kept again") as step,
        ):
            done = encrypting.encrypt(
                var_dir(), off=args.off, owner="airflow warehouse encrypt", tell=step.note
            )
    except (BooksDamaged, DiskFull, duckdb.Error) as error:
        raise CommandFailed(
            f"{' '.join(str(error).split())}. What was written before that is; run it again once "
            "this is repaired (airflow warehouse verify says how)"
        ) from None
    answer = Answer(args.output, **vars(done))
    state = "in plain text" if args.off else "encrypted"
    answer.say(
        f"✓ {done.landed:,} landed and {done.published:,} published files"
        + (" and the warehouse" if done.warehouse else "")
        + f" written again, {state}; all others were so already"
    )
    for file, why in done.damaged:
        answer.say(f"✗ as it was: {file}: {why}", style="bold red")
    for file in done.left:
        answer.say(f"As it was: {file}. Remove it when you need it no more", style="bold red")
    answer.end()
    return int(bool(done.damaged))
