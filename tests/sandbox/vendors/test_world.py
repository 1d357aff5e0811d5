"""The world behind both: its clock, its truth, and every special case in every seed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections import Counter, defaultdict
from datetime import UTC, datetime
from decimal import Decimal

import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.server import serve
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.tokens import CHAINS, MEME_0, MEME_9, TWIN_ID, WALLETS
from sandbox.world.world import GENESIS, World
from tests.sandbox.vendors.scene import NOW, ROOT, SMALL, debank

START = seconds(GENESIS)
seeds = st.integers(min_value=-(2**70), max_value=2**70)


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
        ("coinbase/ledger", small.world.truth("ledger", NOW, ["coinbase"])),
        ("coinbase/fills", small.world.truth("fills", NOW, ["coinbase"])),
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

    def entries(at: int) -> list[dict]:
        return world.truth("ledger", at, ["coinbase"])

    ledger, txs, legs = entries(now), world.transactions(now), world.transfers(now)
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
    fills = world.truth("fills", now, ["coinbase"])
    assert (
        any(f["size_in_quote"] for f in fills)
        and max(Counter(f["order_id"] for f in fills).values()) >= 25
    )
    assert {f["order_id"] for f in fills} == {r["order_id"] for r in ledger if r["order_id"]}
    waiting = {r["entry_id"] for r in entries(START + 4 * DAY) if r["status"] == "pending"}
    assert any(r["entry_id"] in waiting and r["status"] == "completed" for r in ledger)
    early = entries(START + 4 * DAY + 12 * 3600)
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
    ledger, txs = len(world.truth("ledger", later, ["coinbase"])), len(world.transactions(later))
    assert 2_500 < ledger < 3_800 and 6_000 < txs < 8_200
    assert (datetime.now(UTC) - began).total_seconds() < 4
