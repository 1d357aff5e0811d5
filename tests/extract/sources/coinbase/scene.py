"""What the tests of Coinbase share."""

from __future__ import annotations

from tests.helpers.coinbase_stub import mapped

START, THEN, NOW = "2026-01-01T00:00:00Z", "2026-03-10T06:00:00Z", "2026-03-10T12:00:00Z"
CLOCK = {THEN: "2026-03-10T06:01:00Z", NOW: "2026-03-10T12:01:00Z"}


def entries(fetched) -> set[str]:
    return {row["entry_id"] for row in mapped(fetched, "exchanges_ledger")}


def fill(number: int = 1, **more) -> dict:
    return {
        "entry_id": f"f-{number}",
        "trade_id": f"t-{number}",
        "trade_time": "2026-02-02T10:00:00.473787913Z",
        "trade_type": "FILL",
        "price": "37.44",
        "size": "0.0802691053677932",
        "commission": "-0.0004816146322068",
        "product_id": "SOL-USDC",
        "sequence_timestamp": "2026-02-02T10:00:00.474588Z",
        "size_in_quote": True,
        "side": "BUY",
        "order_id": "o-1",
        "liquidity_indicator": "MAKER",
    } | more
