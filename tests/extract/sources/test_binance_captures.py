"""What Binance really answered, mapped; expected values worked out by hand (see test_ledger_captures).

A leg's amount is signed by hand from what the record says: who bought, which way, what it cost.
"""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from extract.core.interval import Interval
from extract.core.source import Fetched, Job, Page
from extract.ledger import walk
from extract.sources import get
from extract.sources.binance.facts import BINANCE, LISTS, MY_TRADES, TRADES
from extract.testing import _opened

WIRE = Path(__file__).parents[4] / "shared" / "wire" / "binance"
pytestmark = pytest.mark.skipif(not WIRE.is_dir(), reason="the captures (shared/wire) are not here")
NOON = datetime(2026, 1, 1, tzinfo=UTC)
SAPI = "/sapi/v1/"
DEPOSITS, WITHDRAWALS = f"{SAPI}capital/deposit/hisrec", f"{SAPI}capital/withdraw/history"
CONVERT, DUST, DIVIDENDS = (
    f"{SAPI}convert/tradeFlow",
    f"{SAPI}asset/dribblet",
    f"{SAPI}asset/assetDividend",
)
EARN, ORDERS, PAYMENTS = f"{SAPI}simple-earn/", f"{SAPI}fiat/orders", f"{SAPI}fiat/payments"
TRANSFERS = f"{SAPI}asset/transfer"
BUY, SELL = {"transactionType": "0"}, {"transactionType": "1"}
BNBBTC, LTCUSDT = {"base": "BNB", "quote": "BTC"}, {"base": "LTC", "quote": "USDT"}
FEE = "0xb5ef8c13b968a406cc62a93a8bd80f9e9a906ef1b3fcf20a2e48573c17659268"
# (endpoint, capture, parameters): {id: (time, wallet, kind, asset, amount, settled)}
EXPECTED = [
    (MY_TRADES, "fetchMyTrades-13", BNBBTC, {  # 12 BNB bought for 48.000012 BTC, fee 10.1 BNB
        "trade:BNBBTC:28457:base": ("2017-07-12T13:19:09.590", "spot", "trade", "BNB", "12", True),
        "trade:BNBBTC:28457:quote": ("2017-07-12T13:19:09.590", "spot", "trade", "BTC", "-48.000012", True),
        "trade:BNBBTC:28457:fee": ("2017-07-12T13:19:09.590", "spot", "fee", "BNB", "-10.1", True),
    }),
    (MY_TRADES, "fetchMyTrades-1", LTCUSDT, {  # 0.2 LTC sold
        "trade:LTCUSDT:309520010:base": ("2023-10-24T09:16:32.358", "spot", "trade", "LTC", "-0.2", True),
        "trade:LTCUSDT:309520010:quote": ("2023-10-24T09:16:32.358", "spot", "trade", "USDT", "13.926", True),
        "trade:LTCUSDT:309520010:fee": ("2023-10-24T09:16:32.358", "spot", "fee", "USDT", "-0.013926", True),
    }),
    (DEPOSITS, "fetchDeposits-1", {}, {
        "deposit:4534543435": ("2024-05-05T15:41:44", "funding", "deposit", "USDT", "10", True),
    }),
    (DEPOSITS, "fetchDeposits-5", {}, {  # the first is pending
        "deposit:769800519366885376": ("2022-08-26T05:52:26", "spot", "deposit", "BNB", "0.001", False),
        "deposit:769754833590042625": ("2020-09-09T02:54:42", "spot", "deposit", "IOTA", "0.5", True),
    }),
    (DEPOSITS, "fetchDeposits-4", {}, {  # records without an id
        "deposit:BCH:bafc5902504d6504a00b7d0306a41154cbf1d1b767ab70f3bc226327362588af":
            ("2021-01-16T08:16:20", "spot", "deposit", "BCH", "0.01844487", True),
        "deposit:USDT:Internal transfer 51376627901":
            ("2021-04-14T09:59:41", "spot", "deposit", "USDT", "4500", True),
    }),
    (WITHDRAWALS, "fetchWithdrawals-6", {}, {
        "withdrawal:b6ae22b3aa844210a7041aee7589627c:amount":
            ("2019-10-12T11:12:02", "funding", "withdrawal", "USDT", "-8.91", True),
        "withdrawal:b6ae22b3aa844210a7041aee7589627c:fee":
            ("2019-10-12T11:12:02", "funding", "fee", "USDT", "-0.004", True),
        "withdrawal:156ec387f49b41df8724fa744fa82719:amount":
            ("2019-09-24T12:43:45", "funding", "withdrawal", "BTC", "-0.0015", True),
        "withdrawal:156ec387f49b41df8724fa744fa82719:fee":
            ("2019-09-24T12:43:45", "funding", "fee", "BTC", "-0.004", True),
    }),
    (WITHDRAWALS, "fetchWithdrawals-2", {}, {  # bare numbers, in process still
        "withdrawal:7213fea8e94b4a5593d507237e5a555b:amount":
            ("2017-10-17T00:02:12", "spot", "withdrawal", "ETH", "-0.99", False),
        "withdrawal:7213fea8e94b4a5593d507237e5a555b:fee":
            ("2017-10-17T00:02:12", "spot", "fee", "ETH", "-0.01", False),
        "withdrawal:7213fea8e94b4a5534ggsd237e5a555b:amount":
            ("2017-10-17T00:02:12", "spot", "withdrawal", "XMR", "-999.9999", False),
        "withdrawal:7213fea8e94b4a5534ggsd237e5a555b:fee":
            ("2017-10-17T00:02:12", "spot", "fee", "XMR", "-0.0001", False),
    }),
    (CONVERT, "fetchConvertTradeHistory-3", {}, {
        "convert:940708407462087195:from": ("2021-06-21T04:14:32.184", "spot", "conversion", "USDT", "-20", True),
        "convert:940708407462087195:to": ("2021-06-21T04:14:32.184", "spot", "conversion", "BNB", "0.06154036", True),
    }),
    (CONVERT, "fetchConvertTradeHistory-1", {}, {
        "convert:1674537715234:from": ("2023-01-24T05:21:55.234", "spot", "conversion", "BTC", "-0.001", True),
        "convert:1674537715234:to": ("2023-01-24T05:21:55.234", "spot", "conversion", "USDT", "30.521", True),
        "convert:1674537815234:from": ("2023-01-24T05:23:35.234", "spot", "conversion", "ETH", "-0.1", True),
        "convert:1674537815234:to": ("2023-01-24T05:23:35.234", "spot", "conversion", "BNB", "0.5", True),
    }),
    (DUST, "fetchMyDustTrades-2", {}, {  # one id for two coins
        "dust:70899815863:LTC:from": ("2021-07-29T16:22:11", "spot", "conversion", "LTC", "-0.000006", True),
        "dust:70899815863:LTC:to": ("2021-07-29T16:22:11", "spot", "conversion", "BNB", "0.00000267", True),
        "dust:70899815863:GBP:from": ("2021-07-29T16:22:11", "spot", "conversion", "GBP", "-0.15949157", True),
        "dust:70899815863:GBP:to": ("2021-07-29T16:22:11", "spot", "conversion", "BNB", "0.00072426", True),
    }),
    (DUST, "fetchMyDustTrades-4", {}, {  # two conversions of two coins each
        "dust:4359321:USDT:from": ("2021-03-17T12:52:15", "spot", "conversion", "USDT", "-0.0009", True),
        "dust:4359321:USDT:to": ("2021-03-17T12:52:15", "spot", "conversion", "BNB", "0.000441", True),
        "dust:4359321:ETH:from": ("2021-03-17T12:52:15", "spot", "conversion", "ETH", "-0.0009", True),
        "dust:4359321:ETH:to": ("2021-03-17T12:52:15", "spot", "conversion", "BNB", "0.00088156", True),
        "dust:4357015:USDT:from": ("2021-03-20T01:19:40", "spot", "conversion", "USDT", "-0.001", True),
        "dust:4357015:USDT:to": ("2021-03-20T01:19:40", "spot", "conversion", "BNB", "0.00049", True),
        "dust:4357015:ETH:from": ("2021-03-20T01:19:40", "spot", "conversion", "ETH", "-0.0001", True),
        "dust:4357015:ETH:to": ("2021-03-20T01:19:40", "spot", "conversion", "BNB", "0.00009795", True),
    }),
    (DIVIDENDS, "assetDividend-1", {}, {  # one tranId, two ids
        "dividend:1637366104": ("2019-07-15T11:12:46", "spot", "reward", "BETH", "0.000016", True),
        "dividend:1631750237": ("2019-07-15T11:12:45", "spot", "reward", "BUSD", "0.51206985", True),
    }),
    (f"{EARN}flexible/history/subscriptionRecord", "simpleEarn-7", {}, {  # 100 = 30 + 70
        "flexible-subscription:26055:spot": ("2019-11-29T09:08:30", "spot", "transfer", "USDT", "-30", True),
        "flexible-subscription:26055:funding": ("2019-11-29T09:08:30", "funding", "transfer", "USDT", "-70", True),
        "flexible-subscription:26055:earn": ("2019-11-29T09:08:30", "earn", "transfer", "USDT", "100", True),
    }),
    (f"{EARN}locked/history/subscriptionRecord", "simpleEarn-9", {}, {
        "locked-subscription:26055:spot": ("2019-11-29T09:08:30", "spot", "transfer", "BNB", "-30", True),
        "locked-subscription:26055:funding": ("2019-11-29T09:08:30", "funding", "transfer", "BNB", "-70", True),
        "locked-subscription:26055:earn": ("2019-11-29T09:08:30", "earn", "transfer", "BNB", "21312.23223", True),
    }),
    (f"{EARN}flexible/history/redemptionRecord", "simpleEarn-8", {}, {
        "flexible-redemption:40607:earn": ("2019-12-25T07:00:22", "earn", "transfer", "USDT", "-10.54", True),
        "flexible-redemption:40607:to": ("2019-12-25T07:00:22", "spot", "transfer", "USDT", "10.54", True),
    }),
    (f"{EARN}locked/history/redemptionRecord", "simpleEarn-10", {}, {
        "locked-redemption:40607:earn": ("2019-11-29T09:08:30", "earn", "transfer", "BNB", "-21312.23223", True),
        "locked-redemption:40607:to": ("2019-11-29T09:08:30", "spot", "transfer", "BNB", "21312.23223", True),
    }),
    (f"{EARN}flexible/history/rewardsRecord", "simpleEarn-5", {}, {  # a bonus is a dividend, too
        "flexible-reward_1577233578000_BUSD_BONUS_0.00006408_1":
            ("2019-12-25T00:26:18", "spot", "reward", "BUSD", "0.00006408", False),
        "flexible-reward_1577233562000_USDT_REALTIME_0.00687654_1":
            ("2019-12-25T00:26:02", "earn", "reward", "USDT", "0.00687654", True),
    }),
    (f"{EARN}locked/history/rewardsRecord", "simpleEarn-6", {}, {
        "locked-reward_1575018510000_123123_BNB_21312.23223_1":
            ("2019-11-29T09:08:30", "spot", "reward", "BNB", "21312.23223", False),
        "locked-reward_1575018510000_123123_BNB_1.23223_1":
            ("2019-11-29T09:08:30", "spot", "reward", "BNB", "1.23223", False),
    }),
    (ORDERS, "fetchDepositsWithdrawals-3", BUY, {
        "fiat:7d76d611-0568-4f43-afb6-24cac7767365:amount":
            ("2021-07-13T02:55:56", "spot", "deposit", "EUR", "10", True),
    }),
    (ORDERS, "fetchDepositsWithdrawals-4", SELL, {
        "fiat:8e76d611-0568-4f43-afb6-24cac7767365:amount":
            ("2021-11-05T20:42:36", "spot", "withdrawal", "EUR", "-10", True),
        "fiat:8e76d611-0568-4f43-afb6-24cac7767365:fee":
            ("2021-11-05T20:42:36", "spot", "fee", "EUR", "-0.02", True),
    }),
    (ORDERS, "fetchDepositsWithdrawals-6", BUY, {  # 15 sent, 0.20 kept, 14.80 arrived; one failed
        "fiat:25ced37075c1470ba8939d0df2316e23:amount":
            ("2021-07-28T19:37:06", "spot", "deposit", "EUR", "14.8", True),
        "fiat:25ced37075c1470ba8939d0df2316e24:amount":
            ("2021-07-28T19:37:08", "spot", "deposit", "EUR", "29.6", False),
    }),
    (ORDERS, "fetchDepositsWithdrawals-8", BUY, {
        "fiat:7d76d611-0568-4f43-afb6-24cac7767365:amount":
            ("2021-07-13T02:55:56", "spot", "deposit", "BRL", "10", False),
    }),
    (PAYMENTS, "fetchDepositsWithdrawals-5", BUY, {  # by card: no euros of the account moved
        "payment:353fca443f06466db0c4dc89f94f027a:crypto":
            ("2021-06-24T10:18:39", "spot", "deposit", "LUNA", "4.462", True),
        "payment:353fca443f06466db0c4dc89f94f027c:crypto":
            ("2021-06-24T10:18:35", "spot", "deposit", "LUNA", "4.362", True),
        "payment:353fca443f06466db0c4dc89f94f027b:crypto":
            ("2021-06-24T10:18:40", "spot", "deposit", "LUNA", "8.924", False),
    }),
    (PAYMENTS, "fetchDepositsWithdrawals-9", BUY, {
        "payment:353fca443f06466db0c4dc89f94f027a:crypto":
            ("2021-06-24T10:18:39", "spot", "deposit", "LUNA", "4.462", False),
    }),
    (TRANSFERS, "fetchTransfers-2", {"type": "MAIN_UMFUTURE"}, {  # futures are not in these books
        "transfer:11415955596:from": ("2018-12-10T09:15:28", "spot", "transfer", "USDT", "-1", True),
        "transfer:11366865406:from": ("2018-12-10T09:15:28", "spot", "transfer", "USDT", "-2", True),
    }),
]  # fmt: skip


def answer(capture: str) -> object:
    return json.loads((WIRE / f"{capture}.json").read_text(), parse_float=str)["httpResponse"]


def rows(endpoint: str, body: str, params: dict, dataset: str, columns: str) -> list[tuple]:
    source = get("binance")
    page = Page(endpoint, params, body, NOON, NOON if dataset == "balances" else None)
    con = _opened(source, Fetched([page]), "main")
    return con.execute(f"SELECT {columns} FROM ({source.mappings[dataset]})").fetchall()


def body(capture: str) -> str:
    """The answer with its numbers as they stand in the file."""
    text = (WIRE / f"{capture}.json").read_text()
    return json.dumps(json.loads(text)["httpResponse"])


@pytest.mark.parametrize(
    ("endpoint", "capture", "params", "expected"), EXPECTED, ids=[row[1] for row in EXPECTED]
)
def test_a_capture_is_what_it_says(endpoint, capture, params, expected):
    columns = "entry_id, ts, wallet, kind, asset, amount, is_settled"
    found = rows(endpoint, body(capture), params, "exchanges_ledger", columns)
    got = {row[0]: (row[1].isoformat(), *row[2:]) for row in found}
    want = {
        entry_id: (
            datetime.fromisoformat(time).isoformat(), wallet, kind, asset, Decimal(amount), settled,
        )
        for entry_id, (time, wallet, kind, asset, amount, settled) in expected.items()
    }  # fmt: skip
    assert got == want and len(found) == len(want)


def test_every_list_has_a_capture():
    assert {row[0] for row in EXPECTED} == {listing.endpoint for listing in BINANCE.ledgers}


def test_a_trade_is_a_fill_too():
    columns = "symbol, trade_id, side, price, amount, cost, fee, fee_asset, liquidity"
    found = rows(MY_TRADES, body("fetchMyTrades-13"), BNBBTC, "exchanges_trades", columns)
    price, amount, cost, fee = map(Decimal, ("4.000001", "12", "48.000012", "10.1"))
    assert found == [
        ("BNB/BTC", "28457", "buy", price, amount, cost, fee, "BNB", "taker"),
    ]  # fmt: skip


def test_money_from_a_cash_balance_is_paid_by_the_account():
    record = answer("fetchDepositsWithdrawals-5")
    for row in record["data"]:
        row["paymentMethod"] = "Cash Balance"
    columns = "entry_id, kind, asset, amount"
    for params, way in ((BUY, 1), (SELL, -1)):
        found = set(rows(PAYMENTS, json.dumps(record), params, "exchanges_ledger", columns))
        name = "payment:353fca443f06466db0c4dc89f94f027a"
        assert (f"{name}:crypto", "trade", "LUNA", way * Decimal("4.462")) in found
        assert (f"{name}:fiat", "trade", "EUR", -way * Decimal(20)) in found


@pytest.mark.parametrize(
    ("endpoint", "capture", "expected"),
    [
        ("/api/v3/account", "fetchBalance-18", {
            ("spot", "BTC"): "4723846.89208129", ("spot", "LTC"): "4763368.68006011",
        }),
        (f"{SAPI}asset/get-funding-asset", "fetchBalance-20", {("funding", "USDT"): "1"}),
        (f"{SAPI}asset/get-funding-asset", "fetchBalance-19", {  # 887.47061626 + 10.52 + 0.1
            ("funding", "BNB"): "898.09061626", ("funding", "USDT"): "50300000001.44911105",
        }),
    ],
)  # fmt: skip
def test_balances_add_up_what_is_held(endpoint, capture, expected):
    found = rows(endpoint, body(capture), {}, "balances", "wallet, token, amount")
    got = {(wallet, token): amount for wallet, token, amount in found}
    assert expected.items() <= {place: f"{n.normalize():f}" for place, n in got.items()}.items()


def test_receipts_of_flexible_products_are_no_balance_and_ldo_is_one():
    held = [
        {"asset": asset, "free": "1.5", "locked": "0.25"} for asset in ("LDBTC", "LDO", "LDLDO")
    ]
    found = rows(
        "/api/v3/account", json.dumps({"balances": held}), {}, "balances", "token, amount_text"
    )
    assert found == [("LDO", "1.75")]


@pytest.mark.parametrize("row", EXPECTED, ids=[row[1] for row in EXPECTED])
def test_an_unknown_field_is_reported(row, caplog):
    endpoint, capture, _, _ = row
    listing = next(one for one in (TRADES, *LISTS) if one.endpoint == endpoint)
    found = answer(capture)
    for name in listing.rows.split(".") if listing.rows else []:
        found = found[name]
    for one in found:  # ccxt's own captures have a type of its making
        if one.get("type") in ("deposit", "withdrawal"):
            one.pop("type")
    job = Job("binance", "main", "binance", Interval("2021-01-01", "2022-01-01"), NOON)
    one = walk.Walk(BINANCE, None, None, job)
    with caplog.at_level(logging.WARNING):
        walk.report_unknown(one, listing, found)
    assert not caplog.records, "the fields of a real answer are known"
    records = found[0][listing.inner] if listing.inner else found
    records[0]["withheld"] = "0.1"
    with caplog.at_level(logging.WARNING):
        walk.report_unknown(one, listing, found)
    assert "withheld" in caplog.text
