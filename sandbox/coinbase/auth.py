"""Coinbase's key check: an ES256 JWT per request.

https://docs.cdp.coinbase.com/coinbase-app/authentication-authorization/api-key-authentication
Times are checked against the wall clock, not the sandbox's: clients sign with theirs.
"""

from __future__ import annotations

import jwt
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sandbox.keys import KEY_NAME, KEY_PEM

_PUBLIC = load_pem_private_key(KEY_PEM.encode(), password=None).public_key()
LONGEST_LIFE = 120  # seconds from nbf to exp
LEEWAY = 5


def refusal(authorization: str | None, method: str, path: str) -> str | None:
    """Why the request is refused, or None. `path` is the vendor's own: /v2/… or /api/v3/…"""
    if not authorization or not authorization.startswith("Bearer "):
        return "missing bearer token"
    try:
        claims = jwt.decode(
            authorization.removeprefix("Bearer "),
            _PUBLIC,
            algorithms=["ES256"],
            leeway=LEEWAY,
            options={"require": ["exp", "nbf", "sub", "uri"], "verify_aud": False},
        )
    except jwt.PyJWTError as error:
        return f"invalid token: {error}"
    if claims["sub"] != KEY_NAME:
        return "unknown key"
    if claims["exp"] - claims["nbf"] > LONGEST_LIFE:
        return "token lives too long"
    # Clients strip only "https://" from the URL, so over http the uri keeps scheme and prefix.
    verb, _, target = str(claims["uri"]).partition(" ")
    if verb != method or not target.endswith(path):
        return "token was signed for another request"
    return None
