"""Binance as the sandbox answers it: no ledger, a list for each kind of movement, trades by market."""

from __future__ import annotations

from typing import Any

from sandbox.binance.api import KEY, SECRET, BinanceApi
from sandbox.binance.history import BinanceHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages

TIMES = "time insertTime applyTime createTime operateTime divTime timestamp".split()


def _rows(answer: Any) -> list | None:
    rows = answer
    if isinstance(answer, dict):
        lists = ("rows", "data", "list", "userAssetDribblets")
        rows = next((answer[name] for name in lists if name in answer), None)
    return rows if isinstance(rows, list) and rows and _time(rows[0]) else None


def _time(row: Any) -> object:
    return next((row[name] for name in TIMES if name in row), None)


VENDOR = ledger_vendor(
    BinanceApi,
    BinanceHistory,
    Pages(_rows, _time),
    key=KEY,
    secret=SECRET,
)
