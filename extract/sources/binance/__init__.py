"""Binance: no ledger, so its many lists of movements, and the trades of every market.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api

`facts` what is called and what the fields mean · `markets` which markets are asked for trades, and
why none is missed · `trades` the fetch.

What Binance lists nowhere (see Exchange.why) moves balances all the same, so the residual of an
asset says what is lacking, and an adjustment closes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Any

from extract.core.source import FullRefreshCall, Job
from extract.ledger import source, vendor
from extract.sources.binance.facts import BINANCE, MY_TRADES
from extract.sources.binance.markets import LEAST_SHARE, Memory
from extract.sources.binance.trades import fetch

LISTED = 3400  # markets, in 2026, closed ones too


def expected(job: Job, rows: Callable[..., Any], now: datetime) -> Mapping[str, int]:
    """The calls of a job: every market where nothing is known, else those with trades at most, and
    the weekly round."""
    memory = Memory.of(job.known)
    asked = LISTED if memory.read_at is None else LEAST_SHARE + len(memory.traded)
    return {**vendor.expected(BINANCE, job, rows, now), MY_TRADES: asked}


_FACTS = source(BINANCE, fetch=partial(fetch, BINANCE), expected=expected, own_states=True)
_BY_MARKET = FullRefreshCall(MY_TRADES, "exchanges_trades", 1000, per_column="symbol")
SOURCE = replace(
    _FACTS,
    whole=(_BY_MARKET, *(call for call in _FACTS.whole if call.endpoint != MY_TRADES)),
)
