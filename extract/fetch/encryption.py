"""Encryption of what is kept: the keys, and the frame around a landed file.

    current(), known()        the key that is set; it and older ones, by id
    encrypt(data, key)        bytes → frame
    decrypt(frame)            frame → bytes, with the key whose id the frame names
    for_writing(root)         the key to write with below `root`; None: as plain text

The setting is $LEDGERHOUSE_ENCRYPTION_KEY, 32 random bytes in base64 (`openssl rand -base64 32`);
$LEDGERHOUSE_ENCRYPTION_OLD_KEYS has those it has replaced, which are only read with. A key is used
for nothing itself: each purpose has one derived from it (HKDF-Expand, RFC 5869, with SHA-256), and
its id, which frames and notes carry, is another.

A frame is AES-256-GCM of `cryptography`: magic, key id, a check of both, nonce, ciphertext with its
tag. The check tells a damaged frame from one that another key is needed for.

`encryption.json` in the folder says under which key the newest was written: without it a process
that was started without the key would write plain text beside encrypted files.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from extract.core import durable, sealed
from extract.core.sealed import Damaged

KEY, OLD_KEYS = "LEDGERHOUSE_ENCRYPTION_KEY", "LEDGERHOUSE_ENCRYPTION_OLD_KEYS"
CONNECTION = "LEDGERHOUSE_ENCRYPTION_CONNECTION"  # an Airflow Connection that has the key instead
NOTE = "encryption.json"
MAGIC = b"\x93LHENC1\n"
CHECK, NONCE, TAG = 4, 12, 16
HEAD = len(MAGIC) + 8 + CHECK
HOW = "32 random bytes in base64, as `openssl rand -base64 32` prints them"
# Purposes. sqlmesh_project/config.py derives the first too, and cannot import this.
DUCKDB, PARQUET, LANDING = "ledgerhouse duckdb", "ledgerhouse parquet", "ledgerhouse landing"


class EncryptionError(RuntimeError):
    """The key is missing, is another one, or is none. Nothing was changed."""


def _without_airflow(text: str | None) -> str | None:
    if not text and (name := os.environ.get(CONNECTION)):
        raise EncryptionError(
            f"the key is in the Airflow Connection {name!r}, which this program, without Airflow, "
            f"cannot ask for it: put it into {KEY}"
        )
    return text


# Given the variable's text, or None, the key's: ledgerhouse.operate.airflow looks at the Connection.
resolve: Callable[[str | None], str | None] = _without_airflow


@dataclass(frozen=True)
class Key:
    """A key; `secret` are its 32 bytes, which no text of it shows."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """16 hexadecimal digits that tell keys apart, and tell nothing of the key."""
        return self.derive("ledgerhouse key id")[:8].hex()

    def derive(self, purpose: str) -> bytes:
        """32 bytes for one purpose."""
        return hmac.digest(self.secret, purpose.encode() + b"\x01", "sha256")

    def text(self, purpose: str) -> str:
        """The same in base64, as DuckDB takes it."""
        return base64.b64encode(self.derive(purpose)).decode()


def current() -> Key | None:
    """The key that is set, or None; EncryptionError where what is set is no key."""
    text = resolve(os.environ.get(KEY) or None)
    return _key(text, KEY) if text else None


def known() -> dict[str, Key]:
    """Keys to read with, by id: the one that is set first."""
    old = [text for text in os.environ.get(OLD_KEYS, "").replace(",", " ").split() if text]
    keys = [current(), *(_key(text, OLD_KEYS) for text in old)]
    return {key.id: key for key in keys if key}


def _key(text: str, name: str) -> Key:
    try:
        secret = base64.b64decode(text.strip().replace("-", "+").replace("_", "/"), validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    if len(secret) != 32:
        raise EncryptionError(f"{name} is no key: it takes {HOW}")
    return Key(secret)


def missing(what: str, key_id: str = "") -> EncryptionError:
    """The error of who cannot read `what`, which was written under the key `key_id`, if that is known."""
    keys = known()
    under = f" under the key with the id {key_id}" if key_id else ""
    if not keys:
        return EncryptionError(
            f"{what} is encrypted{under}, and no key is set: put it into {KEY}, or let "
            f"{CONNECTION} name the Airflow Connection that has it. Nothing was changed"
        )
    return EncryptionError(
        f"{what} is encrypted{under or ' under another key'}; the key that is set has the id "
        f"{', '.join(keys)}. Put the right one into {KEY}, or, where the key was changed, the old "
        f"one into {OLD_KEYS}. Nothing was changed"
    )


def is_encrypted(data: bytes) -> bool:
    """Whether these bytes, or the beginning of a file, are a frame."""
    return data.startswith(MAGIC)


def key_id(data: bytes) -> str:
    """The id of the key that a frame, or its beginning, names; Damaged where it cannot be read."""
    head = data[:HEAD]
    if len(head) < HEAD or _check(head[:-CHECK]) != head[-CHECK:]:
        raise Damaged("it is not what was written: the head of its encryption is damaged")
    return head[len(MAGIC) : -CHECK].hex()


def encrypt(data: bytes, key: Key) -> bytes:
    """A frame around `data`."""
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    head = MAGIC + bytes.fromhex(key.id)
    head += _check(head)
    nonce = os.urandom(NONCE)
    return head + nonce + AESGCM(key.derive(LANDING)).encrypt(nonce, data, head)


def decrypt(frame: bytes, what: str) -> bytes:
    """What is in a frame, `what` in words. Raises Damaged where it is not as it was written, and
    EncryptionError where its key is not known."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    named = key_id(frame)
    if not (key := known().get(named)):
        raise missing(what, named)
    rest = frame[HEAD:]
    try:
        if len(rest) < NONCE + TAG:
            raise InvalidTag
        return AESGCM(key.derive(LANDING)).decrypt(rest[:NONCE], rest[NONCE:], frame[:HEAD])
    except InvalidTag:
        raise Damaged(
            "it is not what was written: it cannot be decrypted with the key it names"
        ) from None


def _check(head: bytes) -> bytes:
    return hashlib.sha256(head).digest()[:CHECK]


def noted(root: Path) -> str:
    """The id of the key under which the newest below `root` was written; '' where none was."""
    file = Path(root) / NOTE
    if not file.exists():
        return ""
    try:
        return str(sealed.read(file)["key_id"])
    except (Damaged, KeyError) as error:
        raise EncryptionError(
            f"{file} does not say whether what is kept is encrypted ({error}): restore it from a "
            "backup, or remove it and, if files here were encrypted, set the key first"
        ) from None


def note(root: Path, key: Key | None) -> None:
    """Note that from now on the key is written with; None: that nothing is encrypted any more."""
    file = Path(root) / NOTE
    if key:
        durable.write(file, sealed.seal({"key_id": key.id}))
    elif file.exists():
        file.unlink()
        durable.sync(file.parent)


def for_writing(root: Path) -> Key | None:
    """The key to write with below `root`, noted there; None where nothing is encrypted.

    Raises EncryptionError where what is there is encrypted, and its key is not known.
    """
    key, before = current(), noted(root)
    if before and (key is None or before not in known()):
        error = missing(f"what is kept in {root}", before)
        raise EncryptionError(
            f"{error}. To keep it without encryption from now on: airflow warehouse encrypt --off"
            if key is None
            else str(error)
        )
    if key and key.id != before:
        note(root, key)
    return key
