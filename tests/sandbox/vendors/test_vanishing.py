"""A row that vanishes is gone everywhere."""

from __future__ import annotations

from collections import defaultdict
from decimal import Decimal

import pytest
import requests

from sandbox.server import serve
from sandbox.world.moments import iso, seconds
from sandbox.world.tokens import WALLETS
from tests.sandbox.vendors.scene import NOW, SMALL, WIDE, debank, exactly, exchange, v2_rows


@pytest.mark.parametrize("seed", range(4))
def test_a_row_that_vanishes_is_gone_from_histories_balances_and_the_truth(seed):
    early, later = "2024-12-01T00:00:00Z", "2024-12-01T06:00:00Z"
    with serve(seed=seed, scale=0.3, now=early) as url:
        tables = (("coinbase", "ledger", "entry_id"), ("debank", "transactions", "tx_id"))
        was = {table: url.world.truth(table, early, [vendor]) for vendor, table, _ in tables}
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
        for vendor, table, key in tables:
            names = [(row["wallet"], row[key]) for row in gone[table]]
            assert len(set(names)) == 3 and all(row["time"] >= "2024-11-03" for row in gone[table])
            left = [(row["wallet"], row[key]) for row in url.world.truth(table, early, [vendor])]
            assert sorted([*left, *names]) == sorted(
                (row["wallet"], row[key]) for row in was[table]
            )
            assert set(names) <= {
                (row["wallet"], row[key]) for row in url.world.truth(table, at, [vendor])
            }, "it was there"
            assert not set(names) & {
                (row["wallet"], row[key]) for row in url.world.truth(table, later, [vendor])
            }
        assert url.world.balances(None, early) != balances, "gas, at least, is back"
        assert_wire_is_truth(url, early)
        requests.post(f"{url}/_control/clock", json={"now": later}, timeout=5)
        assert_wire_is_truth(url, later)


def assert_wire_is_truth(url, now) -> None:
    """Balances of both vendors, and Coinbase's rows, are those of the truth at `now`; none is negative."""
    truth = {
        (b["account"], b["token"]): Decimal(b["amount"])
        for b in url.world.balances(None, now, ["coinbase", "debank"])
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
    assert rows == {row["entry_id"] for row in url.world.truth("ledger", now, ["coinbase"])}
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
