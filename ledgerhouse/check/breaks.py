"""The break finder: where a token that is off went wrong, by how much, and which row it may be.

    find_breaks(con, sources) -> int    ops.breaks made again; how many there are

Every snapshot is kept, so all are compared: d(t) = reported - computed. Since the newest snapshot
that agreed, each change of d is a break: it happened within the window (snapshot before, snapshot
that shows it], and its step is what is missing, too much or wrong. A row of the window whose
amount the step is, is the suspect. Nothing is compared while every token agrees.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING

from extract.core.interval import Interval, utc
from extract.core.source import Source
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
NEAR = Decimal("1e-15")  # of an amount that went through a JSON double
ELSEWHERE = timedelta(days=1)  # the other side of a transfer
NO_TIME = datetime(1970, 1, 1)  # of an entry of adjustments.toml that cannot be read
OFF = (
    "SELECT source, account, token FROM curated.reconciliation WHERE status IN ('off', 'settling')"
)
ROWS = """
    SELECT txid, leg, ts, amount, counts, is_settled, is_scam, status, fee, fee_token, kind
    FROM curated.tx_unified WHERE source = ? AND account = ? AND token = ? AND ts >= ? AND ts < ?
    ORDER BY ts, txid, leg"""


@dataclass(frozen=True)
class Break:
    """A row of ops.breaks."""

    source: str
    account: str
    token: str
    last_good_ts: datetime | None
    first_bad_ts: datetime
    last_bad_ts: datetime
    step: Decimal
    residual: Decimal
    suspect: str = "unknown"
    suspect_ref: str | None = None
    explanation: str = ""
    calls: int | None = None
    units: int | None = None

    @property
    def key(self) -> Token:
        return self.source, self.account, self.token


@dataclass(frozen=True)
class Row:
    """A row of curated.tx_unified in the window."""

    txid: str
    leg: str
    ts: datetime
    amount: Decimal | None
    counts: bool
    is_settled: bool
    is_scam: bool
    status: str | None
    fee: Decimal | None
    fee_token: str | None
    kind: str

    @property
    def ref(self) -> str:
        return f"{self.txid} {self.leg}"


def find_breaks(con: duckdb.DuckDBPyConnection, sources: Mapping[str, Source]) -> int:
    """Write ops.breaks for the tokens that are off, and the refused entries of adjustments.toml."""
    off = con.execute(OFF).fetchall()
    found: list[Break] = []
    with localcontext(prec=PRECISION):
        if off:
            instants = {who: at for who, (_, at) in snapshots(con).items()}
            series = residuals(con, off, instants)
            steps = [b for token, at in series.items() for b in breaks_of(token, at)]
            for one in steps:
                found.append(_named(con, one, steps))
            found = _priced(con, sources, found)
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


def _named(con: duckdb.DuckDBPyConnection, one: Break, others: Iterable[Break]) -> Break:
    """The break with its suspect."""
    since = one.last_good_ts or NO_TIME
    rows = [Row(*row) for row in con.execute(ROWS, [*one.key, since, one.first_bad_ts]).fetchall()]
    suspect, ref, words = suspect_of(one, rows, others)
    if one.suspect == "rebase" and suspect != "gas":
        return one
    return replace(one, suspect=suspect, suspect_ref=ref, explanation=words)


def suspect_of(
    one: Break, rows: Sequence[Row], others: Iterable[Break] = ()
) -> tuple[str, str | None, str]:
    """(suspect, the row or token it is, in words) of a break, from the rows of its window.

    `others`: breaks of other tokens and accounts, which may be the other side of this one.
    """
    step = one.step

    def is_step(amount: Decimal | None, times: int = 1) -> bool:
        if amount is None or not amount:
            return False
        return abs(step - times * amount) <= NEAR * abs(amount) * (":" in one.token)

    for row in rows:
        if not row.counts and is_step(row.amount):
            word = (
                "vanished" if row.status == "vanished" else "scam" if row.is_scam else "unsettled"
            )
            said = {
                "vanished": "the source no longer lists it",
                "scam": "the source calls it a scam",
                "unsettled": f"its status is {row.status}",
            }[word]
            return word, row.ref, f"{row.ref} is not counted ({said}), but the balance has it"
    counted = [row for row in rows if row.counts]
    twins = [row for row in counted if is_step(row.amount, -1)]
    if len(twins) > 1:
        refs = ", ".join(row.ref for row in twins[:3])
        return "doubled", twins[-1].ref, f"{refs} are of one amount: one of them is too much"
    for row in counted:
        if is_step(row.amount, -2):
            return "sign", row.ref, f"{row.ref} has the wrong sign: the step is twice its amount"
    if twins:
        return "doubled", twins[0].ref, f"{twins[0].ref} is counted, but the balance lacks it"
    for row in counted:
        if row.fee_token in (None, one.token) and (is_step(row.fee) or is_step(row.fee, -1)):
            return "fee", row.ref, f"the step is the fee of {row.ref}: counted twice, or not at all"
    for other in others:
        is_same = other.key == one.key
        if not is_same and abs(other.first_bad_ts - one.first_bad_ts) <= ELSEWHERE:
            if abs(other.step + step) <= NEAR * abs(step):
                where = f"{other.source} {other.account} {other.token}"
                return (
                    "transfer",
                    where,
                    f"{where} is off by as much the other way: one side of a transfer or of a wrap "
                    "is missing on both",
                )
    gas = [row for row in counted if row.leg == "gas"]
    if gas and step < 0:
        return (
            "gas",
            gas[-1].ref,
            f"less is there than computed, with {len(gas)} own transaction(s): a fee that the "
            "source does not list, such as the L1 data fee of a rollup",
        )
    unknown = [row for row in rows if row.amount is None and row.is_settled and not row.is_scam]
    if unknown:
        return "unknown", unknown[0].ref, f"the amount of {unknown[0].ref} cannot be read"
    if one.last_good_ts is None and step > 0:
        return "opening", None, "it was so at the first snapshot: what was held before the history"
    if len(counted) == 1:
        ref = counted[0].ref
        return "unknown", ref, f"no amount is the step; {ref} is the only row of the window"
    return (
        "unknown",
        None,
        f"no row of the window is the step: a movement {'in' if step > 0 else 'out'} is missing, "
        "or one of an amount that has changed",
    )


def _priced(
    con: duckdb.DuckDBPyConnection, sources: Mapping[str, Source], found: Sequence[Break]
) -> list[Break]:
    """With what reading each window again would take."""
    priced: list[Break] = []
    known: dict[tuple[str, str], Known] = {}
    begins = {who: since for who, (since, _) in snapshots(con).items()} if found else {}
    for one in found:
        who, now = (one.source, one.account), utc(one.last_bad_ts)
        start = utc(one.last_good_ts or begins[who])
        if one.source not in sources or start >= utc(one.first_bad_ts):
            priced.append(one)
            continue
        account = Account(*who, "")
        if who not in known:
            known[who] = Known.read(con, sources, [account], now)
        window = Interval(start, utc(one.first_bad_ts))
        (run,) = simulate(known[who], sources, [account], [window], now, refetch=True)
        cost = run.get(one.source)
        priced.append(replace(one, calls=cost.calls, units=cost.units) if cost else one)
    return priced


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
            "SELECT source, account, token, first_bad_ts, suspect, found_at FROM ops.breaks"
        ).fetchall()
    }
    if not found and not before:
        return
    (now,) = con.execute("SELECT (now() AT TIME ZONE 'UTC')::TIMESTAMP").fetchone() or (NO_TIME,)
    with transaction(con):
        con.execute("DELETE FROM ops.breaks")
        for one in found:
            con.execute(
                "INSERT INTO ops.breaks (source, account, token, last_good_ts, first_bad_ts, "
                "last_bad_ts, step_text, residual_text, suspect, suspect_ref, explanation, "
                "refetch_calls, refetch_units, found_at) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    *one.key,
                    one.last_good_ts,
                    one.first_bad_ts,
                    one.last_bad_ts,
                    plain(one.step),
                    plain(one.residual),
                    one.suspect,
                    one.suspect_ref,
                    one.explanation,
                    one.calls,
                    one.units,
                    before.get((*one.key, one.first_bad_ts, one.suspect), now),
                ],
            )
