"""Chains and tokens of the on-chain world, with DeBank's ids.

https://docs.cloud.debank.com/en/readme/api-pro-reference/chain
"""

from __future__ import annotations

from dataclasses import dataclass

WALLETS = (
    "0x7a3f0c5b1d9e48f2a6b40c8d3e5f719204ab6cd1",
    "0xb84e2d6170fc39a5c8e1074d9f26ab53e7180c4f",
    "0x2c95e7f1048ad36b5ef2719c60d483ab9e07f5d2",
)

# id: (chain number, name, wrapped native token)
CHAINS = {
    "eth": (1, "Ethereum", "0xc02aaa39b223fe8d0a0e5c4f27ead9083c756cc2"),
    "bsc": (56, "BNB Chain", "0xbb4cdb9cbd36b01bd1cbaebf2de08d9173bc095c"),
    "matic": (137, "Polygon", "0x0d500b1d8e8ef31e21c99d1db9a6444d3adf1270"),
    "arb": (42161, "Arbitrum", "0x82af49447d8a07e3bd95bd0d56f35241523fbab1"),
    "op": (10, "OP", "0x4200000000000000000000000000000000000006"),
    "avax": (43114, "Avalanche", "0xb31f66aa3c1e785363f0875a1b74e27b85fd66c7"),
}


@dataclass(frozen=True, eq=False, slots=True)
class Token:
    """`typical` is a usual transfer in base units; `price` is USD text ("0": none known).

    `is_scam` is what transactions say, `verified` what token lists say (None: the opposite).
    """

    chain: str
    id: str
    symbol: str | None
    name: str | None
    decimals: int
    price: str
    typical: int
    is_scam: bool = False
    verified: bool | None = None
    listed: bool = True  # whether token lists may show it
    nameless: bool = False  # its row has no name, no symbol and no decimals
    is_nft: bool = False

    @property
    def is_verified(self) -> bool:
        return not self.is_scam if self.verified is None else self.verified

    @property
    def key(self) -> str:
        return f"{self.chain}:{self.id}"


def _native(chain: str, symbol: str, price: str, typical: int) -> Token:
    return Token(chain, chain, symbol, symbol, 18, price, typical)


NATIVE = {
    t.chain: t
    for t in (
        _native("eth", "ETH", "2536.07", 10**18),
        _native("bsc", "BNB", "603.5", 3 * 10**18),
        _native("matic", "POL", "0.4127", 2_000 * 10**18),
        _native("arb", "ETH", "2536.07", 10**18),
        _native("op", "ETH", "2536.07", 10**18),
        _native("avax", "AVAX", "27.31", 40 * 10**18),
    )
}

# Not scams, and too large: 1e24 tokens do not fit DECIMAL(38,18); 1e24 base units do not fit
# 64 bits. Their `typical` is what makes them so.
MEME_9 = Token(
    "bsc", "0x9d0e6a1c7b35f24819ad60ce57b1f83426ca9e70", "GIGAPEPE", "Giga Pepe", 9, "0", 10**33
)
MEME_0 = Token(
    "eth", "0x61f0b3c4d7e829a5160bd38ce94f275a0813cd6e", "ZEROINU", "Zero Inu", 0, "0", 10**24
)
MEME_18 = Token(
    "arb", "0xe47a90d15b2c86f3d0a9174e5cb863f21d07ba94", "MILLI", "Milli", 18, "0.00003", 10**24
)

# One address, two chains, two precisions: a dictionary keyed by the address alone mixes them up.
TWIN_ID = "0x5fa8d20c4e7193b6d0825ce1f94a37b86d10e2c3"
TWINS = (
    Token("eth", TWIN_ID, "BRDG", "Bridge Token", 18, "0.81", 250 * 10**18),
    Token("bsc", TWIN_ID, "BRDG", "Bridge Token", 9, "0.81", 250 * 10**9),
)

# Received once and sent on whole: its balance ends at zero, so token lists leave it out.
ONCE = Token(
    "op", "0x0b6e91d2f7a4583c1e60d97f28b35ac4e8071d9f", "ONCE", "Once Only", 18, "1.5", 75 * 10**18
)

USDC = {
    t.chain: t
    for t in (
        Token(
            "eth",
            "0xa0b86991c6218b36c1d19d4a2e9eb0ce3606eb48",
            "USDC",
            "USD Coin",
            6,
            "1",
            1_500 * 10**6,
        ),
        Token(
            "bsc",
            "0x8ac76a51cc950d9822d68b83fe1ad97b32cd580d",
            "USDC",
            "USD Coin",
            18,
            "1",
            1_500 * 10**18,
        ),
        Token(
            "matic",
            "0x3c499c542cef5e3811e1192ce70d8cc03d5c3359",
            "USDC",
            "USD Coin",
            6,
            "1",
            900 * 10**6,
        ),
        Token(
            "arb",
            "0xaf88d065e77c8cc2239327c5edb3a432268e5831",
            "USDC",
            "USD Coin",
            6,
            "1",
            1_200 * 10**6,
        ),
        Token(
            "op",
            "0x0b2c639c533813f4aa9d7837caf62653d097ff85",
            "USDC",
            "USD Coin",
            6,
            "1",
            800 * 10**6,
        ),
        Token(
            "avax",
            "0xb97ef9ef8734c71904d8002f8b6bc66dd9c48a6e",
            "USDC",
            "USD Coin",
            6,
            "1",
            700 * 10**6,
        ),
    )
}

_OTHERS = (
    Token(
        "eth",
        "0xdac17f958d2ee523a2206206994597c13d831ec7",
        "USDT",
        "Tether USD",
        6,
        "0.9998",
        2_000 * 10**6,
    ),
    Token(
        "eth",
        "0x514910771af9ca656af840dff83e8264ecf986ca",
        "LINK",
        "ChainLink Token",
        18,
        "13.42",
        60 * 10**18,
    ),
    Token(
        "eth",
        "0x2260fac5e5542a773aa44fbcfedf7c193bc2c599",
        "WBTC",
        "Wrapped BTC",
        8,
        "67060",
        10**7,
    ),
    Token(
        "bsc",
        "0x55d398326f99059ff775485246999027b3197955",
        "USDT",
        "Tether USD",
        18,
        "0.9998",
        1_000 * 10**18,
    ),
    Token(
        "bsc",
        "0x0e09fabb73bd3ade0a17ecc321fd13a19e81ce82",
        "CAKE",
        "PancakeSwap Token",
        18,
        "2.31",
        200 * 10**18,
    ),
    Token(
        "matic",
        "0xc2132d05d31c914a87c6611c10748aeb04b58e8f",
        "USDT",
        "Tether USD",
        6,
        "0.9998",
        700 * 10**6,
    ),
    Token(
        "arb",
        "0x912ce59144191c1204e64559fe8253a0e49e6548",
        "ARB",
        "Arbitrum",
        18,
        "0.55",
        900 * 10**18,
    ),
    Token(
        "op",
        "0x4200000000000000000000000000000000000042",
        "OP",
        "Optimism",
        18,
        "1.31",
        400 * 10**18,
    ),
    Token(
        "avax",
        "0x9702230a8ea53601f5cd2dc00fdbc13d4df4a8c7",
        "USDT",
        "Tether USD",
        6,
        "0.9998",
        600 * 10**6,
    ),
)

SCAMS = {
    chain: Token(
        chain,
        f"0x5ca3{number:036x}",
        f"Visit claim-{chain}.example",
        f"$ {name} Voucher",
        18 if number % 2 else 0,
        "0",
        10 ** (27 if number % 2 else 9),
        is_scam=True,
    )
    for chain, (number, name, _) in CHAINS.items()
}

# What ordinary receipts and swaps deal in; the specials above come on their own days.
COMMON = {
    chain: [NATIVE[chain], USDC[chain], *(t for t in _OTHERS if t.chain == chain)]
    for chain in CHAINS
}
TOKENS = [
    *NATIVE.values(),
    *USDC.values(),
    *_OTHERS,
    MEME_9,
    MEME_0,
    MEME_18,
    *TWINS,
    ONCE,
    *SCAMS.values(),
]
PROJECTS = {
    chain: [
        f"{'' if chain == 'eth' else chain + '_'}{name}" for name in ("uniswap3", "aave3", "1inch2")
    ]
    for chain in CHAINS
}
CEX = {
    "0x28c6c06298d514db089934071355e5743bf21d60": "binance",
    "0x71660c4005ba85c37ccec55d0c4493e66fe775d3": "coinbase",
}
