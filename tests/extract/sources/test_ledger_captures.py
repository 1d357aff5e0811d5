"""What exchanges really answered, mapped: assets, signs, fees, times and balances.

The answers are third-party data, kept beside the project (shared/wire) and never copied into it.
Expected values were worked out by hand from the answers, or follow from their running balances.
"""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from extract import sources
from extract.core.interval import Interval
from extract.core.source import Fetched, Job, Page
from extract.ledger import walk
from extract.testing import _opened

WIRE = Path(__file__).parents[4] / "shared" / "wire"
pytestmark = pytest.mark.skipif(not WIRE.is_dir(), reason="the captures (shared/wire) are not here")
COLUMNS = "entry_id ts wallet kind asset amount fee balance type payload".split()
LEDGERS = {
    "kraken": "/0/private/Ledgers",
    "bitstamp": "/api/v2/user_transactions/",
    "unified": "/v5/account/transaction-log",
    "fund": "/v5/asset/fundinghistory",
    "kucoin": "/api/v1/accounts/ledgers",
    "hf": "/api/v1/hf/accounts/ledgers",
    "gate": "/api/v4/spot/account_book",
    "bitget": "/api/v2/spot/account/bills",
}
NOON = datetime(2026, 1, 1, tzinfo=UTC)
# (exchange, capture, ledger): {id: (time, wallet, kind, asset, amount, fee, balance)}
EXPECTED = {
    ("kraken", "fetchLedger-7", "kraken"): {  # a withdrawal, and its reversal: they add up to 0
        "W1": ("2021-11-08T21:13:20.855500", "spot", "withdrawal", "ZEUR", "-1001", "1", "1"),
        "W2": ("2021-11-10T01:33:20.855500", "spot", "withdrawal", "ZEUR", "1001", "-1", "1"),
    },
    ("kraken", "fetchLedger-8", "kraken"): {
        "L12382343902": (
            "2016-03-26T12:14:01.396000", "HOLD", "deposit", "ZEUR", "3999998.25", "1.75",
            "3999998.25",
        ),
        "DDD": ("2021-08-15T02:27:21.400800", "spot", "reward", "ETH2", "12", "0", "0.100053862"),
        "CCC": ("2021-11-12T17:35:50.756200", "spot", "transfer", "XETH", "-0.06", "0", "0.02504773"),
        "BBB": ("2021-11-12T18:03:18.967400", "S", "transfer", "ETH2", "0.06", "0", "0.06"),
        "AAA": (
            "2021-12-26T04:36:14.400800", "spot", "reward", "ETH2", "0.000053862", "0",
            "0.000334982",
        ),
        "WWW": ("2021-12-26T04:36:16.400800", "spot", "reward", "XTZ", "0.00001", "0", "0.00001"),
    },
    ("kraken", "fetchLedger-11", "kraken"): {
        "x1": ("2021-11-12T17:28:20", "spot", "trade", "ZEUR", "0.929", "0.071", "25"),
        "x2": ("2021-11-12T17:30:00", "spot", "fee", "XETH", "-0.00039876", "0.00039876", "1.2345"),
        "x3": ("2021-11-12T17:31:40", "spot", "trade", "XETH", "-0.194", "0.071", "1.1115"),
    },
    ("bitstamp", "fetchLedger-1", "bitstamp"): {
        "15:EUR": ("2019-04-15T16:19:14.826000", "spot", "trade", "EUR", "6.8763", None, None),
        "15:USD": ("2019-04-15T16:19:14.826000", "spot", "trade", "USD", "-7.72998", "0.02", None),
        "10:BTC": ("2019-06-25T21:41:08.802256", "spot", "trade", "BTC", "-1.81213214", None, None),
        "10:EUR": ("2019-06-25T21:41:08.802256", "spot", "trade", "EUR", "18298.1", "40.35", None),
        "5:EUR": ("2020-12-03T11:30:00", "spot", "trade", "EUR", "-1", None, None),
        "5:USD": ("2020-12-03T11:30:00", "spot", "trade", "USD", "1.2139", "0.0061", None),
    },
    ("bitstamp", "fetchLedger-4", "bitstamp"): {
        "209692788:ALGO": (
            "2021-11-24T09:00:33.607389", "spot", "reward", "ALGO", "0.24178042", "0", None,
        ),
        "38622:USD": ("2012-07-17T22:06:08", "spot", "withdrawal", "USD", "-27.27", "0", None),
    },
    ("bybit", "fetchLedger-1", "unified"): {
        "452265_LTCUSDT_157751525050:SETTLEMENT": (
            "2024-02-14T08:00:00", "UNIFIED", "fee", "USDT", "-0.0006935", "0", "94.05070437",
        ),
    },
    ("bybit", "fetchLedger-5", "fund"): {
        "FUND_1772669763_BTC_I_0.00003561_7.5547230662687035": (
            "2026-03-05T00:16:03", "FUND", "reward", "BTC", "0.00003561", None,
            "7.5547230662687035",
        ),
    },
    ("kucoin", "fetchLedger-1", "kucoin"): {
        "65ca404f77c7250007b8ddd7": (
            "2024-02-12T15:59:11.875000", "TRADE", "transfer", "USDT", "-5", "0", None,
        ),
    },
    ("kucoin", "fetchLedger-7", "kucoin"): {
        "617cc528729f5f0001c03ceb": (
            "2021-10-30T04:08:08.183000", "MAIN", "reward", "GAS", "0.00000339", "0", None,
        ),
    },
    ("kucoin", "fetchLedger-3", "hf"): {
        "254062248624417": (
            "2024-10-09T03:19:17.539000", "TRADE_HF", "trade", "USDT", "1.5976008", "0.0015992",
            "26.73759503",
        ),
    },
    ("gate", "fetchLedger-6", "gate"): {
        "123456": (
            "2019-01-16T10:15:26.123000", "spot", "transfer", "BTC", "1.03", None, "4.59316525194",
        ),
    },
    ("bitget", "fetchLedger-3", "bitget"): {
        "1111506298997215233": (
            "2023-11-23T08:54:33.028000", "spot", "transfer", "USDT", "-11.64958799", "0", "0",
        ),
    },
}  # fmt: skip


def answer(exchange: str, capture: str) -> object:
    return json.loads((WIRE / exchange / f"{capture}.json").read_text())["httpResponse"]


def entries(exchange: str, body: object, ledger: str) -> list[dict]:
    """The rows that an answer becomes."""
    source = sources.get(exchange)
    con = _opened(source, Fetched([Page(LEDGERS[ledger], {}, json.dumps(body), NOON)]), "main")
    found = con.execute(
        f"SELECT {', '.join(COLUMNS)} FROM ({source.mappings['exchanges_ledger']})"
    ).fetchall()
    return [dict(zip(COLUMNS, row)) for row in found]


@pytest.mark.parametrize(("exchange", "capture", "ledger"), EXPECTED, ids=lambda part: str(part))
def test_a_capture_is_what_it_says(exchange, capture, ledger):
    rows = {row["entry_id"]: row for row in entries(exchange, answer(exchange, capture), ledger)}
    for entry_id, (time, *names, amount, fee, balance) in EXPECTED[
        exchange, capture, ledger
    ].items():
        row = rows[entry_id]
        assert row["ts"].isoformat() == time, entry_id
        assert [row["wallet"], row["kind"], row["asset"]] == names, entry_id
        assert row["amount"] == Decimal(amount), entry_id
        assert row["fee"] == (None if fee is None else Decimal(fee)), entry_id
        assert row["balance"] == (None if balance is None else Decimal(balance)), entry_id


def test_running_balances_of_kraken_follow_from_its_amounts_and_fees():
    """Every asset of the capture: the balance is the one before, and the change."""
    rows = entries("kraken", answer("kraken", "fetchLedger-14"), "kraken")
    held: dict[str, Decimal] = {}
    for row in sorted(rows, key=lambda row: row["ts"]):
        before = held.get(row["asset"], row["balance"] - row["amount"])
        assert before + row["amount"] == row["balance"], row["entry_id"]
        held[row["asset"]] = row["balance"]
    assert len(rows) == 8


def test_dollars_of_bitstamp_that_were_deposited_are_those_that_were_spent():
    """A real account that bought with all it had, four times: fees are apart, or cents were left."""
    left: dict[str, Decimal] = defaultdict(Decimal)
    for row in entries("bitstamp", answer("bitstamp", "fetchLedger-5"), "bitstamp"):
        left[row["asset"]] += row["amount"]
    assert left == {"USD": 0, "BTC": 0}


@pytest.mark.parametrize("exchange", ["kraken", "bitstamp", "gate", "bitget", "kucoin"])
def test_an_unknown_type_is_unknown_and_still_counts(exchange):
    ledger = exchange
    capture = {"kraken": "fetchLedger-11", "bitget": "fetchLedger-3"}.get(exchange, "fetchLedger-1")
    text = json.dumps(answer(exchange, capture))
    body, known = json.loads(text), entries(exchange, json.loads(text), ledger)
    for record in records(body):
        for name in ("type", "bizType", "businessType"):
            if name in record:
                record[name] = "quantum"
    rows = entries(exchange, body, ledger)
    assert {row["kind"] for row in rows} == {"unknown"}
    if exchange != "bitstamp":  # where a row's type says which column its fee belongs to
        assert [row["amount"] for row in rows] == [row["amount"] for row in known]


def records(body: object) -> list[dict]:
    """The records inside an answer, whatever is around them."""
    if isinstance(body, list):
        return [one for each in body for one in records(each)]
    if not isinstance(body, dict):
        return []
    inner = [
        one for each in body.values() if isinstance(each, (dict, list)) for one in records(each)
    ]
    return inner or [body]


def test_an_unknown_field_is_reported(caplog):
    source_facts = sources.get("kraken").fetch.args[0]
    body = answer("kraken", "fetchLedger-11")
    rows = body["result"]["ledger"]
    job = Job("kraken", "main", "kraken", Interval("2021-01-01", "2022-01-01"), NOON)
    one = walk.Walk(source_facts, None, None, job)
    with caplog.at_level(logging.WARNING):
        walk.report_unknown(one, source_facts.ledgers[0], rows)
    assert not caplog.records, "the fields of a real answer are known"
    next(iter(rows.values()))["withheld"] = "0.1"
    with caplog.at_level(logging.WARNING):
        walk.report_unknown(one, source_facts.ledgers[0], rows)
        walk.report_unknown(one, source_facts.ledgers[0], rows)
    assert len(caplog.records) == 1 and "withheld" in caplog.text
