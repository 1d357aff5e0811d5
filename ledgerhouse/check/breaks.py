"""The break finder: where a token that is off went wrong, by how much, and which row it may be.

    find_breaks(con, sources) -> int    ops.breaks made again; how many there are

Every snapshot is kept, so all are compared: d(t) = reported - computed. Since the newest snapshot
that agreed, each change of d is a break: it happened within the window (snapshot before, snapshot
that shows it], and its step is what is missing, too much or wrong. A row of the window whose
amount the step is, is the suspect. Nothing is compared while every token agrees.

The breaks of running balances, which the load finds (ops.chain_breaks), are among them, with what
reading their window again takes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING

from extract.core.interval import Interval, utc
from extract.core.source import Source
from ledgerhouse.check.suspects import NO_TIME, Break, named
from ledgerhouse.config import Account, var_dir
from ledgerhouse.plan.estimate import Known, simulate
from ledgerhouse.transform.adjustments import refused
from ledgerhouse.transform.adjustments_file import entries
from ledgerhouse.transform.residuals import (
    PRECISION,
    Residual,
    Token,
    plain,
    residuals,
    snapshots,
)
from ledgerhouse.warehouse.transaction import transaction

if TYPE_CHECKING:
    import duckdb

DRIFTS_FROM = 3  # steps of one sign, at as many snapshots: growth, not errors
ENTRY = timedelta(seconds=1)  # what is read again ends behind the entry that shows a break
OFF = (
    "SELECT source, account, token FROM curated.reconciliation WHERE status IN ('off', 'settling')"
)


def find_breaks(con: duckdb.DuckDBPyConnection, sources: Mapping[str, Source]) -> int:
    """Write ops.breaks: for the tokens that are off, the running balances that do not follow from each
    other, and the refused entries of adjustments.toml."""
    off = con.execute(OFF).fetchall()
    found: list[Break] = []
    with localcontext(prec=PRECISION):
        if off:
            instants = {who: at for who, (_, at) in snapshots(con).items()}
            series = residuals(con, off, instants)
            steps = [b for token, at in series.items() for b in breaks_of(token, at)]
            for one in steps:
                found.append(named(con, one, steps))
        found = _priced(con, sources, [*found, *_of_chains(con)])
        if any(entries()):
            found += _refusals(con)
        _write(con, found)
    return len(found)


def breaks_of(token: Token, at: Sequence[Residual]) -> list[Break]:
    """The breaks of a token since it last agreed, oldest first, no suspect named yet.

    Steps of one sign at most snapshots in a row are one break: a drift, of suspect rebase.
    """
    last_good = max((n for n, residual in enumerate(at) if residual.agrees), default=-1)
    before = at[last_good].difference if last_good >= 0 else Decimal(0)
    found: list[Break] = []
    for n in range(last_good + 1, len(at)):
        step = at[n].difference - before
        if abs(step) > at[n].tolerance:
            since = at[n - 1].ts if n else None
            found.append(Break(*token, since, at[n].ts, at[-1].ts, step, at[n].difference))
        before = at[n].difference
    # Two that cancel each other: what was late has come.
    kept: list[Break] = []
    for one in found:
        if kept and abs(kept[-1].step + one.step) <= at[-1].tolerance:
            kept.pop()
        else:
            kept.append(one)
    drifting = kept[1:] if kept and kept[0].last_good_ts is None else kept
    signs = {one.step > 0 for one in drifting}
    if len(drifting) >= DRIFTS_FROM and len(signs) == 1 and 2 * len(drifting) >= len(at):
        first, last = drifting[0], drifting[-1]
        days = Decimal((last.first_bad_ts - (first.last_good_ts or NO_TIME)).total_seconds())
        total = sum((one.step for one in drifting), Decimal(0))
        held = max(abs(at[-1].reported), abs(at[-1].computed), Decimal("1e-18"))
        rate = abs(total) / held / max(days / 86400, Decimal(1)) * 100
        drift = replace(
            first,
            step=total,
            residual=last.residual,
            suspect="rebase",
            explanation=f"it {'grows' if total > 0 else 'shrinks'} at nearly every snapshot, "
            f"{rate:.4f} % a day: if it rebases, add it to rebasing.toml",
        )
        kept = [*kept[: len(kept) - len(drifting)], drift]
    return kept


def _priced(
    con: duckdb.DuckDBPyConnection, sources: Mapping[str, Source], found: Sequence[Break]
) -> list[Break]:
    """With what reading each window again would take."""
    priced: list[Break] = []
    known: dict[tuple[str, str], Known] = {}
    begins = {who: since for who, (since, _) in snapshots(con).items()} if found else {}
    for one in found:
        who, now = (one.source, one.account), utc(one.last_bad_ts)
        begin = one.last_good_ts or begins.get(who)
        end = utc(one.first_bad_ts) + (timedelta(0) if one.wallet is None else ENTRY)
        if one.source not in sources or begin is None or utc(begin) >= end:
            priced.append(one)
            continue
        account = Account(*who, "")
        if who not in known:
            known[who] = Known.read(con, sources, [account], now)
        window = Interval(utc(begin), end)
        (run,) = simulate(known[who], sources, [account], [window], now, refetch=True)
        cost = run.get(one.source)
        priced.append(replace(one, calls=cost.calls, units=cost.units) if cost else one)
    return priced


def _of_chains(con: duckdb.DuckDBPyConnection) -> list[Break]:
    """The breaks of running balances."""
    return [
        Break(
            *(source, account, token, after, ts, ts),
            *(Decimal(missing or 0), Decimal(missing or 0)),
            suspect,
            ref or entry,
            f"entry {entry} of wallet {wallet}: {words}",
            wallet=wallet,
            found_at=found_at,
            is_step_known=missing is not None,
        )
        for source, account, wallet, token, after, ts, entry, missing, suspect, ref, words, found_at in con.execute(
            "SELECT source, account, wallet, token, after_ts, ts, entry_id, missing_text, suspect, "
            "suspect_ref, explanation, found_at FROM ops.chain_breaks ORDER BY ALL"
        ).fetchall()
    ]


def _refusals(con: duckdb.DuckDBPyConnection) -> list[Break]:
    """Entries of adjustments.toml that are not booked."""
    found = []
    for name, (entry, why) in refused(con, var_dir() / "landing").items():
        who = (entry.source, entry.account, entry.token) if entry else ("", "", "")
        ts, amount = (entry.ts, entry.amount) if entry else (NO_TIME, Decimal(0))
        found.append(
            Break(
                *who,
                None,
                ts,
                ts,
                amount,
                Decimal(0),
                "adjustment",
                None,
                f"{name} is refused: {why}",
            )
        )
    return found


def _write(con: duckdb.DuckDBPyConnection, found: Sequence[Break]) -> None:
    """Replace ops.breaks; what was found before keeps its found_at."""
    before = {
        row[:5]: row[5]
        for row in con.execute(
            "SELECT source, account, token, first_bad_ts, suspect, found_at FROM ops.breaks "
            "WHERE wallet IS NULL"
        ).fetchall()
    }
    if not found and not con.execute("SELECT 1 FROM ops.breaks LIMIT 1").fetchone():
        return
    (now,) = con.execute("SELECT (now() AT TIME ZONE 'UTC')::TIMESTAMP").fetchone() or (NO_TIME,)
    with transaction(con):
        con.execute("DELETE FROM ops.breaks")
        for one in found:
            con.execute(
                "INSERT INTO ops.breaks (source, account, token, last_good_ts, first_bad_ts, "
                "last_bad_ts, step_text, residual_text, suspect, suspect_ref, explanation, "
                "refetch_calls, refetch_units, found_at, wallet) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    *one.key,
                    one.last_good_ts,
                    one.first_bad_ts,
                    one.last_bad_ts,
                    plain(one.step) if one.is_step_known else "",
                    plain(one.residual) if one.is_step_known else "",
                    one.suspect,
                    one.suspect_ref,
                    one.explanation,
                    one.calls,
                    one.units,
                    one.found_at or before.get((*one.key, one.first_bad_ts, one.suspect), now),
                    one.wallet,
                ],
            )
