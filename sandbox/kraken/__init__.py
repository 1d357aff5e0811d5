"""Kraken as the sandbox answers it: a map of rows by id, pages by offset, a nonce that must rise."""

from __future__ import annotations

from typing import Any

from sandbox.kraken.api import KEY, SECRET, KrakenApi, KrakenHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> dict | None:
    result = answer.get("result") if isinstance(answer, dict) else None
    return result.get("ledger") if isinstance(result, dict) else None


VENDOR = ledger_vendor(
    KrakenApi,
    KrakenHistory,
    Pages(_rows, lambda row: row.get("time")),
    key=KEY,
    secret=SECRET,
)
