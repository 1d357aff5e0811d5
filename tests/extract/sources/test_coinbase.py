"""Coinbase: what a fetch asks for, what it does with odd answers, and what rows become of them."""

from __future__ import annotations

import random
from base64 import b64decode, b64encode
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from extract.core.errors import Fatal, Retriable
from extract.core.interval import Interval, iso, utc
from extract.fetch.client import WORKERS, Client
from extract.sources.coinbase import calls, mapping, wallets
from extract.sources.coinbase.key import signing_secret
from extract.testing import StandIn, _no_wait
from sandbox.coinbase import keys
from sandbox.server import serve
from tests.helpers.coinbase_stub import COINBASE, Vendor, mapped, served

START, THEN, NOW = "2026-01-01T00:00:00Z", "2026-03-10T06:00:00Z", "2026-03-10T12:00:00Z"
CLOCK = {THEN: "2026-03-10T06:01:00Z", NOW: "2026-03-10T12:01:00Z"}
LOOKBACK = "2026-03-09T06:00:00Z"


@pytest.fixture
def vendor():
    with served(Vendor(CLOCK[THEN])) as running:
        running.wallet("btc", "BTC", "1")
        running.entry("btc", 1, "2026-02-01T10:00:00Z")
        yield running


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


# ---- what has not changed is not asked for


def test_a_sync_of_300_wallets_of_which_3_have_changed_takes_8_calls(vendor):
    for number in range(299):
        vendor.wallet(f"w{number}", f"C{number}", "0")
    first = vendor.fetch(START, THEN)
    assert len(first.part_states) == 300 and len(vendor.asked) == 300 // 100 + 300 + 1
    assert [c.parts for c in first.covered] == [None] * 3
    vendor.now = CLOCK[NOW]
    vendor.asked.clear()
    for number in (3, 150, 298):
        vendor.wallet(f"w{number}", f"C{number}", "1", "2026-03-10T08:00:00Z")
        vendor.entry(f"w{number}", 1, "2026-03-10T08:00:00Z")
    vendor.fills.append(fill(sequence_timestamp="2026-03-10T08:00:00Z"))
    second = vendor.fetch(THEN, NOW, read_from=LOOKBACK, known=first.part_states)
    assert len(vendor.asked) <= 8
    assert entries(second) == {"w3-1", "w150-1", "w298-1"}
    (ledger,) = [c for c in second.covered if c.dataset == "exchanges_ledger"]
    assert sorted(ledger.parts) == ["w150", "w298", "w3"]
    assert ledger.interval == Interval(LOOKBACK, NOW) and len(second.part_states) == 300


@settings(max_examples=40, deadline=None)
@given(
    old=st.lists(st.lists(st.integers(0, 100), max_size=6), min_size=1, max_size=6),
    new=st.dictionaries(st.integers(0, 5), st.lists(st.integers(0, 40), max_size=4), max_size=4),
    open_=st.integers(0, 5),
    page=st.integers(1, 3),
)
def test_what_is_not_asked_for_is_there_already(old, new, open_, page):
    """`old`: hours before THEN at which entries of each wallet fell; `new`: after it, by wallet,
    some later than the interval reaches; the wallet `open_` has a pending entry."""
    with pytest.MonkeyPatch.context() as patch, served(Vendor(CLOCK[THEN])) as vendor:
        patch.setattr(calls, "V2_PAGE", page)
        for wallet, hours in enumerate(old):
            vendor.wallet(f"w{wallet}", "A", str(len(hours)))
            for n, hour in enumerate(sorted(hours, reverse=True)):
                vendor.entry(f"w{wallet}", n, iso(utc(THEN) - timedelta(hours=hour)))
            if wallet == open_ and hours:
                vendor.transactions[f"w{wallet}"][0]["status"] = "pending"
        first = vendor.fetch(START, THEN)
        vendor.now = "2026-03-12T00:00:00Z"
        for wallet, hours in new.items():
            if wallet < len(old) and hours:
                vendor.wallet(f"w{wallet}", "A", str(len(hours)), "2026-03-12T00:00:00Z")
                for n, hour in enumerate(sorted(hours), 100):
                    vendor.entry(f"w{wallet}", n, iso(utc(THEN) + timedelta(hours=hour)))
        second = vendor.fetch(THEN, NOW, read_from=LOOKBACK, known=first.part_states)
        third = vendor.fetch(
            NOW, "2026-03-12T00:00:00Z", read_from=LOOKBACK, known=second.part_states
        )
        everything = vendor.fetch(START, "2026-03-12T00:00:00Z")
    asked = [
        (first, START, THEN),
        (second, LOOKBACK, NOW),
        (third, LOOKBACK, "2026-03-12T00:00:00Z"),
    ]
    loaded = {
        (row["entry_id"], row["wallet"])
        for fetched, start, end in asked
        for row in mapped(fetched, "exchanges_ledger")
        if utc(row["ts"]) in Interval(start, end)
    }
    whole = {
        (row["entry_id"], row["wallet"])
        for row in mapped(everything, "exchanges_ledger")
        if utc(row["ts"]) in Interval(START, "2026-03-12T00:00:00Z")
    }
    assert loaded == whole
    if open_ < len(old) and old[open_]:
        assert f"w{open_}" not in first.part_states, "a pending entry is waited for"


def test_wallets_are_read_together_and_each_answer_is_its_own(vendor):
    """ccxt keeps the last answer in its client: one that two threads use mixes them up."""
    for number in range(40):
        vendor.wallet(f"w{number}", f"C{number}")
        for n in range(3):
            vendor.entry(f"w{number}", n, "2026-02-01T10:00:00Z")
    vendor.delay_s = 0.01
    rows = mapped(vendor.fetch(START, THEN), "exchanges_ledger")
    assert 2 <= vendor.most_at_once <= WORKERS
    assert len(rows) == 40 * 3 + 1
    assert all(row["entry_id"].startswith(f"{row['wallet']}-") for row in rows)


# ---- what cannot be read is named


@pytest.mark.parametrize("answer", [400, 403, 404, 410, 500, 503, '{"data": []}', "<html>"])
def test_a_wallet_that_cannot_be_read_keeps_no_other_from_the_books(vendor, answer):
    vendor.wallet("dead", "OLD")
    vendor.status["dead"] = answer
    first = vendor.fetch(START, THEN)
    assert entries(first) == {"btc-1"} and set(first.part_states) == {"btc"}
    (unread,) = first.unread
    assert (unread.dataset, unread.part, unread.interval) == (
        "exchanges_ledger",
        "dead",
        Interval(START, THEN),
    )
    assert "/v2/accounts/{id}/transactions" in unread.reason
    assert [c.parts for c in first.covered if c.dataset == "exchanges_ledger"] == [("btc",)]

    del vendor.status["dead"]
    vendor.now = CLOCK[NOW]
    vendor.entry("dead", 1, "2026-01-20T10:00:00Z")
    again = vendor.fetch(
        THEN,
        NOW,
        read_from=LOOKBACK,
        known=first.part_states,
        unread={"dead": utc(START)},
    )
    (page,) = [p for p in again.pages if p.params.get("account_id")]
    assert page.read_from == utc(START) and entries(again) == {"dead-1"}
    assert [(c.interval, c.parts) for c in again.covered if c.dataset == "exchanges_ledger"] == [
        (Interval(LOOKBACK, NOW), ("dead",)),
        (Interval(START, LOOKBACK), ("dead",)),
    ]
    assert again.unread == [] and set(again.part_states) == {"btc", "dead"}


def test_many_sick_wallets_cost_few_calls(vendor):
    for number in range(40):
        vendor.wallet(f"sick{number}", "OLD")
        vendor.status[f"sick{number}"] = 500
    first = vendor.fetch(START, THEN, tries=6)
    assert len(first.unread) == 40 and entries(first) == {"btc-1"}
    most = wallets.IN_VAIN + WORKERS - 1  # all workers may be at one by then
    assert len(vendor.asked) <= 3 + 40 * wallets.AT_FIRST + 6 * most
    vendor.asked.clear()
    vendor.now = CLOCK[NOW]
    unread = {u.part: u.interval.start for u in first.unread}
    second = vendor.fetch(THEN, NOW, tries=6, known=first.part_states, unread=unread)
    assert len(vendor.asked) == 1 + 40 + 1 and len(second.unread) == 40
    assert {u.interval.start for u in second.unread} == {utc(START)}


@pytest.mark.parametrize("status, error", [(401, Fatal), (403, Fatal), (500, Retriable)])
def test_the_trouble_of_the_account_is_an_error(vendor, status, error):
    vendor.wallet("eur", "EUR")
    vendor.status |= {"btc": status, "eur": status}
    with pytest.raises(error, match="/v2/accounts/{id}/transactions"):
        vendor.fetch(START, THEN)
    vendor.status["eur"] = 200
    if status == 401:
        with pytest.raises(Fatal):
            vendor.fetch(START, THEN)
    else:
        assert [u.part for u in vendor.fetch(START, THEN).unread] == ["btc"]


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


# ---- keys


SEED = b64decode(keys.KEY_ED25519)[:32]
PKCS8 = (
    Ed25519PrivateKey.from_private_bytes(SEED)
    .private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    .decode()
)


@pytest.mark.parametrize(
    "key",
    [keys.KEY_PEM, keys.KEY_ED25519, PKCS8, PKCS8.replace("\n", "\\n"), f" {keys.KEY_ED25519}\n"],
    ids=["ES256", "Ed25519", "Ed25519 PEM", "without line ends", "blanks"],
)
def test_every_kind_of_key_opens_the_api(key):
    with serve(seed=5, now=NOW, scale=0.1) as url:
        api = COINBASE.connect(host=url.coinbase, login=keys.KEY_NAME, password=key)
        standing = StandIn(COINBASE, "main", api, (key,), _no_wait)
        assert standing.fetch(THEN, NOW).pages
        other = COINBASE.connect(host=url.coinbase, login="organizations/x/apiKeys/y", password=key)
        with pytest.raises(Fatal, match="401"):
            StandIn(COINBASE, "main", other, (key,), _no_wait).fetch(THEN, NOW)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "Ed25519 key"),
        ("nonsense", "the private key cannot be used"),
        (keys.KEY_ED25519[:-4], "63 bytes is not|61 bytes is not|cannot be used"),
        (b64encode(bytes(64)).decode(), "a character is missing or changed"),
        (
            keys.KEY_ED25519.replace(
                keys.KEY_ED25519[3], "A" if keys.KEY_ED25519[3] != "A" else "B", 1
            ),
            "cannot be used",
        ),
        (keys.KEY_PEM.replace("EC ", ""), "cannot be used"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_in_words(text, says):
    with pytest.raises(Fatal, match=says) as error:
        signing_secret(text)
    assert not text or text not in str(error.value)
