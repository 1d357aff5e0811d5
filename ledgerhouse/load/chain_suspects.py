"""What a break of running balances may be: the row at which it shows, what is missing, and why.

name(broken, near, following) -> Finding
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext

from extract.core.interval import iso
from ledgerhouse.load.chain_law import PRECISION, ChainBreak, RunningRow, follow

# What an entry changes, by the sign its fee has in it beside `amount`.
CONVENTIONS = {"amount": 0, "amount - fee": -1, "amount + fee": 1}


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of raw.exchanges_ledger, of one account, wallet and asset.

    `fee` is in the same asset, 0 where there is none; a row that does not `count` (not settled, or
    vanished) is not in the chain.
    """

    ts: datetime
    entry_id: str
    amount: Decimal | None
    fee: Decimal
    balance: Decimal | None
    counts: bool = True
    status: str | None = None

    def running(self, convention: str = "amount") -> RunningRow:
        """As a row of the chain."""
        change, sign = self.amount, CONVENTIONS[convention]
        if change is not None and sign:
            with localcontext(prec=PRECISION):
                change += sign * self.fee
        return RunningRow(self.ts, change, self.balance, self.entry_id)


@dataclass(frozen=True)
class Finding:
    """A break, named: the entry at which it shows, what is missing (None where nothing says), the
    suspect, the entry that it is, and in words."""

    entry_id: str
    missing: Decimal | None
    suspect: str
    suspect_ref: str | None
    explanation: str


def name(
    broken: ChainBreak,
    near: Iterable[Entry],
    following: ChainBreak | None = None,
    starts: frozenset[Decimal] = frozenset(),
) -> Finding:
    """The break with its suspect. `near` are the entries from the group before it to its own, those
    that do not count too; `following` is the next break, `starts` with what the next group begins."""
    near = list(near)
    with localcontext(prec=PRECISION):
        group = [row for row in near if row.ts == broken.ts and row.counts]
        missing = broken.missing
        if missing is None:
            missing = _hole(broken, starts)
        first = next(
            (
                row
                for row in group
                if row.amount is not None
                and row.balance is not None
                and row.balance - row.amount in broken.starts
                and row.balance - row.amount not in broken.held
            ),
            group[0],
        )
        suspect, ref, words = _suspect(broken, missing, first, group, near, following)
    return Finding(first.entry_id, missing, suspect, ref, words)


def _hole(broken: ChainBreak, starts: frozenset[Decimal]) -> Decimal | None:
    """What is missing inside a group: between the end of its one part and the start of the other."""
    others = [start for start in broken.starts if start not in broken.held]
    ends = [end for end in broken.ends if end not in starts]
    return others[0] - ends[0] if len(others) == len(ends) == 1 else None


def _suspect(
    broken: ChainBreak,
    missing: Decimal | None,
    first: Entry,
    group: Sequence[Entry],
    near: Sequence[Entry],
    following: ChainBreak | None,
) -> tuple[str, str | None, str]:
    """(suspect, the entry it is, in words)"""
    for row in near:
        if not row.counts and row.amount and row.amount == missing:
            why = "the vendor no longer lists it" if row.status == "vanished" else row.status
            suspect = "vanished" if row.status == "vanished" else "unsettled"
            return (
                suspect,
                row.entry_id,
                f"{row.entry_id} is not counted ({why}), the balance has it",
            )
    seen: dict[tuple, Entry] = {}
    for row in near:
        if not row.counts or not row.amount:
            continue
        twin = seen.setdefault((row.amount, row.balance), row)
        if twin is not row and row in group and missing in (None, -row.amount):
            return (
                "doubled",
                row.entry_id,
                f"{twin.entry_id} and {row.entry_id} are one entry twice: of one amount, with one "
                "balance",
            )
    for row in group:
        if not row.amount:
            continue
        if missing == -2 * row.amount or (missing is None and _follows(broken, group, row)):
            return (
                "sign",
                row.entry_id,
                f"{row.entry_id} has the wrong sign: the balance moved the other way",
            )
    fees = sum((row.fee for row in group), Decimal(0))
    for row in group:
        for convention, sign in CONVENTIONS.items():
            if sign and missing and missing in (sign * row.fee, sign * fees):
                return (
                    "fee",
                    row.entry_id,
                    f"the balance of {row.entry_id} follows with change = {convention} instead of "
                    "amount",
                )
    for row in group:
        if row.amount and missing == -row.amount:
            return (
                "doubled",
                row.entry_id,
                f"the balance did not move with {row.entry_id}: it is counted twice, or too early",
            )
    if following and missing and following.after == broken.ts and following.missing == -missing:
        return (
            "balance",
            first.entry_id,
            f"the balance of {first.entry_id} is off by {plain(missing)}, the next one is not: its "
            "balance or its time is wrong",
        )
    where = f"between {iso(broken.after)} and " if broken.after else "before "
    where += f"{first.entry_id} ({iso(broken.ts)})"
    if missing is None:
        return (
            "skipped",
            None,
            f"the entries of {iso(broken.ts)} do not follow from each other: one is missing, or "
            "its amount is wrong",
        )
    return (
        "skipped",
        None,
        f"{plain(missing)} is missing {where}: entries of that sum were skipped, or an amount is "
        "wrong",
    )


def _follows(broken: ChainBreak, group: Sequence[Entry], turned: Entry) -> bool:
    """Whether the group would follow if one of its entries had the other sign."""
    rows = [row.running() for row in group if row is not turned]
    assert turned.amount is not None
    rows.append(RunningRow(turned.ts, -turned.amount, turned.balance, turned.entry_id))
    before = (broken.after, broken.held) if broken.after and broken.held else None
    return not follow(rows, before).breaks


def plain(amount: Decimal) -> str:
    """An amount as text, without an exponent or trailing zeros."""
    text = format(amount, "f")
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
