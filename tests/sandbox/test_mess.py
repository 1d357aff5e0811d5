"""A messy world serves each of its messes, and its truth explains every difference they make."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from contextlib import contextmanager
from decimal import Context, Decimal

import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.debank.keys import DEBANK_KEY
from sandbox.server import serve
from sandbox.world.chain_mess import L1_FEE
from sandbox.world.mess_tokens import (
    AIRDROP,
    ALL_CHAINS,
    CELO,
    HONEST_BUT_UNVERIFIED,
    INFINITE,
    LISTED_SPAM,
    NAMELESS,
    NFTS,
    ODD,
    SCAM_BUT_VERIFIED,
    STETH,
    UNLISTED_SPAM,
)
from sandbox.world.moments import DAY, iso, seconds
from sandbox.world.tokens import NATIVE, USDC, WALLETS
from sandbox.world.world import GENESIS, World

START = seconds(GENESIS)
SINCE = START + 60 * DAY
NOW = START + 109 * DAY
WIDE = Context(prec=120)
A, B, C = WALLETS


@contextmanager
def messy(seed: int, now: int = NOW, scale: float = 0.2, books_start: int | None = SINCE):
    with serve(seed=seed, now=iso(now), scale=scale, mess=True, books_start=books_start) as url:
        url.app.lift_limits()
        yield url


def get(url, endpoint: str, **params):
    answer = requests.get(
        f"{url}/debank/v1/{endpoint}", params=params, headers={"AccessKey": DEBANK_KEY}, timeout=10
    )
    assert answer.status_code == 200, answer.text
    return json.loads(answer.text, parse_float=Decimal)


def walk(url, wallet: str, chain: str) -> tuple[list[dict], set[int]]:
    """Every row that pages can show, and the seconds they could not be left through."""
    seen, cursor, left = {}, None, set()
    while True:
        bound = {} if cursor is None else {"start_time": cursor}
        page = get(url, "user/history_list", id=wallet, chain_id=chain, **bound)["history_list"]
        seen |= {(row["id"], row["idx"]): row for row in page}
        if len(page) < 20:
            return list(seen.values()), left
        last = int(page[-1]["time_at"])
        if last + 1 == cursor:  # the page lies in one second: go on before it
            left.add(last)
            last -= 2
        cursor = last + 1


@pytest.fixture(scope="module", params=[5, 8])
def read(request):
    """The sandbox, what its API gives of every wallet and chain, and its truth."""
    with messy(request.param) as url:
        rows = {(w, c): walk(url, w, c) for w in WALLETS for c in ALL_CHAINS}
        lists = {w: get(url, "user/all_token_list", id=w) for w in WALLETS}
        natives = {
            chain["id"]: chain["native_token_id"]
            for w in WALLETS
            for chain in get(url, "user/used_chain_list", id=w)
        }
        residuals = requests.get(f"{url}/_truth/residuals", timeout=10).json()
        truth = [row for row in residuals if row["vendor"] == "debank"]
        yield url, rows, lists, natives, {(row["account"], row["token"]): row for row in truth}


def summed(rows: dict, natives: dict, decimals: dict) -> dict:
    """Sums of what the responses say from SINCE on, as any reader would make them."""
    sums = defaultdict(Decimal)
    for (wallet, chain), (items, _) in rows.items():
        paid = set()
        for item in (one for one in items if int(one["time_at"]) >= SINCE):
            tx = item["tx"] or {"status": 1, "from_addr": None}
            for side, sign in (("receives", 1), ("sends", -1)):
                for leg in item[side] or []:
                    key = f"{chain}:{leg['token_id']}"
                    if tx["status"] == 1 and not item["is_scam"]:
                        digits = Decimal(1).scaleb(-decimals[key])
                        amount = Decimal(leg["amount"]).quantize(digits, context=WIDE)
                        sums[wallet, key] = WIDE.add(sums[wallet, key], sign * amount)
            if tx["from_addr"] == wallet and item["id"] not in paid and tx["eth_gas_fee"]:
                paid.add(item["id"])
                key = f"{chain}:{natives[chain]}"
                sums[wallet, key] = WIDE.subtract(sums[wallet, key], Decimal(tx["eth_gas_fee"]))
    return sums


def test_the_truth_says_what_lists_and_histories_say(read):
    _, rows, lists, natives, truth = read
    decimals = {row["token"]: len(row["reported"].partition(".")[2]) for row in truth.values()}
    listed = {
        (wallet, key := f"{row['chain']}:{row['id']}"): Decimal(
            int(row["raw_amount_hex_str"], 16)
        ).scaleb(-decimals[key], WIDE)
        for wallet in WALLETS
        for row in lists[wallet]
    }
    assert listed == {k: Decimal(r["reported"]) for k, r in truth.items() if r["listed"]}
    sums = summed(rows, natives, decimals)
    assert set(sums) <= set(truth)
    for key, row in truth.items():
        assert sums[key] == Decimal(row["sum"]), row
        left = WIDE.subtract(Decimal(row["reported"]), Decimal(row["sum"]))
        assert left == Decimal(row["residual"]), row
        parts = Decimal(0)
        for part in row["parts"].values():
            parts = WIDE.add(parts, Decimal(part))
        assert parts == left and bool(row["kind"]) == (row["status"] != "exact"), row
        if row["status"] == "within_tolerance":
            assert abs(left) <= Decimal("3e-16") * Decimal(row["turnover"]), row


def test_every_kind_is_there_and_named(read):
    *_, truth = read
    kinds = {kind for row in truth.values() for kind in row["kind"].split("+")}
    assert kinds >= {"opening", "rebase", "spam", "nft", "infinite", "l1_data_fee"}
    assert kinds >= {"internal", "airdrop", "gas_unknown"}
    for row in truth.values():
        off = {"l1_data_fee", "internal", "airdrop", "gas_unknown"} & set(row["kind"].split("+"))
        assert bool(off) == (row["status"] == "off"), row
        for kind in off:
            steps = [(at, Decimal(step)) for at, step, name in row["steps"] if name == kind]
            assert sum(step for _, step in steps) == Decimal(row["parts"][kind])
            assert steps and all(iso(SINCE) <= at < iso(NOW) for at, _ in steps)
    for wallet in WALLETS:
        fees = [s for _, s, k in truth[wallet, NATIVE["op"].key]["steps"] if k == "l1_data_fee"]
        assert {Decimal(fee) for fee in fees} == {Decimal(-L1_FEE).scaleb(-18)}


def test_lists_show_what_histories_do_not_and_the_reverse(read):
    _, rows, lists, _, truth = read
    moved = defaultdict(set)
    for (wallet, chain), (items, _) in rows.items():
        for item in items:
            for leg in [*(item["sends"] or []), *(item["receives"] or [])]:
                moved[wallet].add((f"{chain}:{leg['token_id']}", item["is_scam"]))
    shown = {w: {f"{r['chain']}:{r['id']}": r for r in lists[w]} for w in WALLETS}
    for wallet, token in ((A, LISTED_SPAM), (B, NAMELESS), (A, AIRDROP), (A, INFINITE)):
        assert token.key in shown[wallet]
        assert token.key not in {key for key, _ in moved[wallet]}
    nameless = shown[B][NAMELESS.key]
    assert (nameless["name"], nameless["symbol"], nameless["decimals"]) == (None, None, None)
    infinite = shown[A][INFINITE.key]
    assert infinite["is_infinity"] and int(infinite["raw_amount_hex_str"], 16) == 2**256 - 1
    assert (UNLISTED_SPAM.key, True) in moved[C] and UNLISTED_SPAM.key not in shown[C]
    assert (SCAM_BUT_VERIFIED.key, True) in moved[B]
    assert shown[B][SCAM_BUT_VERIFIED.key]["is_verified"]
    assert (HONEST_BUT_UNVERIFIED.key, False) in moved[C]
    assert not shown[C][HONEST_BUT_UNVERIFIED.key]["is_verified"]
    for nft in NFTS:
        assert (nft.key, False) in moved[A] and nft.key not in shown[A]
        assert len(nft.id) == 32 and int(nft.id, 16) >= 0 and truth[A, nft.key]["kind"]
    for number, token in enumerate(ODD):
        row = shown[WALLETS[number % 3]][token.key]
        assert (row["symbol"], row["name"]) == (token.symbol, token.name)


def test_rows_are_as_odd_as_the_vendors(read):
    url, rows, _, natives, _ = read
    assert natives["celo"] == CELO.id and natives["eth"] == "eth"
    own = [item for item in rows[B, "celo"][0] if (item["tx"] or {}).get("from_addr") == B]
    assert own and all(Decimal(item["tx"]["eth_gas_fee"]) > 0 for item in own)
    for wallet, chain, sender in ((A, "eth", None), (B, "arb", B)):
        idx = defaultdict(list)
        for item in rows[wallet, chain][0]:
            idx[item["id"]].append(item)
        twice = [items for items in idx.values() if len(items) > 1]
        assert twice
        for items in twice:
            assert sorted(item["idx"] for item in items) == [0, 1]
            assert len({item["receives"][0]["token_id"] for item in items}) == 2
            assert sender is None or {item["tx"]["from_addr"] for item in items} == {sender}
    null = [i for i in rows[C, "avax"][0] if i["tx"] and i["tx"].get("eth_gas_fee", 0) is None]
    assert null and all(item["tx"]["from_addr"] == C for item in null)
    assert any(i["sends"] is None and i["is_scam"] is None for i in rows[B, "matic"][0])
    legs = [leg for items, _ in rows.values() for i in items for leg in i["receives"] or []]
    assert any(len(str(leg["amount"]).replace(".", "").strip("0")) > 15 for leg in legs)
    unread = requests.get(f"{url}/_truth/unread", timeout=10).json()
    assert {(u["account"], u["chain"]) for u in unread} == {(B, "bsc")}
    assert {iso(second) for second in rows[B, "bsc"][1]} == {u["time"] for u in unread}
    assert not any(left for key, (_, left) in rows.items() if key != (B, "bsc"))


def test_deposits_leave_the_wallet_for_a_position(read):
    url, rows, *_ = read
    protocols = get(url, "user/all_complex_protocol_list", id=A)
    found = {
        item["pool"]["id"]: item["detail"]["supply_token_list"][0]["amount"]
        for protocol in protocols
        for item in protocol["portfolio_item_list"]
    }
    positions = requests.get(f"{url}/_truth/positions", timeout=10).json()
    assert found and found == {p["pool"]: Decimal(p["amount"]) for p in positions}
    sent = {
        leg["to_addr"]: (leg["token_id"], leg["amount"])
        for item in rows[A, "eth"][0]
        for leg in item["sends"] or []
    }
    assert all(sent[pool] == (USDC["eth"].id, amount) for pool, amount in found.items())
    assert get(url, "user/all_complex_protocol_list", id=C) == []


@settings(max_examples=8, deadline=None)
@given(seed=st.integers(-(2**70), 2**70), scale=st.sampled_from([0.05, 0.5, 1.0]))
def test_any_seed_is_valid_and_rebases_stay_in_their_band(seed, scale):
    world = World(seed, GENESIS, scale, books_start=SINCE)
    rows = {
        day: {(r["account"], r["token"]): r for r in world.residuals(NOW + day * DAY)}
        for day in (0, 1)
    }
    for residuals in rows.values():
        assert all(Decimal(row["reported"]) >= 0 for row in residuals.values())
        for row in residuals.values():
            drift = [k for k in row["parts"] if k not in ("opening", "float", "late")]
            assert row["status"] != "off" or drift, row
    quiet = 0
    for wallet in (A, C):
        before, after = (rows[day][wallet, STETH.key] for day in (0, 1))
        grown = Decimal(after["residual"]) - Decimal(before["residual"])
        steps = [Decimal(s) for at, s, k in after["steps"] if at >= iso(NOW) and k == "rebase"]
        quiet += 0 < sum(steps) <= Decimal(after["reported"]) * Decimal("0.0002")
        assert steps and abs(grown - sum(steps)) < Decimal("1e-12")
    assert quiet


def test_a_list_may_be_ahead_of_the_history_for_hours():
    world, day = World(4, GENESIS, 0.05), START + 8 * DAY
    key = (C, USDC["arb"].key)

    def at(moment, now=None):
        residuals = world.residuals(moment, now)
        return {(r["account"], r["token"]): r for r in residuals}[key]

    early, later = at(day + 4 * 3600), at(day + 9 * 3600)
    assert (early["kind"], early["status"]) == ("ahead", "settling") and later["status"] == "exact"
    assert [at for at, _, kind in early["steps"]] == [iso(day + 2 * 3600 + 300)]
    assert early["reported"] == later["reported"]
    assert at(day + 4 * 3600, day + 9 * 3600)["status"] == "exact"


def test_accounts_are_older_than_their_books(read):
    url, rows, _, _, truth = read
    old = Counter(key for key, (items, _) in rows.items() for i in items if i["time_at"] < SINCE)
    assert len(old) > 15
    before = {(r["account"], r["token"]): r for r in url.world.residuals(SINCE, NOW, START)}
    for key, row in truth.items():
        if row["kind"] == "opening":
            late = before[key]["parts"].get("late", "0")
            assert abs(
                Decimal(row["parts"]["opening"])
                - (Decimal(before[key]["reported"]) - Decimal(late))
            ) <= Decimal("3e-16") * Decimal(before[key]["turnover"]), row


def test_a_tidy_world_has_no_difference():
    world = World(6, GENESIS, 0.3, mess=False)
    assert {row["status"] for row in world.residuals(NOW) if row["kind"] != "spam"} == {"exact"}
    assert not world.unread(NOW) and not world.positions(NOW)
