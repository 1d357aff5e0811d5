"""Deribit as the sandbox answers it: a log for each currency, pages by continuation."""

from __future__ import annotations

from typing import Any

from sandbox.deribit.api import KEY, SECRET, DeribitApi, DeribitHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    result = answer.get("result") if isinstance(answer, dict) else None
    return result.get("logs") if isinstance(result, dict) else None


def _more(answer: dict, _rows: list, _asked: Any) -> bool:
    answer["result"]["continuation"] = answer["result"]["continuation"] or 10000
    return True


def _again(answer: dict, asked: Any) -> bool:
    if not asked.get("continuation"):
        return False
    answer["result"]["continuation"] = int(asked["continuation"])
    return True


VENDOR = ledger_vendor(
    DeribitApi,
    DeribitHistory,
    Pages(_rows, lambda row: row.get("timestamp"), _more, _again),
    key=KEY,
    secret=SECRET,
)
