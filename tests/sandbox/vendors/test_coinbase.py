"""The sandbox as Coinbase: markets, ledger, fills, keys."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import ccxt
import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from sandbox.coinbase.keys import KEY_NAME, KEY_PEM
from sandbox.world.exchange_records import WALLETS as COINBASE_WALLETS
from tests.sandbox.vendors.scene import NOW, exchange, v2_rows


# Coinbase, through the real ccxt
def test_ccxt_loads_the_markets(client):
    assert {"BTC/USD", "ETH/USDC"} <= set(client.markets) and client.currencies["ADA"][
        "type"
    ] == "crypto"
    assert len(client.markets) == 9


def test_ledger_pages_add_up_to_every_reported_balance(client, small):
    wallets = client.v2PrivateGetAccounts({"limit": 100})["data"]
    assert len(wallets) == len(COINBASE_WALLETS)
    rows, sums = [], defaultdict(Decimal)
    for wallet in wallets:
        mine = v2_rows(client, wallet["id"])
        again = v2_rows(client, wallet["id"], limit=100, order="asc")
        assert [row["id"] for row in mine] == [row["id"] for row in again][::-1]
        assert len({row["id"] for row in mine}) == len(mine)
        settled = sum(
            (Decimal(r["amount"]["amount"]) for r in mine if r["status"] == "completed"), Decimal(0)
        )
        assert settled == Decimal(wallet["balance"]["amount"]) >= 0
        sums[wallet["currency"]["code"]] += settled
        rows += mine
    truth = small.world.truth("ledger", NOW, ["coinbase"])
    assert {(r["id"], r["amount"]["amount"], r["status"], r["type"]) for r in rows} == {
        (t["entry_id"], t["wire_amount"], t["status"], t["type"]) for t in truth
    }
    for row in small.world.balances(NOW, NOW):
        if row["vendor"] == "coinbase":
            assert sums.pop(row["token"]) == Decimal(row["amount"])
    assert set(sums.values()) <= {0}


def test_balances_agree_between_v2_and_v3(client):
    v2, v3 = client.fetch_balance()["total"], client.fetch_balance({"v3": True})["total"]
    assert {k: Decimal(v) for k, v in v2.items()} == {k: Decimal(v) for k, v in v3.items()}


def test_fills_page_to_an_empty_cursor_and_match_the_truth(client, small):
    fills, cursor = [], ""
    while True:
        page = client.v3PrivateGetBrokerageOrdersHistoricalFills(
            {"limit": 7, **({"cursor": cursor} if cursor else {})}
        )
        fills += page["fills"]
        if not (cursor := page["cursor"]):
            break
    truth = {t["trade_id"]: t for t in small.world.truth("fills", NOW, ["coinbase"])}
    assert [f["sequence_timestamp"] for f in fills] == sorted(
        (f["sequence_timestamp"] for f in fills), reverse=True
    )
    assert {f["trade_id"]: f["size"] for f in fills} == {
        t: fill["wire_amount"] for t, fill in truth.items()
    }
    trades = client.fetch_my_trades(limit=100)
    assert trades and all(
        Decimal(t["fee"]["cost"]) == Decimal(truth[t["id"]]["fee"]) for t in trades
    )
    for trade in trades:  # ccxt turns a size in the quote back into coins, to 18 digits
        assert abs(Decimal(trade["amount"]) - Decimal(truth[trade["id"]]["amount"])) < Decimal(
            "1e-15"
        )


def test_fills_start_inclusive_and_end_exclusive(client, small):
    middle = small.world.truth("fills", NOW, ["coinbase"])[5]["sequence_time"]
    get = client.v3PrivateGetBrokerageOrdersHistoricalFills
    after = get({"start_sequence_timestamp": middle})["fills"]
    before = get({"end_sequence_timestamp": middle})["fills"]
    assert after[-1]["sequence_timestamp"] == middle and len(before) == 5
    fills = get({"product_ids": ["BTC-USD"]})["fills"]
    assert fills and {f["product_id"] for f in fills} == {"BTC-USD"}


def test_page_sizes_are_the_vendors(client, small):
    cash = small.world.histories["coinbase"].wallets["Cash (USD)"].id
    get = client.v2PrivateGetAccountsAccountIdTransactions
    assert len(get({"account_id": cash})["data"]) == 25
    page = get({"account_id": cash, "limit": 500})
    assert page["pagination"]["limit"] in (100, "100") and len(page["data"]) <= 100
    assert page["pagination"]["order"] == "desc"
    assert len(client.v3PrivateGetBrokerageOrdersHistoricalFills({"limit": 999})["fills"]) <= 100
    first = client.v3PrivateGetBrokerageAccounts({"limit": 4})
    assert len(first["accounts"]) == 4 and first["has_next"] and first["cursor"]


def test_wrong_keys_and_signatures_are_refused(small):
    stranger = (
        ec.generate_private_key(ec.SECP256R1())
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
        .decode()
    )
    for name, pem in ((KEY_NAME, stranger), (KEY_NAME[:-1] + "3", KEY_PEM)):
        for call in ("v2PrivateGetAccounts", "v3PrivateGetBrokerageAccounts"):
            with pytest.raises(ccxt.AuthenticationError):
                getattr(exchange(small.coinbase, name, pem), call)()
    assert requests.get(f"{small.coinbase}/v2/accounts", timeout=5).status_code == 401
    stale = {
        "sub": KEY_NAME,
        "nbf": 1_700_000_000,
        "exp": 1_700_000_120,
        "uri": "GET api.coinbase.com/v2/accounts",
    }
    token = jwt.encode(stale, KEY_PEM, algorithm="ES256")
    bearer = {"Authorization": f"Bearer {token}"}
    assert (
        requests.get(f"{small.coinbase}/v2/accounts", headers=bearer, timeout=5).status_code == 401
    )
    signed = exchange(small.coinbase).sign("accounts", ["v2", "private"], "GET", {})
    other = f"{small.coinbase}/api/v3/brokerage/accounts"
    assert requests.get(other, headers=signed["headers"], timeout=5).status_code == 401
    assert requests.get(signed["url"], headers=signed["headers"], timeout=5).status_code == 200
