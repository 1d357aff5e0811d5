"""One on-chain transaction as one wallet sees it, and the truth about it as plain dicts."""

from __future__ import annotations

from dataclasses import dataclass, field

from sandbox.world.amounts import decimal_text, told_units
from sandbox.world.mess_tokens import ALL_NATIVE
from sandbox.world.moments import NEVER, iso
from sandbox.world.tokens import Token


@dataclass(slots=True)
class Leg:
    """`units` moved "in" or "out"; `api_text` is the number as DeBank writes it."""

    direction: str
    token: Token
    units: int
    counterparty: str
    api_text: str
    visible_at: int = 0

    @property
    def signed(self) -> int:
        return self.units if self.direction == "in" else -self.units

    @property
    def stated(self) -> int:
        """What `api_text` says, in signed base units: a double drops the digits beyond its 15 to 17."""
        units = told_units(self.api_text, self.token.decimals)
        return units if self.direction == "in" else -units


@dataclass(slots=True)
class Tx:
    """Before `changes_at` the vendor shows `early_cate` and only the legs visible by then."""

    wallet: str
    chain: str
    id: str
    time: int
    name: str = ""
    status: int = 1
    from_addr: str | None = None  # None: the vendor has no `tx` object for it
    to_addr: str | None = None
    other_addr: str | None = None
    cate: str | None = None
    legs: list[Leg] = field(default_factory=list)
    gas: int = 0
    is_scam: bool = False
    project: str | None = None
    cex: str | None = None
    approve: tuple[Token, str, str] | None = None  # token, spender, value as in the response
    time_wire: str = ""
    visible_at: int = 0
    changes_at: int = 0
    gone_at: int = NEVER
    early_cate: str | None = None
    idx: int | None = None  # of the rows of one hash; None: it has one, and any number
    gas_is_null: bool = False  # the wallet pays, and the vendor does not say how much
    nulls: bool = False  # null wherever the vendor may leave a field empty
    steady: bool = False  # other records lean on it
    json_text: tuple[str, str] | None = (
        None  # cache of debank.responses: before and after the change
    )

    @property
    def pays_gas(self) -> bool:
        return self.from_addr == self.wallet

    @property
    def is_settled(self) -> bool:
        return self.status == 1

    @property
    def marks(self) -> int:
        """A repeatable number per transaction: optional fields are left out by it now and then."""
        return int(self.id[-4:], 16)

    @property
    def shows_gas(self) -> bool:
        """Somebody else's gas may be missing from the answer; the wallet's own never is."""
        return (
            self.from_addr is not None
            and not self.gas_is_null
            and (self.pays_gas or self.marks % 5 != 0)
        )

    def is_there(self, now: int) -> bool:
        return self.visible_at <= now < self.gone_at

    @property
    def may_vanish(self) -> bool:
        """Whether no balance can become negative without it: nothing that came in with it is spent."""
        return not self.steady and (
            self.is_scam or not self.is_settled or all(leg.direction == "out" for leg in self.legs)
        )

    def cate_at(self, now: int) -> str | None:
        return self.cate if now >= self.changes_at else self.early_cate

    def legs_at(self, now: int) -> list[Leg]:
        return [leg for leg in self.legs if leg.visible_at <= now]

    def changes(self, now: int) -> list[tuple[Token, int]]:
        """What this transaction did to the wallet's balances, of what is visible at `now`.

        Gas that the vendor does not state is in it: `stated` leaves it out.
        """
        moved = []
        if self.is_settled:
            moved = [(leg.token, leg.signed) for leg in self.legs_at(now)]
        if self.pays_gas and not self.idx:  # each row of a hash tells the gas, paid once
            moved.append((ALL_NATIVE[self.chain], -self.gas))
        return moved

    def stated(self, now: int) -> list[tuple[Token, int]]:
        """The same of what the response tells: without gas that is null."""
        moved = self.changes(now)
        return moved[:-1] if self.gas_is_null else moved

    def truth(self, now: int) -> dict:
        return {
            "vendor": "debank",
            "account": self.wallet,
            "wallet": self.wallet,
            "chain": self.chain,
            "tx_id": self.id,
            "time": iso(self.time),
            "category": self.cate_at(now),
            "method": self.name or None,
            "status": None if self.from_addr is None else self.status,
            "from_addr": self.from_addr,
            "to_addr": self.to_addr,
            "other_addr": self.other_addr,
            "is_scam": self.is_scam,
            "is_settled": self.is_settled,
            "pays_gas": self.pays_gas,
            "gas": None if self.from_addr is None else decimal_text(self.gas, 18),
            "shows_gas": self.shows_gas,
            "gas_token": ALL_NATIVE[self.chain].key,
            "project": self.project,
            "cex": self.cex,
            "legs": len(self.legs_at(now)),
            "visible_at": iso(self.visible_at),
            "changes_at": iso(self.changes_at) if self.changes_at > self.visible_at else None,
        }

    def truth_transfers(self, now: int) -> list[dict]:
        return [
            {
                "vendor": "debank",
                "account": self.wallet,
                "wallet": self.wallet,
                "chain": self.chain,
                "tx_id": self.id,
                "time": iso(self.time),
                "direction": leg.direction,
                "token": leg.token.id,
                "token_key": leg.token.key,
                "decimals": leg.token.decimals,
                "counterparty": leg.counterparty,
                "wire_amount": leg.api_text,
                "amount": decimal_text(leg.units, leg.token.decimals),
                "is_scam": self.is_scam,
                "is_nft": leg.token.is_nft,
                "is_settled": self.is_settled,
                "visible_at": iso(leg.visible_at),
            }
            for leg in self.legs_at(now)
        ]
