"""Exchanges whose API lists a ledger: facts in one file each, everything else is shared here.

`facts` what a source file states · `paging` how the pages of a list follow each other · `walk` the
fetch · `mapping` the SQL from pages to rows · `vendor` ccxt clients and the Source.

A source file is an `Exchange(…)` of `Ledger(…)`, `Balances(…)` and `Fills(…)`, and
`SOURCE = source(EXCHANGE)`. Calls are ccxt's implicit endpoint methods: its unified fetchLedger
drops rows without an error on most exchanges.
"""

from extract.ledger.facts import (
    Balances,
    Call,
    Direction,
    Each,
    Exchange,
    Fee,
    Fills,
    Ledger,
    Leg,
    Listing,
    composite,
)
from extract.ledger.paging import ByTime, Cursor, LastId, Offset, OnePage, PageNumber
from extract.ledger.vendor import source

__all__ = [
    "Balances",
    "ByTime",
    "Call",
    "Cursor",
    "Direction",
    "Each",
    "Exchange",
    "Fee",
    "Fills",
    "LastId",
    "Ledger",
    "Leg",
    "Listing",
    "Offset",
    "OnePage",
    "PageNumber",
    "composite",
    "source",
]
