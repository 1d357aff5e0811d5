"""Coinbase under /coinbase: v2 wallets and ledger, v3 products, fills and accounts.

https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions (25 a page, at most 100)
https://docs.cdp.coinbase.com/api-reference/advanced-trade-api/rest-api/orders/list-fills
https://docs.cdp.coinbase.com/coinbase-app/api-architecture/rate-limiting (v2: 10,000 an hour)
https://docs.cdp.coinbase.com/advanced-trade/docs/rest-api-rate-limits (v3: 30 a second)
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from sandbox.coinbase import products, responses
from sandbox.coinbase.auth import refusal
from sandbox.coinbase.errors import coinbase_error
from sandbox.faults.limits import Bucket, NoLimit, SlidingSecond
from sandbox.vendor import Api
from sandbox.world.exchange_fills import FUTURES, PRODUCTS
from sandbox.world.exchange_records import CURRENCIES, Wallet
from sandbox.world.moments import Clock, micros, seconds

if TYPE_CHECKING:
    from sandbox.coinbase.history import CoinbaseHistory
    from sandbox.world.world import World

V2_PAGE, V2_PAGE_MAX = 25, 100
FILLS_PAGE_MAX = 100
ACCOUNTS_PAGE, ACCOUNTS_PAGE_MAX = 49, 250


class Refused(Exception):
    """status, message: answered in the vendor's error shape."""


def _limit(query, default: int, most: int) -> int:
    """Larger pages than the vendor's maximum are cut to it without a word."""
    text = query.get("limit") or str(default)
    if not text.isdigit() or int(text) == 0:
        raise Refused(400, f"limit is {text}, not a positive number")
    return min(int(text), most)


class CoinbaseApi(Api):
    def __init__(self, world: World, clock: Clock) -> None:
        self.world, self.clock = world, clock
        self.history: CoinbaseHistory = world.histories["coinbase"]
        self.hour, self.second = Bucket(10_000), SlidingSecond(30)

    def lift_limits(self) -> None:
        self.hour = self.second = NoLimit()

    def routes(self) -> list[Route]:
        v2, v3 = "/coinbase/v2", "/coinbase/api/v3/brokerage"
        served = [
            (f"{v2}/time", self.time, False),
            (f"{v2}/currencies", self.currencies, False),
            (f"{v2}/currencies/crypto", self.crypto, False),
            (f"{v2}/exchange-rates", self.exchange_rates, False),
            (f"{v2}/accounts", self.accounts, True),
            (f"{v2}/accounts/{{id}}", self.account, True),
            (f"{v2}/accounts/{{id}}/transactions", self.transactions, True),
            (f"{v3}/market/products", self.products, False),
            (f"{v3}/products", self.products, True),
            (f"{v3}/transaction_summary", self.transaction_summary, True),
            (f"{v3}/orders/historical/fills", self.fills, True),
            (f"{v3}/accounts", self.brokerage_accounts, True),
        ]
        routes = [
            Route(path, self._guarded(answer, private), methods=["GET"])
            for path, answer, private in served
        ]
        return [*routes, Route("/coinbase/{rest:path}", self._guarded(self.nothing, False))]

    def _guarded(self, answer: Callable[[Request, int], str | dict], private: bool):
        async def endpoint(request: Request) -> Response:
            path = request.scope["path"].removeprefix("/coinbase")
            if not (self.second if path.startswith("/api/v3") else self.hour).allows():
                return coinbase_error(429, path)
            if private and (
                why := refusal(request.headers.get("authorization"), request.method, path)
            ):
                return coinbase_error(401, path, why)
            now = self.clock.now()
            self.world.grown("coinbase", now)
            try:
                body = answer(request, now)
            except Refused as error:
                return coinbase_error(error.args[0], path, error.args[1])
            return Response(
                body if isinstance(body, str) else json.dumps(body), media_type="application/json"
            )

        return endpoint

    def nothing(self, request, _now) -> dict:
        raise Refused(404, "Not found")

    # Public

    def time(self, _request, now: int) -> dict:
        return {"data": {"iso": responses.iso(now), "epoch": now}}

    def currencies(self, _request, _now) -> dict:
        return {"data": [{"id": "USD", "name": "US Dollar", "min_size": "0.01"}]}

    def crypto(self, _request, _now) -> dict:
        crypto = {w.currency.code: w for w in self.history.wallets.values()}
        return {"data": [responses.currency(w) for w in crypto.values() if w.type != "fiat"]}

    def exchange_rates(self, _request, _now) -> dict:
        rates = {
            c.code: responses.decimal_text(10**24 // c.usd_micros, 18) for c in CURRENCIES.values()
        }
        return {"data": {"currency": "USD", "rates": rates}}

    def products(self, request, now: int) -> dict:
        """Spot unless asked for by type or by name; names in no list are passed over."""
        query = request.query_params
        wanted = set(query.getlist("product_ids")) - {""}
        kind = query.get("product_type") or ("" if wanted else "SPOT")
        found = [products.spot(name) for name in PRODUCTS] if kind in ("SPOT", "") else []
        futures = kind in ("FUTURE", "") and query.get("contract_expiry_type") in (None, "EXPIRING")
        status = query.get("expiring_contract_status") or "STATUS_UNEXPIRED"
        if self.history.mess and futures:
            found += [
                products.future(name)
                for name, (*_, expiry) in FUTURES.items()
                if status == "STATUS_ALL"
                or (status == "STATUS_EXPIRED") == (seconds(expiry) <= now)
            ]
        found = [one for one in found if not wanted or one["product_id"] in wanted]
        return {"products": found, "num_products": len(found)}

    # Private

    def transaction_summary(self, _request, _now) -> dict:
        tier = {
            "pricing_tier": "Advanced 1",
            "usd_from": "0",
            "usd_to": "1000",
            "taker_fee_rate": "0.006",
            "maker_fee_rate": "0.004",
            "aop_from": "",
            "aop_to": "",
        }
        return {
            "total_volume": 0,
            "total_fees": 0,
            "fee_tier": tier,
            "margin_rate": None,
            "goods_and_services_tax": None,
            "total_balance": "",
            "has_promo_fee": False,
        }

    def accounts(self, request, now: int) -> str:
        rows = [responses.account(self.history, name, now) for name in self.history.wallets]
        return self._page(
            request, [(row["id"], lambda row=row: json.dumps(row)) for row in rows], "desc"
        )

    def _wallet(self, request) -> Wallet:
        for wallet in self.history.wallets.values():
            if wallet.id == request.path_params["id"]:
                return wallet
        raise Refused(404, "Not found")

    def account(self, request, now: int) -> dict:
        return {"data": responses.account(self.history, self._wallet(request).name, now)}

    def transactions(self, request, now: int) -> str:
        wallet = self._wallet(request)
        if wallet.answer != 200:
            raise Refused(wallet.answer, "Not found" if wallet.answer == 404 else None)
        rows = self.history.rows(wallet.name, now)
        order = request.query_params.get("order") or "desc"
        if order not in ("asc", "desc"):
            raise Refused(400, f"order is {order}, not asc or desc")
        if order == "desc":
            rows = rows[::-1]
        return self._page(
            request,
            [(row.id, lambda row=row: responses.transaction(row, now)) for row in rows],
            order,
        )

    def _page(self, request, rows: list[tuple[str, Callable[[], str]]], order: str) -> str:
        """v2 paging: `starting_after` is the id of the last row already had."""
        query, path = request.query_params, request.scope["path"].removeprefix("/coinbase")
        limit, after = _limit(query, V2_PAGE, V2_PAGE_MAX), query.get("starting_after") or None
        start = 0
        if after is not None:
            start = next((n for n, (row_id, _) in enumerate(rows, 1) if row_id == after), 0)
            if not start:
                raise Refused(404, f"starting_after names no row: {after}")
        page = rows[start : start + limit]
        last = page[-1][0] if start + limit < len(rows) else None
        more = (
            {"limit": limit}
            | ({"order": order} if "order" in query else {})
            | {"starting_after": last}
        )
        pagination = {
            "ending_before": None,
            "limit": limit,
            "next_starting_after": last,
            "next_uri": f"{path}?{urlencode(more)}" if last else None,
            "order": order,
            "previous_ending_before": page[0][0] if after and page else None,
            "previous_uri": None,
            "starting_after": after,
        }
        return f'{{"pagination": {json.dumps(pagination)}, "data": [{", ".join(text() for _, text in page)}]}}'

    def fills(self, request, now: int) -> str:
        """Newest first, start inclusive, end exclusive; the cursor is the last fill's place."""
        query = request.query_params
        try:
            start, end = (
                micros(query[name]) if query.get(name) else None
                for name in ("start_sequence_timestamp", "end_sequence_timestamp")
            )
        except ValueError:
            raise Refused(
                400, "sequence timestamps are RFC 3339, like 2026-01-31T06:00:00Z"
            ) from None
        products = {*query.getlist("product_id"), *query.getlist("product_ids")} - {""}
        orders = {*query.getlist("order_id"), *query.getlist("order_ids")} - {""}
        place = (2**62, "")
        if query.get("cursor"):
            sequence, _, entry_id = query["cursor"].partition("-")
            if not sequence.isdigit():
                raise Refused(400, "invalid cursor")
            place = (int(sequence), entry_id)
        visible = [
            fill
            for fill in reversed(self.history.visible_fills(now))
            if (start is None or fill.sequence >= start)
            and (end is None or fill.sequence < end)
            and (not products or fill.product in products)
            and (not orders or fill.order_id in orders)
            and (fill.sequence, fill.entry_id) < place
        ]
        limit = _limit(query, FILLS_PAGE_MAX, FILLS_PAGE_MAX)
        page = visible[:limit]
        cursor = f"{page[-1].sequence}-{page[-1].entry_id}" if len(visible) > limit else ""
        texts = ", ".join(responses.fill(fill, self.history.user_id) for fill in page)
        return f'{{"fills": [{texts}], "cursor": "{cursor}"}}'

    def brokerage_accounts(self, request, now: int) -> dict:
        query, names = request.query_params, list(self.history.wallets)
        limit, cursor = _limit(query, ACCOUNTS_PAGE, ACCOUNTS_PAGE_MAX), query.get("cursor") or "0"
        if not cursor.isdigit():
            raise Refused(400, "invalid cursor")
        end = int(cursor) + limit
        page, more = names[int(cursor) : end], end < len(names)
        accounts = [responses.brokerage_account(self.history, name, now) for name in page]
        return {
            "accounts": accounts,
            "has_next": more,
            "cursor": str(end) if more else "",
            "size": len(page),
        }
