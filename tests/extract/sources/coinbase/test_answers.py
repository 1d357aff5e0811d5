"""Odd answers, and the rows that are made of answers."""

from __future__ import annotations

import random

import pytest

from extract.core.errors import Retriable
from extract.core.interval import utc
from extract.fetch.client import Client
from extract.sources.coinbase import calls, mapping
from tests.extract.sources.coinbase.scene import START, THEN, entries, fill
from tests.helpers.coinbase_stub import COINBASE, mapped


# ---- odd answers
@pytest.mark.parametrize("paging", ["both", "uri", "null"])
def test_paging_is_followed_as_documented_and_as_served(vendor, paging, monkeypatch):
    vendor.paging = paging
    for number in range(2, 8):
        vendor.entry("btc", number, "2026-02-01T10:00:00Z")
    monkeypatch.setattr(calls, "V2_PAGE", 2)
    if paging == "null":  # a full page without a word about the next one
        with pytest.raises(Retriable, match="the end of the paging is not known"):
            vendor.fetch(START, THEN)
        monkeypatch.setattr(calls, "V2_PAGE", 100)
    assert len(entries(vendor.fetch(START, THEN))) == 7


def test_wallets_without_a_balance_or_an_id_are_named(vendor, caplog):
    vendor.wallet("XLM", "XLM").update(created_at=None, currency=None)
    vendor.wallet("OLD", "OLD")["balance"] = None
    vendor.wallet("NEW", "NEW")["updated_at"] = None
    vendor.accounts.append({"id": None, "balance": None, "currency": None})
    fetched = vendor.fetch(START, THEN)
    assert set(fetched.part_states) == {"btc", "XLM"} and fetched.unread == []
    assert "OLD, NEW, without an id" in caplog.text
    assert {b["wallet"]: b["amount_text"] for b in mapped(fetched, "balances")} == {
        "btc": "1",
        "XLM": "0",
        "OLD": None,
        "NEW": "0",
        None: None,
    }
    message = COINBASE.test_connection(Client("coinbase", "main", rates={}, units={}), vendor.api)
    assert message == "sees 5 wallets (BTC, XLM, NEW)"


def test_entries_out_of_order_are_read_to_the_end(vendor, monkeypatch, caplog):
    """One entry stands in the wrong place, and what is new is behind it, on the last page."""
    monkeypatch.setattr(calls, "V2_PAGE", 2)
    vendor.transactions["btc"] = []
    for number, day in enumerate(["09T08", "01T00", "02T00", "05T00", "09T20", "09T09"]):
        vendor.entry("btc", number, f"2026-03-{day}:00:00Z")
    fetched = vendor.fetch("2026-03-09T00:00:00Z", THEN)
    assert len(entries(fetched)) == 6 and "not in its place" in caplog.text
    vendor.transactions["btc"].sort(key=lambda row: row["created_at"], reverse=True)
    vendor.asked.clear()
    fetched = vendor.fetch("2026-03-09T00:00:00Z", THEN)
    assert len(entries(fetched)) == 4, "in order, a page that reaches further back is the last"


def test_times_and_amounts_of_any_form_pass_the_fetch(vendor):
    """The rows are loaded, or rejected by name, by the loader: the fetch must not end on one."""
    for number, at in enumerate(
        ["2026-02-02T10:37Z", "2026-02-03T01:00:00+05:30", "2026-02-04T10:00:00.123456789Z"], 2
    ):
        vendor.entry("btc", number, at)
    vendor.entry("btc", 5, "2026-02-05T10:00:00Z", None)
    fetched = vendor.fetch(START, THEN)
    assert [p.params["account_id"] for p in fetched.pages if "account_id" in p.params] == ["btc"]
    assert utc("2026-02-02T10:37Z") == utc("2026-02-02T10:37:00Z")
    assert utc("2026-02-03T01:00:00+05:30") == utc("2026-02-02T19:30:00Z")
    assert utc("2026-02-04T10:00:00.123456789Z").microsecond == 123456
    vendor.entry("btc", 6, "not a time")
    vendor.transactions["btc"][0] |= {"created_at": None}
    assert vendor.fetch(START, THEN).unread == []


# ---- rows
LISTED = [
    {
        "product_id": "BIT-28JUN26-CDE",
        "product_type": "FUTURE",
        "base_currency_id": "",
        "quote_currency_id": "USD",
        "future_product_details": {"contract_root_unit": "BTC", "contract_size": "0.01"},
    },
    {
        "product_id": "ETH-PERP-INTX",
        "product_type": "FUTURE",
        "base_currency_id": "",
        "quote_currency_id": "USDC",
        "future_product_details": {"contract_root_unit": "ETH", "contract_size": "1"},
    },
    {"product_id": "SOL-USDC", "base_currency_id": "SOL", "quote_currency_id": "USDC"},
    {"product_id": "NEW.KIND", "base_currency_id": "NEW", "quote_currency_id": "EUR"},
]
BOUGHT = {  # symbol, base, quote
    "BIT-28JUN26-CDE": ("BIT-28JUN26-CDE", "BIT-28JUN26-CDE", "USD"),
    "ETH-PERP-INTX": ("ETH/USDC:USDC", "ETH", "USDC"),
    "SOL-USDC": ("SOL/USDC", "SOL", "USDC"),
    "NEW.KIND": ("NEW.KIND", "NEW", "EUR"),
}


def test_products_are_what_the_vendors_list_says(vendor):
    vendor.products = LISTED
    vendor.fills = [fill(n, product_id=product) for n, product in enumerate(BOUGHT)]
    found = {row["trade_id"]: row for row in mapped(vendor.fetch(START, THEN), "exchanges_trades")}
    assert vendor.asked.count(calls.PRODUCTS) == 1
    for number, wanted in enumerate(BOUGHT.values()):
        row = found[f"t-{number}"]
        assert (row["symbol"], row["base"], row["quote"]) == wanted
        assert row["fee_asset"] == wanted[2]
    vendor.products = None  # the list cannot be read: names say what they can, the key is the same
    bare = {row["trade_id"]: row for row in mapped(vendor.fetch(START, THEN), "exchanges_trades")}
    assert {t: r["symbol"] for t, r in bare.items()} == {t: r["symbol"] for t, r in found.items()}
    assert (bare["t-3"]["base"], bare["t-3"]["quote"]) == ("NEW.KIND", None)
    vendor.fills, vendor.asked[:] = [], []
    vendor.fetch(START, THEN)
    assert calls.PRODUCTS not in vendor.asked


def test_fills_keep_their_text_and_adjusted_ones_their_rows(vendor):
    vendor.fills = [
        fill(),
        fill(2, trade_id="t-1", trade_type="REVERSAL", price="0", side="UNKNOWN_ORDER_SIDE"),
        fill(3, trade_id="t-1", trade_type="CORRECTION", side="SELL"),
        fill(4, trade_id="t-1"),
    ]
    rows = mapped(vendor.fetch(START, THEN), "exchanges_trades")
    assert {(row["trade_id"], row["side"]) for row in rows} == {
        ("t-1", "buy"),
        ("t-1:f-2", None),
        ("t-1:f-3", "sell"),
        ("t-1:f-4", "buy"),
    }
    for row in rows:
        assert (row["cost_text"], row["amount_text"]) == ("0.0802691053677932", None)
        assert (row["fee_text"], row["fee_asset"]) == ("-0.0004816146322068", "USDC")


def test_a_fee_is_stated_once(vendor):
    vendor.wallet("usd", "USD", "994")
    order = {"commission": "6.00", "product_id": "BTC-USD", "order_id": "o-7"}
    swap = {"id": "s-1", "fee": {"amount": "0.50", "currency": "USD"}}
    for wallet, sign in (("btc", ""), ("usd", "-")):
        kind = {"type": "advanced_trade_fill", "advanced_trade_fill": order}
        vendor.entry(wallet, 7, "2026-02-02T10:00:00Z", f"{sign}1006.00", **kind)
        kind = {"type": "trade", "trade": swap}
        vendor.entry(wallet, 8, "2026-02-03T10:00:00Z", f"{sign}5.00", **kind)
    rows = mapped(vendor.fetch(START, THEN), "exchanges_ledger")
    assert {r["entry_id"]: (r["fee_text"], r["fee_asset"]) for r in rows if r["fee_text"]} == {
        "usd-7": ("6.00", "USD"),
        "usd-8": ("0.50", "USD"),
    }


# https://docs.cdp.coinbase.com/coinbase-app/track-apis/transactions#transaction-types, and what
# people have met beside it.
DOCUMENTED = """advanced_trade_fill buy clawback derivatives_settlement earn_payout fiat_deposit
fiat_withdrawal incentives_rewards_payout incentives_shared_clawback intx_deposit intx_withdrawal
receive request retail_simple_dust sell send staking_transfer subscription_rebate subscription trade
transfer tx unstaking_transfer unsupported_asset_recovery unwrap_asset vault_withdrawal wrap_asset
fcm_futures_usdc_sell fcm_futures_usdc_sell_additional_encumberment_rollup retail_instant_unstaking
retail_simple_price_improvement asset_migration staking_reward interest retail_eth2_deprecation"""


def test_every_documented_type_has_a_kind_and_an_unknown_one_is_kept(vendor):
    types = DOCUMENTED.split()
    for number, kind in enumerate([*types, "retail_something_new"], 10):
        vendor.entry("btc", number, "2026-02-02T10:00:00Z", random.choice(["1", "-1"]), type=kind)
    found = {r["type"]: r["kind"] for r in mapped(vendor.fetch(START, THEN), "exchanges_ledger")}
    assert [kind for kind in types if found[kind] == "unknown"] == []
    assert found["retail_something_new"] == "unknown"
    listed = [kind for kinds in mapping.KINDS.values() for kind in kinds.split()]
    assert len(listed) == len(set(listed))
