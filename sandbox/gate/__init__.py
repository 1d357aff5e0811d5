"""Gate as the sandbox answers it: asked in seconds, answered in milliseconds, numbered pages."""

from __future__ import annotations

from typing import Any

from sandbox.gate.api import KEY, SECRET, GateApi, GateHistory, gate_error
from sandbox.vendor import Pages, Vendor


def _rows(answer: Any) -> list | None:
    return answer if isinstance(answer, list) and answer and "change" in answer[0] else None


VENDOR = Vendor(
    "gate",
    api=GateApi,
    history=GateHistory,
    error=gate_error,
    accounts=({"account": "main", "connection": "gate_main"},),
    connection=lambda url: {"host": url, "login": KEY, "password": SECRET},
    pages=Pages(_rows, lambda row: row.get("time")),
    in_demo=False,
)
