"""The exchange's wallets and ledger rows, and the truth about them as plain dicts."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.world.amounts import decimal_text
from sandbox.world.moments import NEVER, iso


@dataclass(frozen=True, slots=True)
class Currency:
    """`usd_micros` is the price of one coin in millionths of a dollar, for native amounts."""

    code: str
    name: str
    exponent: int
    usd_micros: int
    network: str = ""
    network_fee: int = 0  # base units of a withdrawal


CURRENCIES = {
    c.code: c
    for c in (
        Currency("USD", "US Dollar", 2, 1_000_000),
        Currency("USDC", "USDC", 6, 1_000_000, "ethereum", 1_530_199),
        Currency("BTC", "Bitcoin", 8, 67_060_000_000, "bitcoin", 2_815),
        Currency("ETH", "Ethereum", 8, 2_536_070_000, "ethereum", 41_237),
        Currency("SOL", "Solana", 9, 148_250_000, "solana", 91_003),
        Currency("ADA", "Cardano", 6, 392_000, "cardano", 170_525),
        Currency("LINK", "Chainlink", 8, 13_420_000, "ethereum", 3_317_000),
        Currency("DOT", "Polkadot", 10, 6_110_000, "polkadot", 152_000_000),
        Currency("MASK", "Mask Network", 8, 2_950_000, "ethereum", 20_000_000),
    )
}

# name: (currency, v2 type); "Staked ADA" is a second wallet of ADA, MASK never moves.
WALLETS = {
    "Cash (USD)": ("USD", "fiat"),
    "USDC Wallet": ("USDC", "wallet"),
    "BTC Wallet": ("BTC", "wallet"),
    "ETH Wallet": ("ETH", "wallet"),
    "SOL Wallet": ("SOL", "wallet"),
    "ADA Wallet": ("ADA", "wallet"),
    "Staked ADA": ("ADA", "wallet"),
    "LINK Wallet": ("LINK", "wallet"),
    "DOT Wallet": ("DOT", "wallet"),
    "MASK Wallet": ("MASK", "wallet"),
}
WALLET_OF = {code: name for name, (code, _) in WALLETS.items() if name != "Staked ADA"}


@dataclass(frozen=True, slots=True)
class Wallet:
    """A v2 account. `opened` None: the vendor does not know; `answer`: the status that its
    transactions have for good; `units`: what it holds beside its visible rows; without
    `has_balance` the list gives null. `since` is when it changed last, if no row says so."""

    name: str
    id: str
    currency: Currency
    type: str
    asset_id: str
    since: int
    opened: int | None
    primary: bool = True
    answer: int = 200
    units: int = 0
    has_balance: bool = True


@dataclass(slots=True)
class Entry:
    """A v2 transaction: a row of one wallet's ledger. `units` is signed and contains the fee.

    It is pending until `settled_at`, or until `ended_at` when it comes to nothing. From
    `counted_at` (None: `visible_at`) on it is part of its wallet's balance.
    """

    wallet: str
    wallet_id: str
    currency: Currency
    id: str
    type: str
    created: int
    units: int
    visible_at: int = 0
    gone_at: int = NEVER
    settled_at: int | None = None
    ended_at: int | None = None
    end_status: str = ""
    order: dict | None = None  # the advanced_trade_fill object, exactly as in the response
    trade_id: str | None = None
    tx_hash: str | None = None
    fee_units: int | None = None
    confirmed_at: int = 0
    address: str | None = None
    counted_at: int | None = None
    time_form: str = ""  # how its time is written: "", "offset" or "minutes"
    has_amount: bool = True
    json_text: tuple[tuple[str, str], str] | None = None  # cache: (state, text)

    def is_there(self, now: int) -> bool:
        return self.visible_at <= now < self.gone_at

    def is_counted(self, now: int) -> bool:
        """Whether its wallet's balance has it."""
        since = self.visible_at if self.counted_at is None else self.counted_at
        return since <= now < self.gone_at and self.is_settled(now)

    @property
    def may_vanish(self) -> bool:
        """Rows that stand alone and brought nothing: no balance can become negative without one."""
        if not self.has_amount:
            return False
        alone = self.order is None and self.trade_id is None
        alone = alone and self.type not in ("staking_transfer", "wrap_asset")
        return alone and (self.units < 0 or self.settled_at is None)

    def is_settled(self, now: int) -> bool:
        return self.settled_at is not None and self.settled_at <= now

    def status(self, now: int) -> str:
        if self.is_settled(now):
            return "completed"
        return self.end_status if self.ended_at is not None and self.ended_at <= now else "pending"

    def network_status(self, now: int) -> str | None:
        if self.tx_hash is None:
            return None
        return "confirmed" if self.confirmed_at <= now else "pending"

    def updated(self, now: int) -> int:
        marks = (self.created, self.settled_at, self.ended_at, self.confirmed_at)
        return max(mark for mark in marks if mark is not None and mark <= max(now, self.created))

    def truth(self, now: int) -> dict:
        fee = (
            None if self.fee_units is None else decimal_text(self.fee_units, self.currency.exponent)
        )
        order = self.order or {}
        amount = decimal_text(self.units, self.currency.exponent) if self.has_amount else None
        return {
            "vendor": "coinbase",
            "account": "main",
            "wallet": self.wallet_id,
            "wallet_name": self.wallet,
            "entry_id": self.id,
            "time": iso(self.created),
            "type": self.type,
            "status": self.status(now),
            "is_settled": self.is_settled(now),
            "token": self.currency.code,
            "amount": amount,
            "wire_amount": amount,
            "fee": fee,
            "network": self.currency.network if self.tx_hash else None,
            "tx_hash": self.tx_hash,
            "network_status": self.network_status(now),
            "order_id": order.get("order_id"),
            "product_id": order.get("product_id"),
            "trade_id": self.trade_id,
            "visible_at": iso(self.visible_at),
            "updated": iso(self.updated(now)),
        }
