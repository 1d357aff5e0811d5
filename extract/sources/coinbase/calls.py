"""Coinbase's API through ccxt: its endpoints, the clients that sign, and the cursors of its pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from extract.fetch.client import Client
from extract.fetch.http import CcxtClients
from extract.sources.coinbase.key import signing_secret

V2_PAGE = 100
FILLS_PAGE = 100
PRODUCTS_A_CALL = 100  # their names stand in the address

ACCOUNTS = "/v2/accounts"
TRANSACTIONS = "/v2/accounts/{id}/transactions"
FILLS = "/api/v3/brokerage/orders/historical/fills"
PRODUCTS = "/api/v3/brokerage/products"


def connect(
    *, host: str, login: str, password: str, extra: Mapping[str, Any] | None = None, **_: Any
) -> CcxtClients:
    """ccxt clients for the host; their own pacing is off, since Client paces.

    Raises Fatal for a private key that cannot be read, or a host that no key should be sent to.
    """
    secret = signing_secret(password)

    def opened() -> Any:
        import ccxt

        exchange: Any = ccxt.coinbase(
            {"apiKey": login.strip(), "secret": secret, "enableRateLimit": False}
        )
        exchange.urls["api"]["rest"] = host.rstrip("/")
        exchange.number = str  # amounts stay text, exactly as in the response
        return exchange

    return CcxtClients(opened, host, extra)


def test_connection(client: Client, exchange: CcxtClients) -> str:
    """The Test button: the wallets on the first page, by one free call, the first of every fetch."""
    answer = client.call(
        ACCOUNTS,
        lambda: exchange.call(
            "v2PrivateGetAccounts", {"limit": V2_PAGE}, "data", lambda data: wrong_v2(data, set())
        ),
    )
    rows = answer.data["data"]
    assets = list(dict.fromkeys(filter(None, map(asset_of, rows))))
    more = " or more" if after(answer.data) else ""
    return (
        f"sees {len(rows)}{more} wallets ({', '.join(assets[:5])}"
        f"{', …' if len(assets) > 5 else ''})"
    )


def asset_of(wallet: Any) -> str | None:
    """The currency code of a row of ACCOUNTS: of its balance, or its own, which may be null too."""
    for place, name in (("balance", "currency"), ("currency", "code")):
        found = wallet.get(place) if isinstance(wallet, dict) else None
        if isinstance(found, dict) and found.get(name):
            return str(found[name])
    return None


def after(data: dict) -> str | None:
    """Where the next v2 page begins, None at the end. Documented is next_uri, an address; served
    is next_starting_after, too."""
    pagination: dict = data.get("pagination") or {}
    if cursor := pagination.get("next_starting_after"):
        return cursor
    query = parse_qs(urlsplit(pagination.get("next_uri") or "").query)
    return next(iter(query.get("starting_after", [])), None)


def wrong_v2(data: dict, cursors: set[str]) -> str | None:
    """What is wrong with the paging of a v2 page, or None; `cursors` are those followed so far."""
    pagination = data.get("pagination")
    if isinstance(pagination, dict) and {"next_starting_after", "next_uri"} & set(pagination):
        if pagination.get("next_uri") and not after(data):
            return f"pagination.next_uri ({pagination['next_uri']}) does not say starting_after"
    elif pagination or "pagination" not in data or len(data["data"]) >= V2_PAGE:
        # Where pagination is null, a page that has room left is the last.
        return (
            "no pagination.next_starting_after or next_uri, so the end of the paging is not known"
        )
    return leads_on(after(data), data["data"], cursors)


def leads_on(cursor: str | None, rows: list, cursors: set[str]) -> str | None:
    """What is wrong with a cursor to more, or None."""
    if cursor and cursor in cursors:
        return f"the cursor {cursor} was followed before: the paging goes in a circle"
    if cursor and not rows:
        return f"an empty page with a cursor ({cursor}) to more"
    return None
