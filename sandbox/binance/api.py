"""Binance under /binance: account, trades by market, and the lists of the wallet, earn and fiat.

https://developers.binance.com/docs/binance-spot-api-docs/rest-api/request-security (HMAC of the query)
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits (weights, 429, -1003)
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import Response

from sandbox.binance.history import FUNDING, MARKETS, SPOT, BinanceHistory, Listed
from sandbox.ledgers.api import Asked, LedgerApi, Refused, number, signed
from sandbox.world.amounts import decimal_text
from sandbox.world.moments import DAY

KEY, SECRET = "sandbox-binance-key", "the sandbox's own secret of binance"
ERRORS = {
    400: (-1102, "Mandatory parameter was not sent, was empty/null, or malformed."),
    401: (-2015, "Invalid API-key, IP, or permissions for action."),
    403: (-2015, "Invalid API-key, IP, or permissions for action."),
    404: (-1000, "Not found"),
    418: (-1003, "Way too many requests; IP banned"),
    429: (
        -1003,
        "Too much request weight used; current limit is 6000 request weight per 1 MINUTE.",
    ),
}
WEIGHT = 6000  # a minute, over /api/v3
ON_ITS_OWN = {"/sapi/v1/fiat/orders": 2, "/sapi/v1/capital/withdraw/history": 10}  # calls a minute
PRODUCT = "/sapi/v1/simple-earn/"
CODES = {"Invalid symbol.": -1121, "Signature for this request is not valid.": -1022}


def binance_error(status: int, _path: str, message: str | None = None) -> Response:
    code, usual = ERRORS.get(status, (-1000, "An unknown error occurred while processing."))
    for words, other in CODES.items():
        code = other if message == words else code
    if message and message.startswith("-"):
        said, _, message = message.partition(" ")
        code = int(said)
    headers = {"Retry-After": "2"} if status in (418, 429) else {}
    body = json.dumps({"code": code, "msg": message or usual})
    return Response(body, status, headers, media_type="application/json")


class BinanceApi(LedgerApi):
    vendor = "binance"
    error = staticmethod(binance_error)
    lifted = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.used: dict[tuple[str, int], int] = defaultdict(int)

    def served(self) -> Iterable[tuple[str, str, Callable[[Asked, int], Any]]]:
        lists = (
            ("capital/deposit/hisrec", self._by_offset("deposits")),
            ("capital/withdraw/history", self._by_offset("withdrawals")),
            ("convert/tradeFlow", self.converts),
            ("asset/dribblet", self.dust),
            ("asset/assetDividend", self.dividends),
            ("asset/transfer", self.transfers),
            ("fiat/orders", self._fiat("fiat orders")),
            ("fiat/payments", self._fiat("payments")),
            *(
                (f"simple-earn/{product}/history/{what}Record", self._earned(product, what))
                for product in ("flexible", "locked")
                for what in ("subscription", "redemption", "rewards")
            ),
            ("simple-earn/flexible/position", self._positions("flexible", "totalAmount")),
            ("simple-earn/locked/position", self._positions("locked", "amount")),
        )
        return (
            ("GET", "/api/v3/exchangeInfo", self.info),
            ("GET", "/api/v3/account", self.account),
            ("GET", "/api/v3/myTrades", self.trades),
            ("POST", "/sapi/v1/asset/get-funding-asset", self.funding),
            *(("GET", f"/sapi/v1/{path}", answer) for path, answer in lists),
        )

    def lift_limits(self) -> None:
        self.lifted = True

    def allows(self, path: str) -> bool:
        minute = int(time.monotonic() // 60)
        if path.startswith("/api/"):
            self.used["", minute] += 20
            return self.lifted or self.used["", minute] <= WEIGHT
        self.used[path, minute] += 1
        return self.lifted or self.used[path, minute] <= ON_ITS_OWN.get(path, 80)

    def headers(self, answer: Any) -> Mapping[str, str]:
        return {"x-mbx-used-weight-1m": str(self.used["", int(time.monotonic() // 60)])}

    def refused(self, asked: Asked) -> tuple[int, str] | None:
        if asked.path == "/api/v3/exchangeInfo":
            return None
        if asked.headers.get("x-mbx-apikey") != KEY:
            return 401, "Invalid API-key, IP, or permissions for action."
        said, _, signature = (asked.query + asked.body).rpartition("&signature=")
        if signature != signed(SECRET, said) or "timestamp" not in parse_qs(said):
            return 400, "Signature for this request is not valid."
        return None

    def history(self, now: int) -> BinanceHistory:
        history = super().history(now)
        assert isinstance(history, BinanceHistory)
        return history

    def info(self, _asked: Asked, _now: int) -> dict:
        return {
            "timezone": "UTC",
            "symbols": [
                {
                    "symbol": base.code + quote.code,
                    "status": "TRADING",
                    "baseAsset": base.code,
                    "quoteAsset": quote.code,
                }
                for base, quote in MARKETS
            ],
        }

    def account(self, asked: Asked, now: int) -> dict:
        held = {coin.code: amount for _, coin, amount in self.held(now, SPOT)}
        for coin, units in self.history(now).positions("flexible", now).items():
            held[f"LD{coin.code}"] = decimal_text(units, coin.decimals)
        skip = asked.params.get("omitZeroBalances") == "true"
        return {
            "accountType": "SPOT",
            "updateTime": number(str(now * 1000)),
            "balances": [
                {"asset": code, "free": amount, "locked": "0.00000000"}
                for code, amount in held.items()
                if not skip or amount.strip("0.")
            ],
            "permissions": ["SPOT"],
        }

    def funding(self, _asked: Asked, now: int) -> list:
        return [
            {"asset": coin.code, "free": amount, "locked": "0", "freeze": "0", "withdrawing": "0"}
            for _, coin, amount in self.held(now, FUNDING)
        ]

    def _positions(self, product: str, field: str) -> Callable[[Asked, int], dict]:
        def answer(asked: Asked, now: int) -> dict:
            held = self.history(now).positions(product, now)
            rows = [
                {"asset": coin.code, field: decimal_text(units, coin.decimals)}
                for coin, units in held.items()
            ]
            return _page(asked, rows, "size")

        return answer

    def trades(self, asked: Asked, now: int) -> list:
        symbol = asked.params.get("symbol", "")
        if symbol not in {base.code + quote.code for base, quote in MARKETS}:
            raise Refused(400, "Invalid symbol.")
        first = asked.number("fromId", 0)
        rows = [listed.at(now) for listed in self.history(now).lists(f"trades {symbol}", now)]
        rows = sorted(rows, key=_id)
        rows = [row for row in rows if _id(row) >= first]
        return rows[: min(asked.number("limit", 500), 1000)]

    def _records(
        self, name: str, asked: Asked, now: int, days: int, start: str = "startTime"
    ) -> list:
        """Records within the time that is asked for, newest first."""
        end = asked.number("endTime", now * 1000)
        begin = asked.number(start, end - 7 * DAY * 1000)
        if end - begin > days * DAY * 1000:
            raise Refused(400, "-6021 Time interval is beyond the limit.")
        lists: list[Listed] = self.history(now).lists(name, now)
        found = [t for t in lists if begin * 1000 <= t.time <= end * 1000 + 999]
        return [t.at(now) for t in sorted(found, key=lambda t: t.time, reverse=True)]

    def _by_offset(self, name: str) -> Callable[[Asked, int], list]:
        def answer(asked: Asked, now: int) -> list:
            rows, offset = self._records(name, asked, now, 90), asked.number("offset", 0)
            return rows[offset : offset + min(asked.number("limit", 1000), 1000)]

        return answer

    def converts(self, asked: Asked, now: int) -> dict:
        rows, limit = self._records("converts", asked, now, 30), asked.number("limit", 100)
        return {"list": rows[:limit], "limit": number(str(limit)), "moreData": len(rows) > limit}

    def dust(self, asked: Asked, now: int) -> dict:
        rows = self._records("dust", asked, now, 3650)
        return {"total": number(str(len(rows))), "userAssetDribblets": rows[:100]}

    def dividends(self, asked: Asked, now: int) -> dict:
        rows = self._records("dividends", asked, now, 180)
        shown = rows[: min(asked.number("limit", 20), 500)]
        return {"rows": shown, "total": number(str(len(rows)))}

    def transfers(self, asked: Asked, now: int) -> dict:
        if "type" not in asked.params:
            raise Refused(400, "-1102 Mandatory parameter 'type' was not sent.")
        if asked.number("startTime", now * 1000) < (now - 183 * DAY) * 1000:
            raise Refused(400, "-1128 Only the last 6 months can be queried.")
        return _page(
            asked, self._records(f"transfers {asked.params['type']}", asked, now, 180), "size"
        )

    def _earned(self, product: str, what: str) -> Callable[[Asked, int], dict]:
        name = f"{product} {what if what == 'rewards' else what + 's'}"

        def answer(asked: Asked, now: int) -> dict:
            rows = self._records(name, asked, now, 30)
            if name == "flexible rewards":
                rows = [row for row in rows if row["type"] == asked.params.get("type")]
            return _page(asked, rows, "size")

        return answer

    def _fiat(self, name: str) -> Callable[[Asked, int], dict]:
        def answer(asked: Asked, now: int) -> dict:
            if asked.params.get("transactionType") not in ("0", "1"):
                raise Refused(400, "-1102 Mandatory parameter 'transactionType' was not sent.")
            listed = f"{name} {asked.params['transactionType']}"
            page = _page(asked, self._records(listed, asked, now, 90, "beginTime"), "rows", "page")
            return {
                "code": "000000",
                "message": "success",
                "data": page["rows"],
                "total": page["total"],
                "success": True,
            }

        return answer


def _id(row: Mapping[str, Any]) -> int:
    return int(row["id"].removeprefix("#number "))


def _page(asked: Asked, rows: list, size_name: str, page_name: str = "current") -> dict:
    size, page = min(asked.number(size_name, 10), 500), asked.number(page_name, 1)
    if size_name == "size" and size > 100:
        raise Refused(400, "-1100 Illegal characters found in parameter 'size'.")
    return {"rows": rows[(page - 1) * size : page * size], "total": number(str(len(rows)))}
