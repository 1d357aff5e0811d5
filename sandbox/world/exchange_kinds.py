"""Kinds of events on the exchange account: each function adds one or more ledger rows.

All take (history, when). What cannot be paid becomes a deposit, so every seed is valid.
"""

from __future__ import annotations

from sandbox.world.amounts import short_text
from sandbox.world.exchange_fills import PRODUCTS, Fill
from sandbox.world.exchange_records import CURRENCIES, WALLET_OF, Currency
from sandbox.world.tokens import WALLETS as OWN_ADDRESSES

HOUR = 3600
COINS = ("USDC", "BTC", "ETH", "SOL", "ADA", "LINK", "DOT")
TAKER, MAKER = 6, 4  # thousandths of the cost


def worth(h, currency: Currency, low: int = 50, high: int = 3000) -> int:
    """Base units worth between `low` and `high` dollars."""
    return (
        h.rng.randrange(low * 100, high * 100)
        * 10 ** (4 + currency.exponent)
        // currency.usd_micros
    )


def deposit(h, when, dollars=None, hours=None, end=None) -> None:
    """Fiat; some take up to three days to complete."""
    rng = h.rng
    units = 100 * dollars if dollars else rng.randrange(150_000, 1_200_000)
    pending = hours if hours is not None else (rng.randrange(2, 72) if rng.random() < 0.4 else 0)
    h.add("Cash (USD)", "fiat_deposit", when, units, pending=pending * HOUR, end=end)


def withdraw(h, when, hours=None, end=None) -> None:
    units = h.part("Cash (USD)", when, 100)
    if hours is None:
        hours = h.rng.randrange(1, 48) if h.rng.random() < 0.5 else 0
    h.add(
        "Cash (USD)",
        "fiat_withdrawal",
        when,
        -max(units, 1000 if end else 0),
        end=end,
        pending=hours * HOUR,
    )


def receive(h, when, code=None, units=None, hours=None) -> None:
    rng, currency = h.rng, CURRENCIES[code or h.rng.choice(COINS)]
    pending = (
        hours * HOUR
        if hours is not None
        else (rng.randrange(600, 6 * HOUR) if rng.random() < 0.3 else 0)
    )
    h.add(
        WALLET_OF[currency.code],
        "send",
        when,
        units or worth(h, currency),
        pending=pending,
        tx_hash=h.hash(currency),
        confirm=pending,
    )


def send(h, when, code=None, pending=None, confirm=None, end=None, delay=None) -> None:
    """Out, the network fee inside the amount; often completed before the network confirms."""
    rng, currency = h.rng, CURRENCIES[code or h.rng.choice(COINS)]
    wallet, fee = WALLET_OF[currency.code], CURRENCIES[code].network_fee if code else 0
    fee = fee or currency.network_fee
    units = h.part(wallet, when, 250)
    if units <= 2 * fee:
        if not end:
            return receive(h, when, currency.code)
        units = 3 * fee  # it comes to nothing, so it need not be affordable
    if pending is None:
        pending = rng.randrange(900, 6 * HOUR) if rng.random() < 0.25 else 0
    if confirm is None:
        confirm = pending + (rng.randrange(300, 5 * HOUR) if rng.random() < 0.4 else 0)
    ours = currency.network == "ethereum" and rng.random() < 0.5
    address = rng.choice(OWN_ADDRESSES) if ours else h.hash(currency)[:42]
    h.add(
        wallet,
        "send",
        when,
        -units,
        pending=pending,
        end=end,
        tx_hash=None if end else h.hash(currency),
        fee=None if end else fee,
        confirm=confirm,
        address=address,
        delay=delay,
    )


def order(h, when, product=None, side=None, fills=None, in_quote=None) -> None:
    """One order, one fill or several, all in one second: a row per fill in each of two wallets."""
    rng = h.rng
    product = product or rng.choice(list(PRODUCTS))
    base_code, quote_code, price_digits, size_digits = PRODUCTS[product]
    base, quote = CURRENCIES[base_code], CURRENCIES[quote_code]
    side = side or rng.choice(("BUY", "BUY", "SELL"))
    count = fills or rng.choice((1, 1, 1, 1, 2, 2, 3, 5))
    in_quote = in_quote if in_quote is not None else (side == "BUY" and rng.random() < 0.3)
    price = base.usd_micros * rng.randrange(8000, 12000) * 10**price_digits // 10**10
    step = 10 ** (base.exponent - size_digits)  # base units of the smallest size
    order_id, micros = h.uuid(), when * 1_000_000 + rng.randrange(400_000)
    for number in range(count):
        if side == "BUY":
            budget = h.part(WALLET_OF[quote_code], when, 200 // count)
            size = budget * 10 ** (base.exponent + price_digits) // (price * 10**quote.exponent)
        else:
            size = h.part(WALLET_OF[base_code], when, 250 // count)
        size = size // step * step
        if size * price < 10 ** (base.exponent + price_digits):  # under one unit of the quote
            return receive(h, when, base_code) if side == "SELL" else deposit(h, when, hours=0)
        digits = base.exponent + price_digits
        cost, fee = size * price, size * price * (TAKER if number % 3 else MAKER)  # fee in 1/1000
        due = cost * 1000 + (fee if side == "BUY" else -fee)
        # The ledger holds the quote's own digits: rounded up when it is paid, down when received.
        due_units = due * 10**quote.exponent // 10 ** (digits + 3)
        if side == "BUY":
            due_units += due * 10**quote.exponent % 10 ** (digits + 3) != 0
        price_text, fee_text = short_text(price, price_digits), short_text(fee, digits + 3)
        note = {
            "fill_price": price_text,
            "product_id": product,
            "order_id": order_id,
            "commission": fee_text,
            "order_side": side.lower(),
        }
        sign, delay = (1 if side == "BUY" else -1), h.delay()
        h.add(
            WALLET_OF[base_code], "advanced_trade_fill", when, sign * size, order=note, delay=delay
        )
        h.add(
            WALLET_OF[quote_code],
            "advanced_trade_fill",
            when,
            -sign * due_units,
            order=note,
            delay=delay,
        )
        micros += rng.randrange(1, 600_000 // count)
        h.fills_today.append(
            Fill(
                f"{rng.getrandbits(256):064x}",
                h.uuid(),
                order_id,
                product,
                side,
                micros,
                micros + rng.randrange(500, 4000),
                price_text,
                short_text(size, base.exponent),
                short_text(cost, digits),
                fee_text,
                in_quote,
                "TAKER" if number % 3 else "MAKER",
                when + delay,
            )
        )


def convert(h, when, source=None, target=None) -> None:
    """Two rows in two wallets; only trade.id says they belong together."""
    source = source or h.rng.choice(COINS)
    target = target or h.rng.choice([c for c in COINS if c != source])
    out, into = CURRENCIES[source], CURRENCIES[target]
    units = h.part(WALLET_OF[source], when, 200)
    got = (
        units
        * out.usd_micros
        * 10**into.exponent
        * 99
        // (into.usd_micros * 10**out.exponent * 100)
    )
    if not units or not got:
        return receive(h, when, source)
    trade_id = h.uuid()
    h.add(WALLET_OF[source], "trade", when, -units, trade_id=trade_id)
    h.add(WALLET_OF[target], "trade", when, got, trade_id=trade_id)


def stake(h, when) -> None:
    units = h.part("ADA Wallet", when, 300)
    if not units:
        return receive(h, when, "ADA")
    delay = h.delay()
    h.add("ADA Wallet", "staking_transfer", when, -units, delay=delay)
    h.add("Staked ADA", "staking_transfer", when, units, delay=delay)


def reward(h, when) -> None:
    wallet = h.rng.choice(("Staked ADA", "SOL Wallet", "ETH Wallet", "DOT Wallet"))
    h.add(wallet, "staking_reward", when, worth(h, h.currency(wallet), 1, 6))


def interest(h, when, delay=None) -> None:
    h.add("USDC Wallet", "interest", when, worth(h, CURRENCIES["USDC"], 1, 20), delay=delay)


def subscription(h, when) -> None:
    units = 2999 if h.purse.held("main", when).get("Cash (USD)", 0) >= 2999 else 0
    h.add("Cash (USD)", "subscription", when, -units) if units else deposit(h, when)


def unknown(h, when) -> None:
    """A type no client has heard of, and it moves the balance."""
    h.add("USDC Wallet", "quantum_rebate", when, worth(h, CURRENCIES["USDC"], 1, 40))
