"""Coinbase Exchange as the sandbox answers it: a ledger for each account, pages by a header."""

from __future__ import annotations

from typing import Any

from sandbox.coinbaseexchange.api import (
    KEY,
    PASSPHRASE,
    SECRET,
    CoinbaseExchangeApi,
    CoinbaseExchangeHistory,
)
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    return answer if isinstance(answer, list) and answer and "created_at" in answer[0] else None


VENDOR = ledger_vendor(
    CoinbaseExchangeApi,
    CoinbaseExchangeHistory,
    Pages(_rows, lambda row: row.get("created_at")),
    key=KEY,
    secret=SECRET,
    passphrase=PASSPHRASE,
)
