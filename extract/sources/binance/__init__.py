"""Binance: no ledger, so its many lists of movements, and the trades of every market.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api

`facts` what is called and what the fields mean · `markets` which markets are asked for trades, and
why none is missed · `trades` the fetch.

What Binance lists nowhere (see Exchange.why) moves balances all the same, so the residual of an
asset says what is lacking, and an adjustment closes it.
"""

from __future__ import annotations

from functools import partial

from extract.ledger import source
from extract.sources.binance.facts import BINANCE
from extract.sources.binance.trades import fetch

SOURCE = source(BINANCE, fetch=partial(fetch, BINANCE), own_states=True)
