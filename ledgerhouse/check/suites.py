"""What every table is expected to hold: one suite a table, bounded to an interval.

Raw suites judge what a source delivered; curated suites judge what the transform made of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from extract.core.interval import Interval
from ledgerhouse.check import curated_suites as curated
from ledgerhouse.check import raw_suites as raw
from ledgerhouse.check.date_filter import Bounds


@dataclass(frozen=True)
class Suite:
    """The expectations of one table over `query`, each with its name in `meta`.

    The rows of `query` are computed once and `kept` for the run where each look would cost: at 4M
    transactions one at daily_balances takes 0.4 s, and every expectation looks two or three times.
    `settings` are the variables it reads: it computes no balances from before they are looked at.
    """

    table: str
    query: str
    expectations: Sequence[Any]
    kept: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)


def suites(interval: Interval, spans: Sequence[Interval] = ()) -> list[Suite]:
    """Every suite, bounded to `interval` (of that to `spans`, where there are several); raw first,
    in the order data flows."""
    b = Bounds(interval, tuple(spans))
    raws = {
        "exchanges_ledger": raw.ledger,
        "exchanges_trades": raw.trades,
        "onchain_transactions": raw.transactions,
        "onchain_transfers": raw.transfers,
        "balances": raw.balances,
    }
    return [
        *(
            Suite(f"raw.{name}", b.query(f"raw.{name}"), expect(b), b.scattered)
            for name, expect in raws.items()
        ),
        Suite("curated.tx_unified", b.query("curated.tx_unified"), curated.unified(b), b.scattered),
        Suite("curated.daily_flows", b.query("curated.daily_flows"), curated.flows(b), b.scattered),
        Suite(
            "curated.daily_balances",
            f"SELECT * FROM curated.daily_balances WHERE {b.days('date')}",
            curated.daily(b),
            kept=True,
            settings={"balances_since": f"DATE '{interval.start.date()}'"},
        ),
        Suite(
            "curated.reconciliation",
            "SELECT * FROM curated.reconciliation",
            curated.reconciliation(b),
            kept=True,
        ),
        Suite("curated.assets", "SELECT * FROM curated.assets", curated.assets(b)),
    ]
