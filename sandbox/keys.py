"""The credentials the sandbox accepts. They open nothing but the sandbox."""

KEY_NAME = "organizations/00000000-0000-4000-8000-000000000001/apiKeys/00000000-0000-4000-8000-000000000002"

# A P-256 key generated once for this file; it was never registered anywhere.
KEY_PEM = """\
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIA9/cxb4TqgCHovF7YSEl84uXtOyP5wSQluftlb9DpnloAoGCCqGSM49
AwEHoUQDQgAEmbC248hkfjWta24kMpRuZAQTb+sN6oj9bArBbDKJiBOTzx5CkA3q
CO9vwWY7WtuNdM+hhfXeYsXbZy5Lj1fUzA==
-----END EC PRIVATE KEY-----
"""

DEBANK_KEY = "sandbox-debank-access-key"
