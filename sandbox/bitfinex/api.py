"""Bitfinex under /bitfinex: the ledger of all wallets, and the wallets.

https://docs.bitfinex.com/docs/rest-auth (HMAC-SHA384 over path, nonce and body; the nonce rises)
https://docs.bitfinex.com/reference/rest-auth-ledgers (2,500 a page, newest first)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, number, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.amounts import short_text
from sandbox.world.moments import Clock
from sandbox.world.world import World

KEY, SECRET = "sandbox-bitfinex-key", "the sandbox's own secret of bitfinex"
ERRORS = {
    400: (10020, "params: invalid"),
    401: (10100, "apikey: invalid"),
    403: (10001, "api_key: permission invalid"),
    404: (10020, "path: invalid"),
    429: (11010, "ratelimit: error"),
}
# The words of a description before its first amount are what the row is.
WORDS = {
    "deposit": "Deposit (BITCOIN) #1234",
    "withdrawal": "Withdrawal #1234",
    "withdrawal fee": "Withdrawal fee (#1234)",
    "trade": "Exchange 0.5 BTC for USD @ 67060.5",
    "trade fee": "Trading fees for 0.5 BTC (BTCUSD) @ 6,000.5 on BFX (0.2%)",
    "conversion": "Conversion (USD-BTC) 1.5",
    "transfer": "Transfer of 100.5 USD from wallet Exchange to Trading",
    "reward": "Affiliate Rebate (1.5)",
    "fee": "Used Margin Funding Charge (1)",
    "unknown": 'Quantum rebate of 3.5, "as promised" [7]',
}


class BitfinexHistory(LedgerHistory):
    """Fees are rows of their own."""

    shape = Shape(
        "bitfinex",
        wallets=("exchange", "funding"),
        types={
            "deposit": "Deposit",
            "withdrawal": "Withdrawal",
            "withdrawal fee": "Withdrawal fee",
            "trade": "Exchange",
            "trade fee": "Trading fees for",
            "conversion": "Conversion",
            "transfer": "Transfer of",
            "reward": "Affiliate Rebate",
            "fee": "Used Margin Funding Charge",
            "unknown": "Quantum rebate of",
        },
        coins=(
            Coin("USD", 14, 1_000_000),
            Coin("BTC", 12, 67_060_000_000),
            Coin("UST", 8, 1_000_000),
            Coin("ETH", 18, 2_536_070_000),
        ),
        ids=lambda rng, number: str(2_531_822_000 + number),
        fee_rows=True,
    )


def bitfinex_error(status: int, _path: str, message: str | None = None) -> Response:
    """Most errors have status 500 and their code inside."""
    code, usual = ERRORS.get(status, (20060, "maintenance"))
    shown = status if status == 429 or status >= 500 else 500
    return Response(
        json.dumps(["error", code, message or usual]), shown, media_type="application/json"
    )


class BitfinexApi(LedgerApi):
    vendor = "bitfinex"
    error = staticmethod(bitfinex_error)
    an_hour = 90 * 60

    def __init__(self, world: World, clock: Clock) -> None:
        super().__init__(world, clock)
        self.nonce = 0

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("POST", "/v2/auth/r/ledgers/hist", self.ledgers),
            ("POST", "/v2/auth/r/wallets", self.wallets),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head = asked.headers
        nonce = head.get("bfx-nonce", "")
        if head.get("bfx-apikey") != KEY:
            return 401, "apikey: invalid"
        if head.get("bfx-signature") != signed(
            SECRET, f"/api{asked.path}{nonce}{asked.body}", "sha384"
        ):
            return 401, "apikey: digest invalid"
        if not nonce.isdigit() or int(nonce) <= self.nonce:
            return 400, "nonce: small"
        self.nonce = int(nonce)
        return None

    def ledgers(self, asked: Asked, now: int) -> list:
        """Newest first, both ends included."""
        start, end = asked.number("start", 0), asked.number("end", 2**50)
        limit = min(asked.number("limit", 25), self.page)
        rows = [
            row
            for row in reversed(self.history(now).visible(now))
            if start * 1000 <= row.time <= end * 1000
        ]
        return [_row(row) for row in rows[:limit]]

    page = 2500

    def wallets(self, _asked: Asked, now: int) -> list:
        return [
            [wallet, coin.code, number(amount), number("0"), number(amount), None, None]
            for wallet, coin, amount in self.held(now)
        ]


def _row(row: Row) -> list:
    return [
        number(row.id),
        row.coin.code,
        row.wallet,
        number(str(row.time // 1000)),
        None,
        number(short_text(row.change, row.coin.decimals)),
        number(short_text(row.balance, row.coin.decimals)),
        None,
        f"{WORDS[row.event]} on wallet {row.wallet}",
    ]
