"""Small written worlds, each with one oddity that public reports of people's books tell of."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

WALLET = "0xab00000000000000000000000000000000000001"  # replaced by one of the case's own
STRANGER = "0xcd" * 20
STETH = "0xae7ab96520de3a18e5e111b5eaab095312d7fe84"
NOW = "2026-03-10T12:30:00Z"
BTC = "b0000000-0000-5000-8000-000000000001"


@dataclass(frozen=True)
class Case:
    """What the vendors answer at each moment; `accounts` as listed, None: one for each vendor."""

    worlds: dict[str, dict[str, Any]]
    accounts: tuple[str, ...] | None = None


# DeBank


def row(number: int, at: float, chain: str = "eth", *, ins=(), outs=(), **more) -> dict:
    """A history row: legs are (token, amount); with `outs` it is the wallet's own transaction."""
    own = {"from_addr": WALLET, "to_addr": STRANGER, "name": "", "status": 1, "eth_gas_fee": 0.0}
    return {
        "id": f"0x{number:064x}",
        "chain": chain,
        "time_at": at,
        "cate_id": "send" if outs else "receive",
        "cex_id": None,
        "project_id": None,
        "other_addr": STRANGER,
        "is_scam": False,
        "idx": 0,
        "token_approve": None,
        "tx": own if outs else None,
        "sends": [{"token_id": t, "amount": a, "to_addr": STRANGER} for t, a in outs],
        "receives": [{"token_id": t, "amount": a, "from_addr": STRANGER} for t, a in ins],
    } | more


def token(
    contract: str, units: Any, chain: str = "eth", /, decimals: int | None = 18, **more
) -> dict:
    """A row of the token list; `units` in units of the token, exact."""
    exact = Decimal(str(units)).scaleb(decimals or 0)
    return {
        "id": contract,
        "chain": chain,
        "name": contract[:8].upper(),
        "symbol": contract[:8].upper(),
        "optimized_symbol": None,
        "decimals": decimals,
        "price": 1.0,
        "is_verified": True,
        "is_core": True,
        "is_wallet": True,
        "amount": float(units),
        "raw_amount": int(exact),
        "raw_amount_hex_str": hex(int(exact)),
    } | more


def debank(history: Iterable[dict], tokens: Iterable[dict], **more) -> dict:
    """A world of one wallet; `history` newest first."""
    listed = list(tokens)
    known = {t["id"]: {k: v for k, v in t.items() if "amount" not in k} for t in listed}
    wallet = {"history": list(history), "tokens": listed, "token_dict": known} | more
    return {"debank": {WALLET: wallet}}


# Coinbase


def wallet(name: str, currency: str, balance: str, /, **more) -> dict:
    return {
        "id": name,
        "name": f"{currency} Wallet",
        "type": "wallet",
        "balance": {"amount": balance, "currency": currency},
        "currency": {"code": currency, "exponent": 8, "type": "crypto"},
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-01T00:00:00Z",
    } | more


def entry(number: int, day: str, units: str, currency: str, kind: str = "send", /, **more) -> dict:
    moment = day if "T" in day else f"{day}T10:00:00Z"
    return {
        "id": f"z-{number}",
        "type": kind,
        "status": "completed",
        "amount": {"amount": units, "currency": currency},
        "created_at": moment,
        "updated_at": moment,
        "resource": "transaction",
    } | more


def fill(product: str, /, **more) -> dict:
    return {
        "entry_id": "f-1",
        "trade_id": "t-1",
        "order_id": "o-1",
        "trade_time": "2026-02-02T10:00:00.473787913Z",
        "trade_type": "FILL",
        "price": "37.44",
        "size": "0.0802691053677932",
        "commission": "-0.0004816146322068",
        "product_id": product,
        "sequence_timestamp": "2026-02-02T10:00:00.474588Z",
        "liquidity_indicator": "UNKNOWN_LIQUIDITY_INDICATOR",
        "size_in_quote": True,
        "side": "BUY",
    } | more


def product(name: str, base: str, quote: str, kind: str = "SPOT", /, **more) -> dict:
    return {
        "product_id": name,
        "base_currency_id": base,
        "quote_currency_id": quote,
        "product_type": kind,
        "trading_disabled": False,
    } | more


def coinbase(accounts: list[dict], transactions: dict[str, list], **more) -> dict:
    world = {"accounts": accounts, "transactions": transactions, "fills": []} | more
    return {"coinbase": world}


def one_bitcoin(**more) -> dict:
    """One wallet with one bitcoin, sent to it: what stands beside the oddity."""
    return coinbase([wallet(BTC, "BTC", "1.00000000")],
                    {BTC: [entry(1, "2026-02-01", "1.00000000", "BTC")]}, **more)  # fmt: skip


def dead_wallet(status: int, error: str) -> dict:
    world = one_bitcoin(status={"00": [status, error]})
    world["coinbase"]["accounts"].append(wallet("00", "00", "0.00"))
    return world


FEB = 1769940000.0  # 2026-02-01T10:00:00Z
TOK, SPAM = "0x" + "7a" * 20, "0x" + "5b" * 20


def _growing(days: dict[str, tuple[str, list[dict]]]) -> Case:
    return Case({now: debank(rows, [token(STETH, amount)]) for now, (amount, rows) in days.items()})


def _rewards(*amounts: str, balance: str) -> dict:
    rows = [
        entry(n, f"2026-02-0{n}", a, "NEAR", "staking_reward") for n, a in enumerate(amounts, 1)
    ]
    return coinbase([wallet("NEAR", "NEAR", balance)], {"NEAR": rows[::-1]})


def _eth2() -> dict:
    eth = [("wrap_asset", "-1.00", 9), ("retail_eth2_deprecation", "1.02", 8),
           ("staking_transfer", "-1.00", 3), ("receive", "1.00", 1)]  # fmt: skip
    eth2 = [("retail_eth2_deprecation", "-1.02", 8), ("staking_reward", "0.02", 5),
            ("staking_transfer", "1.00", 3)]  # fmt: skip

    def rows(code, listed, first):
        return [entry(first + day, f"2026-02-0{day}", a, code, kind) for kind, a, day in listed]

    return coinbase(
        [wallet("E", "ETH", "0.02000000"), wallet("ETH2", "ETH2", "0.00"),
         wallet("CBETH", "CBETH", "0.95")],
        {"E": rows("ETH", eth, 10), "ETH2": rows("ETH2", eth2, 30),
         "CBETH": rows("CBETH", [("wrap_asset", "0.95", 9)], 50)},
    )  # fmt: skip


def _both_legs() -> dict:
    trade = {"commission": "6.00", "fill_price": "1000", "order_id": "o-7",
             "product_id": "ETH-USD", "order_side": "buy"}  # fmt: skip
    made = "advanced_trade_fill"
    return coinbase(
        [wallet("E", "ETH", "1.0"), wallet("U", "USD", "994.00")],
        {"E": [entry(2, "2026-02-02", "1.0", "ETH", made, advanced_trade_fill=trade)],
         "U": [entry(3, "2026-02-02", "-1006.00", "USD", made, advanced_trade_fill=trade),
               entry(1, "2026-02-01", "2000.00", "USD", "fiat_deposit")]},
    )  # fmt: skip


def _symbol(text: str) -> dict:
    named = {"name": text, "symbol": text, "optimized_symbol": text}
    return debank([row(1, FEB, ins=[(TOK, 5.0)])], [token(TOK, 5, **named)])


DOCUMENTED = (
    "clawback", "incentives_shared_clawback", "retail_simple_dust", "unsupported_asset_recovery",
    "fcm_futures_usdc_sell", "fcm_futures_usdc_sell_additional_encumberment_rollup",
    "retail_instant_unstaking", "retail_simple_price_improvement", "asset_migration",
)  # fmt: skip


def _documented() -> dict:
    rows = [entry(n, f"2026-02-{20 - n}", "1.000000", "USDC", kind)
            for n, kind in enumerate(DOCUMENTED)]  # fmt: skip
    return coinbase([wallet("USDC", "USDC", "9.000000")], {"USDC": rows})


def _out_of_order() -> dict:
    times = ("2026-02-02T10:00:00Z", "2026-02-02T10:00:01Z", "2026-02-01T10:00:00Z")
    rows = [entry(n, at, "1.00000000", "BTC") for n, at in enumerate(times)]
    return coinbase([wallet(BTC, "BTC", "3.00000000")], {BTC: rows})


def _many_at_once() -> dict:
    rows = [row(200, FEB + 200, "bsc", ins=[("bsc", 2.0)])]
    rows += [row(100 + n, FEB + 100, "bsc", ins=[(TOK, 0.0)]) for n in range(21)]
    rows += [row(1, FEB, "bsc", ins=[("bsc", 1.0)])]
    return debank(rows, [token("bsc", 3, "bsc")])


def _real_person() -> Case:
    worlds = {}
    for now, steth, extra in (
        ("2026-03-09T12:05:00Z", "10", []),
        ("2026-03-09T18:05:00Z", "10.0007", []),
        ("2026-03-10T18:05:00Z", "10.0009", [entry(3, "2026-03-10", "0.25000000", "BTC")]),
    ):
        chain = debank(
            [
                row(5, FEB + 300, ins=[(SPAM, 1000.0)], is_scam=True),
                row(4, FEB + 200, ins=[("8f14e45fceea167a5a36dedd4bea2543", 1.0)]),
                row(3, FEB + 99, ins=[(STETH, 10.0)]),
                row(2, FEB, ins=[("eth", 2.0)]),
                row(1, 1709805600.0, ins=[("eth", 3.0)]),
            ],
            [
                token("eth", 5),
                token(STETH, steth),
                token("0x" + "5a" * 20, 77, is_verified=False),
                token(SPAM, 1000),
            ],
        )
        held = "1.25000000" if extra else "1.00000000"
        old = [entry(2, "2026-02-02", "0.40000000", "BTC"), entry(1, "2021-02-01", "0.60000000", "BTC")]  # fmt: skip
        worlds[now] = chain | coinbase([wallet(BTC, "BTC", held)], {BTC: [*extra, *old]})
    return Case(worlds)


_FIRST_STETH = row(1, FEB, ins=[(STETH, 10.0)])
_SOON = row(2, 1773145500.0, ins=[("eth", 1.0)])

MADE: dict[str, Case | Callable[[], dict]] = {
    "01_rebasing_steth": _growing(
        {
            "2026-03-09T12:30:00Z": ("10", [_FIRST_STETH]),
            "2026-03-10T12:30:00Z": ("10.000780821917807707", [_FIRST_STETH]),
            "2026-03-11T12:30:00Z": (
                "10.501561643835615414",
                [row(2, 1773223200.0, ins=[(STETH, 0.5)]), _FIRST_STETH],
            ),
        }
    ),
    "02_start_ts_after_first_tx": lambda: debank(
        [row(2, FEB, ins=[("eth", 2.0)]), row(1, 1709805600.0, ins=[("eth", 3.0)])],
        [token("eth", 5)],
    ),
    "04_spam_without_history": lambda: debank([], [token("0x" + "5a" * 20, 77, is_verified=False)]),
    "05_infinite_balance": lambda: debank(
        [row(1, FEB, ins=[(SPAM, 1.157920892373162e59)])],
        [
            token(SPAM, 0, is_verified=False, is_infinity=True)
            | {"amount": 1.157920892373162e59, "raw_amount_hex_str": "0x" + "f" * 64}
        ],
    ),
    "07_op_l1_fee": lambda: debank(
        [
            row(2, FEB + 600, "op", outs=[("op", 0.25)]) | {"tx": _own_tx(0.00001)},
            row(1, FEB, "op", ins=[("op", 1.0)]),
        ],
        [token("op", "0.74965", "op")],
    ),
    "08_scam_flag_on_one_of_two": lambda: debank(
        [row(2, FEB + 86400, ins=[(SPAM, 500.0)]), row(1, FEB, ins=[(SPAM, 1000.0)], is_scam=True)],
        [token(SPAM, 1500, is_verified=False)],
    ),
    "09_exponents_and_dust": lambda: debank(
        [
            row(6, FEB + 30, ins=[("0x" + "7c" * 20, 3.0)]),
            row(5, FEB + 20, ins=[("0x" + "7b" * 20, 1.5e22)]),
            row(4, FEB + 12, outs=[(TOK, 0.0)]) | {"tx": None},
            row(3, FEB + 9, ins=[(TOK, 0)]),
            row(2, FEB + 5, ins=[(TOK, 1e-07)]),
            row(1, FEB, ins=[(TOK, 1e-18)]),
        ],
        [
            token(TOK, "0.000000100000000001"),
            token("0x" + "7b" * 20, "15000000000000000000000"),
            token("0x" + "7c" * 20, 3, decimals=None, raw_amount_hex_str=None),
        ],
    ),
    "10a_symbol": lambda: _symbol("Build\0\0"),
    "10b_symbol": lambda: _symbol("\ud83dhalf"),
    "10c_symbol": lambda: _symbol("<img src=x onerror=alert(1)>\u202e\U0001f680"),
    "11_twenty_in_one_second": _many_at_once,
    "14_balance_ahead_of_history": Case(
        {
            NOW: debank([row(1, FEB, ins=[("eth", 2.0)])], [token("eth", 3)]),
            "2026-03-10T18:30:00Z": debank(
                [_SOON, row(1, FEB, ins=[("eth", 2.0)])], [token("eth", 3)]
            ),
        }
    ),
    "15_unlisted_token": lambda: debank([row(1, FEB, ins=[(TOK, 12.5)])], []),
    "16_one_hash_two_rows": lambda: debank(
        [row(1, FEB, ins=[("eth", 2.0)]), row(1, FEB, ins=[(TOK, 7.0)], idx=1)],
        [token("eth", 2), token(TOK, 7)],
    ),
    "17_null_fields": lambda: debank(
        [
            row(2, FEB + 9, "newchain", outs=[("newchain", 0.5)], is_scam=None, idx=None)
            | {"receives": None, "tx": _own_tx(None)},
            row(1, FEB, "newchain", ins=[("newchain", 1.0)], is_scam=None) | {"sends": None},
        ],
        [token("newchain", "0.49999", "newchain")],
    ),
    "21b_time_without_seconds": lambda: coinbase(
        [wallet(BTC, "BTC", "2.00000000")],
        {BTC: [entry(2, "2026-02-02T10:37Z", "1.00000000", "BTC"),
               entry(1, "2026-02-01T10:37:11Z", "1.00000000", "BTC")]},
    ),
    "21c_time_with_offset": lambda: coinbase(
        [wallet(BTC, "BTC", "2.00000000")],
        {BTC: [entry(2, "2026-02-02T00:30:00+02:00", "1.00000000", "BTC"),
               entry(1, "2026-02-01T10:37:11Z", "1.00000000", "BTC")]},
    ),
    "22_pagination_next_uri_only": lambda: one_bitcoin(pagination="uri"),
    "23a_one_wallet_500": lambda: dead_wallet(500, "internal_server_error"),
    "23b_one_wallet_404": lambda: dead_wallet(404, "not_found"),
    "24a_wallet_id_is_code": lambda: coinbase(
        [wallet("EUR", "EUR", "10.00", created_at=None, updated_at=None),
         wallet("XLM", "XLM", "0.0000000", currency=None, created_at=None)],
        {"EUR": [entry(1, "2026-02-01", "10.00", "EUR", "fiat_deposit")]},
    ),
    "24b_wallet_without_balance": lambda: coinbase(
        [wallet("EUR", "EUR", "10.00"), wallet("XLM", "XLM", "0") | {"balance": None}],
        {"EUR": [entry(1, "2026-02-01", "10.00", "EUR", "fiat_deposit")]},
    ),
    "25_half_conversion": lambda: coinbase(
        [wallet("XTZ", "XTZ", "220"), wallet("E", "ETH", "2")],
        {"XTZ": [entry(1, "2026-02-01", "220", "XTZ", "trade", trade={"id": "t-1"})],
         "E": [entry(3, "2026-02-03", "0.5", "ETH", "retail_something_new"),
               entry(2, "2026-02-02", "1.5", "ETH", "advanced_trade_fill",
                     advanced_trade_fill={"commission": "16.8", "product_id": None})]},
    ),
    "26a_quote_sized_fill_with_rebate": lambda: one_bitcoin(
        fills=[fill("SOL-USDC")], products=[product("SOL-USDC", "SOL", "USDC")]
    ),
    "26b_dated_future": lambda: one_bitcoin(
        fills=[fill("BIT-28JUN26-CDE", size="1", price="60000", size_in_quote=False, side="SELL",
                    commission="0.75")],
        products=[product("BIT-28JUN26-CDE", "", "USD", "FUTURE",
                          future_product_details={"contract_root_unit": "BTC"})],
    ),
    "26c_fill_at_price_zero": lambda: one_bitcoin(
        fills=[fill("SOL-USDC", price="0", size_in_quote=False)],
        products=[product("SOL-USDC", "SOL", "USDC")],
    ),
    "26d_unknown_side": lambda: one_bitcoin(
        fills=[fill("SOL-USDC", side="UNKNOWN_ORDER_SIDE")],
        products=[product("SOL-USDC", "SOL", "USDC")],
    ),
    "26e_adjusted_fills": lambda: one_bitcoin(
        fills=[fill("SOL-USDC"), fill("SOL-USDC", entry_id="f-2", trade_type="CORRECTION"),
               fill("SOL-USDC", entry_id="f-3", trade_type="REVERSAL")],
        products=[product("SOL-USDC", "SOL", "USDC")],
    ),
    "27_fee_on_both_legs": _both_legs,
    "28_eth2_and_staking": _eth2,
    "29_not_newest_first": _out_of_order,
    "30_24_digits": lambda: _rewards(
        "1.000000000000000000000001", "0.000000987654321098765432", "0.000000123456789012345678",
        balance="1.000001111111110111111111",
    ),
    "30b_24_digits_rounded_away": lambda: _rewards(
        *["0.000000000000000000400000"] * 3, balance="1.200000E-18"
    ),
    "31_entry_without_amount": lambda: coinbase(
        [wallet(BTC, "BTC", "1.00000000")],
        {BTC: [entry(2, "2026-02-02", "1.00000000", "BTC"),
               entry(1, "2026-02-01", "0", "BTC", "request", amount=None)]},
    ),
    "32_coinbase_start_ts": lambda: coinbase(
        [wallet(BTC, "BTC", "1.00000000")],
        {BTC: [entry(2, "2026-02-02", "0.40000000", "BTC"),
               entry(1, "2021-02-01", "0.60000000", "BTC")]},
    ),
    "33_documented_types": _documented,
    "40_real_person": _real_person(),
}  # fmt: skip


def _own_tx(gas: float | None) -> dict:
    return {"from_addr": WALLET, "to_addr": STRANGER, "name": "", "status": 1, "eth_gas_fee": gas}


def made() -> dict[str, Case]:
    """Our own cases by name."""
    return {
        name: case if isinstance(case, Case) else Case({NOW: case()}) for name, case in MADE.items()
    }


@dataclass
class Healthy:
    """A wallet that receives a little every day and is right at every moment."""

    name: str = "healthy"
    tokens: dict[str, str] = field(default_factory=dict)

    def world(self, now) -> dict:
        days = int((now.timestamp() - FEB) // 86400)
        rows = [row(900 + n, FEB + n * 86400, ins=[("eth", 1.0)]) for n in range(days + 1)]
        self.tokens = {"eth:eth": str(days + 1)}
        return debank(rows[::-1], [token("eth", days + 1)])
