"""Real captures of the APIs parse and map to the expected unified rows."""

from decimal import Decimal

from extract.sources.coinbase import ACCOUNTS, FILLS, TRANSACTIONS
from extract.sources.debank import HISTORY, TOKENS
from tests.conftest import capture, page


def rows(con, sql):
    result = con.execute(sql)
    names = [d[0] for d in result.description]
    return [dict(zip(names, row)) for row in result.fetchall()]


def test_coinbase_transactions_read_as_ccxt_reads_them(con, lander):
    case, body = capture("coinbase/fetchDepositsWithdrawals-1.json")
    lander(con, "coinbase", "main", [page(TRANSACTIONS, body, account_id="w1")])
    found = {r["entry_id"]: r for r in rows(con, "FROM raw.exchanges_ledger")}
    assert len(found) == len(case["parsedResponse"]) == 2
    for expected in case["parsedResponse"]:
        row = found[expected["id"]]
        assert row["kind"] == expected["type"]
        assert row["ts"].isoformat(timespec="milliseconds") + "Z" == expected["datetime"]
        assert abs(row["amount"]) == Decimal(str(expected["amount"]))
        assert row["asset"] == expected["currency"] and row["tx_hash"] == expected["txid"]
        assert row["is_settled"], "completed, although its network may still be pending"
        fee = expected["fee"]["cost"]
        assert row["fee"] == (None if fee is None else Decimal(str(fee)))
    assert found["e457a27e-8ad0-56ee-90d3-94d9a86fc203"]["amount_text"] == "-2.010000"


def test_coinbase_fills_read_as_ccxt_reads_them(con, lander):
    for name in ("coinbase/fetchMyTrades-1.json", "coinbase/fetchMyTrades-2.json"):
        case, body = capture(name)
        lander(con, "coinbase", "main", [page(FILLS, body)])
        (expected,) = case["parsedResponse"]
        (row,) = rows(con, f"FROM raw.exchanges_trades WHERE trade_id = '{expected['id']}'")
        assert row["symbol"] == expected["symbol"] and row["side"] == expected["side"]
        assert row["order_id"] == expected["order"] and row["liquidity"] == expected["takerOrMaker"]
        assert (
            int(row["ts"].replace(tzinfo=__import__("datetime").timezone.utc).timestamp() * 1000)
            == expected["timestamp"]
        )
        for ours, theirs in (
            ("price", expected["price"]),
            ("amount", expected["amount"]),
            ("fee", expected["fee"]["cost"]),
        ):
            assert row[ours] == Decimal(str(theirs))
        assert row["price"] * row["amount"] == Decimal(str(expected["cost"]))
        assert row["fee_asset"] == expected["fee"]["currency"]


def test_coinbase_wallets_of_one_currency_add_up_to_its_balance(con, lander):
    case, body = capture("coinbase/fetchBalance-1.json")
    at = "2024-05-01T00:00:00Z"
    lander(con, "coinbase", "main", [page(ACCOUNTS, body, at=at, as_of=at)])
    totals = dict(
        con.execute("SELECT token, sum(amount) FROM raw.balances GROUP BY token").fetchall()
    )
    assert totals == {k: Decimal(str(v)) for k, v in case["parsedResponse"]["total"].items()}


def test_debank_documentation_sample_maps_to_transactions_and_legs(con, lander):
    _, body = capture("debank/history_list-1.json")
    wallet = "0x5853ed4f26a3fcea565b3fbc698bb19cdf6deb85"
    lander(con, "debank", wallet, [page(HISTORY, body)])
    send, approve = rows(con, "FROM raw.onchain_transactions ORDER BY ts DESC")
    assert (send["gas_text"], send["pays_gas"], send["status"]) == ("0.002296035", True, 1)
    assert (send["category"], send["method"], send["is_scam"]) == ("send", "transfer", False)
    assert send["ts"].isoformat() == "2022-03-07T06:34:51"
    assert approve["approve_text"] == "1000000000000000"
    (leg,) = rows(con, "FROM raw.onchain_transfers")
    assert (leg["direction"], leg["leg"], leg["amount"]) == ("out", 1, Decimal("0.01"))
    assert leg["token"] == "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48", "not in token_dict"
    assert rows(con, "SELECT chain, token, decimals FROM raw.onchain_tokens") == [
        {"chain": "eth", "token": "eth", "decimals": 18}
    ]


def test_debank_balances_are_the_hex_digits_not_the_rounded_number(con, lander):
    case, body = capture("debank/all_token_list-1.json")
    at = "2024-05-01T00:00:00Z"
    lander(con, "debank", "0xabc", [page(TOKENS, body, at=at, as_of=at)])
    found = {r["token"]: r for r in rows(con, "FROM raw.balances")}
    assert len(found) == len(case["httpResponse"])
    for token in case["httpResponse"]:
        exact = Decimal(int(token["raw_amount_hex_str"], 16)).scaleb(-token["decimals"])
        assert found[f"{token['chain']}:{token['id']}"]["amount"] == exact
    chz = found["eth:0x3506424f91fd33084466f402d5d97f05f8e3b4af"]
    assert Decimal(chz["amount_text"]) == Decimal(0x3901C28642B1895614).scaleb(-18)


def test_debank_tokens_without_hex_keep_the_number_they_have(con, lander):
    _, body = capture("debank/token_list-1.json")
    at = "2024-05-01T00:00:00Z"
    lander(con, "debank", "0xabc", [page(TOKENS, body, at=at, as_of=at)])
    assert dict(
        con.execute("SELECT split_part(token, ':', 2), amount_text FROM raw.balances").fetchall()
    ) == {
        "0x0000000000004946c0e9f43f4dee607b0ef1fa1c": "3",
        "0x0000000000085d4780b73119b644ae5ecd22b376": "21.709487132565773",
    }
