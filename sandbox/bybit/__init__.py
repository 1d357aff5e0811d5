"""Bybit as the sandbox answers it: two wallets, windows of seven days, pages by cursor."""

from __future__ import annotations

from typing import Any

from sandbox.bybit.api import KEY, SECRET, BybitApi, BybitHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    result = answer.get("result") if isinstance(answer, dict) else None
    rows = result.get("list") if isinstance(result, dict) else None
    return rows if isinstance(rows, list) and "nextPageCursor" in result else None


def _again(answer: dict, asked) -> bool:
    if not asked.get("cursor"):
        return False
    answer["result"]["nextPageCursor"] = asked["cursor"]
    return True


def _more(answer: dict, _rows, _asked) -> bool:
    answer["result"]["nextPageCursor"] = answer["result"]["nextPageCursor"] or "10000"
    return True


VENDOR = ledger_vendor(
    BybitApi,
    BybitHistory,
    Pages(_rows, lambda row: row.get("transactionTime") or row.get("createTime"), _more, _again),
    key=KEY,
    secret=SECRET,
)
