"""Replay: the warehouse is built again from the landing alone, without a call to a vendor.

    replay(warehouse, landing, sources) -> Replayed

The landing's own order of loads is followed batch by batch into a new file beside the old one;
raw, history, coverage and the record of loads come out row for row as they were (or as a new
mapping reads them). What the landing does not know (calls, runs, checkpoints) is carried over
from the old file, as far as that can be read. Then one rename puts the new file in place:
whatever dies before leaves the old warehouse, whatever dies after leaves days marked as touched,
which the next transform builds. The caller transforms, checks and publishes.

More is not replaced by less: where the landing lacks a file that the warehouse has loaded, or one
that it noted itself, or cannot read one, nothing is done unless that is accepted.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import Path

from extract.core.datasets import DATASETS
from extract.core.sealed import Damaged
from extract.core.source import Source
from extract.fetch import archives, landing
from ledgerhouse.load import old_warehouse
from ledgerhouse.load.loader import Loaded, LoadFailed, load_files
from ledgerhouse.warehouse import migrate
from ledgerhouse.warehouse.connection import WAIT_S, connected, hold, wal
from ledgerhouse.warehouse.encrypted import attach
from ledgerhouse.warehouse.schema import create_all

log = logging.getLogger(__name__)

FROM_LANDING = (
    *(d.table for d in DATASETS.values()),
    "raw.history",
    "raw.rejected",
    "ops.coverage",
    "ops.unread_parts",
    "ops.part_states",
    "ops.running_balances",
    "ops.chain_breaks",
    "ops.chain_gaps",
    "ops.batches",
    "ops.landed_files",
    "ops.sources",
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
MOST_NAMED = 5  # files that an error names


class ReplayFailed(RuntimeError):
    """The landing could not be replayed; the warehouse is as it was before."""


@dataclass(frozen=True)
class Replayed:
    """What a replay did.

    differences   table → rows that are not as they were, either way; of those that could be read
    less          landed files that are missing or damaged, and why: the warehouse is without them
    damage        what of the old warehouse could not be read, in words
    not_carried   tables that only the old warehouse had, and that could not be carried over
    kept          where the old warehouse is now; empty where nothing of it is missing in the new
    """

    loads: int
    loaded: Loaded
    differences: dict[str, int]
    seconds: float
    less: dict[str, str]
    damage: tuple[str, ...] = ()
    not_carried: tuple[str, ...] = ()
    kept: str = ""


Order = list[tuple[landing.Load, list[archives.Kept]]]


def replay(
    warehouse: Path,
    root: Path,
    sources: dict[str, Source],
    *,
    accept_less: bool = False,
    owner: str = "replay",
    wait_s: float = WAIT_S,
    tell: Callable[[str], None] = log.info,
) -> Replayed:
    """Rebuild the warehouse file from the landing at `root`; holds the warehouse meanwhile.

    Raises ReplayFailed naming the files that are missing or cannot be read, with the old file in
    place. With `accept_less` it goes on without them: their time is no longer covered, and is
    fetched again. The old file is then kept beside the new one, as it is where bookkeeping that
    only it had could not be read.
    """
    began, draft = time.monotonic(), warehouse.parent / "replay" / warehouse.name
    with hold(warehouse, owner, wait_s):
        shutil.rmtree(draft.parent, ignore_errors=True)
        (draft.parent / "old").mkdir(parents=True)
        old = old_warehouse.examine(warehouse, draft.parent / "old")
        for words in old.damage:
            log.warning("of the old warehouse this cannot be read: %s", words)
        order, less = order_of(root, old)
        if less and not accept_less:
            raise ReplayFailed(_refusal(root, less))
        if not order and not accept_less and old.damage and not old.loads:
            raise ReplayFailed(
                f"the landing ({root}) holds no load, and the warehouse cannot be read to tell "
                "whether it should. Bring the landing back from a backup; the warehouse was not "
                "touched. To begin with an empty one all the same, say --accept-less"
            )
        with connected(draft) as con:
            create_all(con)
            loaded = load_all(con, order, sources, draft.parent / "landing", tell)
            differences = _carry_over(con, old)
            loads = old_warehouse.loads_of(con)
            con.execute("CHECKPOINT")
        if wal(draft).exists():
            raise ReplayFailed(f"{draft} could not be written whole; the old warehouse is in place")
        not_carried = tuple(t for t in CARRIED if t not in old.tables) if old.damage else ()
        _note_order(root, order, loads, less)
        kept = old_warehouse.replace(warehouse, draft, keep=bool(less or old.damage))
        shutil.rmtree(draft.parent, ignore_errors=True)
    return Replayed(
        len(order),
        loaded,
        differences,
        time.monotonic() - began,
        less,
        old.damage,
        not_carried,
        str(kept or ""),
    )


def order_of(root: Path, old: old_warehouse.OldWarehouse) -> tuple[Order, dict[str, str]]:
    """Every load with its files, in order; and files that are missing or damaged, with the reason.

    What the old warehouse has loaded belongs to it where loads.jsonl has lost the line.
    """
    kept = archives.kept(root)
    files, order, less = dict(kept), [], {}
    # A kill between commit and move leaves a loaded file in the inbox.
    files |= {file.name: file for file in landing.waiting(root) if file.name not in files}
    noted = landing.loads(root)
    known = {name for load in noted for name in load.files}
    loads = [*noted, *(load for load in old.loads if not known.intersection(load.files))]
    for load in sorted(loads, key=lambda load: (load.sequence, load.loaded_at)):
        whole, digests = [], {}
        for name in load.files:
            if name not in files:
                less[name] = (
                    f"it was loaded on {load.loaded_at:%Y-%m-%d}, and is not in the landing"
                )
                continue
            try:
                digests[name] = archives.inspect(files[name], load.digests.get(name))
                whole.append(files[name])
            except Damaged as error:
                less[name] = str(error)
        if whole:
            order.append((changed(load, digests=digests), whole))
    known |= {name for load in loads for name in load.files}
    for load in old.loads:
        for name in set(load.files) - known:
            less[name] = f"it was loaded on {load.loaded_at:%Y-%m-%d}, and is not in the landing"
    lost = [name for name in kept if name not in known]
    if lost:
        raise ReplayFailed(
            f"{lost[0]} (and {len(lost) - 1} more) is in the landing's archive, but loads.jsonl "
            "does not say when it was loaded; move such files to the landing's inbox and they are "
            "loaded like new ones"
        )
    return order, less


def _refusal(root: Path, less: dict[str, str]) -> str:
    named = "; ".join(f"{name}: {why}" for name, why in list(less.items())[:MOST_NAMED])
    more = f"; and {len(less) - MOST_NAMED} more" if len(less) > MOST_NAMED else ""
    return (
        f"the warehouse would have less than before: {len(less)} landed file(s) are missing or "
        f"damaged. {named}{more}. Bring them back from a backup of the landing ({root}), under the "
        "same names; the warehouse was not touched. To go on without them, say --accept-less: what "
        "they cover is then fetched again, and the old warehouse is kept beside the new one"
    )


def _note_order(root: Path, order: Order, loads: list[landing.Load], less: dict[str, str]) -> None:
    """Bring the landing in line with the new warehouse, where it was not: loads.jsonl lists what
    was loaded now, and damaged files are in quarantine.

    It comes before the new warehouse takes its place: killed between, the old one knows more than
    the landing, and a replay says so again.
    """
    if less:
        archives.put_aside(root, less)
    digests = {name: digest for load, _ in order for name, digest in load.digests.items()}
    new = [changed(load, digests={name: digests[name] for name in load.files}) for load in loads]
    before = [(load.batch_id, load.files) for load in landing.loads(root)]
    if before != [(load.batch_id, load.files) for load in new]:
        kept = landing.note_loads(root, new)
        log.warning(
            "%s did not list what was loaded: it is written again, the old is %s", root, kept
        )


def load_all(con, order: Order, sources: dict[str, Source], scratch: Path, tell) -> Loaded:
    """Load batch by batch, in the order of the landing; files of archives lie in `scratch` for as
    long as they are read."""
    total, reported = Loaded(), float("-inf")
    for number, (load, files) in enumerate(order, 1):
        try:
            with archives.extracted(files, scratch) as paths:
                total = total.plus(load_files(con, paths, sources, load.loaded_at))
        except (LoadFailed, Damaged) as error:
            raise ReplayFailed(f"load {number} of {len(order)}: {error}") from error
        if time.monotonic() - reported > REPORT_EVERY_S or number == len(order):
            reported = time.monotonic()
            tell(f"replayed {number} of {len(order)} loads, {total.rows:,} rows")
    return total


def _carry_over(con, old: old_warehouse.OldWarehouse) -> dict[str, int]:
    """Copy what the landing does not know, and count what has become different; of the tables that
    can be read.

    Where the old file is of another version, what both have: see ledgerhouse.warehouse.migrate.
    """
    import duckdb

    if old.path is None:
        return {}
    attach(con, old.path, "old", read_only=True)
    try:
        here = migrate.columns(con)
        there = {t: c for t, c in migrate.columns(con, "'old'").items() if t in old.tables}
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
