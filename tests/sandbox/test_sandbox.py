"""The sandbox keeps the vendors' rules, and tells the truth about its world."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Context, Decimal
from pathlib import Path

import ccxt
import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.coinbase.keys import KEY_NAME, KEY_PEM
from sandbox.debank.keys import DEBANK_KEY
from sandbox.server import serve
from sandbox.world.exchange_records import WALLETS as COINBASE_WALLETS
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.tokens import CHAINS, MEME_0, MEME_9, ONCE, TWIN_ID, WALLETS
from sandbox.world.world import GENESIS, World

ROOT = Path(__file__).parents[2]
START = seconds(GENESIS)
NOW = "2025-04-01T00:00:00Z"
SMALL = 0.05
WIDE = Context(prec=80)  # the default context would round the huge ones
seeds = st.integers(min_value=-(2**70), max_value=2**70)


def exchange(url: str, name: str = KEY_NAME, pem: str = KEY_PEM) -> ccxt.coinbase:
    client = ccxt.coinbase({"apiKey": name, "secret": pem, "enableRateLimit": False})
    client.urls["api"] = {"rest": url}
    client.number = str
    return client


def debank(base: str, endpoint: str, key: str = DEBANK_KEY, **params) -> requests.Response:
    return requests.get(
        f"{base}/debank/v1/{endpoint}", params=params, headers={"AccessKey": key}, timeout=10
    )


def exactly(answer: requests.Response):
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


def v2_rows(client: ccxt.coinbase, wallet: str, **params) -> list[dict]:
    rows, after = [], None
    while True:
        more = {"starting_after": after} if after else {}
        page = client.v2PrivateGetAccountsAccountIdTransactions(
            {"account_id": wallet, **params, **more}
        )
        rows += page["data"]
        after = page["pagination"]["next_starting_after"]
        if after is None:
            return rows


def walk(base: str, wallet: str, chain: str) -> list[dict]:
    """Backwards, one second of overlap, known ids dropped: right for either reading of start_time."""
    seen, cursor = {}, None
    while True:
        bound = {} if cursor is None else {"start_time": cursor}
        page = exactly(debank(base, "user/history_list", id=wallet, chain_id=chain, **bound))[
            "history_list"
        ]
        times = [int(item["time_at"]) for item in page]
        assert times == sorted(times, reverse=True) and len(page) <= 20
        seen |= {item["id"]: item for item in page}
        if len(page) < 20:
            return list(seen.values())
        assert times[-1] + 1 != cursor, "a whole page lies in one second"
        cursor = times[-1] + 1


@pytest.fixture(scope="module")
def small():
    with serve(seed=11, scale=SMALL, now=NOW) as url:
        url.app.lift_limits()
        yield url


@pytest.fixture(scope="module")
def client(small):
    client = exchange(small.coinbase)
    client.load_markets()
    return client


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
    truth = small.world.ledger(NOW)
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
    truth = {t["trade_id"]: t for t in small.world.fills(NOW)}
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
    middle = small.world.fills(NOW)[5]["sequence_time"]
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


# DeBank


@pytest.mark.parametrize("inclusive", [True, False])
def test_a_walk_meets_every_visible_row_once_whatever_start_time_means(inclusive):
    with serve(seed=3, scale=SMALL, now=NOW, inclusive=inclusive) as url:
        url.app.lift_limits()
        legs, txs = Counter(), {}
        for wallet in WALLETS:
            for chain in CHAINS:
                for item in walk(url, wallet, chain):
                    txs[wallet, chain, item["id"]] = item
                    for direction, key, other in (
                        ("in", "receives", "from_addr"),
                        ("out", "sends", "to_addr"),
                    ):
                        for leg in item[key]:
                            legs[
                                wallet,
                                chain,
                                item["id"],
                                direction,
                                leg["token_id"],
                                leg[other],
                                leg["amount"],
                            ] += 1
        truth = {(t["wallet"], t["chain"], t["tx_id"]): t for t in url.world.transactions(NOW)}
        assert set(txs) == set(truth)
        for key, item in txs.items():
            assert (
                iso(int(item["time_at"])) == truth[key]["time"]
                and item["cate_id"] == truth[key]["category"]
            )
            if truth[key]["pays_gas"]:
                assert item["tx"]["eth_gas_fee"] == Decimal(truth[key]["gas"])
        assert legs == Counter(
            (
                t["wallet"],
                t["chain"],
                t["tx_id"],
                t["direction"],
                t["token"],
                t["counterparty"],
                Decimal(t["wire_amount"]),
            )
            for t in url.world.transfers(NOW)
        )


def test_token_lists_equal_the_truth(small):
    truth = {
        (t["account"], t["token"]): Decimal(t["amount"]) for t in small.world.balances(NOW, NOW)
    }
    listed = {}
    for wallet in WALLETS:
        for chain in CHAINS:
            for token in exactly(
                debank(small, "user/token_list", id=wallet, chain_id=chain, is_all="false")
            ):
                assert token["is_verified"]
                units = Decimal(int(token["raw_amount_hex_str"], 16))
                listed[wallet, f"{chain}:{token['id']}"] = units.scaleb(-token["decimals"], WIDE)
        everything = exactly(debank(small, "user/all_token_list", id=wallet))
        assert any(not token["is_verified"] for token in everything)
    assert {key: amount for key, amount in truth.items() if amount and key[0] != "main"} == listed
    assert all(truth[wallet, ONCE.key] == 0 for wallet in WALLETS if (wallet, ONCE.key) in truth)


def test_addresses_are_checked_and_strangers_are_empty(small):
    refused = debank(small, "user/history_list", id="0x12", chain_id="eth")
    assert (
        refused.status_code == 400
        and refused.json()["message"] == "Input payload validation failed"
    )
    assert debank(small, "user/history_list", id=WALLETS[0]).status_code == 400
    assert debank(small, "user/history_list", id=WALLETS[0], chain_id="nowhere").status_code == 400
    stranger = debank(small, "user/all_history_list", id="0x" + "ab" * 20).json()
    assert stranger["history_list"] == [] and set(stranger) == {
        "cate_dict",
        "cex_dict",
        "history_list",
        "project_dict",
        "token_dict",
    }
    wrong = debank(small, "account/units", key="wrong")
    assert (wrong.status_code, wrong.json()) == (401, {"errors": ["Unauthorized"]})
    assert (
        len(
            debank(small, "user/all_history_list", id=WALLETS[0], page_count=500).json()[
                "history_list"
            ]
        )
        == 20
    )


def test_units_are_spent_and_run_out():
    with serve(seed=2, scale=SMALL, now=NOW, units=10, prices={"user/history_list": 4}) as url:
        for status in (200, 200, 403, 403):
            assert (
                debank(url, "user/history_list", id=WALLETS[0], chain_id="eth").status_code
                == status
            )
        units = debank(url, "account/units").json()
        assert units["balance"] == 2 and len(units["stats"]) == 30
        assert (
            units["stats"][0] == {"usage": 8, "remains": 2, "date": NOW[:10]}
            and units["stats"][1]["remains"] == 10
        )


def test_more_than_100_calls_a_second_are_refused():
    with serve(seed=2, scale=SMALL, now=NOW) as url, requests.Session() as session:
        url.app.apis["debank"].second.limit = 20
        ask = [
            session.get(f"{url}/debank/v1/account/units", headers={"AccessKey": DEBANK_KEY})
            for _ in range(25)
        ]
        assert (
            429 in {answer.status_code for answer in ask} and "Retry-After" not in ask[-1].headers
        )


# Clock, faults, counts


def test_the_clock_is_the_date_header_and_decides_what_is_visible():
    with serve(seed=5, scale=SMALL, now="2024-11-03T00:00:00Z") as url:
        first = debank(url, "user/all_history_list", id=WALLETS[0])
        assert first.headers["Date"] == "Sun, 03 Nov 2024 00:00:00 GMT"
        requests.post(f"{url}/_control/clock", json={"now": NOW}, timeout=5)
        second = debank(url, "user/all_history_list", id=WALLETS[0])
        assert second.headers["Date"] == "Tue, 01 Apr 2025 00:00:00 GMT"
        assert (
            first.json()["history_list"][0]["time_at"] < second.json()["history_list"][0]["time_at"]
        )


def test_faults_have_the_vendors_shape_and_an_end(small):
    def fail(**what):
        assert requests.post(f"{small}/_control/fail", json=what, timeout=5).status_code == 200

    fail(vendor="debank", status=429, count=2, endpoint="units")
    assert debank(small, "user/used_chain_list", id=WALLETS[0]).status_code == 200
    answers = [debank(small, "account/units") for _ in range(3)]
    assert [a.status_code for a in answers] == [429, 429, 200] and "Retry-After" not in answers[
        0
    ].headers
    reader = exchange(small.coinbase)
    for status, error in (
        (401, ccxt.AuthenticationError),
        (429, ccxt.RateLimitExceeded),
        (500, ccxt.BaseError),
    ):
        fail(vendor="coinbase", status=status, count=None)
        for call in ("v2PrivateGetAccounts", "v3PrivateGetBrokerageAccounts"):
            with pytest.raises(error):
                getattr(reader, call)()
    fail(vendor="coinbase", status=403, count=None)
    with pytest.raises(ccxt.PermissionDenied):
        reader.v3PrivateGetBrokerageAccounts()
    fail(vendor="coinbase", status=None)
    assert reader.v2PrivateGetAccounts()["data"]
    stats = requests.get(f"{small}/_stats", timeout=5).json()
    assert stats["calls"]["debank"]["/v1/account/units"]["429"] == 2 and stats["units_spent"] > 0
    requests.post(f"{small}/_control/reset_stats", timeout=5)
    assert requests.get(f"{small}/_stats", timeout=5).json()["total"] == {
        "coinbase": 0,
        "debank": 0,
    }


def test_a_broken_body_with_status_200_can_be_asked_for(small):
    what = {"vendor": "debank", "status": 200, "count": 1, "body": "{}", "retry_after": 3}
    requests.post(f"{small}/_control/fail", json=what, timeout=5)
    broken = debank(small, "account/units")
    assert (broken.status_code, broken.text, broken.headers["Retry-After"]) == (200, "{}", "3")
    assert debank(small, "account/units").json()["balance"]
    assert (
        requests.post(f"{small}/_control/fail", json={"vendor": "kraken"}, timeout=5).status_code
        == 400
    )
    nothing = requests.get(f"{small.coinbase}/v2/nowhere", timeout=5)
    assert (nothing.status_code, nothing.json()["errors"][0]["id"]) == (404, "not_found")


ASKED = [
    ("account/units", {}),
    ("user/used_chain_list", {"id": WALLETS[0]}),
    ("user/all_history_list", {"id": WALLETS[0]}),
    ("user/history_list", {"id": WALLETS[1], "chain_id": "eth"}),
]


def heard(url, calls: int) -> list[tuple]:
    """What a client hears in so many calls: status, Retry-After, Date and body, or the kind of silence."""
    answers = []
    for number in range(calls):
        endpoint, params = ASKED[number % len(ASKED)]
        try:
            answer = debank(url, endpoint, **params)
            answers.append(
                (
                    answer.status_code,
                    answer.headers.get("Retry-After"),
                    answer.headers["Date"],
                    answer.text,
                )
            )
        except requests.RequestException as error:
            answers.append((type(error).__name__,))
    return answers


def test_faults_are_drawn_from_the_seed_and_counted():
    mixed = "chaos:0.5,clock_skew:0.3,changing_rows:0.1"
    answers = {}
    for name, seed in (("one", 3), ("same", 3), ("other", 4)):
        with serve(seed=2, scale=SMALL, now=NOW, faults=mixed, faults_seed=seed, hold=0.01) as url:
            answers[name] = heard(url, 60)
            stats = requests.get(f"{url}/_stats", timeout=5).json()
            injected = Counter(stats["faults"]["debank"])
            failed = sum(len(answer) == 1 or answer[0] != 200 for answer in answers[name])
            loud = ("rate_limited", "rate_limited_silent", "server_errors", "cut")
            assert failed == sum(injected[kind] for kind in loud) > 0
            assert (
                stats["faults"]["coinbase"] == {}
                and injected["clock_skew"]
                and injected["changing_rows"]
            )
            assert sum(n for by in stats["calls"]["debank"].values() for n in by.values()) == 60
            requests.post(f"{url}/_control/reset_stats", timeout=5)
            assert requests.get(f"{url}/_stats", timeout=5).json()["faults"] == {
                "coinbase": {},
                "debank": {},
            }
    assert answers["one"] == answers["same"] != answers["other"]


def test_a_passing_fault_lets_every_fourth_try_of_a_call_through(small):
    what = {"profile": "server_errors", "rate": 1, "vendor": "debank", "count": None}
    assert (
        requests.post(f"{small}/_control/faults", json=what, timeout=5).json()[0]["name"]
        == "server_errors"
    )
    statuses = [debank(small, "account/units").status_code for _ in range(8)]
    assert statuses == [500, 500, 500, 200] * 2
    small.app.faults.set("server_errors", rate=1.0, count=1)
    assert [debank(small, "account/units").status_code for _ in range(3)] == [500, 200, 200]
    small.app.faults.set("key_revoked", after=2, vendor="debank")
    statuses = [debank(small, "account/units").status_code for _ in range(9)]
    assert statuses == [200, 200, *[401] * 7], "until it is turned off"
    assert requests.get(f"{small.coinbase}/v2/time", timeout=5).status_code == 200
    small.app.faults.set("none")
    assert debank(small, "account/units").status_code == 200


@pytest.mark.parametrize(
    "what, said",
    [
        ({"profile": "chaoss"}, "unknown fault profile 'chaoss'; there are none, chaos"),
        ({"profile": "cut:2"}, "not between 0 and 1"),
        ({"profile": "cut", "rate": -1}, "not between 0 and 1"),
        ({"profile": "cut", "vendor": "kraken"}, "write coinbase, debank"),
        ({"profil": "cut"}, "profil"),
    ],
)
def test_a_profile_that_is_none_is_refused_with_what_there_is(small, what, said):
    refused = requests.post(f"{small}/_control/faults", json=what, timeout=5)
    assert refused.status_code == 400 and said in refused.json()["error"]
    assert small.app.faults.rules == []


def test_the_command_refuses_an_unknown_fault():
    command = [sys.executable, "-m", "sandbox", "--now", NOW, "--faults", "cut,rain"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and "unknown fault profile 'rain'" in done.stderr


@pytest.mark.parametrize("seed", range(4))
def test_a_row_that_vanishes_is_gone_from_histories_balances_and_the_truth(seed):
    early, later = "2024-12-01T00:00:00Z", "2024-12-01T06:00:00Z"
    with serve(seed=seed, scale=0.3, now=early) as url:
        tables = (("coinbase", "ledger", "entry_id"), ("debank", "transactions", "tx_id"))
        was = {table: getattr(url.world, table)(early) for _, table, _ in tables}
        assert_wire_is_truth(url, early)
        balances, at = url.world.balances(None, early), iso(seconds(early) - 1)
        gone = {
            table: [
                requests.post(
                    f"{url}/_control/vanish",
                    json={"vendor": vendor, "seed": n, "since": "2024-11-03"},
                    timeout=5,
                ).json()
                for n in range(3)
            ]
            for vendor, table, _ in tables
        }
        for _, table, key in tables:
            names = [(row["wallet"], row[key]) for row in gone[table]]
            assert len(set(names)) == 3 and all(row["time"] >= "2024-11-03" for row in gone[table])
            left = [(row["wallet"], row[key]) for row in getattr(url.world, table)(early)]
            assert sorted([*left, *names]) == sorted(
                (row["wallet"], row[key]) for row in was[table]
            )
            assert set(names) <= {
                (row["wallet"], row[key]) for row in getattr(url.world, table)(at)
            }, "it was there"
            assert not set(names) & {
                (row["wallet"], row[key]) for row in getattr(url.world, table)(later)
            }
        assert url.world.balances(None, early) != balances, "gas, at least, is back"
        assert_wire_is_truth(url, early)
        requests.post(f"{url}/_control/clock", json={"now": later}, timeout=5)
        assert_wire_is_truth(url, later)


def assert_wire_is_truth(url, now) -> None:
    """Balances of both vendors, and Coinbase's rows, are those of the truth at `now`; none is negative."""
    truth = {
        (b["account"], b["token"]): Decimal(b["amount"]) for b in url.world.balances(None, now)
    }
    assert all(amount >= 0 for amount in truth.values())
    for wallet in WALLETS:
        listed = exactly(debank(url, "user/all_token_list", id=wallet, is_all="false"))
        assert {
            f"{t['chain']}:{t['id']}": Decimal(int(t["raw_amount_hex_str"], 16)).scaleb(
                -t["decimals"], WIDE
            )
            for t in listed
        } == {token: a for (w, token), a in truth.items() if w == wallet and a}
    reader = exchange(url.coinbase)
    sums, rows = defaultdict(Decimal), set()
    for wallet_row in reader.v2PrivateGetAccounts({"limit": 100})["data"]:
        mine = v2_rows(reader, wallet_row["id"], limit=100)
        rows |= {row["id"] for row in mine}
        settled = sum(
            (Decimal(r["amount"]["amount"]) for r in mine if r["status"] == "completed"), Decimal(0)
        )
        assert settled == Decimal(wallet_row["balance"]["amount"])
        sums[wallet_row["currency"]["code"]] += settled
    assert rows == {row["entry_id"] for row in url.world.ledger(now)}
    assert {k: v for k, v in sums.items() if v} == {
        token: amount for (account, token), amount in truth.items() if account == "main" and amount
    }


def test_the_profile_vanishing_takes_a_row_away_between_two_calls():
    with serve(seed=2, scale=SMALL, now=NOW, faults="vanishing:1", faults_seed=1) as url:
        before = len(url.world.transactions(NOW))
        for _ in range(3):
            debank(url, "account/units")
        stats = requests.get(f"{url}/_stats", timeout=5).json()["faults"]
        assert (
            stats["debank"] == {"vanishing": 3} and len(url.world.transactions(NOW)) == before - 3
        )


def test_histories_filter_by_chain_and_token(small):
    some = exactly(debank(small, "user/all_history_list", id=WALLETS[0], chain_ids="op,arb"))[
        "history_list"
    ]
    assert {item["chain"] for item in some} == {"op", "arb"}
    once = exactly(
        debank(small, "user/history_list", id=WALLETS[0], chain_id="op", token_id=ONCE.id)
    )["history_list"]
    assert [len(item["sends"]) for item in once] == [1, 0, 1, 0]  # in and out, in each cycle


def test_the_command_starts_in_time():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "sandbox",
        "--port",
        str(port),
        "--seed",
        "-4",
        "--now",
        NOW,
        "--tick",
    ]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert f"http://127.0.0.1:{port}" in process.stdout.readline()
        deadline = time.monotonic() + 3
        while True:
            try:
                health = requests.get(f"http://127.0.0.1:{port}/_health", timeout=5).json()
                break
            except requests.ConnectionError:
                assert time.monotonic() < deadline
                time.sleep(0.02)
        assert (
            health["seed"] == -4
            and health["inclusive"] is False
            and health["now"] >= iso(seconds(NOW))
        )
    finally:
        process.terminate()
        process.wait(5)


def test_the_truth_is_served_as_the_world_tells_it(small):
    for path, truth in (
        ("coinbase/ledger", small.world.ledger(NOW)),
        ("coinbase/fills", small.world.fills(NOW)),
        ("debank/transactions", small.world.transactions(NOW)),
        ("debank/transfers", small.world.transfers(NOW)),
        ("balances", small.world.balances(None, NOW)),
    ):
        assert requests.get(f"{small}/_truth/{path}", timeout=10).json() == truth
    early = "2024-11-05T12:00:00Z"
    asked = requests.get(
        f"{small}/_truth/balances", params={"at": early, "now": NOW}, timeout=10
    ).json()
    assert asked == small.world.balances(early, NOW) != small.world.balances(early, early)


# The world


@settings(max_examples=15, deadline=None)
@given(seed=seeds, days=st.integers(1, 60), more=st.integers(1, 90), late=st.sampled_from([0, 3]))
def test_a_later_now_extends_the_same_history(seed, days, more, late):
    now = START + days * DAY + 4321
    short, long = (World(seed, GENESIS, SMALL, late) for _ in range(2))
    long.grow(now + more * DAY)
    for name in ("ledger", "fills", "transactions", "transfers"):
        assert getattr(short, name)(now) == getattr(long, name)(now)
    assert short.balances(None, now) == long.balances(now, now)


@settings(max_examples=12, deadline=None)
@given(
    seed=seeds,
    late=st.sampled_from([0, 4]),
    asked=st.integers(0, 40 * DAY),
    back=st.integers(0, 5 * DAY),
)
def test_no_balance_is_ever_negative_and_rows_add_up(seed, late, asked, back):
    world, now, at = World(seed, GENESIS, 0.4, late), START + asked, START + asked - back
    balances = {
        (b["vendor"], b["account"], b["token"]): Decimal(b["amount"])
        for b in world.balances(at, now)
    }
    assert all(amount >= 0 for amount in balances.values())
    sums = defaultdict(Decimal)
    for row in world.ledger(now):
        if row["time"] < iso(at):
            sums[row["vendor"], row["account"], row["token"]] += (
                Decimal(row["amount"] or 0) * row["is_settled"]
            )
    for leg in world.transfers(now):
        counts = leg["is_settled"] and not leg["is_scam"] and not leg["is_nft"]
        if leg["time"] < iso(at) and counts:
            sums[leg["vendor"], leg["account"], leg["token_key"]] += Decimal(leg["amount"]) * (
                1 if leg["direction"] == "in" else -1
            )
    for tx in world.transactions(now):
        if tx["time"] < iso(at) and tx["pays_gas"] and tx["shows_gas"]:
            sums[tx["vendor"], tx["account"], tx["gas_token"]] -= Decimal(tx["gas"])
    assert {k: v for k, v in sums.items() if v} == {k: v for k, v in balances.items() if v}


@settings(max_examples=12, deadline=None)
@given(seed=seeds)
def test_every_seed_shows_every_special_case(seed):
    world, now = World(seed, GENESIS, SMALL, mess=False), START + 40 * DAY
    ledger, txs, legs = world.ledger(now), world.transactions(now), world.transfers(now)
    types = {row["type"] for row in ledger if row["is_settled"]}
    assert {
        "quantum_rebate",
        "advanced_trade_fill",
        "fiat_deposit",
        "fiat_withdrawal",
        "send",
        "trade",
        "staking_transfer",
        "interest",
    } <= types
    assert {"canceled", "failed"} <= {row["status"] for row in ledger}
    pairs = Counter(row["trade_id"] for row in ledger if row["trade_id"])
    assert pairs and set(pairs.values()) == {2}
    fills = world.fills(now)
    assert (
        any(f["size_in_quote"] for f in fills)
        and max(Counter(f["order_id"] for f in fills).values()) >= 25
    )
    assert {f["order_id"] for f in fills} == {r["order_id"] for r in ledger if r["order_id"]}
    waiting = {r["entry_id"] for r in world.ledger(START + 4 * DAY) if r["status"] == "pending"}
    assert any(r["entry_id"] in waiting and r["status"] == "completed" for r in ledger)
    early = world.ledger(START + 4 * DAY + 12 * 3600)
    assert any(r["status"] == "completed" and r["network_status"] == "pending" for r in early)
    for wallet in ("Cash (USD)", "BTC Wallet"):  # 27 rows in one second: some page of 25 cuts them
        times = [row.created for row in world.grown("coinbase", now).rows(wallet, now)][::-1]
        assert any(times[n] == times[n - 1] for n in range(25, len(times), 25))

    burst = [t for t in txs if t["time"].endswith("T15:00:00Z") and t["wallet"] == WALLETS[0]]
    assert len(burst) == 24 and Counter(t["chain"] for t in burst) == dict.fromkeys(CHAINS, 4)
    cuts = 0
    for wallet in WALLETS:
        for chain in CHAINS:
            times = [tx.time for tx in world.grown("debank", now).txs(wallet, now, chain)][::-1]
            cuts += sum(times[n] == times[n - 1] for n in range(20, len(times), 20))
            crowd = Counter(times)
            assert all(crowd[t] + crowd[t + 1] < 20 for t in crowd), (
                "no walker could leave such a second"
            )
    assert cuts
    assert any(t["status"] == 0 and t["pays_gas"] and Decimal(t["gas"]) for t in txs)
    assert any(t["is_scam"] and t["from_addr"] is None for t in txs)
    assert any(not leg["is_settled"] for leg in legs)
    for token in (MEME_9, MEME_0):
        assert any(
            leg["token_key"] == token.key and Decimal(leg["amount"]) > 10**20 for leg in legs
        )
    assert len({leg["decimals"] for leg in legs if leg["token"] == TWIN_ID}) == 2
    assert any(
        leg["wire_amount"] == "16179.999999999998" and leg["amount"] == "16180.000000"
        for leg in legs
    )
    changed = [t for t in txs if t["changes_at"] and t["changes_at"] <= iso(now)]

    def unchanged(later: dict) -> bool:
        then = world.transactions(later["visible_at"])
        first = next(
            t for t in then if (t["wallet"], t["tx_id"]) == (later["wallet"], later["tx_id"])
        )
        return (first["legs"], first["category"]) == (later["legs"], later["category"])

    assert changed and not any(map(unchanged, changed[:8]))
    views = Counter((t["chain"], t["tx_id"]) for t in txs)
    assert 2 in views.values()
    for leg in legs:
        off = abs(Decimal(leg["wire_amount"]) - Decimal(leg["amount"]))
        assert off == 0 or (leg["decimals"] == 6 and off < Decimal("5e-7"))


def test_late_days_delay_a_few_transactions_of_every_wallet():
    world = World(1, GENESIS, SMALL, late_days=6)
    world.grown("debank", NOW)
    for wallet in WALLETS:
        assert (
            sum(
                tx.visible_at - tx.time == 6 * DAY
                for tx in world.histories["debank"].wallets[wallet]
            )
            >= 4
        )
        assert all(tx.visible_at > tx.time for tx in world.histories["debank"].wallets[wallet])


def test_two_years_are_about_ten_thousand_transactions():
    began = datetime.now(UTC)
    world = World(9, mess=False)
    later = "2026-11-01T00:00:00Z"
    ledger, txs = len(world.ledger(later)), len(world.transactions(later))
    assert 2_500 < ledger < 3_800 and 6_000 < txs < 8_200
    assert (datetime.now(UTC) - began).total_seconds() < 4
