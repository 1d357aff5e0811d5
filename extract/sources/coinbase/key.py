"""Coinbase's private keys: what a person has copied, as the text that ccxt signs with.

https://docs.cdp.coinbase.com/get-started/authentication/cdp-api-keys
Ed25519 is what the portal offers first: 64 bytes in base64, the seed and the public key. ECDSA
(ES256) comes as PEM. Either loses its line ends in a form field of one line, or in JSON.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode

from extract.core.errors import Fatal

_WRONG = (
    "the private key cannot be used: it must be the whole text of an Ed25519 key (88 letters and "
    "digits that end in ==) or of an ECDSA (ES256) key, from -----BEGIN EC PRIVATE KEY----- to "
    "-----END EC PRIVATE KEY-----"
)


def signing_secret(text: str) -> str:
    """The key as ccxt wants it: a PEM of an ES256 key, or the base64 of an Ed25519 one.

    Raises Fatal for what is no such key.
    """
    text = text.replace("\\n", "\n").strip()
    return _from_pem(text) if "-----" in text else _from_base64(text)


def _from_base64(text: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    try:
        raw = b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise Fatal(_WRONG) from None
    if len(raw) != 64:
        raise Fatal(f"{_WRONG}; {len(raw)} bytes is not the length of an Ed25519 key, 64")
    public = Ed25519PrivateKey.from_private_bytes(raw[:32]).public_key().public_bytes_raw()
    if public != raw[32:]:
        raise Fatal(f"{_WRONG}; a character is missing or changed")
    return b64encode(raw).decode()


def _from_pem(text: str) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    parts = re.fullmatch(r"-----BEGIN ([A-Z ]+)-----(.+?)-----END \1-----", text, re.DOTALL)
    if not parts:
        raise Fatal(_WRONG)
    kind, body = parts[1], "".join(parts[2].split())
    lines = [body[at : at + 64] for at in range(0, len(body), 64)]
    pem = "\n".join([f"-----BEGIN {kind}-----", *lines, f"-----END {kind}-----", ""])
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (TypeError, ValueError, UnsupportedAlgorithm):
        raise Fatal(f"{_WRONG}; a character is missing or changed") from None
    if isinstance(key, Ed25519PrivateKey):
        return b64encode(key.private_bytes_raw() + key.public_key().public_bytes_raw()).decode()
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
        raise Fatal(f"{_WRONG}; this is a key of another kind")
    return pem
