"""What makes the chains of a world messy: on fixed days of a 20-day cycle, from the day's draws.

Kinds are functions like those of chain_kinds. What moves a reported balance without a leg is a
`Drift`; what a transaction hides (its gas, a second row of its hash, nulls) is said in its `Tx`.
"""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.world import chain_kinds as kinds
from sandbox.world.chain_records import Leg, Tx
from sandbox.world.mess_tokens import (
    AIRDROP,
    ALL_NATIVE,
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
from sandbox.world.moments import NEVER
from sandbox.world.tokens import NATIVE, USDC, WALLETS, Token

CYCLE = 20
HOUR = 3600
CROWD = 24  # rows in one second of one chain: more than a page, so no walk can leave them
L1_FEE = 21_300_000_000_000  # wei, taken from the sender of every transaction on OP


@dataclass(frozen=True, slots=True)
class Drift:
    """`units` of `token` that a token list shows from `at` on (before `until`) without a leg."""

    token: Token
    at: int
    units: int
    kind: str
    until: int = NEVER


@dataclass(frozen=True, slots=True)
class Deposit:
    """`units` that lie in a pool of `project` once the wallet's transaction is visible."""

    token: Token
    units: int
    project: str
    pool: str
    tx: Tx


def slots(day: int):
    """(second of the day, kind, wallet, chain, arguments) of the cycle's fixed days."""
    a, b, c = WALLETS
    soon = {"delay": 20}
    if day % 120 == 0:  # all native tokens, as tidy worlds give at the same moment
        yield 10, kinds.receive, b, "celo", {"token": CELO, **soon}
    for at, wallet in enumerate(WALLETS):
        yield 12 * HOUR + at, rebase, wallet, "eth"
    cycle = day % CYCLE
    if cycle == 6:
        yield HOUR, kinds.receive, a, "eth", {"token": STETH, **soon}
        yield HOUR, kinds.receive, c, "eth", {"token": STETH, **soon}
        yield 2 * HOUR, kinds.receive, b, "celo", {"token": CELO, **soon}
        for number, nft in enumerate(NFTS):
            yield 3 * HOUR + number, kinds.receive, a, "eth", {"token": nft, "units": 1, **soon}
        for number, token in enumerate(ODD):
            how = {"token": token, **soon}
            yield 4 * HOUR + number, kinds.receive, WALLETS[number % 3], token.chain, how
        yield 5 * HOUR, flagged, c, "bsc", {"token": UNLISTED_SPAM}
        yield 6 * HOUR, flagged, b, "eth", {"token": SCAM_BUT_VERIFIED}
        yield 7 * HOUR, kinds.receive, c, "arb", {"token": HONEST_BUT_UNVERIFIED, **soon}
        if day == cycle:
            yield 8 * HOUR, drift, a, "eth", {"token": INFINITE, "kind": "infinite"}
            yield 8 * HOUR, drift, b, "matic", {"token": NAMELESS, "kind": "spam"}
        for wallet in WALLETS:
            yield 8 * HOUR, drift, wallet, "bsc", {"token": LISTED_SPAM, "kind": "spam"}
    elif cycle == 7:
        yield HOUR, two_rows, a, "eth", {"own": False}
        yield 2 * HOUR, two_rows, b, "arb", {"own": True}
        yield 3 * HOUR, kinds.send, b, "celo", soon
        yield 4 * HOUR, unknown_gas, c, "avax"
        yield 5 * HOUR, nulls, b, "matic"
        for at, wallet in enumerate(WALLETS):
            yield 6 * HOUR + at, kinds.send, wallet, "op", soon
    elif cycle == 8:
        yield HOUR, deposit, a, "eth"
        yield 2 * HOUR, ahead, c, "arb"
        yield 3 * HOUR, drift, a, "arb", {"token": AIRDROP, "kind": "airdrop"}
        yield 4 * HOUR, drift, c, "eth", {"token": NATIVE["eth"], "kind": "internal"}
    elif cycle == 9:
        for _ in range(CROWD):
            yield 16 * HOUR + 5, poison, b, "bsc"


def drift(h, when, wallet, chain, token: Token, kind: str, until: int = NEVER) -> None:
    """A balance that moves without a leg: an airdrop, an internal call, spam in the list alone."""
    units = token.typical if token is INFINITE else kinds.amount(h, token)
    h.drifts[wallet].append(Drift(token, when, units, kind, until))


def rebase(h, when, wallet, chain) -> None:
    """stETH grows by 0.008 to 0.013 per cent a day of what the wallet holds."""
    units = h.purse.held(wallet, when).get(STETH, 0) * h.rng.randrange(80, 130) // 10**6
    if units:
        h.drifts[wallet].append(Drift(STETH, when, units, "rebase"))
        h.purse.put(wallet, STETH, units, when)


def ahead(h, when, wallet, chain) -> None:
    """The list shows what came in five minutes later, the history hours later."""
    units, delay = kinds.amount(h, USDC[chain]), 6 * HOUR
    kinds.receive(h, when, wallet, chain, USDC[chain], units, False, delay)
    h.drifts[wallet].append(Drift(USDC[chain], when + 300, units, "ahead", when + delay))


def _received(h, when, wallet, chain, token, units, **more) -> Tx:
    other = h.address()
    moved = [kinds.leg(h, "in", token, units, other, False)]
    how = {"from_addr": other, "to_addr": token.id, "other_addr": other, "cate": "receive"}
    return Tx(wallet, chain, more.pop("id", h.hash()), when, "transfer", legs=moved, **how | more)


def flagged(h, when, wallet, chain, token) -> None:
    """A transaction that says scam, of a token the list knows otherwise or not at all."""
    h.add(_received(h, when, wallet, chain, token, kinds.amount(h, token), is_scam=True), 20)


def poison(h, when, wallet, chain) -> None:
    """One of a crowd: nothing of a known token arrives, and nobody calls it scam."""
    h.add(_received(h, when, wallet, chain, USDC[chain], 0), 20)


def nulls(h, when, wallet, chain) -> None:
    """A receipt whose empty fields are null, is_scam and idx too."""
    token = ALL_NATIVE[chain]
    more = {"from_addr": None, "other_addr": None, "nulls": True}
    h.add(_received(h, when, wallet, chain, token, kinds.amount(h, token), **more), 20)


def two_rows(h, when, wallet, chain, own: bool) -> None:
    """One hash in two rows, each with a leg of its own; both tell the gas, which is paid once."""
    gas = kinds.pay_gas(h, when, wallet, chain) if own else 10**15
    if gas is None:
        return
    first = {"gas": gas, "steady": True} | ({"from_addr": wallet} if own else {})
    tx_id = h.hash()
    for number, token in enumerate((NATIVE[chain], USDC[chain])):
        more = first | {"id": tx_id, "idx": number}
        h.add(_received(h, when, wallet, chain, token, kinds.amount(h, token), **more), 20)


def unknown_gas(h, when, wallet, chain) -> None:
    """A call of the wallet's own whose gas the vendor gives as null."""
    gas, other = kinds.pay_gas(h, when, wallet, chain), h.address()
    if gas is not None:
        who = {"from_addr": wallet, "to_addr": other, "other_addr": other}
        fields = {"gas": gas, "gas_is_null": True, "steady": True}
        h.add(Tx(wallet, chain, h.hash(), when, "claim", **who, **fields), 20)


def deposit(h, when, wallet, chain) -> None:
    """A third of the wallet's USDC goes to a pool; no receipt comes, a position does."""
    token, project, pool = USDC[chain], "aave3", h.address()
    units = h.purse.held(wallet, when).get(token, 0) // 3
    gas = kinds.pay_gas(h, when, wallet, chain)
    if gas is None or not units:
        return
    h.purse.take(wallet, token, units, when)
    who = {"from_addr": wallet, "to_addr": pool, "other_addr": pool, "project": project}
    legs: list[Leg] = [kinds.leg(h, "out", token, units, pool, False)]
    tx = Tx(wallet, chain, h.hash(), when, "supply", legs=legs, gas=gas, steady=True, **who)
    h.add(tx, 20)
    h.deposits[wallet].append(Deposit(token, units, project, pool, tx))


def l1_fee(h, tx: Tx) -> None:
    """What the rollup takes for its data beside the gas it tells; nothing from a poor sender."""
    token = NATIVE["op"]
    if tx.chain == "op" and tx.pays_gas and not tx.idx:
        if h.purse.held(tx.wallet, tx.time).get(token, 0) >= L1_FEE:
            h.purse.take(tx.wallet, token, L1_FEE, tx.time)
            h.drifts[tx.wallet].append(Drift(token, tx.visible_at, -L1_FEE, "l1_data_fee"))
            tx.steady = True
