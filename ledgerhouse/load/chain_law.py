"""The law of running balances: every row's balance follows from the one before it.

For ledgers whose rows carry the balance after them. No call and no snapshot is needed: the first
group of rows that does not follow is where a row is missing, doubled or wrong. Rows of one
instant may come in any order.

    follow(rows, before, is_whole) -> Chain    links that hold, breaks, what is not known
    chain_law(rows)                            (balance before the first row, breaks)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal, localcontext
from itertools import groupby

PRECISION = 100
Instant = tuple[datetime, frozenset[Decimal]]  # a time, and what may have been held then


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A row of one account, wallet and asset: what it changed, and the balance after it; None where
    that is not known."""

    ts: datetime
    change: Decimal | None
    balance: Decimal | None
    ref: str


@dataclass(frozen=True)
class ChainBreak:
    """A group of rows of one instant that does not follow: `missing` is what lies before it, None
    where the rows of the group do not follow from each other.

    `starts` and `ends` are the balances between which its rows lie, one each where they follow from
    each other; `after` is the group before, which ended with one of `held`.
    """

    ts: datetime
    missing: Decimal | None
    refs: tuple[str, ...]
    starts: tuple[Decimal, ...] = ()
    ends: tuple[Decimal, ...] = ()
    after: datetime | None = None
    held: frozenset[Decimal] = frozenset()


@dataclass
class Chain:
    """Rows in time order, judged. `links` were compared: a group with the one before it, or its rows
    with each other; all but the breaks hold. Between the two instants of a gap the history was not
    read. `opening` is the balance before the first row and `last` the one after the last, None
    where it is not known."""

    links: int = 0
    breaks: list[ChainBreak] = field(default_factory=list)
    gaps: list[tuple[datetime, datetime]] = field(default_factory=list)
    opening: Decimal | None = None
    first: tuple[datetime, str] | None = None  # time and ref of the first row
    last_ts: datetime | None = None
    last: frozenset[Decimal] = frozenset()

    @property
    def held(self) -> int:
        return self.links - len(self.breaks)


def follow(
    rows: Iterable[RunningRow],
    before: Instant | None = None,
    is_whole: Callable[[datetime, datetime], bool] = lambda after, ts: True,
) -> Chain:
    """Judge the rows of one chain, in time order. `before` is the group before the first of them, if
    there is one; `is_whole` says whether all is read from one instant to another, both included."""
    chain, opens = Chain(), frozenset[Decimal]()
    then, held = before or (None, frozenset())
    with localcontext(prec=PRECISION):
        for ts, refs, starts, ends, loop in _groups(rows):
            if chain.first is None:
                chain.first = ts, refs[0]
                if before is None:
                    opens = loop if loop and not starts else frozenset(starts)
                    chain.opening = _only(opens)
            is_read = then is None or not held or is_whole(then, ts)
            if not is_read and then:
                chain.gaps.append((then, ts))
            about = (ts, refs, starts, ends, then, held)
            if not loop:
                held = frozenset()  # not known
            elif len(starts) > 1:
                chain.links += 1
                chain.breaks.append(_break(None, *about))
                held = frozenset()
            else:
                begins = frozenset(starts) or loop
                is_known = bool(held) and is_read
                common = held & begins if is_known else begins
                if is_known or len(refs) > 1:
                    chain.links += 1
                if not common:
                    missing = min((b - h for b in begins for h in held), key=lambda d: (abs(d), d))
                    chain.breaks.append(_break(missing, *about))
                elif then and chain.opening is None and before is None and is_known:
                    if chain.first[0] == then and len(opens) > 1:  # it had ended where it began
                        chain.opening = _only(opens & begins)
                held = frozenset(ends) or common or begins
            then = ts
    chain.last_ts, chain.last = then, held
    return chain


def chain_law(rows: Iterable[RunningRow]) -> tuple[Decimal | None, list[ChainBreak]]:
    """(balance before the first row, breaks in time order); the balance is None where there is no
    row, or where the first group breaks."""
    chain = follow(sorted(rows, key=lambda row: row.ts))
    return chain.opening, chain.breaks


Group = tuple[
    datetime, tuple[str, ...], tuple[Decimal, ...], tuple[Decimal, ...], frozenset[Decimal]
]


def _groups(rows: Iterable[RunningRow]) -> Iterator[Group]:
    """By instant: the rows (the first one first, where that is known), the balances that only lie before one, those that only lie after one,
    and all that lie before one; none of the latter where one is not known.

    Rows that follow from each other leave one balance before and one after, or none where they end
    as they began.
    """
    for ts, each in groupby(rows, key=lambda row: row.ts):
        group = list(each)
        refs = tuple(row.ref for row in group)
        befores, afters = [], []
        for row in group:
            if row.change is None or row.balance is None:
                break
            befores.append(row.balance - row.change)
            afters.append(row.balance)
        else:
            if len(group) == 1 and befores != afters:
                yield ts, refs, tuple(befores), tuple(afters), frozenset(befores)
                continue
            before, after = Counter(befores), Counter(afters)
            starts = tuple((before - after).elements())
            ends = tuple((after - before).elements())
            if starts:  # the row that comes first
                refs = (refs[befores.index(starts[0])], *refs)
                refs = tuple(dict.fromkeys(refs))
            yield ts, refs, starts, ends, frozenset(befores)
            continue
        yield ts, refs, (), (), frozenset()


def _break(missing, ts, refs, starts, ends, after, held) -> ChainBreak:
    return ChainBreak(ts, missing, refs, starts, ends, after, held)


def _only(values: frozenset[Decimal]) -> Decimal | None:
    return next(iter(values)) if len(values) == 1 else None
