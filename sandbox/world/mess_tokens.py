"""Tokens and the chain that only a messy world has; `ALL_…` join them to the tidy ones.

They stand apart so that a tidy world keeps its numbers, its draws and its bytes.
"""

from __future__ import annotations

from sandbox.world.tokens import CHAINS, NATIVE, TOKENS, Token

MESS_CHAINS = {"celo": (42220, "Celo", "0x471ece3750da237f93b8e339c536989b8978a438")}
# The native token of this chain has an address where the others have the chain's id.
CELO = Token(
    "celo",
    "0x471ece3750da237f93b8e339c536989b8978a438",
    "CELO",
    "Celo native asset",
    18,
    "0.31",
    120 * 10**18,
)
# Its balance grows by itself: no transaction and no leg tells of it.
STETH = Token(
    "eth",
    "0xae7ab96520de3a18e5e111b5eaab095312d7fe84",
    "stETH",
    "Staked Ether",
    18,
    "2533.4",
    4 * 10**18,
)
AIRDROP = Token(
    "arb",
    "0x3a0b5d8c91e24f67d5182c7be093af461d8e2057",
    "GIFT",
    "Gift Governance",
    18,
    "0.12",
    300 * 10**18,
    verified=True,
)
# Listed, and never in a history.
LISTED_SPAM = Token(
    "bsc",
    "0xd15c0fa4be7326098d41e5b72c9a60f83e7b1d46",
    "FREE",
    "Free Money",
    18,
    "0",
    5_000 * 10**18,
    is_scam=True,
)
NAMELESS = Token(
    "matic",
    "0x6e09f7c3b21d5a840e97cb36fa5d128e40b3c97f",
    None,
    None,
    18,
    "0",
    7 * 10**18,
    is_scam=True,
    nameless=True,
)
INFINITE = Token(
    "eth",
    "0x1f4b8a06d3e957c2ba70e61d94f8c3520b7e6ad8",
    "MAX",
    "Unlimited",
    18,
    "0",
    2**256 - 1,
    verified=False,
)
# In a history, and never listed: the reverse.
UNLISTED_SPAM = Token(
    "bsc",
    "0x84c2e50b9fd7136a2e4081bd57c9f36e0a1d8b72",
    "GONE",
    "Gone Again",
    18,
    "0",
    900 * 10**18,
    is_scam=True,
    listed=False,
)
# The flags of transactions and of the list disagree, both ways.
SCAM_BUT_VERIFIED = Token(
    "eth",
    "0x7be04c93d8a1f526e70b3c48d9165fa2e83d0c17",
    "LURE",
    "Lure Finance",
    18,
    "0",
    400 * 10**18,
    is_scam=True,
    verified=True,
)
HONEST_BUT_UNVERIFIED = Token(
    "arb",
    "0x20d7f5b8ec6913a4057cd2e8b1f9460a3ce8d571",
    "SEED",
    "Seedling",
    18,
    "0.02",
    250 * 10**18,
    verified=False,
)
# Symbols and names that break parsers, columns, terminals and pages. All of them are honest.
ODD = tuple(
    Token(chain, address, symbol, name, 18, "0.5", 40 * 10**18)
    for chain, address, symbol, name in (
        ("eth", "0x0dd1a7c2f39b5e8046d1c3b7f2a905e8c64d1b30", "NU\x00L", "Nul\x00 Token"),
        ("bsc", "0x0dd2b8d3e40c6f9157e2d4c803ba16f9d75e2c41", "HALF\ud83d", "Half \udc4d Pair"),
        (
            "matic",
            "0x0dd3c9e4f51d70a268f3e5d914cb270ae86f3d52",
            "<b>B</b>",
            "<script>alert('x')</script>",
        ),
        ("avax", "0x0dd4daf5062e81b379a4f6ea25dc381bf9704e63", "\u202eCDSU", "Right \u202eto left"),
    )
)
NFTS = tuple(
    Token("eth", f"{number:02x}9f4c1ad7e85b3602c8f7d1e94ab056", None, None, 0, "0", 1, is_nft=True)
    for number in range(3)
)
MESS_TOKENS = [
    CELO,
    STETH,
    AIRDROP,
    LISTED_SPAM,
    NAMELESS,
    INFINITE,
    UNLISTED_SPAM,
    SCAM_BUT_VERIFIED,
    HONEST_BUT_UNVERIFIED,
    *ODD,
    *NFTS,
]

ALL_CHAINS = CHAINS | MESS_CHAINS
ALL_NATIVE = NATIVE | {"celo": CELO}
ALL_TOKENS = [*TOKENS, *MESS_TOKENS]
