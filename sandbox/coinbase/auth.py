"""Coinbase's key check: a JWT per request, signed with ES256 or, by an Ed25519 key, with EdDSA.

https://docs.cdp.coinbase.com/coinbase-app/authentication-authorization/api-key-authentication
Times are checked against the wall clock, not the sandbox's: clients sign with theirs.
"""

from __future__ import annotations

from base64 import b64decode

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from sandbox.coinbase.keys import KEY_ED25519, KEY_NAME, KEY_PEM

_PUBLIC = {
    "ES256": load_pem_private_key(KEY_PEM.encode(), password=None).public_key(),
    "EdDSA": Ed25519PublicKey.from_public_bytes(b64decode(KEY_ED25519)[32:]),
}
LONGEST_LIFE = 120  # seconds from nbf to exp
LEEWAY = 5


def refusal(authorization: str | None, method: str, path: str) -> str | None:
    """Why the request is refused, or None. `path` is the vendor's own: /v2/… or /api/v3/…"""
    if not authorization or not authorization.startswith("Bearer "):
        return "missing bearer token"
    token = authorization.removeprefix("Bearer ")
    try:
        algorithm = jwt.get_unverified_header(token).get("alg")
        if algorithm not in _PUBLIC:
            return f"invalid token: the algorithm {algorithm} is not allowed"
        claims = jwt.decode(
            token,
            _PUBLIC[algorithm],
            algorithms=[algorithm],
            leeway=LEEWAY,
            options={"require": ["exp", "nbf", "sub"], "verify_aud": False},
        )
    except jwt.PyJWTError as error:
        return f"invalid token: {error}"
    if claims["sub"] != KEY_NAME:
        return "unknown key"
    if claims["exp"] - claims["nbf"] > LONGEST_LIFE:
        return "token lives too long"
    # Clients strip only "https://" from the URL, so over http the uri keeps scheme and prefix.
    signed = claims.get("uris") if algorithm == "EdDSA" else [claims.get("uri")]
    for uri in signed or []:
        verb, _, target = str(uri).partition(" ")
        if verb == method and target.endswith(path):
            return None
    return "token was signed for another request"
