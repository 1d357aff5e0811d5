"""Every kind of key opens the API, and what cannot be one is refused in words."""

from __future__ import annotations

from base64 import b64decode, b64encode

import pytest
from cryptography.hazmat.primitives import serialization as pem
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from extract.core.errors import Fatal
from extract.sources.coinbase.key import signing_secret
from extract.testing import StandIn, _no_wait
from sandbox.coinbase import keys
from sandbox.server import serve
from tests.extract.sources.coinbase.scene import NOW, THEN
from tests.helpers.coinbase_stub import COINBASE

# ---- keys
SEED = b64decode(keys.KEY_ED25519)[:32]
PKCS8 = (
    Ed25519PrivateKey.from_private_bytes(SEED)
    .private_bytes(pem.Encoding.PEM, pem.PrivateFormat.PKCS8, pem.NoEncryption())
    .decode()
)


@pytest.mark.parametrize(
    "key",
    [keys.KEY_PEM, keys.KEY_ED25519, PKCS8, PKCS8.replace("\n", "\\n"), f" {keys.KEY_ED25519}\n"],
    ids=["ES256", "Ed25519", "Ed25519 PEM", "without line ends", "blanks"],
)
def test_every_kind_of_key_opens_the_api(key):
    with serve(seed=5, now=NOW, scale=0.1) as url:
        api = COINBASE.connect(host=url.coinbase, login=keys.KEY_NAME, password=key)
        standing = StandIn(COINBASE, "main", api, (key,), _no_wait)
        assert standing.fetch(THEN, NOW).pages
        other = COINBASE.connect(host=url.coinbase, login="organizations/x/apiKeys/y", password=key)
        with pytest.raises(Fatal, match="401"):
            StandIn(COINBASE, "main", other, (key,), _no_wait).fetch(THEN, NOW)


@pytest.mark.parametrize(
    "text, says",
    [
        ("", "Ed25519 key"),
        ("nonsense", "the private key cannot be used"),
        (keys.KEY_ED25519[:-4], "63 bytes is not|61 bytes is not|cannot be used"),
        (b64encode(bytes(64)).decode(), "a character is missing or changed"),
        (
            keys.KEY_ED25519.replace(
                keys.KEY_ED25519[3], "A" if keys.KEY_ED25519[3] != "A" else "B", 1
            ),
            "cannot be used",
        ),
        (keys.KEY_PEM.replace("EC ", ""), "cannot be used"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_in_words(text, says):
    with pytest.raises(Fatal, match=says) as error:
        signing_secret(text)
    assert not text or text not in str(error.value)
