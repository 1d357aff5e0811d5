"""What makes the exchange of a world messy: wallets that never move, and on fixed days of a 20-day
cycle rows and fills as only life has them.

Kinds are functions like those of exchange_kinds. What a row's time and amount look like, and when
its wallet's balance has it, is said in its `Entry`; what a wallet answers, in its `Wallet`.
"""

from __future__ import annotations

from decimal import Decimal
from random import Random
from uuid import UUID

from sandbox.world import exchange_kinds as kinds
from sandbox.world.exchange_fills import Fill
from sandbox.world.exchange_records import CURRENCIES, WALLET_OF, Currency, Entry, Wallet

CYCLE = 20
HOUR = 3600
LISTED = 50  # wallets beside those that move, unless a world is asked for others
_CODES = (
    "AAVE ALGO APE ATOM AVAX BAT BCH COMP CRV DASH DOGE ENJ EOS ETC FIL FLOW GRT ICP KNC LDO LTC "
    "MANA MKR NEAR OMG OXT QNT REN SAND SHIB SKL SNX STORJ SUSHI TRB UMA UNI XRP XTZ YFI ZEC ZRX"
).split()
FUTURE = "BIT-28JUN26-CDE"
UNKNOWN_PRODUCT = "GOLD:X26.TAS"  # in no list, and of no known shape
# Types of the vendor's present list that ordinary days do not draw, one row each.
DOCUMENTED = (
    "clawback",
    "incentives_shared_clawback",
    "retail_simple_dust",
    "unsupported_asset_recovery",
    "retail_simple_price_improvement",
    "asset_migration",
    "fcm_futures_usdc_sell",
)
WRAPPED = "cbETH Wallet"  # moves only by being wrapped
# name: (currency, what its transactions answer, units, has a balance)
_ODD = {
    "Gone Wallet": ("GONE", 404, 1_250_000_000, True),
    "Sick Wallet": ("SICK", 500, 0, True),
    "Retired Wallet": ("OLD", 200, 0, False),
    WRAPPED: ("CBETH", 200, 0, True),
}
_CODE_IS_ID = (("EUR", 2, "fiat"), ("GBP", 2, "fiat"), ("XLM", 7, "wallet"))


def wallets(seed: int, start: int, count: int, mess: bool) -> dict[str, Wallet]:
    """`count` wallets by name, beside the ten: with `mess` some odd ones, then three whose id is
    their currency; all but one never move, nearly all are empty."""
    rng, found = Random(f"ledgerhouse/{seed}/exchange/wallets"), {}

    def uuid() -> str:
        return str(UUID(int=rng.getrandbits(128), version=5))

    def add(name, wallet_id, currency, kind, opened, **more) -> None:
        found[name] = Wallet(name, wallet_id, currency, kind, uuid(), start, opened, **more)

    if mess:
        for name, (code, answer, units, has) in _ODD.items():
            how = {"answer": answer, "units": units, "has_balance": has}
            add(name, uuid(), Currency(code, code.title(), 8, 1_000_000), "wallet", start, **how)
    for code, exponent, kind in _CODE_IS_ID:
        add(f"{code} Wallet", code, Currency(code, code, exponent, 1_000_000), kind, None)
    for number in range(count):
        again, which = divmod(number, len(_CODES))
        code = f"{_CODES[which]}{again or ''}"
        add(f"{code} Wallet", uuid(), Currency(code, code.title(), 8, 1_000_000), "wallet", start)
    return dict(list(found.items())[:count])


def slots(day: int):
    """(second of the day, kind, arguments) of the cycle's fixed days."""
    cycle = day % CYCLE
    if cycle == 6:
        yield 9 * HOUR, adjusted
        yield 10 * HOUR, fill, {"product": FUTURE, "size": "2", "price": "67065"}
        yield 11 * HOUR, fill, {"product": UNKNOWN_PRODUCT, "size": "1.5", "price": "2011.25"}
        yield 12 * HOUR, fill, {"side": "UNKNOWN_ORDER_SIDE", "trade_type": "SYNTHETIC"}
        yield 13 * HOUR, fill, {"price": "0", "trade_type": "CORRECTION"}
    elif cycle == 7:
        yield 10 * HOUR + 37 * 60, kinds.receive, {"code": "ETH", "hours": 0}
        yield 11 * HOUR, request
        yield 12 * HOUR, half_conversion
        yield 13 * HOUR, wrap
        for number, kind in enumerate(DOCUMENTED):
            yield 14 * HOUR + 41 * number, documented, {"kind": kind}
    elif cycle == 8:
        yield 2 * HOUR, ahead, {"code": "BTC"}
        yield 3 * HOUR, ahead, {"code": "DOT"}


def time_form(row: Entry) -> str:
    """How its time is written: some with an offset, some whole minutes without seconds."""
    if row.created % 60 == 0 and int(row.id[0], 16) < 12:
        return "minutes"
    return "offset" if int(row.id[1], 16) < 3 else ""


def ahead(h, when, code) -> None:
    """The balance has what came in five minutes later, the list of rows six hours later."""
    units = kinds.worth(h, CURRENCIES[code])
    how = {"counted_at": when + 300, "delay": 6 * HOUR, "tx_hash": h.hash(CURRENCIES[code])}
    h.add(WALLET_OF[code], "send", when, units, **how)


def request(h, when) -> None:
    """An entry that asks for money: its amount is null, it counts nothing."""
    h.add("USDC Wallet", "request", when, 0, has_amount=False)


def half_conversion(h, when) -> None:
    """A conversion whose other half is in no wallet."""
    h.add("USDC Wallet", "trade", when, kinds.worth(h, CURRENCIES["USDC"]), trade_id=h.uuid())


def wrap(h, when) -> None:
    """Two rows in two wallets, which nothing links but their second."""
    units = h.part("ETH Wallet", when, 100)
    if units and WRAPPED in h.wallets:
        delay = h.delay()
        h.add("ETH Wallet", "wrap_asset", when, -units, delay=delay)
        h.add(WRAPPED, "wrap_asset", when, units * 95 // 100, delay=delay)


def documented(h, when, kind) -> None:
    h.add("USDC Wallet", kind, when, kinds.worth(h, CURRENCIES["USDC"], 1, 40))


def fill(h, when, **how) -> None:
    """A fill alone, without a row of the ledger: fills move no balance."""
    h.fills_today.append(_fill(h, when, **how))


def adjusted(h, when) -> None:
    """A fill, later taken back and given again at another price, all under one id."""
    first = _fill(h, when, price="67010.55")
    h.fills_today.append(first)
    for step, (kind, side, price) in enumerate(
        (("REVERSAL", "SELL", "67010.55"), ("CORRECTION", "BUY", "67001.1")), 1
    ):
        again = {"trade_id": first.trade_id, "order_id": first.order_id}
        how = again | {"trade_type": kind, "side": side, "price": price}
        h.fills_today.append(_fill(h, when + step * 90, **how))


def _fill(h, when, **how) -> Fill:
    micros = when * 1_000_000 + h.rng.randrange(400_000)
    facts = {"product": "BTC-USD", "side": "BUY", "price": "67060.12", "size": "0.0125"} | how
    return Fill(
        f"{h.rng.getrandbits(256):064x}",
        facts.get("trade_id") or h.uuid(),
        facts.get("order_id") or h.uuid(),
        facts["product"],
        facts["side"],
        micros,
        micros + h.rng.randrange(500, 4000),
        facts["price"],
        facts["size"],
        f"{Decimal(facts['price']) * Decimal(facts['size']):f}",
        "0.75",
        False,
        "UNKNOWN_LIQUIDITY_INDICATOR",
        when + h.delay(),
        facts.get("trade_type", "FILL"),
    )
