"""Bybit under /bybit: the transaction log, the funding history and both balances.

https://bybit-exchange.github.io/docs/v5/account/transaction-log (50 a page, at most 7 days)
https://bybit-exchange.github.io/docs/v5/guide#authentication (HMAC over time, key, window, query)
https://bybit-exchange.github.io/docs/v5/error (retCode, with status 200)
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from starlette.responses import Response

from sandbox.ledgers.api import Asked, LedgerApi, Refused, signed
from sandbox.ledgers.history import Coin, LedgerHistory, Row, Shape
from sandbox.world.amounts import short_text
from sandbox.world.moments import DAY

KEY, SECRET = "sandbox-bybit-key", "the sandbox's own secret of bybit"
CODES = {
    400: (10001, "params error"),
    401: (10003, "API key is invalid."),
    403: (10005, "Permission denied, please check your API key permissions."),
    404: (10001, "unknown path"),
    429: (10006, "Too many visits!"),
}
WEEK_MS, DEPTH_MS = 7 * DAY * 1000, 730 * DAY * 1000


class BybitHistory(LedgerHistory):
    shape = Shape(
        "bybit",
        wallets=("UNIFIED", "FUND"),
        types={
            "deposit": "Deposit",
            "withdrawal": "Withdraw",
            "trade": "TRADE",
            "conversion out": "CURRENCY_SELL",
            "conversion in": "CURRENCY_BUY",
            "transfer out": "TRANSFER_OUT",
            "transfer in": "TRANSFER_IN",
            "reward": "Earn",
            "fee": "INTEREST",
            "unknown": "QUANTUM_REBATE",
        },
        coins=(
            Coin("USDT", 8, 1_000_000),
            Coin("BTC", 10, 67_060_000_000),
            Coin("ETH", 10, 2_536_070_000),
            Coin("XRP", 6, 512_000),
        ),
        ticks={"FUND": 10**6},
    )

    def truth(self, row: Row, now: int) -> dict:
        if row.wallet == "FUND":
            mine = {"entry_id": _composite(row), "fee": None}
        else:
            mine = {"entry_id": f"{row.id}:{row.type}"}
        return super().truth(row, now) | mine


def _composite(row: Row) -> str:
    """Rows of the funding account have no id; no two of this world are equal."""
    way = "O" if row.change < 0 else "I"
    seconds, coin = row.time // 10**6, row.coin
    amount = short_text(abs(row.change), coin.decimals)
    return f"FUND_{seconds}_{coin.code}_{way}_{amount}_{short_text(row.balance, coin.decimals)}"


def bybit_error(status: int, _path: str, message: str | None = None) -> Response:
    code, usual = CODES.get(status, (10016, "Internal server error."))
    body = {"retCode": code, "retMsg": message or usual, "result": {}, "retExtInfo": {}, "time": 0}
    return Response(
        json.dumps(body), 200 if status < 500 else status, media_type="application/json"
    )


class BybitApi(LedgerApi):
    vendor = "bybit"
    error = staticmethod(bybit_error)

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        return (
            ("GET", "/v5/account/transaction-log", self.unified),
            ("GET", "/v5/asset/fundinghistory", self.funding),
            ("GET", "/v5/account/wallet-balance", self.unified_balances),
            ("GET", "/v5/asset/transfer/query-account-coins-balance", self.fund_balances),
        )

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        head = asked.headers
        if head.get("x-bapi-api-key") != KEY:
            return 401, "API key is invalid."
        said = f"{head.get('x-bapi-timestamp')}{KEY}{head.get('x-bapi-recv-window')}{asked.query}"
        if head.get("x-bapi-sign") != signed(SECRET, said):
            return 401, "error sign! origin_string[...]"
        return None

    def unified(self, asked: Asked, now: int) -> dict:
        if asked.params.get("accountType") != "UNIFIED":
            raise Refused(400, "accountType is not UNIFIED")
        return self._page(asked, now, "UNIFIED", 1_000, _unified)

    def funding(self, asked: Asked, now: int) -> dict:
        return self._page(asked, now, "FUND", 10**6, _funding)

    def _page(self, asked: Asked, now: int, wallet: str, unit: int, tell: Callable) -> dict:
        """Newest first; without bounds the last day or week; both bounds are included."""
        end = asked.number("endTime", now * 10**6 // unit)
        start = asked.number("startTime", end - WEEK_MS * 1000 // unit)
        if (end - start) * unit > WEEK_MS * 1000:
            raise Refused(400, "The interval between startTime and endTime exceeds 7 days.")
        if start * unit < now * 10**6 - DEPTH_MS * 1000:
            raise Refused(400, "startTime is more than 2 years ago.")
        rows = [
            row
            for row in reversed(self.history(now).visible(now))
            if row.wallet == wallet and start * unit <= row.time <= end * unit
        ]
        limit = min(asked.number("limit", 20), 50)
        skip = asked.number("cursor", 0)
        page, more = rows[skip : skip + limit], skip + limit < len(rows)
        result = {
            "list": [tell(row) for row in page],
            "nextPageCursor": str(skip + limit) if more else "",
        }
        return _ok(result)

    def unified_balances(self, _asked: Asked, now: int) -> dict:
        coins = [
            {"coin": coin.code, "walletBalance": amount, "equity": amount, "locked": "0"}
            for _, coin, amount in self.held(now, "UNIFIED")
        ]
        return _ok({"list": [{"accountType": "UNIFIED", "coin": coins}]})

    def fund_balances(self, _asked: Asked, now: int) -> dict:
        rows = [
            {"coin": coin.code, "walletBalance": amount, "transferBalance": amount, "bonus": ""}
            for _, coin, amount in self.held(now, "FUND")
        ]
        return _ok({"accountType": "FUND", "memberId": "1", "balance": rows})


def _ok(result: dict) -> dict:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": 1}


def _unified(row: Row) -> dict:
    return {
        "id": row.id,
        "symbol": "",
        "side": "Sell" if row.change < 0 else "Buy",
        "funding": "0",
        "orderId": row.group,
        "tradeId": row.group,
        "fee": row.amount(row.fee),
        "cashFlow": row.amount(row.change + row.fee),
        "change": row.amount(row.change),
        "cashBalance": row.amount(row.balance),
        "transactionTime": str(row.time // 1000),
        "type": row.type,
        "currency": row.coin.code,
        "bonusChange": "0",
    }


def _funding(row: Row) -> dict:
    return {
        "memberId": "1",
        "currency": row.coin.code,
        "ioDirection": "O" if row.change < 0 else "I",
        "txnAmt": short_text(abs(row.change), row.coin.decimals),
        "afterAmt": short_text(row.balance, row.coin.decimals),
        "createTime": str(row.time // 10**6),
        "showBusiType": row.type,
        "showBusiTypeEn": row.type,
        "description": row.event,
    }
