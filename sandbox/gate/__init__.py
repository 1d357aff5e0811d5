"""Gate as the sandbox answers it: asked in seconds, answered in milliseconds, numbered pages."""

from __future__ import annotations

from typing import Any

from sandbox.gate.api import KEY, SECRET, GateApi, GateHistory
from sandbox.ledgers.vendor import ledger_vendor
from sandbox.vendor import Pages


def _rows(answer: Any) -> list | None:
    return answer if isinstance(answer, list) and answer and "change" in answer[0] else None


VENDOR = ledger_vendor(
    GateApi,
    GateHistory,
    Pages(_rows, lambda row: row.get("time")),
    key=KEY,
    secret=SECRET,
)
