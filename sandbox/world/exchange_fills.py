"""What is traded on the exchange, and its fills, with the truth about them as plain dicts."""

from __future__ import annotations

from dataclasses import dataclass

from sandbox.world.moments import iso, iso_micros

# product: (base, quote, digits of the price, digits of the size)
PRODUCTS = {
    "BTC-USD": ("BTC", "USD", 2, 8),
    "ETH-USD": ("ETH", "USD", 2, 8),
    "SOL-USD": ("SOL", "USD", 2, 8),
    "ADA-USD": ("ADA", "USD", 4, 6),
    "LINK-USD": ("LINK", "USD", 3, 2),
    "BTC-USDC": ("BTC", "USDC", 2, 8),
    "ETH-USDC": ("ETH", "USDC", 2, 8),
    "SOL-USDC": ("SOL", "USDC", 2, 3),
    "DOT-USDC": ("DOT", "USDC", 3, 4),
}

# What the vendor lists of dated futures; base and quote as its list has them (no base).
FUTURES = {"BIT-28JUN26-CDE": ("BTC", "USD", "0.01", "2026-06-26T15:00:00Z")}


def traded(product: str) -> tuple[str, str, str | None]:
    """(symbol, base, quote) of a product. A contract of 0.01 BTC is no BTC: it is its own base."""
    if product in PRODUCTS:
        base, quote = PRODUCTS[product][:2]
        return f"{base}/{quote}", base, quote
    return product, product, FUTURES[product][1] if product in FUTURES else None


@dataclass(slots=True)
class Fill:
    """A v3 fill; `sequence` in microseconds. `size` is the response's text, `base` in coins."""

    entry_id: str
    trade_id: str
    order_id: str
    product: str
    side: str
    traded: int
    sequence: int
    price: str
    base: str
    cost: str
    commission: str
    size_in_quote: bool
    liquidity: str
    visible_at: int
    trade_type: str = "FILL"
    json_text: str | None = None

    @property
    def size(self) -> str:
        return self.cost if self.size_in_quote else self.base

    def truth(self) -> dict:
        symbol, base, quote = traded(self.product)
        # Adjusted fills share the id of the trade that they adjust.
        adjusts = "" if self.trade_type == "FILL" else f":{self.entry_id}"
        return {
            "vendor": "coinbase",
            "account": "main",
            "trade_id": self.trade_id + adjusts,
            "order_id": self.order_id,
            "entry_id": self.entry_id,
            "time": iso_micros(self.traded),
            "sequence_time": iso_micros(self.sequence),
            "product_id": self.product,
            "symbol": symbol,
            "base": base,
            "quote": quote,
            "side": None if self.side == "UNKNOWN_ORDER_SIDE" else self.side.lower(),
            "price": self.price,
            "amount": self.base,
            "cost": self.cost,
            "fee": self.commission,
            "fee_token": quote,
            "size_in_quote": self.size_in_quote,
            "wire_amount": self.size,
            "visible_at": iso(self.visible_at),
        }
