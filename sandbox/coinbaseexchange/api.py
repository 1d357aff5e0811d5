"""Coinbase Exchange under /coinbaseexchange: accounts of a profile, and the ledger of each.

https://docs.cdp.coinbase.com/exchange/rest-api/authentication (HMAC over time, method and path)
https://docs.cdp.coinbase.com/exchange/rest-api/pagination (CB-AFTER, CB-BEFORE)
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from uuid import UUID

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.moments import DAY, iso_micros, micros

KEY, PASSPHRASE = "sandbox-coinbaseexchange-key", "sandbox-pass"
SECRET = base64.b64encode(b"the sandbox's own secret of the exchange").decode()
MESSAGES = {
    400: "Bad Request",
    401: "invalid signature",
    403: "Forbidden",
    404: "NotFound",
    429: "Private rate limit exceeded",
}


class CoinbaseExchangeHistory(LedgerHistory):
    """Fees are rows of their own."""

    shape = Shape(
        "coinbaseexchange",
        wallets=("spot",),
        types={
            "deposit": "transfer",
            "withdrawal": "transfer",
            "withdrawal fee": "fee",
            "trade": "match",
            "trade fee": "fee",
            "conversion": "conversion",
            "reward": "rebate",
            "fee": "fee",
            "unknown": "quantum",
        },
        coins=(
            Coin("USD", 16, 1_000_000),
            Coin("BTC", 16, 67_060_000_000),
            Coin("ETH", 16, 2_536_070_000),
            Coin("LINK", 16, 13_420_000),
        ),
        tick=1,
        ids=lambda rng, number: str(9_000_000_000 + number),
        fee_rows=True,
    )

    def account(self, coin: Coin) -> str:
        """The id of the account of a coin."""
        return str(UUID(int=self.plan.seed * 1000 + self.shape.coins.index(coin), version=4))


def coinbaseexchange_error(status: int, _path: str, message: str | None = None) -> Response:
    body = {"message": message or MESSAGES.get(status, "Internal server error")}
    return Response(json.dumps(body), status, media_type="application/json")


class CoinbaseExchangeApi(LedgerApi):
    vendor = "coinbaseexchange"
    error = staticmethod(coinbaseexchange_error)

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("GET", "/accounts", self.accounts),
            ("GET", "/accounts/{id}/ledger", self.ledger),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head = asked.headers
        if head.get("cb-access-key") != KEY:
            return 401, "Invalid API Key"
        if head.get("cb-access-passphrase") != PASSPHRASE:
            return 401, "Invalid Passphrase"
        target = asked.path + (f"?{asked.query}" if asked.query else "")
        said = f"{head.get('cb-access-timestamp')}{asked.method}{target}"
        if head.get("cb-access-sign") != signed(base64.b64decode(SECRET), said, form="base64"):
            return 401, "invalid signature"
        return None

    def accounts(self, _asked: Asked, now: int) -> list:
        history = self.history(now)
        held = {coin: amount for _, coin, amount in self.held(now)}
        return [
            {
                "id": history.account(coin),
                "currency": coin.code,
                "balance": held.get(coin, "0"),
                "hold": "0",
                "available": held.get(coin, "0"),
                "profile_id": "1",
                "trading_enabled": True,
            }
            for coin in history.shape.coins
        ]

    def ledger(self, asked: Asked, now: int) -> list:
        """Newest first; without both dates the last day; `after` is the id of the last row."""
        history = self.history(now)
        coins = {history.account(coin): coin for coin in history.shape.coins}
        coin = coins.get(asked.in_path["id"])
        if coin is None:
            raise Refused(404, "NotFound")
        try:
            dates = [micros(asked.params[name]) for name in ("start_date", "end_date")]
        except KeyError:
            dates = [(now - DAY) * 10**6, now * 10**6]
        last = asked.number("after", 2**62)
        rows = [
            row
            for row in reversed(history.visible(now))
            if row.coin is coin and dates[0] <= row.time <= dates[1] and int(row.id) < last
        ]
        return [_row(row) for row in rows[: min(asked.number("limit", 100), 100)]]

    def headers(self, answer: Any) -> Mapping[str, str]:
        """Every page that has rows says where the next begins, the last one too."""
        if isinstance(answer, list) and answer and "created_at" in answer[0]:
            return {"CB-AFTER": answer[-1]["id"], "CB-BEFORE": answer[0]["id"]}
        return {}


def _row(row: Row) -> dict:
    return {
        "id": row.id,
        "amount": row.amount(row.change),
        "balance": row.amount(row.balance),
        "created_at": iso_micros(row.time),
        "type": row.type,
        "details": {"order_id": row.group, "trade_id": row.group, "product_id": "BTC-USD"},
    }
