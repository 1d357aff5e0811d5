"""Why a token list and the history differ: each difference by kind, as the world itself knows it.

A test compares a product's verdict with it. Nothing here knows the product, nor sums what the
product sums: every event of the world says what it did to the list and what the history tells
of it; the difference is that event's, and so is its kind.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from sandbox.world.amounts import decimal_text
from sandbox.world.chain_history import ChainHistory
from sandbox.world.chain_records import Tx
from sandbox.world.difference import Difference
from sandbox.world.mess_tokens import ALL_NATIVE, ALL_TOKENS
from sandbox.world.moments import iso
from sandbox.world.tokens import Token

# The worst of a token's kinds is its status. What is not among them is off.
STATUSES = {
    "late": "settling",
    "ahead": "settling",
    "infinite": "not_reconcilable",
    "spam": "explained",
    "nft": "explained",
    "opening": "explained",
    "rebase": "explained",
    "float": "within_tolerance",
}
_ORDER = ("off", "not_reconcilable", "settling", "explained", "within_tolerance", "exact")
# Of these the moment does not matter: they are what the token is.
_FOR_GOOD = ("spam", "nft", "infinite")
CROWD = 20  # rows in one second of one chain that no page of the vendor can leave


def reported_units(history: ChainHistory, wallet: str, txs: list[Tx], now: int) -> dict[Token, int]:
    """What the token lists show at `now`, in the tokens' fixed order; `txs` are visible then."""
    sums: dict[Token, int] = defaultdict(int)
    for tx in txs:
        for token, units in tx.changes(now):
            if token.listed and not token.is_nft:
                sums[token] += units
    for drift in history.drifts.get(wallet, []):
        if drift.at <= now < drift.until:
            sums[drift.token] += drift.units
    order = {token: number for number, token in enumerate(ALL_TOKENS)}
    return dict(sorted(sums.items(), key=lambda item: order[item[0]]))


def _moves(tx: Tx, at: int, now: int) -> Iterator[tuple[Token, int, int, int, str]]:
    """(token, units shown at `at`, exact and stated units at `now`, kind of a gap) of what moved."""
    if tx.is_settled:
        for leg in tx.legs:
            shown = leg.visible_at <= at and tx.is_there(at)
            there = leg.visible_at <= now and tx.is_there(now)
            yield leg.token, leg.signed * shown, leg.signed * there, leg.stated * there, "float"
    if tx.pays_gas and not tx.idx:
        shown, there, stated = tx.is_there(at), tx.is_there(now), not tx.gas_is_null
        native = ALL_NATIVE[tx.chain]
        yield native, -tx.gas * shown, -tx.gas * there, -tx.gas * (there and stated), "gas_unknown"


def _accounts(
    history: ChainHistory, wallet: str, at: int, now: int, since: int
) -> dict[Token, Difference]:
    accounts: dict[Token, Difference] = defaultdict(Difference)
    for tx in history.wallets[wallet]:
        if tx.time >= at or not (tx.is_there(at) or tx.is_there(now)):
            continue
        for token, shown, there, stated, gap in _moves(tx, at, now):
            account = accounts[token]
            shown *= token.listed and not token.is_nft
            account.reported += shown
            honest = not tx.is_scam and not token.is_scam
            if honest and tx.time >= since:
                account.stated += stated
                account.turnover += abs(stated)
            if not honest:
                account.differs("spam", tx.visible_at, shown)
            elif token.is_nft:
                account.differs("nft", tx.visible_at, -stated * (tx.time >= since))
            elif tx.time < since:
                account.differs("opening", tx.visible_at, shown)
            else:
                account.differs("late", tx.visible_at, shown - there)
                account.differs(gap, tx.visible_at, there - stated)
    for drift in history.drifts[wallet]:
        if drift.at <= at < drift.until:
            account = accounts[drift.token]
            account.reported += drift.units
            early = drift.at < since and drift.kind not in _FOR_GOOD
            account.differs("opening" if early else drift.kind, drift.at, drift.units)
    return accounts


def residuals(history: ChainHistory, wallet: str, at: int, now: int, since: int) -> list[dict]:
    """One dict per token of `wallet`, as World.residuals documents them."""
    accounts = _accounts(history, wallet, at, now, since)
    order = {token: number for number, token in enumerate(ALL_TOKENS)}
    return [
        _row(wallet, token, accounts[token]) for token in sorted(accounts, key=order.__getitem__)
    ]


def _row(wallet: str, token: Token, account: Difference) -> dict:
    parts = {kind: units for kind, units in account.parts.items() if units}
    if parts.get("late", 0) + parts.get("ahead", 0) == 0:  # the history has caught up
        parts = {k: u for k, u in parts.items() if k not in ("late", "ahead")}
    named = sorted(k for k in parts if k != "float" or len(parts) == 1)
    residual = account.reported - account.stated
    if not residual and not {"spam", "nft"} & set(named):
        named = []
    # 3e-16 of the turnover, in whole units: what a double may lose.
    noise = abs(residual) * 10**16 <= 3 * account.turnover
    statuses = [STATUSES.get(k, "off") if k != "float" or noise else "off" for k in named]

    def text(units: int) -> str:
        return decimal_text(units, token.decimals)

    return {
        "vendor": "debank",
        "account": wallet,
        "chain": token.chain,
        "token_id": token.id,
        "token": token.key,
        "listed": bool(account.reported),
        "is_verified": token.is_verified,
        "reported": text(account.reported),
        "sum": text(account.stated),
        "residual": text(residual),
        "turnover": text(account.turnover),
        "kind": "+".join(named),
        "status": min([*statuses, "exact"], key=_ORDER.index),
        "parts": {kind: text(units) for kind, units in parts.items()},
        "steps": [
            [iso(when), text(units), kind]
            for when, kind, units in sorted(account.steps)
            if kind in parts and kind not in ("opening", "float")
        ],
    }


def unread(wallet: str, txs: list[Tx]) -> list[dict]:
    """Seconds of one chain with as many visible rows as a page holds: no walk can leave them."""
    rows: dict[tuple[str, int], int] = defaultdict(int)
    for tx in txs:
        rows[tx.chain, tx.time] += 1
    return [
        {"account": wallet, "chain": chain, "time": iso(second), "rows": count}
        for (chain, second), count in sorted(rows.items())
        if count >= CROWD
    ]
