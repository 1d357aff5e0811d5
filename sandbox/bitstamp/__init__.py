"""Bitstamp as the sandbox answers it: a column for each currency, pages by offset, no balances."""

from __future__ import annotations

from typing import Any

from sandbox.bitstamp.api import KEY, SECRET, BitstampApi, BitstampHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    return answer if isinstance(answer, list) and answer and "datetime" in answer[0] else None


VENDOR = ledger_vendor(
    BitstampApi,
    BitstampHistory,
    Pages(_rows, lambda row: row.get("datetime")),
    key=KEY,
    secret=SECRET,
)
