"""Which row a break may be: the one whose amount its step is, and what that says.

named(con, one, others) -> Break    the break with its suspect, from the rows of its window
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING

from ledgerhouse.transform.residuals import Token

if TYPE_CHECKING:
    import duckdb

NEAR = Decimal("1e-15")  # of an amount that went through a JSON double
ELSEWHERE = timedelta(days=1)  # the other side of a transfer
NO_TIME = datetime(1970, 1, 1)  # before any row; of an entry that cannot be read
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
    wallet: str | None = None  # whose running balances show it; None: snapshots do
    found_at: datetime | None = None  # None: by this run
    is_step_known: bool = True

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


def named(con: duckdb.DuckDBPyConnection, one: Break, others: Iterable[Break]) -> Break:
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
