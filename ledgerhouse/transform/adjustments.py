"""Movements that no vendor lists, so that balances do not ignore the past: raw.adjustments.

    settle(con, root)            bring raw.adjustments up to date and mark the days that changed
    refused(con, root)           entries of adjustments.toml that are not booked, and why

opening            what a wallet held before its history begins, where its first entry states the
                   balance after it: exact (see exact_openings)
opening_inferred   what an account held before its history begins: reported - computed at its first
                   covered snapshot, booked where the history begins. Rows that come late still
                   change it until a snapshot SETTLED later is covered; then it is fixed, and noted
                   in the landing (openings.jsonl), so that a replay gives the same. What differs
                   later is a difference. None for a token that arrived later, that is spam, whose
                   computed balance is too high, or of whose movements an amount is not known.
(a user's kind)    an entry of adjustments.toml, as long as it makes its residual smaller
rebase             growth of a token of rebasing.toml between two snapshots, within its band;
                   derived again from all snapshots, so that rows that come late correct it

Everything is derived from raw, from the landing and from two files, so it is the same after a
replay; only what differs is written.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal, localcontext
from pathlib import Path
from typing import TYPE_CHECKING

from extract.core.interval import iso
from ledgerhouse.transform.adjustments_file import TICK, Entry, bands, entries
from ledgerhouse.transform.openings import COLUMNS, Adjustment, openings
from ledgerhouse.transform.residuals import (
    PRECISION,
    Residual,
    Token,
    is_growth,
    most_growth,
    plain,
    residuals,
    snapshots,
)
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

DATASET = "adjustments"  # of their marks in ops.touched_days


def settle(con: duckdb.DuckDBPyConnection, root: Path) -> str | None:
    """Write what raw.adjustments lacks; the batch of the marks on days that are to be transformed
    for it, None where nothing changed.

    The models have run over all that is marked. `root` is the landing's folder. Raises ValueError
    where rebasing.toml cannot be read.
    """
    with localcontext(prec=PRECISION):
        rows, _ = _derived(con, root, note=True)
        return _write(con, rows)


def refused(con: duckdb.DuckDBPyConnection, root: Path) -> dict[str, tuple[Entry | None, str]]:
    """By its name: an entry of adjustments.toml that is not booked (None where it could not even
    be read), and why."""
    with localcontext(prec=PRECISION):
        return _derived(con, root, note=False)[1]


def _derived(
    con: duckdb.DuckDBPyConnection, root: Path, *, note: bool
) -> tuple[list[Adjustment], dict[str, tuple[Entry | None, str]]]:
    """Every adjustment there is to be, and the entries that are none."""
    found = snapshots(con)
    listed, wrong = entries()
    refusals: dict[str, tuple[Entry | None, str]] = {n: (None, why) for n, why in wrong.items()}
    owners = {(source, account.lower()): (source, account) for source, account in found}
    placed: dict[Token, list[Entry]] = defaultdict(list)
    for entry in sorted(listed, key=lambda e: e.ts):
        who = (entry.source, entry.account)
        if who not in found and ":" in entry.token:
            who = owners.get((entry.source, entry.account.lower()), who)
        if who in found:
            placed[*who, entry.token].append(entry)
        else:
            refusals[entry.name] = (
                entry,
                f"no snapshot of {entry.source} {entry.account} is covered yet",
            )
    by_token: dict[Token, list[Adjustment]] = defaultdict(list)
    for opening in openings(con, root, found, placed, note=note):
        by_token[opening.key].append(opening)
    rebasing = bands()
    growing = [
        (source, account, token)
        for source, account, token in con.execute(
            "SELECT DISTINCT source, account, token FROM raw.balances "
            "WHERE list_contains($tokens::VARCHAR[], token)",
            {"tokens": sorted(rebasing)},
        ).fetchall()
    ]
    instants = {who: at for who, (_, at) in found.items()}
    bare = residuals(con, {*placed, *growing}, instants, bare=True)
    for token, its_entries in placed.items():
        for entry in its_entries:
            why = _judged(entry, bare.get(token, []), by_token[token])
            if why:
                refusals[entry.name] = (entry, why)
                continue
            ident = "/".join((*token, entry.kind, f"{entry.ts:%Y%m%dT%H%M%S%f}"))
            by_token[token].append(
                Adjustment(
                    ident, *token, entry.ts, entry.kind, entry.amount, entry.evidence, entry.note
                )
            )
    for token in growing:
        if token in bare:
            (since, at), rate = found[token[:2]], rebasing[token[2]]
            most = most_growth(con, token, rate, since, at[0])
            by_token[token] += _growth(token, bare[token], by_token[token], since, rate, most)
    return [row for rows in by_token.values() for row in rows], refusals


def _judged(entry: Entry, at: Iterable[Residual], booked: Iterable[Adjustment]) -> str | None:
    """Why an entry is not booked: it must make the first residual that follows it smaller."""
    residual = next((r for r in at if r.ts > entry.ts), None)
    if residual is None:
        return f"no snapshot after {iso(entry.ts)} is covered yet"
    if residual.lost:
        return f"at {iso(residual.ts)} an amount is not known, so that nothing proves it"
    residual = residual.plus(a.amount for a in booked if a.ts < residual.ts)
    left = residual.difference - entry.amount
    if abs(left) < abs(residual.difference):
        return None
    return (
        f"at {iso(residual.ts)} reported - computed is {plain(residual.difference)} without it and "
        f"would be {plain(left)} with it: what it explained is gone, or was never there. Remove it"
    )


def _growth(
    token: Token,
    at: list[Residual],
    booked: list[Adjustment],
    since: datetime,
    rate: Decimal,
    most: Decimal,
) -> list[Adjustment]:
    """A row for each snapshot at which the residual moved within the token's band, which is `rate`
    a day, and at the first snapshot also `most` of all that was held before."""
    rows, before, then = [], Decimal(0), since
    held = Decimal(0)
    for residual in at:
        residual = residual.plus(a.amount for a in booked if a.ts < residual.ts)
        held = max(held, abs(residual.reported), abs(residual.computed))
        step = residual.difference - before
        within = is_growth(step, held, rate, then, residual.ts) or (
            then == since and 0 < step <= most
        )
        if not residual.lost and abs(step) > residual.tolerance and within:
            ident = "/".join((*token, "rebase", f"{residual.ts:%Y%m%dT%H%M%S%f}"))
            evidence = f"snapshots of {iso(then)} and {iso(residual.ts)}"
            rows.append(Adjustment(ident, *token, residual.ts - TICK, "rebase", step, evidence))
            before = residual.difference
        elif not residual.lost and abs(step) > residual.tolerance:
            before = residual.difference
        held, then = max(abs(residual.reported), abs(residual.computed)), residual.ts
    return rows


def _write(con: duckdb.DuckDBPyConnection, rows: Iterable[Adjustment]) -> str | None:
    """Make raw.adjustments these rows, and mark the days of those that differ."""
    wanted = {row.adjustment_id: row.row() for row in rows}
    there = {
        row[0]: row for row in con.execute(f"SELECT {COLUMNS} FROM raw.adjustments").fetchall()
    }
    gone = [row for ident, row in there.items() if wanted.get(ident) != row]
    new = [row for ident, row in wanted.items() if there.get(ident) != row]
    if not gone and not new:
        return None
    days = sorted({row[4].date() for row in (*gone, *new)})
    digest = hashlib.sha256(repr((sorted(map(repr, gone)), sorted(map(repr, new)))).encode())
    batch = f"{DATASET}-{digest.hexdigest()[:12]}"
    with transaction(con):
        con.execute(
            "DELETE FROM raw.adjustments WHERE adjustment_id IN (SELECT unnest($ids::VARCHAR[]))",
            {"ids": [row[0] for row in gone]},
        )
        if new:
            con.executemany(
                f"INSERT INTO raw.adjustments ({COLUMNS}, amount, recorded_at) "
                "SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, TRY_CAST($7 AS DECIMAL(38, 18)), "
                "(now() AT TIME ZONE 'UTC')::TIMESTAMP",
                new,
            )
        con.execute(
            "INSERT INTO ops.touched_days (dataset, day, batch_id) "
            "SELECT $dataset, unnest($days::DATE[]), $batch",
            {"dataset": DATASET, "days": days, "batch": batch},
        )
    return batch
