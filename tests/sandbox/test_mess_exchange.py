"""A messy exchange serves each of its messes, and its truth explains every difference they make."""

from __future__ import annotations

from collections import defaultdict
from contextlib import contextmanager
from datetime import datetime
from decimal import Decimal

import ccxt
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.coinbase.keys import KEY_NAME, KEY_PEM
from sandbox.server import serve
from sandbox.world.exchange_mess import DOCUMENTED, FUTURE, UNKNOWN_PRODUCT
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.world import GENESIS, World

HOUR = 3600
START = seconds(GENESIS)
SINCE = START + 60 * DAY
NOW = START + 109 * DAY
AHEAD = START + 68 * DAY + 2 * HOUR  # a row of BTC that the balance has first


@contextmanager
def messy(seed: int, now: int = NOW, **how):
    how = {"scale": 0.2, "mess": True, "books_start": SINCE} | how
    with serve(seed=seed, now=iso(now), **how) as url:
        url.app.lift_limits()
        yield url


def exchange(url) -> ccxt.coinbase:
    client = ccxt.coinbase({"apiKey": KEY_NAME, "secret": KEY_PEM, "enableRateLimit": False})
    client.urls["api"] = {"rest": url.coinbase}
    client.number = str
    return client


def paged(ask, **params) -> list[dict]:
    rows, after = [], None
    while True:
        page = ask(params | {"limit": 100} | ({"starting_after": after} if after else {}))
        rows += page["data"]
        after = page["pagination"]["next_starting_after"]
        if after is None:
            return rows


def truth(url, name: str, **params) -> list[dict]:
    return requests.get(f"{url}/_truth/{name}", params=params, timeout=20).json()


def at(row: dict) -> datetime:
    return datetime.fromisoformat(row["created_at"])


@pytest.fixture(scope="module", params=[3, 8])
def read(request):
    """The sandbox, a client, its wallets, and the rows of those that can be read, by id."""
    with messy(request.param) as url:
        client = exchange(url)
        wallets = paged(client.v2PrivateGetAccounts)
        sick = {one["wallet"] for one in truth(url, "unread_wallets")}
        ask = client.v2PrivateGetAccountsAccountIdTransactions
        rows = {w["id"]: paged(ask, account_id=w["id"]) for w in wallets if w["id"] not in sick}
        yield url, client, wallets, rows


def test_the_truth_says_what_wallets_and_rows_say(read):
    url, _, wallets, rows = read
    reported, sums = defaultdict(Decimal), defaultdict(Decimal)
    for wallet in wallets:
        if wallet["balance"]:
            code = wallet["balance"]["currency"]
            reported[code] += Decimal(wallet["balance"]["amount"])
            for row in rows.get(wallet["id"], []):
                if row["status"] == "completed" and row["amount"] and at(row).timestamp() >= SINCE:
                    sums[code] += Decimal(row["amount"]["amount"])
    stated = {row["token"]: row for row in truth(url, "residuals") if row["vendor"] == "coinbase"}
    assert reported == {code: Decimal(row["reported"]) for code, row in stated.items()}
    for code, row in stated.items():
        assert sums[code] == Decimal(row["sum"]), row
        assert reported[code] - sums[code] == Decimal(row["residual"]), row
        assert sum(map(Decimal, row["parts"].values())) == Decimal(row["residual"]), row
        assert bool(row["kind"]) == (row["status"] != "exact"), row
    assert (stated["GONE"]["kind"], stated["GONE"]["status"]) == ("unread", "awaiting_coverage")
    assert {stated["SICK"]["status"], stated["EUR"]["status"]} == {"exact"} and "OLD" not in stated
    assert stated["BTC"]["kind"] == "opening" and stated["BTC"]["status"] == "explained"


def test_wallets_are_as_odd_as_the_vendors(read):
    url, client, wallets, rows = read
    assert len(wallets) == 60 and len({w["id"] for w in wallets}) == 60
    empty = [w for w in wallets if w["id"] in rows and not rows[w["id"]]]
    assert len(empty) > 45
    for wallet in empty:
        assert wallet["created_at"] in (None, wallet["updated_at"])
        assert not wallet["balance"] or Decimal(wallet["balance"]["amount"]) == 0 or wallet["name"]
    by_code = [w for w in wallets if w["created_at"] is None]
    assert sorted(w["id"] for w in by_code) == ["EUR", "GBP", "XLM"]
    (retired,) = [w for w in wallets if w["balance"] is None]
    assert retired["currency"] is None and rows[retired["id"]] == []
    unread = {one["status"]: one["wallet"] for one in truth(url, "unread_wallets")}
    holds = {w["id"]: Decimal(w["balance"]["amount"]) for w in wallets if w["balance"]}
    assert holds[unread[404]] > 0 and holds[unread[500]] == 0
    for status, wallet in unread.items():
        for _ in range(3):
            with pytest.raises(ccxt.BaseError):
                client.v2PrivateGetAccountsAccountIdTransactions({"account_id": wallet})
            assert client.last_http_response and url.app.stats()["calls"]
        assert client.v2PrivateGetAccountsAccountId({"account_id": wallet})["data"]["id"] == wallet
        assert status in (404, 500)


def test_rows_are_as_odd_as_the_vendors(read):
    url, _, wallets, rows = read
    every = [row for mine in rows.values() for row in mine]
    stated = {row["entry_id"]: row for row in truth(url, "coinbase/ledger")}
    assert {row["id"] for row in every} == set(stated)
    for row in every:  # whatever way a time is written, it is the same in UTC
        assert at(row).timestamp() == seconds(stated[row["id"]]["time"])
    forms = {row["created_at"][16:] for row in every}
    assert any(form.endswith("+02:00") for form in forms) and "Z" in forms
    for mine in rows.values():
        assert [at(row) for row in mine] == sorted((at(row) for row in mine), reverse=True)
    asked = [row for row in every if row["type"] == "request"]
    assert asked and all(row["amount"] is None for row in asked)
    assert {row["type"] for row in every} >= {*DOCUMENTED, "wrap_asset", "request"}
    halves = defaultdict(list)
    for row in every:
        if row["type"] == "trade":
            halves[row["trade"]["id"]].append(row)
    assert {len(rows) for rows in halves.values()} == {1, 2}


def test_fills_are_as_odd_as_the_vendors(read):
    url, client, *_ = read
    fills, cursor = [], None
    while cursor != "":
        page = client.v3PrivateGetBrokerageOrdersHistoricalFills(
            {"limit": 100} | ({"cursor": cursor} if cursor else {})
        )
        fills, cursor = fills + page["fills"], page["cursor"]
    stated = {row["entry_id"]: row for row in truth(url, "coinbase/fills")}
    assert {fill["entry_id"] for fill in fills} == set(stated)
    assert len({row["trade_id"] for row in stated.values()}) == len(fills)
    sharing = defaultdict(list)
    for fill in fills:
        sharing[fill["trade_id"]].append(fill["trade_type"])
    assert ["CORRECTION", "REVERSAL", "FILL"] in sharing.values()
    assert any(fill["side"] == "UNKNOWN_ORDER_SIDE" for fill in fills)
    assert any(Decimal(fill["price"]) == 0 for fill in fills)
    of = {fill["product_id"]: stated[fill["entry_id"]] for fill in fills}
    assert (of[FUTURE]["symbol"], of[FUTURE]["base"], of[FUTURE]["quote"]) == (
        FUTURE,
        FUTURE,
        "USD",
    )
    assert (of[UNKNOWN_PRODUCT]["base"], of[UNKNOWN_PRODUCT]["quote"]) == (UNKNOWN_PRODUCT, None)
    ask = client.v3PrivateGetBrokerageProducts
    names = {"product_ids": [FUTURE, UNKNOWN_PRODUCT, "BTC-USD"]}
    listed = {one["product_id"]: one for one in ask(names)["products"]}
    assert set(listed) == {FUTURE, "BTC-USD"}
    assert listed[FUTURE]["product_type"] == "FUTURE"
    assert listed[FUTURE]["future_product_details"]["contract_root_unit"] == "BTC"
    assert {one["product_type"] for one in ask({})["products"]} == {"SPOT"}


def test_a_future_that_has_expired_is_listed_to_who_asks_for_all():
    with messy(1, seconds("2026-07-01T00:00:00Z"), scale=0.01, start="2026-06-20T00:00:00Z") as url:
        ask = exchange(url).v3PrivateGetBrokerageProducts
        name = {"product_ids": [FUTURE]}
        assert ask(name)["products"] == []
        assert len(ask(name | {"expiring_contract_status": "STATUS_ALL"})["products"]) == 1


def test_a_balance_may_have_a_row_for_hours_that_the_list_has_not():
    with messy(4, AHEAD + HOUR, scale=0) as url:
        client = exchange(url)

        def look(now: int):
            url.clock.set(now)
            (wallet,) = [w for w in paged(client.v2PrivateGetAccounts) if w["name"] == "BTC Wallet"]
            ask = client.v2PrivateGetAccountsAccountIdTransactions
            rows = paged(ask, account_id=wallet["id"])
            (row,) = [r for r in url.world.residuals(now) if r["token"] == "BTC"]
            return Decimal(wallet["balance"]["amount"]), wallet["updated_at"], rows, row

        before, early, later = (look(AHEAD + hours * HOUR) for hours in (0, 4, 7))
        assert before[0] < early[0] == later[0]
        assert before[1] < early[1] == iso(AHEAD + 300) < later[1] == iso(AHEAD + 6 * HOUR)
        assert len(before[2]) == len(early[2]) == len(later[2]) - 1
        assert Decimal(later[2][0]["amount"]["amount"]) == early[0] - before[0]
        assert (early[3]["kind"], early[3]["status"]) == ("ahead+opening", "settling")
        assert later[3]["kind"] == "opening"
        assert [(when, kind) for when, _, kind in early[3]["steps"]] == [
            (iso(AHEAD + 300), "ahead")
        ]
        # An old snapshot, judged by a history that has the row, is as it should be.
        stated = url.world.residuals(AHEAD + 4 * HOUR, AHEAD + 7 * HOUR)
        assert [r["kind"] for r in stated if r["token"] == "BTC"] == ["opening"]


def test_a_wallet_says_that_it_changed_whenever_its_rows_do():
    world = World(9, GENESIS, 1.0, books_start=SINCE)
    states = {}
    for now in range(SINCE, SINCE + 12 * DAY, 2 * HOUR):
        for name in world.histories["coinbase"].wallets:
            state = (
                world.grown("coinbase", now).wallet_units(name, now),
                world.grown("coinbase", now).wallet_updated(name, now),
            )
            rows = [
                (row.id, row.status(now)) for row in world.grown("coinbase", now).rows(name, now)
            ]
            assert states.setdefault((name, *state), rows) == rows, name


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(-(2**70), 2**70),
    scale=st.sampled_from([0.0, 0.05, 0.5, 1.0]),
    hours=st.integers(60 * 24, 130 * 24),
    later=st.integers(0, 40),
)
def test_of_any_seed_each_difference_has_its_kind(seed, scale, hours, later):
    world, moment = World(seed, GENESIS, scale, books_start=SINCE), START + hours * HOUR
    now = moment + later * HOUR
    rows = [r for r in world.residuals(moment, now) if r["vendor"] == "coinbase"]
    held: dict[str, int] = defaultdict(int)
    for name, wallet in world.histories["coinbase"].wallets.items():
        held[wallet.currency.code] += world.grown("coinbase", moment).wallet_units(name, moment)
    sums: dict[str, Decimal] = defaultdict(Decimal)
    for entry in world.ledger(now):
        if entry["is_settled"] and entry["amount"] and iso(SINCE) <= entry["time"] < iso(moment):
            sums[entry["token"]] += Decimal(entry["amount"])
    for row in rows:
        residual = Decimal(row["residual"])
        assert int(row["reported"].replace(".", "")) == held[row["token"]] >= 0
        assert Decimal(row["sum"]) == sums[row["token"]]
        assert residual == Decimal(row["reported"]) - Decimal(row["sum"])
        assert residual == sum(map(Decimal, row["parts"].values()))
        assert row["status"] != "off", row
        assert set(row["parts"]) <= {"opening", "ahead", "late", "pending", "unread"}


def test_wallets_are_as_many_as_asked_for_and_a_tidy_world_has_no_difference():
    tidy, many = World(6, GENESIS, 0.3, mess=False), World(6, GENESIS, 0.3, mess=False, wallets=300)
    assert (
        len(tidy.histories["coinbase"].wallets) == 10
        and len(many.histories["coinbase"].wallets) == 310
    )
    assert tidy.ledger(NOW) == many.ledger(NOW) and tidy.fills(NOW) == many.fills(NOW)
    assert not many.unread_wallets(NOW)
    for world in (tidy, many):
        rows = [r for r in world.residuals(NOW) if r["vendor"] == "coinbase"]
        assert {row["status"] for row in rows} == {"exact"}
    names = set(many.histories["coinbase"].wallets)
    assert (
        len({wallet.id for wallet in many.histories["coinbase"].wallets.values()})
        == len(names)
        == 310
    )
