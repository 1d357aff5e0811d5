"""What DeBank's odd records become in raw: none stops its wallet, none loses a leg or a digit."""

from decimal import Decimal

from extract.sources.debank import CHAINS, HISTORY, POSITIONS, TOKENS
from tests.conftest import page

WALLET = "0xAB00000000000000000000000000000000000001"
AT = "2026-03-10T12:30:00Z"
TIME = 1769940000.25


def record(name="0x1", *, sends=(), receives=(), **fields):
    """A record of a history: legs are (token, amount) pairs."""
    legs = {
        "sends": [{"token_id": t, "amount": a, "to_addr": "0xcd"} for t, a in sends],
        "receives": [{"token_id": t, "amount": a, "from_addr": "0xcd"} for t, a in receives],
    }
    return {"id": name, "chain": "eth", "time_at": TIME, "tx": None, **legs, **fields}


def sent(gas=0.001, status=1):
    """The transaction of a record that the wallet sent; addresses compare without capitals."""
    return {"from_addr": WALLET.lower(), "to_addr": "0xcd", "status": status, "eth_gas_fee": gas}


def history(*records, **fields):
    return page(HISTORY, {"history_list": records} | fields, at=AT)


def legs(con):
    return con.execute(
        "SELECT tx_id, direction, leg, token, amount FROM raw.onchain_transfers ORDER BY ALL"
    ).fetchall()


def test_records_of_one_hash_are_one_transaction_with_all_legs_and_its_gas_once(con, lander):
    records = [
        record("0x2", receives=[("usdc", 7), ("eth", 2)], idx=0),
        record("0x2", sends=[("dai", 3)], receives=[("eth", 1)], idx=1, tx=sent(), is_scam=None),
        record("0x1", receives=[("eth", 5)]),
    ]
    lander(con, "debank", WALLET, [history(*records)])
    assert legs(con) == [
        ("0x1", "in", 1, "eth", 5),
        ("0x2", "in", 1, "eth", 1),
        ("0x2", "in", 2, "eth", 2),
        ("0x2", "in", 3, "usdc", 7),
        ("0x2", "out", 1, "dai", 3),
    ]
    rows = con.execute(
        "SELECT tx_id, gas_text, pays_gas, status, json_array_length(payload) "
        "FROM raw.onchain_transactions ORDER BY tx_id"
    ).fetchall()
    assert rows == [("0x1", None, False, None, 0), ("0x2", "0.001", True, 1, 2)]
    again = lander(con, "debank", WALLET, [history(*reversed(records))])
    assert again.same == again.rows == 7, "whatever the order in which they are listed"


def test_null_fields_are_loaded(con, lander):
    nulls = record("0x3", sends=[("eth", 1)], chain="newchain", is_scam=None)
    nulls |= {"receives": None, "tx": sent(gas=None), "idx": None, "cate_id": None}
    for tokens in (None, [], {"0x7a": None}):
        lander(con, "debank", WALLET, [history(nulls, token_dict=tokens, token_uuid_dict=None)])
    assert legs(con) == [("0x3", "out", 1, "eth", 1)]
    assert con.execute(
        "SELECT pays_gas, gas, is_scam FROM raw.onchain_transactions"
    ).fetchall() == [(True, None, False)]


def test_balances_keep_their_text_and_no_number_that_cannot_be_held(con, lander):
    unit = {"chain": "eth", "price": 1.5, "is_verified": False}
    tokens = [
        unit | {"id": "whole", "decimals": 18, "raw_amount_hex_str": "0xde0b6b3a7640001"},
        unit
        | {"id": "infinite", "decimals": 60, "amount": 1e17, "raw_amount_hex_str": "0x" + "f" * 64},
        unit | {"id": "flagged", "decimals": None, "amount": 5, "is_infinity": True},
        unit | {"id": "bare", "decimals": None, "raw_amount_hex_str": "0x1", "amount": 1e-7},
        unit | {"id": "nohex", "decimals": 6, "raw_amount_hex_str": None, "amount": 1e-18},
        unit | {"id": "badhex", "decimals": "six", "raw_amount_hex_str": "0x", "amount": 2},
        unit | {"id": "large", "decimals": 0, "amount": 1.5e22},
    ]
    lander(con, "debank", WALLET, [page(TOKENS, tokens, at=AT, as_of=AT)])
    found = con.execute(
        "SELECT split_part(token, ':', 2), amount_text, amount FROM raw.balances"
    ).fetchall()
    amounts = {token: (text, amount) for token, text, amount in found}
    assert amounts.pop("infinite")[1] is None, "it would fit, and is no balance"
    assert amounts == {
        "whole": ("1.000000000000000001", Decimal("1.000000000000000001")),
        "flagged": ("5", None),
        "bare": ("1e-07", Decimal("0.0000001")),
        "nohex": ("1e-18", Decimal("1e-18")),
        "badhex": ("2", Decimal(2)),
        "large": ("1.5e+22", None),
    }


def test_chains_name_the_token_in_which_their_gas_is_paid(con, lander):
    listed = [
        {"id": "celo", "name": "Celo", "native_token_id": "0x471e", "wrapped_token_id": "0x471e"},
        {"id": "new", "name": None, "native_token_id": None},
    ]
    lander(con, "debank", WALLET, [page(CHAINS, listed, at=AT)])
    assert con.execute(
        "SELECT chain, name, native_token, wrapped_token FROM raw.onchain_chains ORDER BY ALL"
    ).fetchall() == [("celo", "Celo", "0x471e", "0x471e"), ("new", None, None, None)]


def test_positions_are_rows_of_what_is_supplied_borrowed_earned_and_staked(con, lander):
    def held(token, amount, **fields):
        return {"id": token, "chain": "eth", "symbol": token.upper(), "amount": amount} | fields

    lending = {
        "supply_token_list": [held("eth", 1.25, price=2000.5)],
        "borrow_token_list": [held("usdc", 100)],
        "reward_token_list": [],
        "health_rate": 1.157e59,
    }
    staked = {"supply_token_list": [held("cake", 3), held("cake", 4)], "reward_token_list": None}
    protocols = [
        {
            "id": "aave3",
            "chain": "eth",
            "portfolio_item_list": [
                {"name": "Lending", "detail": lending},
                {"name": "Staked", "detail": staked},
                {"name": "Rewards", "detail": {"token_list": [held("aave", 0.1, chain=None)]}},
            ],
        },
        {"id": "empty", "chain": "eth", "portfolio_item_list": None},
    ]
    lander(con, "debank", WALLET, [page(POSITIONS, protocols, at=AT, as_of=AT)])
    assert con.execute(
        "SELECT position, role, token, name, symbol, amount_text, amount, price_text "
        "FROM raw.positions ORDER BY position, role"
    ).fetchall() == [
        ("aave3:1", "borrow", "eth:usdc", "Lending", "USDC", "100", 100, None),
        ("aave3:1", "supply", "eth:eth", "Lending", "ETH", "1.25", Decimal("1.25"), "2000.5"),
        ("aave3:2", "staked", "eth:cake", "Staked", "CAKE", "3", 3, None),
        ("aave3:2:2", "staked", "eth:cake", "Staked", "CAKE", "4", 4, None),
        ("aave3:3", "reward", "eth:aave", "Rewards", "AAVE", "0.1", Decimal("0.1"), None),
    ]
