"""Replay: the warehouse is built again from the landing alone, without a call to a vendor.

    replay(var) -> Replayed

The landing's own order of loads is followed batch by batch into a new file beside the old one;
raw, history, coverage and the record of loads come out row for row as they were (or as a new
mapping reads them). What the landing does not know (calls, runs, checkpoints) is carried over
from the old file. Then one rename puts the new file in place: whatever dies before leaves the
old warehouse, whatever dies after leaves days marked as touched, which the next transform
builds. The caller transforms, checks and publishes.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from extract.core import durable
from extract.core.datasets import DATASETS
from extract.core.source import Source
from extract.fetch import landing
from ledgerhouse.load.loader import Loaded, LoadFailed, load_files
from ledgerhouse.warehouse import migrate
from ledgerhouse.warehouse.connection import WAIT_S, connected, hold
from ledgerhouse.warehouse.schema import create_all

log = logging.getLogger(__name__)

FROM_LANDING = (
    *(d.table for d in DATASETS.values()),
    "raw.history",
    "raw.rejected",
    "ops.coverage",
    "ops.unread_parts",
    "ops.part_states",
    "ops.batches",
    "ops.landed_files",
)
CARRIED = (
    "ops.api_calls",
    "ops.sync_runs",
    "ops.checkpoints",
    "ops.refreshes",
    "ops.budgets",
    "ops.listings",
    "ops.account_units",
    "ops.breaks",
    "ops.held_accounts",
    "ops.incidents",
    "ops.notices",
)
REPORT_EVERY_S = 2.0


class ReplayFailed(RuntimeError):
    """The landing could not be replayed; the warehouse is as it was before."""


@dataclass(frozen=True)
class Replayed:
    """What a replay did. `differences`: table → rows that are not as they were, either way."""

    loads: int
    loaded: Loaded
    differences: dict[str, int]
    seconds: float


def replay(
    warehouse: Path,
    root: Path,
    sources: dict[str, Source],
    *,
    owner: str = "replay",
    wait_s: float = WAIT_S,
    tell: Callable[[str], None] = log.info,
) -> Replayed:
    """Rebuild the warehouse file from the landing at `root`; holds the warehouse meanwhile.

    Raises ReplayFailed naming the file that is missing or cannot be read, with the old file
    in place.
    """
    began, draft = time.monotonic(), warehouse.parent / "replay" / warehouse.name
    with hold(warehouse, owner, wait_s):
        shutil.rmtree(draft.parent, ignore_errors=True)
        draft.parent.mkdir(parents=True)
        with connected(draft) as con:
            create_all(con)
            order = _order(root)
            loaded = _load_all(con, order, sources, tell)
            differences = _carry_over(con, warehouse)
        durable.place(draft, warehouse)
        warehouse.with_name(warehouse.name + ".wal").unlink(missing_ok=True)
        shutil.rmtree(draft.parent, ignore_errors=True)
    return Replayed(len(order), loaded, differences, time.monotonic() - began)


def _order(root: Path) -> list[tuple[landing.Load, list[Path]]]:
    """Every load with its files, in order."""
    files, order = landing.archived(root), []
    # A kill between commit and move leaves a loaded file in the inbox.
    files |= {file.name: file for file in landing.waiting(root) if file.name not in files}
    for load in landing.loads(root):
        missing = [name for name in load.files if name not in files]
        if missing:
            raise ReplayFailed(
                f"{missing[0]} was loaded on {load.loaded_at:%Y-%m-%d} but is not in the landing "
                f"({root}) any more; bring it back from a backup, or keep the warehouse as it "
                "is: it was not touched"
            )
        order.append((load, [files[name] for name in load.files]))
    known = {name for load, _ in order for name in load.files}
    lost = [name for name in landing.archived(root) if name not in known]
    if lost:
        raise ReplayFailed(
            f"{lost[0]} (and {len(lost) - 1} more) is in the landing's archive, but loads.jsonl "
            "does not say when it was loaded; move such files to the landing's inbox and they are "
            "loaded like new ones"
        )
    return order


def _load_all(con, order, sources: dict[str, Source], tell) -> Loaded:
    """Load batch by batch, in the order of the landing."""
    total, reported = Loaded(), float("-inf")
    for number, (load, files) in enumerate(order, 1):
        try:
            total = total.plus(load_files(con, files, sources, load.loaded_at))
        except LoadFailed as error:
            raise ReplayFailed(f"load {number} of {len(order)}: {error}") from error
        if time.monotonic() - reported > REPORT_EVERY_S or number == len(order):
            reported = time.monotonic()
            tell(f"replayed {number} of {len(order)} loads, {total.rows:,} rows")
    return total


def _carry_over(con, old: Path) -> dict[str, int]:
    """Copy what the landing does not know, and count what has become different.

    Where the old file is of another version, what both have: see ledgerhouse.warehouse.migrate.
    """
    import duckdb

    if not old.exists():
        return {}
    con.execute(f"ATTACH '{str(old).replace(chr(39), chr(39) * 2)}' AS old (READ_ONLY)")
    try:
        here, there = migrate.columns(con), migrate.columns(con, "'old'")
        for table in CARRIED:
            names = ", ".join(f'"{n}"' for n in here[table] if n in there.get(table, ()))
            if not names:
                continue
            try:
                con.execute(f"INSERT INTO {table} BY NAME SELECT {names} FROM old.{table}")
            except duckdb.Error as error:
                raise ReplayFailed(
                    f"the rows of {table}, which the landing does not know, do not fit this "
                    f"version of it: {str(error).splitlines()[0]}. The old warehouse is in place; "
                    "go back to the version that made it, or give the new column a type and NULLs "
                    "that the old rows fit"
                ) from error
            for name in there[table].keys() - here[table].keys():
                log.warning("%s.%s is no column of this version, and was left behind", table, name)
        differences = {}
        for table in FROM_LANDING:
            if table not in there:
                continue
            same = here[table] == there[table]
            # The hash is of all columns, so it tells nothing where there are others now.
            names = ", ".join(
                f'"{n}"'
                for n in migrate.shared(here[table], there[table])
                if same or n != "row_hash"
            )
            mine, theirs = (f"SELECT {names} FROM {each}" for each in (table, f"old.{table}"))
            (count,) = con.execute(
                f"SELECT count(*) FROM (({mine} EXCEPT ALL {theirs}) UNION ALL "
                f"({theirs} EXCEPT ALL {mine}))"
            ).fetchone()
            if count:
                differences[table] = count
        return differences
    finally:
        con.execute("DETACH old")
