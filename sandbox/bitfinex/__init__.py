"""Bitfinex as the sandbox answers it: rows are lists of numbers, pages by time alone."""

from __future__ import annotations

from typing import Any

from sandbox.bitfinex.api import KEY, SECRET, BitfinexApi, BitfinexHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    is_ledger = isinstance(answer, list) and answer and isinstance(answer[0], list)
    return answer if is_ledger and len(answer[0]) == 9 else None


VENDOR = ledger_vendor(
    BitfinexApi,
    BitfinexHistory,
    Pages(_rows, lambda row: row[3]),
    key=KEY,
    secret=SECRET,
)
