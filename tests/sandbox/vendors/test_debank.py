"""The sandbox as DeBank: walks, tokens, addresses, units, filters."""

from __future__ import annotations

from collections import Counter
from decimal import Decimal

import pytest

from sandbox.server import serve
from sandbox.world.moments import iso
from sandbox.world.tokens import CHAINS, ONCE, WALLETS
from tests.sandbox.vendors.scene import NOW, SMALL, WIDE, debank, exactly


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


def test_histories_filter_by_chain_and_token(small):
    some = exactly(debank(small, "user/all_history_list", id=WALLETS[0], chain_ids="op,arb"))[
        "history_list"
    ]
    assert {item["chain"] for item in some} == {"op", "arb"}
    once = exactly(
        debank(small, "user/history_list", id=WALLETS[0], chain_id="op", token_id=ONCE.id)
    )["history_list"]
    assert [len(item["sends"]) for item in once] == [1, 0, 1, 0]  # in and out, in each cycle
