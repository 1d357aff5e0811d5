"""Kinds of events on chain: each function makes one transaction, or two views of one.

All take (history, when, wallet, chain). A wallet that cannot pay receives instead, so every
seed gives a valid history.
"""

from __future__ import annotations

from sandbox.world.amounts import float_text, keep_digits, noisy_text
from sandbox.world.chain_records import Leg, Tx
from sandbox.world.mess_tokens import ALL_NATIVE
from sandbox.world.tokens import CEX, COMMON, ONCE, PROJECTS, SCAMS, USDC, WALLETS, Token

# Digits of an amount. 15 survive a double; fewer leave room to split and still be exact.
DIGITS = 10
ALL_DIGITS = 80


def leg(h, direction: str, token: Token, units: int, other: str, noise: bool | None = None) -> Leg:
    if noise is None:  # only where the error is far below half of the last digit (1e8 * 2**-52)
        noise = token.decimals == 6 and 10**6 <= units < 10**14 and h.rng.random() < 0.25
    text = (noisy_text if noise else float_text)(units, token.decimals)
    return Leg(direction, token, units, other, text)


def _digits(h, token: Token) -> int:
    """How many digits an amount keeps: in a messy world sometimes more than a double can hold."""
    full = h.mess and token is not ONCE and h.rng.random() < 0.3
    return ALL_DIGITS if full else DIGITS


def amount(h, token: Token) -> int:
    units = max(1, token.typical * h.rng.randrange(10**7, 4 * 10**9) // 10**9)
    if (digits := _digits(h, token)) > DIGITS and token.decimals == 18:
        units += h.rng.randrange(10**6)  # `typical` ends in zeros
    return keep_digits(units, digits)


def _spend(h, when: int, wallet: str, chain: str, count: int) -> list[tuple[Token, int]]:
    """Up to `count` different tokens of the wallet on the chain, taken out of its purse."""
    held = [
        t for t, u in h.purse.held(wallet, when).items() if u and t.chain == chain and t is not ONCE
    ]
    spent = []
    for token in h.rng.sample(held, min(count, len(held))):
        have = h.purse.held(wallet, when)[token]
        units = keep_digits(have * h.rng.randrange(5, 400) // 1000, _digits(h, token))
        if units:
            h.purse.take(wallet, token, units, when)
            spent.append((token, units))
    return spent


def pay_gas(h, when: int, wallet: str, chain: str) -> int | None:
    """Pays for a transaction of the wallet's own; None after asking for money when it cannot."""
    gas = h.rng.randrange(2 * 10**7, 3 * 10**9) * 10**6
    if h.purse.held(wallet, when).get(ALL_NATIVE[chain], 0) < gas:
        receive(h, when, wallet, chain, ALL_NATIVE[chain])
        return None
    h.purse.take(wallet, ALL_NATIVE[chain], gas, when)
    return gas


def receive(
    h, when, wallet, chain, token=None, units=None, noise=None, delay=None, change=None
) -> None:
    rng = h.rng
    token = token or rng.choice(COMMON[chain])
    units = units or amount(h, token)
    cex = rng.choice(list(CEX)) if rng.random() < 0.15 else None
    other = cex or h.address()
    # Money that a contract pays out has no transaction of the wallet's interest: `tx` is null.
    sender = None if rng.random() < 0.05 else other
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            "" if token is ALL_NATIVE[chain] else "transfer",
            from_addr=sender,
            to_addr=wallet if token is ALL_NATIVE[chain] else token.id,
            other_addr=other,
            cate="receive",
            legs=[leg(h, "in", token, units, other, noise)],
            gas=h.rng.randrange(2 * 10**7, 10**9) * 10**6,
            cex=cex,
        ),
        delay,
        change,
    )


def send(h, when, wallet, chain, delay=None) -> None:
    gas = pay_gas(h, when, wallet, chain)
    if gas is None:
        return
    cex = h.rng.choice(list(CEX)) if h.rng.random() < 0.2 else None
    other = cex or h.address()
    legs = [leg(h, "out", t, u, other) for t, u in _spend(h, when, wallet, chain, 1)]
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            "transfer",
            from_addr=wallet,
            to_addr=other,
            other_addr=other,
            cate="send" if legs else None,
            legs=legs,
            gas=gas,
            cex=cex,
        ),
        delay,
    )


def send_all(h, when, wallet, chain, token=ONCE) -> None:
    """The whole of a token goes, where one double can say how much it is."""
    units = h.purse.held(wallet, when).get(token, 0)
    gas = pay_gas(h, when, wallet, chain)
    if gas is None or not units or keep_digits(units, 15) != units:
        return
    h.purse.take(wallet, token, units, when)
    other = h.address()
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            "transfer",
            from_addr=wallet,
            to_addr=token.id,
            other_addr=other,
            cate="send",
            legs=[leg(h, "out", token, units, other)],
            gas=gas,
        )
    )


def swap(h, when, wallet, chain, twins: bool | None = None, change=None) -> None:
    """1-3 tokens out, 1-3 in, sometimes twice the very same leg; the vendor gives no category."""
    rng, gas = h.rng, pay_gas(h, when, wallet, chain)
    if gas is None:
        return
    pool = h.address()
    legs = [
        leg(h, "out", t, u, pool)
        for t, u in _spend(h, when, wallet, chain, rng.choice((1, 1, 1, 2, 3)))
    ]
    for token in rng.sample(COMMON[chain], min(len(COMMON[chain]), rng.choice((1, 1, 1, 2, 3)))):
        legs.append(leg(h, "in", token, amount(h, token), pool))
    if twins or (twins is None and rng.random() < 0.04):
        last = legs[-1]
        legs.append(Leg(last.direction, last.token, last.units, last.counterparty, last.api_text))
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            rng.choice(("multicall", "swapExactTokensForTokens", "execute")),
            from_addr=wallet,
            to_addr=pool,
            other_addr=pool,
            legs=legs,
            gas=gas,
            project=rng.choice(PROJECTS[chain]),
        ),
        change=change,
    )


def approve(h, when, wallet, chain) -> None:
    gas = pay_gas(h, when, wallet, chain)
    if gas is None:
        return
    token, spender = h.rng.choice(COMMON[chain][1:]), h.address()
    value = h.rng.choice(("1.157920892373162e+59", "1000000000000000", "0"))
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            "approve",
            from_addr=wallet,
            to_addr=token.id,
            other_addr=spender,
            cate="approve",
            gas=gas,
            approve=(token, spender, value),
            project=h.rng.choice(PROJECTS[chain]),
        )
    )


def call(h, when, wallet, chain) -> None:
    gas = pay_gas(h, when, wallet, chain)
    if gas is None:
        return
    other = h.address()
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            h.rng.choice(("claim", "vote", "deposit", "stake", "0x1fad948c")),
            from_addr=wallet,
            to_addr=other,
            other_addr=other,
            gas=gas,
            project=h.rng.choice(PROJECTS[chain]),
        )
    )


def fail(h, when, wallet, chain, shows_leg: bool | None = None) -> None:
    """Reverted: it costs gas; where the vendor shows a leg, that leg never moved."""
    gas = pay_gas(h, when, wallet, chain)
    if gas is None:
        return
    other, legs = h.address(), []
    if shows_leg or (shows_leg is None and h.rng.random() < 0.4):
        token = h.rng.choice(COMMON[chain])
        legs = [leg(h, "out", token, amount(h, token), other)]
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            "swapExactTokensForTokens",
            status=0,
            from_addr=wallet,
            to_addr=other,
            other_addr=other,
            legs=legs,
            gas=gas,
        )
    )


def scam(h, when, wallet, chain, poison: bool | None = None) -> None:
    """An airdrop of a worthless token, or a zero transfer that fakes the wallet's own hand."""
    rng, other = h.rng, h.address()
    sender = None if poison is False or (poison is None and rng.random() < 0.6) else other
    if poison is None:
        poison = rng.random() < 0.15
    token = USDC[chain] if poison else SCAMS[chain]
    moved = [
        leg(h, "out", token, 0, other) if poison else leg(h, "in", token, amount(h, token), other)
    ]
    h.add(
        Tx(
            wallet,
            chain,
            h.hash(),
            when,
            "airdrop",
            from_addr=sender,
            to_addr=token.id,
            other_addr=other,
            cate="send" if poison else "receive",
            legs=moved,
            gas=rng.randrange(2 * 10**7, 10**9) * 10**6,
            is_scam=True,
        )
    )


def own(h, when, wallet, chain) -> None:
    """Between two wallets of ours: one hash, seen once from each side, gas paid by the sender."""
    gas = pay_gas(h, when, wallet, chain)
    if gas is None:
        return
    to = h.rng.choice([w for w in WALLETS if w != wallet])
    tx_id, spent = h.hash(), _spend(h, when, wallet, chain, 1)
    for mine, other, direction, cate in (
        (wallet, to, "out", "send"),
        (to, wallet, "in", "receive"),
    ):
        if mine is to and not spent:
            break
        h.add(
            Tx(
                mine,
                chain,
                tx_id,
                when,
                "transfer",
                from_addr=wallet,
                to_addr=to,
                other_addr=other,
                cate=cate if spent else None,
                legs=[leg(h, direction, t, u, other) for t, u in spent],
                gas=gas,
            )
        )
