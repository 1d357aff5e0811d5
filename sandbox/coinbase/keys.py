"""The credentials that open the sandbox's Coinbase. They open nothing but the sandbox."""

KEY_NAME = "organizations/00000000-0000-4000-8000-000000000001/apiKeys/00000000-0000-4000-8000-000000000002"

# A P-256 key generated once for this file; it was never registered anywhere.
KEY_PEM = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIA9/cxb4TqgCHovF7YSEl84uXtOyP5wSQluftlb9DpnloAoGCCqGSM49
AwEHoUQDQgAEmbC248hkfjWta24kMpRuZAQTb+sN6oj9bArBbDKJiBOTzx5CkA3q
CO9vwWY7WtuNdM+hhfXeYsXbZy5Lj1fUzA==
-----END EC PRIVATE KEY-----
"""

# The same name opens with an Ed25519 key, too: seed and public key, as the portal hands it out.
KEY_ED25519 = (
    "CqSJhXsCMgOFzkQo6Qvn1uBu1xgZc3ivW2tV9p2fHMPbrVBXOtK5r6Zv8sVE51sLbFOZSJm3f5WU1LWebiBbfg=="
)
