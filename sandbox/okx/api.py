"""OKX under /okx: bills of the trading and of the funding account, and both balances.

https://www.okx.com/docs-v5/en/#overview-rest-authentication (HMAC over time, method, path, body)
https://www.okx.com/docs-v5/en/#trading-account-rest-api-get-bills-details-last-3-months
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.moments import DAY

KEY, SECRET, PASSPHRASE = "sandbox-okx-key", "the sandbox's own secret of okx", "sandbox-pass"
CODES = {
    400: ("51000", "Parameter error"),
    401: ("50113", "Invalid Sign"),
    403: ("50120", "This API key doesn't have permission to use this function"),
    404: ("51000", "unknown path"),
    429: ("50011", "Too Many Requests"),
}
# The trading account's words are numbers, and those of funding are others.
FUNDING = {
    "deposit": "1",
    "withdrawal": "2",
    "transfer out": "130",
    "transfer in": "131",
    "reward": "82",
}
TRADING = {
    "deposit": "1",
    "withdrawal": "1",
    "trade": "2",
    "conversion": "27",
    "transfer": "1",
    "reward": "82",
    "fee": "7",
    "unknown": "777",
}


class OkxHistory(LedgerHistory):
    shape = Shape(
        "okx",
        wallets=("trading", "funding"),
        types=TRADING,
        coins=(
            Coin("USDT", 10, 1_000_000),
            Coin("BTC", 10, 67_060_000_000),
            Coin("ETH", 10, 2_536_070_000),
            Coin("SOL", 9, 148_250_000),
        ),
        ids=lambda rng, number: str(640_000_000_000_000_000 + number * 1000),
    )

    def truth(self, row: Row, now: int) -> dict:
        mine = {"type": word(row), "fee": None} if row.wallet == "funding" else {}
        return super().truth(row, now) | mine


def word(row: Row) -> str:
    if row.wallet == "trading":
        return row.type
    way = "out" if row.change < 0 else "in"
    return FUNDING.get(f"{row.event} {way}") or FUNDING[row.event]


def okx_error(status: int, _path: str, message: str | None = None) -> Response:
    code, usual = CODES.get(status, ("50001", "Service temporarily unavailable. Try again later"))
    body = {"code": code, "msg": message or usual, "data": []}
    return Response(json.dumps(body), status, media_type="application/json")


class OkxApi(LedgerApi):
    vendor = "okx"
    error = staticmethod(okx_error)

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("GET", "/api/v5/account/bills-archive", self.trading),
            ("GET", "/api/v5/asset/bills-history", self.funding),
            ("GET", "/api/v5/account/balance", self.trading_balances),
            ("GET", "/api/v5/asset/balances", self.funding_balances),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head = asked.headers
        if head.get("ok-access-key") != KEY or head.get("ok-access-passphrase") != PASSPHRASE:
            return 401, "Invalid Sign"
        target = asked.path + (f"?{asked.query}" if asked.query else "")
        said = f"{head.get('ok-access-timestamp')}{asked.method}{target}"
        if head.get("ok-access-sign") != signed(SECRET, said, form="base64"):
            return 401, "Invalid Sign"
        return None

    def trading(self, asked: Asked, now: int) -> dict:
        """Three months; `begin` and `end` are both included."""
        begin = asked.number("begin", 0) * 1000
        end = asked.number("end", 2**50) * 1000
        since = (now - 92 * DAY) * 10**6
        return self._page(
            asked, now, "trading", lambda row: max(begin, since) <= row.time <= end, _trading
        )

    def funding(self, asked: Asked, now: int) -> dict:
        return self._page(asked, now, "funding", lambda row: True, _funding)

    def _page(
        self, asked: Asked, now: int, wallet: str, wanted: Callable[[Row], bool], tell: Callable
    ) -> dict:
        """Newest first, those with a lesser id than `after`."""
        after = asked.number("after", 2**62)
        rows = [
            row
            for row in reversed(self.history(now).visible(now))
            if row.wallet == wallet and int(row.id) < after and wanted(row)
        ]
        return _ok([tell(row) for row in rows[: min(asked.number("limit", 100), 100)]])

    def trading_balances(self, _asked: Asked, now: int) -> dict:
        details = [
            {"ccy": coin.code, "cashBal": amount, "eq": amount, "availBal": amount}
            for _, coin, amount in self.held(now, "trading")
        ]
        return _ok([{"totalEq": "0", "uTime": str(now * 1000), "details": details}])

    def funding_balances(self, _asked: Asked, now: int) -> dict:
        return _ok(
            [
                {"ccy": coin.code, "bal": amount, "availBal": amount, "frozenBal": "0"}
                for _, coin, amount in self.held(now, "funding")
            ]
        )


def _ok(data: list) -> dict:
    return {"code": "0", "msg": "", "data": data}


def _trading(row: Row) -> dict:
    return {
        "bal": row.amount(row.balance),
        "balChg": row.amount(row.change),
        "billId": row.id,
        "ccy": row.coin.code,
        "fee": row.amount(-row.fee),
        "instType": "SPOT" if row.event == "trade" else "",
        "ordId": row.group if row.event == "trade" else "",
        "subType": "1",
        "sz": row.amount(abs(row.change)),
        "tradeId": row.group,
        "ts": str(row.time // 1000),
        "type": row.type,
    }


def _funding(row: Row) -> dict:
    return {
        "bal": row.amount(row.balance),
        "balChg": row.amount(row.change),
        "billId": row.id,
        "ccy": row.coin.code,
        "clientId": "",
        "notes": "",
        "ts": str(row.time // 1000),
        "type": word(row),
    }
