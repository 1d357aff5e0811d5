"""Suites: the expectations of every table, bounded to the interval of a run.

Raw suites judge what a source delivered; curated suites judge what the transform made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from extract.core.interval import Interval
from ledgerhouse.check import curated_suites as curated
from ledgerhouse.check import raw_suites as raw
from ledgerhouse.check.date_filter import DateFilter


@dataclass(frozen=True)
class Suite:
    """The expectations of one table over the rows of `query`, each with its name in `meta`.

    Where `materialized`, the rows are computed once into a temporary table: at 4M transactions one
    look at daily_balances takes 0.4 s, and every expectation takes two or three. `variables` are
    set for that: the view computes no balances of days before those that are checked.
    """

    table: str
    query: str
    expectations: Sequence[Any]
    materialized: bool = False
    variables: Mapping[str, str] = field(default_factory=dict)


def suites(interval: Interval, spans: Sequence[Interval] = ()) -> list[Suite]:
    """The suites of all tables, raw first, in the order data flows.

    Bounded to `interval`; where there are several `spans` of it, to those.
    """
    dates = DateFilter(interval, tuple(spans))
    raw_tables = {
        "exchanges_ledger": raw.ledger,
        "exchanges_trades": raw.trades,
        "onchain_transactions": raw.transactions,
        "onchain_transfers": raw.transfers,
        "balances": raw.balances,
        "adjustments": raw.adjustments,
    }
    return [
        *(
            Suite(f"raw.{name}", dates.query(f"raw.{name}"), expect(dates), dates.scattered)
            for name, expect in raw_tables.items()
        ),
        Suite(
            "curated.tx_unified",
            dates.query("curated.tx_unified"),
            curated.unified(dates),
            dates.scattered,
        ),
        Suite(
            "curated.daily_flows",
            dates.query("curated.daily_flows"),
            curated.flows(dates),
            dates.scattered,
        ),
        Suite(
            "curated.daily_balances",
            f"SELECT * FROM curated.daily_balances WHERE {dates.within_days('date')}",
            curated.daily(dates),
            materialized=True,
            variables={"balances_since": f"DATE '{interval.start.date()}'"},
        ),
        Suite(
            "curated.reconciliation",
            "SELECT * FROM curated.reconciliation",
            curated.reconciliation(dates),
            materialized=True,
        ),
        Suite("curated.assets", "SELECT * FROM curated.assets", curated.assets(dates)),
    ]
