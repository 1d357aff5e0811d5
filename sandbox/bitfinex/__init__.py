"""Bitfinex as the sandbox answers it: rows are lists of numbers, pages by time alone."""

from __future__ import annotations

from typing import Any

from sandbox.bitfinex.api import KEY, SECRET, BitfinexApi, BitfinexHistory, bitfinex_error
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> list | None:
    is_ledger = isinstance(answer, list) and answer and isinstance(answer[0], list)
    return answer if is_ledger and len(answer[0]) == 9 else None


VENDOR = Vendor(
    "bitfinex",
    api=BitfinexApi,
    history=BitfinexHistory,
    error=bitfinex_error,
    accounts=({"account": "main", "connection": "bitfinex_main"},),
    connection=lambda url: {"host": url, "login": KEY, "password": SECRET},
    pages=Pages(_rows, lambda row: row[3]),
    in_demo=False,
)
