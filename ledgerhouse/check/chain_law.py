"""The law of running balances: every row's balance follows from the one before it.

For ledgers whose rows carry the balance after them. No call and no snapshot is needed: the first
group of rows that does not follow is where a row is missing, doubled or wrong. Rows of one
instant may come in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal, localcontext
from itertools import groupby

PRECISION = 100


@dataclass(frozen=True)
class RunningRow:
    """A row of one account, wallet and asset: what it changed, and the balance after it."""

    ts: datetime
    change: Decimal
    balance: Decimal
    ref: str


@dataclass(frozen=True)
class ChainBreak:
    """A group of rows of one instant that does not follow: `missing` is what lies before it, None
    where the rows of the group do not follow from each other."""

    ts: datetime
    missing: Decimal | None
    refs: tuple[str, ...]


def chain_law(rows: Iterable[RunningRow]) -> tuple[Decimal | None, list[ChainBreak]]:
    """(balance before the first row, breaks in time order); the balance is None where there is no
    row, or where the first group breaks."""
    opening: Decimal | None = None
    end: Decimal | None = None
    breaks, is_first = [], True
    with localcontext(prec=PRECISION):
        for ts, each in groupby(sorted(rows, key=lambda r: r.ts), key=lambda r: r.ts):
            group = list(each)
            before = Counter(row.balance - row.change for row in group)
            after = Counter(row.balance for row in group)
            starts, ends = list((before - after).elements()), list((after - before).elements())
            refs = tuple(row.ref for row in group)
            if len(starts) > 1:
                breaks.append(ChainBreak(ts, None, refs))
                end = None
            elif not starts:  # it ends where it began, which is one of its balances
                if end is not None and end not in before:
                    breaks.append(ChainBreak(ts, min(before, key=abs) - end, refs))
                    end = None
                elif is_first and len(before) == 1:
                    opening = end = next(iter(before))
            else:
                if end is not None and starts[0] != end:
                    breaks.append(ChainBreak(ts, starts[0] - end, refs))
                elif is_first:
                    opening = starts[0]
                end = ends[0]
            is_first = False
    return opening, breaks
